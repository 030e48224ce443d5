"""Client updates as flat vectors, and rules on a table of such vectors."""

import collections
from typing import Any, Callable, Dict, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import row_gather

# An update with a larger entry counts as non-finite: squared norms of what is
# left stay far from the largest float32 for up to 1e8 coordinates.
MAX_FINITE_MAGNITUDE = 1e15

_FLOAT_DTYPES = (tf.float16, tf.bfloat16, tf.float32, tf.float64)

# Takes updates `[N, d]` float32 and finite `[N]` bool, and returns a vector
# `[d]` float32 and an `OrderedDict` of measurements.
Rule = Callable[[tf.Tensor, tf.Tensor], Tuple[tf.Tensor, Dict[str, Any]]]


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


def create_gathering_process(
    value_type: tff.Type, rule: Rule
) -> tff.templates.AggregationProcess:
  """Creates an unweighted stateless process from a rule on flat updates.

  Each client's update is flattened and gathered once, so that the server holds
  a table of `4 * N * d` bytes, and about three times that while it is filled
  (see `row_gather.federated_gather`).

  Args:
    value_type: The unplaced type of one client's update: a structure of float
      tensors (see `check_float_value_type`).
    rule: Called as `rule(updates, is_finite)` with updates `[N, d]` float32 and
      `is_finite` `[N]` bool from `is_finite_update`; a row that is not finite
      holds whatever the client sent. Returns the aggregate `[d]` float32 and an
      `OrderedDict` of measurements.

  Returns:
    A `tff.templates.AggregationProcess` with an empty state, whose result has
    the type `value_type`.

  Raises:
    TypeError: If `value_type` fails `check_float_value_type`.
  """
  check_float_value_type(value_type)
  specs = tff.types.type_to_tf_tensor_specs(value_type)

  @tff.tensorflow.computation(value_type)
  def to_row(value):
    flat = flatten(value)
    return collections.OrderedDict(
        update=flat, is_finite=is_finite_update(flat)
    )

  @tff.federated_computation
  def initialize():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation(
      initialize.type_signature.result,
      tff.FederatedType(value_type, tff.CLIENTS),
  )
  def next_fn(state, value):
    table = row_gather.federated_gather(tff.federated_map(to_row, value))

    @tff.tensorflow.computation(table.type_signature.member)
    def apply_rule(rows):
      vector, measurements = rule(rows['update'], rows['is_finite'])
      return unflatten(vector, specs), measurements

    result, measurements = tff.federated_map(apply_rule, table)
    return tff.templates.MeasuredProcessOutput(state, result, measurements)

  return tff.templates.AggregationProcess(initialize, next_fn)
