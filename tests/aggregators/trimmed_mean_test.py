"""Tests of the trimmed mean against sorting in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import trimmed_mean


def _reference(updates, is_finite, num_byzantine):
  """The mean of what is left of each sorted coordinate, by loops."""
  kept = np.asarray(updates, np.float64)[np.asarray(is_finite)]
  n = len(kept)
  result = np.zeros(np.shape(updates)[1])
  if n == 0:
    return result
  f = min(num_byzantine, (n - 1) // 2)
  for j in range(len(result)):
    values = sorted(kept[:, j])[f : n - f]
    result[j] = sum(values) / len(values)
  return result


@tf.function(autograph=False)
def _graph_trimmed_mean(updates, is_finite, num_byzantine):
  return trimmed_mean.trimmed_mean(updates, is_finite, num_byzantine)


def _result(updates, num_byzantine, is_finite=None):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  # As in a TFF computation, the number of rows is not known beforehand.
  function = _graph_trimmed_mean.get_concrete_function(
      tf.TensorSpec([None, updates.shape[1]], tf.float32),
      tf.TensorSpec([None], tf.bool),
      tf.TensorSpec([], tf.int32),
  )
  return function(
      tf.constant(updates), tf.constant(is_finite), tf.constant(num_byzantine)
  )


def _trimmed_mean(updates, num_byzantine, is_finite=None):
  return _result(updates, num_byzantine, is_finite).update.numpy()


def _random_updates(n, d=5, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def test_by_hand():
  updates = [[1.0, -7.0], [9.0, 3.0], [2.0, 5.0], [4.0, 1.0], [3.0, 90.0]]
  np.testing.assert_allclose(_trimmed_mean(updates, 1), [3.0, 3.0])
  np.testing.assert_allclose(_trimmed_mean(updates, 2), [3.0, 3.0])
  np.testing.assert_allclose(_trimmed_mean(updates, 0), [3.8, 18.4])
  np.testing.assert_allclose(_trimmed_mean(updates[:4], 1), [3.0, 2.0])


@pytest.mark.parametrize(
    'n, f', [(1, 0), (2, 0), (3, 1), (4, 1), (9, 2), (10, 4), (101, 30)]
)
def test_matches_sorting(n, f):
  updates = _random_updates(n, seed=n)
  result = _result(updates, f)
  np.testing.assert_allclose(
      result.update, _reference(updates, np.ones([n], bool), f), atol=1e-6
  )
  assert not result.cohort_too_small


@pytest.mark.parametrize('d', [1, 6, 7, 8, 14, 15, 20])
def test_blocks_of_columns_are_put_together(d, monkeypatch):
  monkeypatch.setattr(trimmed_mean, '_BLOCK_COLUMNS', 7)
  updates = _random_updates(6, d=d)
  result = trimmed_mean.trimmed_mean(
      tf.constant(updates), tf.fill([6], True), 1
  )
  np.testing.assert_allclose(
      result.update, _reference(updates, np.ones([6], bool), 1), atol=1e-6
  )


@pytest.mark.parametrize('huge', [1e9, 9e14])
def test_what_is_dropped_costs_no_precision(huge):
  updates = [[2.0], [huge], [3.0], [4.0], [-huge]]
  np.testing.assert_array_equal(_trimmed_mean(updates, 1), [3.0])


def test_ties():
  """Of equal values as many count as are not dropped."""
  # Dropping one at each end leaves 1, 1, 5 and 2, 2, 2 and 0, 0, 7.
  updates = [[1, 2, 0], [5, 2, 7], [1, 2, 0], [5, 2, 0], [1, 9, 7]]
  np.testing.assert_allclose(
      _trimmed_mean(updates, 1), [7 / 3, 2, 7 / 3], rtol=1e-6
  )
  rng = np.random.default_rng(0)
  for n, f in [(8, 1), (9, 3), (10, 4)]:
    updates = rng.integers(0, 3, size=[n, 40])
    np.testing.assert_allclose(
        _trimmed_mean(updates, f),
        _reference(updates, np.ones([n], bool), f),
        rtol=1e-6,
    )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('n', [7, 8])
def test_rows_that_are_not_finite_are_left_out(n, poison):
  updates = _random_updates(n)
  updates[1] = poison
  updates[3, 2] = poison
  is_finite = ~np.isin(np.arange(n), [1, 3])
  np.testing.assert_allclose(
      _trimmed_mean(updates, 1, is_finite),
      _reference(updates, is_finite, 1),
      atol=1e-6,
  )


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _result(np.full([n, 3], np.nan), 1, np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  assert result.cohort_too_small


@pytest.mark.parametrize(
    'n, f, too_small',
    [(1, 0, False), (1, 1, True), (5, 2, False), (5, 3, True), (6, 3, True)]
    + [(6, 2, False), (6, 2**30, True)],
)
def test_small_cohort_falls_back_to_the_median(n, f, too_small):
  updates = _random_updates(n, seed=n)
  result = _result(updates, f)
  assert result.cohort_too_small == too_small
  if too_small:
    np.testing.assert_allclose(
        result.update, np.median(updates, axis=0), atol=1e-6
    )


def test_non_finite_updates_make_the_cohort_small():
  updates = _random_updates(6)
  assert not _result(updates, 2).cohort_too_small
  assert _result(updates, 2, np.arange(6) >= 2).cohort_too_small


def test_permutation_of_clients():
  updates = _random_updates(9)
  shuffled = np.random.default_rng(1).permutation(updates)
  np.testing.assert_allclose(
      _trimmed_mean(shuffled, 2), _trimmed_mean(updates, 2), atol=1e-6
  )


def test_permutation_of_coordinates():
  updates = _random_updates(8)
  order = [3, 0, 4, 2, 1]
  np.testing.assert_array_equal(
      _trimmed_mean(updates[:, order], 2), _trimmed_mean(updates, 2)[order]
  )


def test_translation_by_a_hundred_times_the_spread():
  # Multiples of 1/256 and four values kept, so that nothing is rounded.
  updates = np.round(_random_updates(10, d=300) * 256) / 256
  offset = np.round(_random_updates(1, d=300, seed=1) * 100)
  np.testing.assert_array_equal(
      _trimmed_mean(updates + offset, 3), _trimmed_mean(updates, 3) + offset[0]
  )


def test_many_clients_with_a_shared_offset():
  """Summing the values themselves would round off the offset's last digits."""
  updates = _random_updates(2001, d=20) + np.float32(1e4)
  np.testing.assert_allclose(
      _trimmed_mean(updates, 500),
      _reference(updates, np.ones([2001], bool), 500),
      rtol=1.2e-7,
  )


