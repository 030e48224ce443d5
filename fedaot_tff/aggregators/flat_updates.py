"""Client updates as flat vectors."""

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot.rules import cohort
from fedaot.rules import geometry
from fedaot_tff.aggregators import row_gather
from fedaot_tff.namespace import TENSORFLOW

MAX_FINITE_MAGNITUDE = cohort.MAX_FINITE_MAGNITUDE
check_seed = checks.check_seed

_FLOAT_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)


def flatten(struct: Any) -> tf.Tensor:
  """Casts and concatenates the tensors of a structure.

  Args:
    struct: A tensor or a nested structure of float tensors, with d coordinates
      in all.

  Returns:
    A `[d]` float32 tensor, in the order of `tf.nest.flatten`. Values beyond the
    range of float32 become infinite.
  """
  return tf.concat(
      [
          tf.reshape(tf.cast(tensor, tf.float32), [-1])
          for tensor in tf.nest.flatten(struct)
      ],
      axis=0,
  )


def unflatten(vector: tf.Tensor, like: Any) -> Any:
  """Splits a vector into a structure of tensors, the inverse of `flatten`.

  Args:
    vector: A `[d]` tensor.
    like: A tensor, a `tf.TensorSpec`, or a nested structure of them, with
      static shapes that have d coordinates in all.

  Returns:
    A structure like `like`; each tensor has the shape and dtype it has there.
  """
  specs = tf.nest.flatten(like)
  parts = tf.split(vector, [spec.shape.num_elements() for spec in specs])
  tensors = [
      tf.cast(tf.reshape(part, spec.shape), spec.dtype)
      for part, spec in zip(parts, specs)
  ]
  return tf.nest.pack_sequence_as(like, tensors)


def is_finite_update(flat: tf.Tensor) -> tf.Tensor:
  """Tells whether an update can take part in an aggregate.

  Args:
    flat: A `[d]` float32 tensor.

  Returns:
    A scalar bool: all entries are finite and of magnitude below
    `MAX_FINITE_MAGNITUDE` (1e15).
  """
  # A comparison with NaN is false, so that NaN is not finite either.
  return tf.reduce_all(tf.abs(flat) < MAX_FINITE_MAGNITUDE)


def is_empty_update(weight: Any) -> tf.Tensor:
  """Whether a client has nothing to say: its weight is not positive.

  TFF's client work gives weight 0 to clients without examples, unless weights
  are uniform, and to those whose update is not finite, which it makes zero.
  """
  # TensorFlow's optimizer makes `<=` of a negated `>`, which differs for NaN.
  has_weight = tf.cast(tf.cast(weight, tf.float64) > 0, tf.int32)
  return tf.equal(has_weight, 0)


def inner_products(updates: tf.Tensor) -> tf.Tensor:
  """Inner products about zero of the rows of a `[N, d]` table, float64."""
  return geometry.inner_products(
      lambda start, width: updates[:, start : start + width],
      tf.shape(updates)[0],
      updates.shape[1],
      TENSORFLOW,
  )


def median_norm(norms: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Computes the median of the norms of the finite updates.

  Args:
    norms: A `[N]` float32 tensor.
    is_finite: A `[N]` bool tensor; the other norms may hold anything.

  Returns:
    A scalar float32: the midpoint of the two middle norms if their number is
    even, 0 if there are none.
  """
  ordered = tf.sort(tf.boolean_mask(norms, is_finite))
  # The appended zero is what an empty list has in the middle.
  num_finite = tf.size(ordered)
  ordered = tf.pad(ordered, [[0, 1]])
  lower = ordered[tf.maximum(num_finite - 1, 0) // 2]
  return 0.5 * (lower + ordered[num_finite // 2])


def check_float_value_type(value_type: tff.Type) -> None:
  """Checks that a type is one of float tensors that can be flattened.

  Args:
    value_type: An unplaced `tff.Type`.

  Raises:
    TypeError: If `value_type` is not a tensor or a possibly nested Python
      container of tensors of static shape and dtype float16, bfloat16, float32
      or float64, or has no coordinate at all.
  """
  row_gather.check_structure_of_tensors(value_type)
  for spec in tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type)):
    if spec.dtype not in _FLOAT_DTYPES:
      raise TypeError(
          'Expected tensors of dtype float16, bfloat16, float32 or float64, '
          f'found {spec} in {value_type.compact_representation()}; cast it.'
      )
  if num_coordinates(value_type) == 0:
    raise TypeError(
        'Expected at least one coordinate, found '
        f'{value_type.compact_representation()}.'
    )


def num_coordinates(value_type: tff.Type) -> int:
  """Returns d, the number of scalars in a structure of static shapes."""
  specs = tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type))
  return sum(spec.shape.num_elements() for spec in specs)
