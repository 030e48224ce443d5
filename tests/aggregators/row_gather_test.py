"""Tests of gathering one row a client."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.aggregators import row_gather

# The keys are not in the order in which `tf.nest` visits them.
_MEMBER = tff.to_type(
    collections.OrderedDict(
        norm=np.float32,
        ids=(tff.TensorType(np.int64, [2]), [np.bool_]),
        extra=tff.TensorType(np.float32, [2, 1]),
    )
)


def _client_value(i):
  return collections.OrderedDict(
      norm=np.float32(i),
      ids=(np.array([10 * i, 10 * i + 1]), [i % 3 == 0]),
      extra=np.array([[i + 0.25], [i + 0.5]], np.float32),
  )


@tff.federated_computation(tff.FederatedType(_MEMBER, tff.CLIENTS))
def _gather(value):
  return row_gather.federated_gather(value)


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def _gather_scalars(value):
  return row_gather.federated_gather(value)


def test_type_gains_a_leading_dimension():
  result_type = tff.to_type(
      collections.OrderedDict(
          norm=tff.TensorType(np.float32, [None]),
          ids=(
              tff.TensorType(np.int64, [None, 2]),
              [tff.TensorType(np.bool_, [None])],
          ),
          extra=tff.TensorType(np.float32, [None, 2, 1]),
      )
  )
  assert _gather.type_signature.result == tff.FederatedType(
      result_type, tff.SERVER
  )


@pytest.mark.parametrize('num_clients', [0, 1, 7, 8, 9, 64, 65, 150])
def test_rows_of_all_clients_stay_together(num_clients):
  """One row a client, whichever levels of the accumulator are in use."""
  table = _gather([_client_value(i) for i in range(num_clients)])

  numbers = np.arange(num_clients)
  order = np.argsort(table['norm'])
  np.testing.assert_array_equal(table['norm'][order], numbers)
  pairs, (is_multiple,) = table['ids']
  assert pairs.shape == (num_clients, 2) and pairs.dtype == np.int64
  np.testing.assert_array_equal(
      pairs[order], np.stack([10 * numbers, 10 * numbers + 1], axis=1)
  )
  assert is_multiple.dtype == np.bool_
  np.testing.assert_array_equal(is_multiple[order], numbers % 3 == 0)
  np.testing.assert_array_equal(
      table['extra'][order],
      np.stack([numbers + 0.25, numbers + 0.5], axis=1)[..., np.newaxis],
  )


def test_rows_are_in_the_order_of_the_clients():
  """The native executor accumulates the clients in their order."""
  values = np.random.default_rng(0).permutation(75).astype(np.int32)
  np.testing.assert_array_equal(_gather_scalars(list(values)), values)


def test_a_full_level_spills_into_one_slot_of_the_next():
  """What keeps the copies, and with them the executor's memory, few."""
  accumulator = row_gather.create_row_accumulator(tff.TensorType(np.int32))
  slots = row_gather.SLOTS_PER_LEVEL

  def num_rows(state):
    (table,), levels = state
    return len(table), [[len(rows) for (rows,) in level] for level in levels]

  state = accumulator.zero()
  for value in range(slots - 1):
    state = accumulator.accumulate(state, value)
  empty = [0] * slots
  assert num_rows(state) == (0, [[0] + [1] * (slots - 1), empty])
  state = accumulator.accumulate(state, slots - 1)
  assert num_rows(state) == (0, [empty, empty[1:] + [slots]])
  state = accumulator.accumulate(state, slots)
  assert num_rows(state) == (0, [empty[1:] + [1], empty[1:] + [slots]])


def test_merge_puts_the_first_accumulator_first():
  accumulator = row_gather.create_row_accumulator(tff.TensorType(np.int32))

  def gather(values):
    state = accumulator.zero()
    for value in values:
      state = accumulator.accumulate(state, value)
    return state

  merged = accumulator.merge(gather(range(10)), gather(range(10, 13)))
  for value in range(13, 23):
    merged = accumulator.accumulate(merged, value)
  np.testing.assert_array_equal(accumulator.report(merged), np.arange(23))


def test_value_equal_at_all_clients():
  @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
  def gather_constant(value):
    constant = tff.federated_value(7, tff.CLIENTS)
    return row_gather.federated_gather(tff.federated_zip((value, constant)))

  values, constants = gather_constant([1, 2, 3])
  np.testing.assert_array_equal(values, [1, 2, 3])
  np.testing.assert_array_equal(constants, [7, 7, 7])


@pytest.mark.parametrize(
    'value_type, found',
    [
        (
            tff.FederatedType(tff.TensorType(np.int32, [None]), tff.CLIENTS),
            'static shapes',
        ),
        (
            tff.FederatedType(tff.SequenceType(np.int32), tff.CLIENTS),
            'int32*',
        ),
        (tff.FederatedType((), tff.CLIENTS), 'at least one tensor'),
        (
            tff.FederatedType(tff.StructType([('a', np.int32)]), tff.CLIENTS),
            'Python container',
        ),
    ],
)
def test_rejects_what_cannot_be_gathered(value_type, found):
  with pytest.raises(TypeError) as error:
    tff.federated_computation(row_gather.federated_gather, value_type)
  assert found in str(error.value)
  assert '\n' not in str(error.value)