@pytest.mark.parametrize('scale', [4.0, -0.5, 2.0**-40, 0.0])
def test_scale(scale):
  updates = _random_updates(8)
  np.testing.assert_allclose(
      _trimmed_mean(scale * updates, 2),
      scale * _trimmed_mean(updates, 2),
      atol=1e-6 * abs(scale),
  )


@pytest.mark.parametrize('f', [0, 2])
def test_all_equal(f):
  updates = np.tile(_random_updates(1), [6, 1])
  np.testing.assert_array_equal(_trimmed_mean(updates, f), updates[0])


def test_minority_cannot_leave_the_honest_range():
  honest = _random_updates(6)
  for attack in (9e14, -9e14):
    attackers = np.full([5, 5], attack, np.float32)
    result = _trimmed_mean(np.concatenate([attackers, honest]), 5)
    assert (result >= honest.min(axis=0)).all()
    assert (result <= honest.max(axis=0)).all()


# The factory.

_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        kernel=tff.TensorType(np.float32, [2]),
        bias=(np.float64, [np.float16]),
    )
)


def _client(a, b, c, d):
  return collections.OrderedDict(
      kernel=np.array([a, b], np.float32),
      bias=(np.float64(c), [np.float16(d)]),
  )


_CLIENTS = [
    _client(9e14, -9e14, 0.0, 2.0),
    _client(1.0, 2.0, 3.0, 4.0),
    _client(1.0, 2.0, np.nan, 4.0),
    _client(2.0, 1.0, 5.0, 6.0),
    _client(-9.0, 3.0, 7.0, 8.0),
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = trimmed_mean.trimmed_mean_factory(0.2, weighted=weighted)
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
    # Whatever weight a client claims has no effect.
    weights = [[1e9, 1.0, 1.0, 0.0, np.nan]]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(_VALUE_TYPE)
    weights = []

  assert process.state_type == tff.FederatedType((), tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(
          cohort_too_small=np.bool_,
          num_byzantine=np.int32,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  np.testing.assert_array_equal(output.result['kernel'], [1.5, 1.5])
  scalar, (half,) = output.result['bias']
  assert scalar == 4.0 and scalar.dtype == np.float64
  assert half == 5.0 and half.dtype == np.float16
  assert output.measurements['num_byzantine'] == 1
  assert output.measurements['num_non_finite'] == 1
  assert not output.measurements['cohort_too_small']


def test_process_without_clients():
  process = trimmed_mean.TrimmedMeanFactory(1).create(
      tff.TensorType(np.float32, [2])
  )
  output = process.next(process.initialize(), [])
  np.testing.assert_array_equal(output.result, [0.0, 0.0])
  assert output.measurements['cohort_too_small']


def test_num_byzantine_is_checked():
  with pytest.raises(ValueError, match='found -1'):
    trimmed_mean.TrimmedMeanFactory(-1)


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    trimmed_mean.TrimmedMeanFactory(1).create(tff.TensorType(np.int32))
