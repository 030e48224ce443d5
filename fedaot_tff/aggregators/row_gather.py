"""Gathering one row a client into a table at the server."""

import collections
from typing import NamedTuple

import tensorflow as tf
import tensorflow_federated as tff

# The native executor keeps every intermediate accumulator of an aggregation
# alive until the aggregation ends; appending each row to one growing table
# would therefore hold N^2 / 2 rows. So rows first wait, uncopied, in the slots
# of a level; a full level is concatenated into one slot of the next level, the
# last level into the table. Each row is copied once a level, and the table once
# in SLOTS_PER_LEVEL ** NUM_LEVELS rows.
SLOTS_PER_LEVEL = 8
NUM_LEVELS = 2

# A node of this name tells a context that knows it what an aggregation is for:
# it may stack the rows at once.
STACKS_ROWS = 'fedaot_stacks_rows'

# How many int32 words a scalar is. What is packed into one tensor costs less to
# pass from call to call than what is packed into several.
_NUM_WORDS = {
    tf.float32: 1,
    tf.int32: 1,
    tf.uint32: 1,
    tf.float64: 2,
    tf.int64: 2,
    tf.uint64: 2,
}


def _is_struct_without_container(type_spec: tff.Type) -> bool:
  return isinstance(type_spec, tff.StructType) and not isinstance(
      type_spec, tff.StructWithPythonType
  )


def check_structure_of_tensors(value_type: tff.Type) -> None:
  """Checks that a type is one of tensors that can be stacked as rows.

  Args:
    value_type: An unplaced `tff.Type`.

  Raises:
    TypeError: If `value_type` is not a tensor or a possibly nested Python
      container of tensors, holds no tensor at all, or has a tensor whose static
      shape is not fully known.
  """
  if not tff.types.is_structure_of_tensors(value_type):
    raise TypeError(
        'Expected a tensor or a structure of tensors, found '
        f'{value_type.compact_representation()}.'
    )
  if tff.types.contains(value_type, _is_struct_without_container):
    raise TypeError(
        'Expected every structure to be a Python container such as a tuple or '
        f'an OrderedDict, found {value_type!r}; use tff.StructWithPythonType.'
    )
  if tff.types.count(value_type, _is_tensor) == 0:
    raise TypeError(
        'Expected at least one tensor, found'
        f' {value_type.compact_representation()}.'
    )
  for spec in tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type)):
    if not spec.shape.is_fully_defined():
      raise TypeError(
          f'Expected tensors with static shapes, found {spec} in '
          f'{value_type.compact_representation()}; fix every dimension.'
      )


def _is_tensor(type_spec: tff.Type) -> bool:
  return isinstance(type_spec, tff.TensorType)


def _word_dtype(dtype):
  """The dtype in which tensors of `dtype` are packed, bit by bit."""
  return tf.int32 if dtype in _NUM_WORDS else dtype


def _leaf_indices_by_dtype(specs):
  """Groups the indices of the tensor specs that are packed together."""
  indices_by_dtype = collections.OrderedDict()
  for index, spec in enumerate(specs):
    indices_by_dtype.setdefault(_word_dtype(spec.dtype), []).append(index)
  return tuple(indices_by_dtype.values())


def _to_words(tensor):
  """A `[1, size]` row of the bits of a tensor."""
  if tensor.dtype in _NUM_WORDS:
    tensor = tf.bitcast(tensor, tf.int32)
  return tf.reshape(tensor, [1, -1])


def _from_words(words, spec):
  """Inverts `_to_words` for any number of rows."""
  num_words = _NUM_WORDS.get(spec.dtype, 1)
  shape = [tf.shape(words)[0]] + spec.shape.as_list()
  if num_words > 1:
    shape.append(num_words)
  words = tf.reshape(words, shape)
  return tf.bitcast(words, spec.dtype) if spec.dtype in _NUM_WORDS else words


def _pack(value, specs):
  """Packs the tensors of `value` into one `[1, size]` row for each dtype."""
  leaves = tf.nest.flatten(value)
  return tuple(
      tf.concat([_to_words(leaves[i]) for i in indices], axis=1)
      for indices in _leaf_indices_by_dtype(specs)
  )


def _unpack(rows, specs):
  """Inverts `_pack` for any number of rows; returns a list of tensors."""
  leaves = [None] * len(specs)
  for packed, indices in zip(rows, _leaf_indices_by_dtype(specs)):
    sizes = [
        specs[i].shape.num_elements() * _NUM_WORDS.get(specs[i].dtype, 1)
        for i in indices
    ]
    for i, words in zip(indices, tf.split(packed, sizes, axis=1)):
      leaves[i] = _from_words(words, specs[i])
  return leaves


