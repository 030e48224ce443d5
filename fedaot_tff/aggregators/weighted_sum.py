"""The weighted sum of client updates, in one pass without gathering."""

from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


def federated_weighted_sum(
    value: tff.Value,
    coefficient: tff.Value,
    coefficient_fn: Optional[Callable[[Any], tf.Tensor]] = None,
) -> tff.Value:
  """Adds the clients' updates up, each times its client's coefficient.

  An update with coefficient 0 adds nothing, not even where it is not finite.
  Half precision is added up in single precision, the others in their own.

  The multiplication happens while the sum is accumulated: no client's product
  is held.

  Args:
    value: The client updates, at the clients: structures of float tensors of
      static shapes.
    coefficient: A float32 scalar, at the clients.
    coefficient_fn: A function in TensorFlow that makes the scalar from what
      `coefficient` is then, a value of any type. It runs while the sum is
      accumulated, which spares a call for each client. None (default) takes
      `coefficient` itself.

  Returns:
    The sum at the server, in the structure and the dtypes of an update.
  """
  value_type = value.type_signature.member

  def map_types(fn, *structs):
    return tf.nest.map_structure(
        fn, tff.types.type_to_tf_tensor_specs(value_type), *structs
    )

  @tff.tensorflow.computation
  def zero():
    # One element stands for all: where an aggregation starts, the native
    # executor copies the zero several times.
    return map_types(
        lambda spec: _hide_length(tf.zeros([1], _accumulation_dtype(spec)))
    )

  sum_type = zero.type_signature.result

  @tff.tensorflow.computation(
      sum_type,
      tff.to_type((value_type, coefficient.type_signature.member)),
  )
  def accumulate(accumulator, value_and_coefficient):
    value, coefficient = value_and_coefficient
    if coefficient_fn is not None:
      coefficient = coefficient_fn(coefficient)

    def add(total, tensor):
      # 0 times NaN or infinity is 0 here: that is how an update of weight 0
      # stays out of the sum.
      product = tf.math.multiply_no_nan(
          tf.cast(tf.reshape(tensor, [-1]), total.dtype),
          tf.cast(coefficient, total.dtype),
      )
      return _hide_length(total + product)

    return tf.nest.map_structure(add, accumulator, value)

  @tff.tensorflow.computation(sum_type, sum_type)
  def merge(a, b):
    return tf.nest.map_structure(tf.add, a, b)

  @tff.tensorflow.computation(sum_type)
  def report(total):
    return map_types(
        lambda spec, tensor: tf.reshape(
            tf.broadcast_to(
                tf.cast(tensor, spec.dtype), [spec.shape.num_elements()]
            ),
            spec.shape,
        ),
        total,
    )

  return tff.federated_aggregate(
      tff.federated_zip((value, coefficient)), zero(), accumulate, merge, report
  )


def federated_weighted_mean(
    value: tff.Value, coefficient: tff.Value, weight: tff.Value
) -> tff.Value:
  """The sum of coefficient times update over the sum of weights.

  Args:
    value: See `federated_weighted_sum`.
    coefficient: A float32 scalar, at the clients.
    weight: A float32 scalar of at least 0, at the clients.

  Returns:
    The quotient at the server, zero where the weights are.
  """

  @tff.tensorflow.computation(np.float32, np.float32)
  def normalize(coefficient, total):
    return tf.math.divide_no_nan(coefficient, total)

  total = tff.federated_broadcast(tff.federated_sum(weight))
  return federated_weighted_sum(
      value, tff.federated_map(normalize, (coefficient, total))
  )


def _accumulation_dtype(spec: tf.TensorSpec) -> tf.DType:
  return tf.float64 if spec.dtype == tf.float64 else tf.float32


def _hide_length(vector: tf.Tensor) -> tf.Tensor:
  """The vector; its length is not part of its type."""
  return tf.compat.v1.placeholder_with_default(vector, [None])
