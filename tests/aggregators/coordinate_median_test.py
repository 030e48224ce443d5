"""Tests of the coordinate-wise median against sorting in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import coordinate_median

_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        kernel=tff.TensorType(np.float32, [2]),
        bias=(np.float64, [np.float16]),
    )
)


def _reference(updates, is_finite):
  """The midpoint of the two middle values of each sorted coordinate."""
  kept = np.sort(np.asarray(updates, np.float64)[np.asarray(is_finite)], axis=0)
  n = len(kept)
  if n == 0:
    return np.zeros(np.shape(updates)[1])
  if n % 2:
    return kept[n // 2]
  return (kept[n // 2 - 1] + kept[n // 2]) / 2


@tf.function(autograph=False)
def _graph_median(updates, is_finite):
  return coordinate_median.coordinate_median(updates, is_finite)


def _median(updates, is_finite=None):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  # As in a TFF computation, the number of rows is not known beforehand.
  median = _graph_median.get_concrete_function(
      tf.TensorSpec([None, updates.shape[1]], tf.float32),
      tf.TensorSpec([None], tf.bool),
  )
  return median(tf.constant(updates), tf.constant(is_finite)).numpy()


def _random_updates(n, d=5, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def test_odd_and_even_by_hand():
  np.testing.assert_array_equal(_median([[1, 30], [3, 10], [2, 20]]), [2, 20])
  np.testing.assert_array_equal(
      _median([[1, 0], [5, -8], [2, 100], [4, -4]]), [3, -2]
  )
  np.testing.assert_array_equal(_median([[4, -7]]), [4, -7])


@pytest.mark.parametrize('n', [1, 2, 3, 4, 9, 10, 101])
def test_matches_sorting(n):
  updates = _random_updates(n, seed=n)
  np.testing.assert_allclose(
      _median(updates), _reference(updates, np.ones([n], bool)), rtol=1e-6
  )


@pytest.mark.parametrize('d', [1, 6, 7, 8, 14, 15, 20])
def test_blocks_of_columns_are_put_together(d, monkeypatch):
  monkeypatch.setattr(coordinate_median, '_BLOCK_COLUMNS', 7)
  updates = _random_updates(4, d=d)
  median = coordinate_median.coordinate_median(
      tf.constant(updates), tf.fill([4], True)
  )
  np.testing.assert_allclose(
      median, _reference(updates, np.ones([4], bool)), rtol=1e-6
  )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('n', [4, 5])
def test_rows_that_are_not_finite_are_left_out(n, poison):
  updates = _random_updates(n)
  updates[1] = poison
  updates[3, 2] = poison
  is_finite = np.arange(n) % 2 == 0
  np.testing.assert_allclose(
      _median(updates, is_finite), _reference(updates, is_finite), rtol=1e-6
  )


@pytest.mark.parametrize('n', [0, 3])
def test_zero_without_finite_updates(n):
  updates = np.full([n, 4], np.nan)
  np.testing.assert_array_equal(
      _median(updates, np.zeros([n], bool)), np.zeros([4])
  )


def test_permutation_of_clients():
  updates = _random_updates(8)
  shuffled = np.random.default_rng(1).permutation(updates)
  np.testing.assert_array_equal(_median(shuffled), _median(updates))


def test_permutation_of_coordinates():
  updates = _random_updates(8)
  order = [3, 0, 4, 2, 1]
  np.testing.assert_array_equal(
      _median(updates[:, order]), _median(updates)[order]
  )


@pytest.mark.parametrize('n', [6, 7])
def test_translation(n):
  # Multiples of 1/64 below 2^10, so that nothing is rounded.
  updates = np.round(_random_updates(n) * 64) / 64
  offset = np.array([100.0, -300.0, 0.5, 7.0, 0.0])
  np.testing.assert_array_equal(
      _median(updates + offset), _median(updates) + offset
  )


@pytest.mark.parametrize('scale', [4.0, -0.5, 2.0**-40, 0.0])
def test_scale(scale):
  updates = _random_updates(6)
  np.testing.assert_array_equal(
      _median(scale * updates), scale * _median(updates)
  )


def test_duplicated_clients_do_not_move_it():
  updates = _random_updates(5)
  np.testing.assert_array_equal(
      _median(np.concatenate([updates, updates, updates])), _median(updates)
  )


def test_all_equal():
  updates = np.tile(_random_updates(1), [6, 1])
  np.testing.assert_array_equal(_median(updates), updates[0])


def test_minority_cannot_leave_the_honest_range():
  honest = _random_updates(6)
  attackers = np.full([5, 5], 9e14, np.float32)
  median = _median(np.concatenate([attackers, honest]))
  assert (median >= honest.min(axis=0)).all()
  assert (median <= honest.max(axis=0)).all()


def _client(a, b, c, d):
  return collections.OrderedDict(
      kernel=np.array([a, b], np.float32),
      bias=(np.float64(c), [np.float16(d)]),
  )


_CLIENTS = [
    _client(1.0, 2.0, 3.0, 4.0),
    _client(-1.0, 7.0, np.nan, 4.0),
    _client(5.0, 0.0, 1.0, 2.0),
    _client(2.0, 2.5, 1e300, 1.0),
    _client(0.0, 1e30, 2.0, 1.0),
    _client(3.0, 1.0, 2.5, 8.0),
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = coordinate_median.coordinate_median_factory(weighted=weighted)
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
    # Whatever weight a client claims has no effect.
    weights = [[1.0, 1.0, 1e9, 0.0, np.nan, 1.0]]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(_VALUE_TYPE)
    weights = []

  assert process.state_type == tff.FederatedType((), tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(num_non_finite=np.int32), tff.SERVER
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  # The medians of clients 0, 2 and 5.
  np.testing.assert_array_equal(output.result['kernel'], [3.0, 1.0])
  scalar, (half,) = output.result['bias']
  assert scalar == 2.5 and scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  assert output.measurements['num_non_finite'] == 3


def test_process_without_clients_or_finite_updates():
  process = coordinate_median.CoordinateMedianFactory().create(
      tff.TensorType(np.float32, [2])
  )
  for clients in ([], [np.array([0.0, np.inf], np.float32)] * 2):
    output = process.next(process.initialize(), clients)
    np.testing.assert_array_equal(output.result, [0.0, 0.0])
    assert output.measurements['num_non_finite'] == len(clients)


def test_rejects_integers():
  with pytest.raises(TypeError, match='tf.int32'):
    coordinate_median.CoordinateMedianFactory().create(tff.TensorType(np.int32))