def _concatenate(parts):
  return tuple(tf.concat(rows, axis=0) for rows in zip(*parts))


def _push(table, levels, rows):
  """Puts `rows` into the last slot of the first level, spilling if it is full.

  The slots of a level fill from the last to the first, so that a level is full
  when its first slot holds rows.

  Args:
    table: A tuple of packed rows, those that have left the last level.
    levels: A tuple of levels, each a tuple of slots that hold packed rows like
      `table`; an empty slot holds none.
    rows: A tuple of packed rows like `table`.
  """
  if not levels:
    return _concatenate([table, rows]), levels
  level, later_levels = levels[0][1:] + (rows,), levels[1:]

  def spill():
    empty_slot = tuple(x[:0] for x in rows)
    new_table, new_later_levels = _push(
        table, later_levels, _concatenate(level)
    )
    empty_level = (empty_slot,) * SLOTS_PER_LEVEL
    return new_table, (empty_level,) + new_later_levels

  is_full = tf.shape(level[0][0])[0] > 0
  return tf.cond(is_full, spill, lambda: (table, (level,) + later_levels))


def _all_rows(table, levels):
  """Concatenates the table and all slots, oldest rows first."""
  slots = [slot for level in reversed(levels) for slot in level]
  return _concatenate([table] + slots)


class RowAccumulator(NamedTuple):
  """The computations of a `tff.federated_aggregate` that stacks rows."""

  zero: tff.Computation
  accumulate: tff.Computation
  merge: tff.Computation
  report: tff.Computation


def create_row_accumulator(value_type: tff.Type) -> RowAccumulator:
  """What stacks values of a type as rows, in the order of accumulation."""
  check_structure_of_tensors(value_type)
  structure = tff.types.type_to_tf_tensor_specs(value_type)
  specs = tf.nest.flatten(structure)

  def no_rows():
    # The placeholder hides the static zero, so that the type is [?, size].
    zeros = _pack([tf.zeros(spec.shape, spec.dtype) for spec in specs], specs)
    return tuple(
        tf.compat.v1.placeholder_with_default(row[:0], [None, row.shape[1]])
        for row in zeros
    )

  def accumulator_of(table):
    return table, ((no_rows(),) * SLOTS_PER_LEVEL,) * NUM_LEVELS

  @tff.tensorflow.computation
  def zero():
    return accumulator_of(no_rows())

  accumulator_type = zero.type_signature.result

  @tff.tensorflow.computation(accumulator_type, value_type)
  def accumulate(accumulator, value):
    tf.no_op(name=STACKS_ROWS)
    return _push(*accumulator, _pack(value, specs))

  @tff.tensorflow.computation(accumulator_type, accumulator_type)
  def merge(first, second):
    return accumulator_of(_concatenate([_all_rows(*first), _all_rows(*second)]))

  @tff.tensorflow.computation(accumulator_type)
  def report(accumulator):
    leaves = _unpack(_all_rows(*accumulator), specs)
    return tf.nest.pack_sequence_as(structure, leaves)

  return RowAccumulator(zero, accumulate, merge, report)


def federated_gather(value: tff.Value) -> tff.Value:
  """Stacks the values of all clients at the server, one row a client.

  Rows are in the order of accumulation, which is the same for all tensors of
  `value` and unspecified otherwise: two calls need not agree. Values that
  belong together must therefore be zipped and gathered in one call.

  While the aggregation runs, the executor's intermediate accumulators hold
  about `NUM_LEVELS * N + N ** 2 / (2 * SLOTS_PER_LEVEL ** NUM_LEVELS)` rows,
  the clients' values and the result N rows each.

  Args:
    value: A `tff.Value` placed at `tff.CLIENTS`: a tensor, or a possibly nested
      structure of tensors of any dtypes, all with static shapes.

  Returns:
    A `tff.Value` placed at `tff.SERVER` with the structure of `value` in which
    each tensor of type `dtype[shape]` has become `dtype[?, shape]`; the unknown
    dimension is the number of clients.

  Raises:
    TypeError: If `value` fails `check_structure_of_tensors`.
  """
  accumulator = create_row_accumulator(value.type_signature.member)
  return tff.federated_aggregate(
      value,
      accumulator.zero(),
      accumulator.accumulate,
      accumulator.merge,
      accumulator.report,
  )
