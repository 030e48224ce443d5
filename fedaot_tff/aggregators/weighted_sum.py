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

  def map_types(fn):
    return tff.types.structure_from_tensor_type_tree(fn, value_type)

  @tff.tensorflow.computation
  def zero():
    return map_types(lambda t: tf.zeros(t.shape, _accumulation_dtype(t)))

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
      return total + tf.math.multiply_no_nan(
          tf.cast(tensor, total.dtype), tf.cast(coefficient, total.dtype)
      )

    return tf.nest.map_structure(add, accumulator, value)

  @tff.tensorflow.computation(sum_type, sum_type)
  def merge(a, b):
    return tf.nest.map_structure(tf.add, a, b)

  @tff.tensorflow.computation(sum_type)
  def report(total):
    return tf.nest.map_structure(
        tf.cast, total, map_types(lambda t: tf.as_dtype(t.dtype))
    )

  return tff.federated_aggregate(
      tff.federated_zip((value, coefficient)), zero(), accumulate, merge, report
  )


def _accumulation_dtype(tensor_type: tff.TensorType) -> tf.DType:
  return tf.float64 if tensor_type.dtype == np.float64 else tf.float32
