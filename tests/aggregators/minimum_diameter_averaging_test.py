"""Tests of minimum diameter averaging against trying every subset."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import krum
from fedaot_tff.aggregators import minimum_diameter_averaging as mda


def _diameter(updates, subset):
  return max(
      (
          np.linalg.norm(updates[i] - updates[j])
          for i, j in itertools.combinations(subset, 2)
      ),
      default=0.0,
  )


def _reference_subsets(updates, finite, num_selected):
  """All subsets of the smallest diameter, up to rounding, and the diameter."""
  updates = np.asarray(updates, np.float64)
  diameters = {
      subset: _diameter(updates, subset)
      for subset in itertools.combinations(finite, num_selected)
  }
  smallest = min(diameters.values())
  return {
      subset
      for subset, diameter in diameters.items()
      if diameter <= smallest * (1 + 1e-9)
  }, smallest


@tf.function(autograph=False)
def _graph_mda(updates, is_finite, num_byzantine):
  return mda.minimum_diameter_averaging(updates, is_finite, num_byzantine)


def _mda(updates, num_byzantine, is_finite=None):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  # As in a TFF computation, the number of rows is not known beforehand.
  function = _graph_mda.get_concrete_function(
      tf.TensorSpec([None, updates.shape[1]], tf.float32),
      tf.TensorSpec([None], tf.bool),
      tf.TensorSpec([], tf.int32),
  )
  result = function(
      tf.constant(updates), tf.constant(is_finite), tf.constant(num_byzantine)
  )
  return mda.MinimumDiameterResult(*(x.numpy() for x in result))


def _check(result, updates, finite, num_byzantine):
  """Checks a result against the reference."""
  n = len(finite)
  num_selected = n - min(num_byzantine, (n - 1) // 2)
  subset = tuple(np.flatnonzero(result.weights))
  assert subset in _reference_subsets(updates, finite, num_selected)[0]
  np.testing.assert_allclose(
      result.weights[list(subset)], 1 / num_selected, rtol=1e-6
  )
  np.testing.assert_allclose(
      result.update, np.mean(updates[list(subset)], axis=0), atol=1e-5
  )
  assert result.is_exact
  assert result.cohort_too_small == (n <= 2 * num_byzantine)


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


# The mean of selected rows.


def test_mean_of_selected_by_hand():
  updates = tf.constant([[1.0, 5.0], [np.nan, np.inf], [3.0, -1.0]])
  mean, weights = mda.mean_of_selected(updates, [True, False, True])
  np.testing.assert_array_equal(mean, [2.0, 2.0])
  np.testing.assert_array_equal(weights, [0.5, 0.0, 0.5])
  mean, weights = mda.mean_of_selected(updates, [False] * 3)
  np.testing.assert_array_equal(mean, [0.0, 0.0])
  np.testing.assert_array_equal(weights, [0.0] * 3)


# The rule.


def test_by_hand():
  # On a line, the tightest three of five are 4, 6 and 7, the tightest four 1,
  # 4, 6 and 7.
  updates = [[6.0], [1.0], [40.0], [4.0], [7.0]]
  result = _mda(updates, 2)
  np.testing.assert_allclose(result.update, [17 / 3], rtol=1e-6)
  np.testing.assert_allclose(result.weights, [1 / 3, 0, 0, 1 / 3, 1 / 3])
  np.testing.assert_allclose(_mda(updates, 1).update, [4.5])
  np.testing.assert_allclose(_mda(updates, 0).update, [11.6])


def test_differs_from_the_nearest_neighbors_of_one_update():
  # The second of three in a row has two neighbors at distance 1, which are 2
  # apart; the third makes a triangle of side 1.2 with the last two.
  updates = [[-1, 0], [0, 0], [1, 0], [1 + 0.6 * 3**0.5, 0.6]]
  updates.append([1 + 0.6 * 3**0.5, -0.6])
  result = _mda(updates, 2)
  np.testing.assert_array_equal(np.flatnonzero(result.weights), [2, 3, 4])


@pytest.mark.parametrize('d', [1, 2, 3, 20])
@pytest.mark.parametrize(
    'n, f', [(1, 0), (2, 0), (3, 1), (7, 1), (8, 3), (9, 4), (10, 0), (11, 5)]
)
def test_matches_trying_every_subset(n, f, d):
  for seed in range(3):
    updates = _random_updates(n, d, seed=10 * n + seed)
    _check(_mda(updates, f), updates, range(n), f)


@pytest.mark.parametrize('seed', range(5))
def test_ties(seed):
  """Updates on a small grid: many equal distances and updates."""
  rng = np.random.default_rng(seed)
  updates = rng.integers(0, 3, size=[9, 2]).astype(np.float32)
  for f in (0, 2, 4):
    _check(_mda(updates, f), updates, range(9), f)


def test_as_many_are_selected_as_asked_for_among_duplicates():
  updates = np.array([[1.0]] * 4 + [[2.0]] * 4, np.float32)
  result = _mda(updates, 3)
  np.testing.assert_allclose(result.weights, [0.2] * 5 + [0] * 3, rtol=1e-6)
  updates = np.array([[2.0]] + [[1.0]] * 5 + [[2.0]], np.float32)
  result = _mda(updates, 3)
  np.testing.assert_allclose(result.weights, [0] + [0.25] * 4 + [0] * 2)


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('f', [0, 2, 4])
def test_what_is_not_finite_is_left_out(f, poison):
  updates = _random_updates(10)
  updates[0, 3] = poison
  updates[7] = poison
  finite = [i for i in range(10) if i not in (0, 7)]
  result = _mda(updates, f, np.isin(np.arange(10), finite))
  _check(result, updates, finite, f)


def test_identical_clients_that_are_not_finite_do_not_win():
  updates = np.concatenate([np.full([6, 6], np.nan), _random_updates(5)])
  result = _mda(updates, 1, np.arange(11) >= 6)
  assert result.weights[:6].sum() == 0
  np.testing.assert_allclose(result.weights.sum(), 1, rtol=1e-6)


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _mda(np.full([n, 3], np.nan), 1, np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))
  assert result.cohort_too_small


def test_only_one_finite_update():
  updates = [[np.nan, 0.0], [2.0, -3.0], [np.inf, 1.0]]
  result = _mda(updates, 1, [False, True, False])
  np.testing.assert_array_equal(result.update, [2.0, -3.0])
  assert result.cohort_too_small


@pytest.mark.parametrize('n, f', [(2, 1), (5, 3), (6, 3), (6, 2**30)])
def test_small_cohort_leaves_the_largest_minority_out(n, f):
  updates = _random_updates(n)
  _check(_mda(updates, f), updates, range(n), f)


# The search.


@pytest.mark.parametrize('max_candidates', [1, 8192])
def test_a_search_that_drops_candidates_says_so(max_candidates, monkeypatch):
  monkeypatch.setattr(mda, '_MAX_CANDIDATES', max_candidates)
  # Five groups of three: distance 3 in a group, 2 between groups. A diameter of
  # 2 leaves one a group, so that no 7 keep to it, but to leave 8 out, each of
  # which ends two of the 15 larger distances, may seem enough.
  group = np.arange(15) // 3
  distances = np.where(group == group[:, np.newaxis], 9.0, 4.0)
  np.fill_diagonal(distances, 0.0)
  is_selected, is_exact = mda.minimum_diameter_subset(
      tf.constant(distances), tf.fill([15], True), tf.constant(7)
  )
  assert np.sum(is_selected) == 7
  assert is_exact == (max_candidates > 1)


def test_dropped_candidates_at_most_double_the_diameter(monkeypatch):
  monkeypatch.setattr(mda, '_MAX_CANDIDATES', 0)
  updates = _random_updates(11, d=2, seed=1)
  result = mda.minimum_diameter_averaging(
      tf.constant(updates), tf.fill([11], True), tf.constant(5)
  )
  subset = np.flatnonzero(result.weights)
  assert len(subset) == 6
  assert not result.is_exact
  _, smallest = _reference_subsets(updates, range(11), 6)
  diameter = _diameter(updates.astype(np.float64), subset)
  assert smallest * (1 + 1e-9) < diameter <= 2 * smallest


@pytest.mark.parametrize('offset', [0.0, 100.0])
def test_finds_a_hidden_group_in_a_large_cohort(offset):
  """60 clients of which 18 attack: there are 9e14 subsets."""
  rng = np.random.default_rng(0)
  # Honest updates are the corners of a simplex of side 1. Each attacker is at
  # distance 0.2 from one of them, but at more than 1.05 from all others.
  honest = np.eye(42, 60) / np.sqrt(2)
  attackers = honest[rng.permutation(42)[:18]] * 1.1
  attackers[:, 42:] = 0.2 * np.eye(18)
  order = rng.permutation(60)
  result = _mda(np.concatenate([honest, attackers])[order] + offset, 18)
  assert result.is_exact
  np.testing.assert_array_equal(
      np.flatnonzero(result.weights), np.flatnonzero(order < 42)
  )


# Symmetries. One subset has the smallest diameter in these cohorts.


def test_permutation_of_clients():
  updates = _random_updates(10)
  subsets, _ = _reference_subsets(updates, range(10), 7)
  assert len(subsets) == 1
  order = np.random.default_rng(1).permutation(10)
  result, permuted = _mda(updates, 3), _mda(updates[order], 3)
  np.testing.assert_array_equal(permuted.weights, result.weights[order])
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)


def test_translation_by_a_hundred_times_the_spread():
  # Multiples of 1/256 and a power of two selected, so that sums are exact.
  updates = np.round(_random_updates(11, d=300) * 256) / 256
  offset = np.round(_random_updates(1, d=300, seed=1) * 100)
  result, moved = _mda(updates, 3), _mda(updates + offset, 3)
  np.testing.assert_array_equal(moved.weights, result.weights)
  np.testing.assert_array_equal(moved.update, result.update + offset[0])


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
def test_scale(scale):
  updates = _random_updates(10)
  np.testing.assert_array_equal(
      _mda(scale * updates, 3).update, scale * _mda(updates, 3).update
  )


def test_rotation():
  updates = _random_updates(10)
  rotation, _ = np.linalg.qr(_random_updates(6, seed=1).astype(np.float64))
  rotated = _mda(updates @ rotation, 3)
  np.testing.assert_allclose(
      rotated.update, _mda(updates, 3).update @ rotation, atol=1e-6
  )


@pytest.mark.parametrize('f', [0, 2])
def test_all_equal(f):
  updates = np.tile(_random_updates(1), [6, 1])
  np.testing.assert_allclose(_mda(updates, f).update, updates[0], rtol=1e-6)


@pytest.mark.parametrize('distance', [0.5, 2.0, 10.0, 9e14])
def test_stays_close_to_the_honest_mean(distance):
  honest = _random_updates(8)
  direction = np.ones([1, 6], np.float32) / np.sqrt(6)
  attackers = honest.mean(axis=0) + distance * np.tile(direction, [4, 1])
  result = _mda(np.concatenate([attackers, honest]), 4)
  bound = 2 * 4 / 8 * _diameter(honest.astype(np.float64), range(8))
  assert np.linalg.norm(result.update - honest.mean(axis=0)) <= bound
  if distance > bound:
    assert result.weights[:4].sum() == 0


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
    _client(9e14, 9e14, 9e14, 1.0),
    _client(1.0, 0.0, 2.0, 4.0),
    _client(1.0, 0.0, np.nan, 4.0),
    _client(1.0, 0.5, 2.0, 4.0),
    _client(1.0, 9.0, 2.0, 4.0),
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = mda.minimum_diameter_averaging_factory(0.4, weighted=weighted)
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
          weights=tff.TensorType(np.float32, [None]),
          is_exact=np.bool_,
          cohort_too_small=np.bool_,
          num_byzantine=np.int32,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  # Of four finite updates a minority of one is left out.
  np.testing.assert_allclose(output.result['kernel'], [1.0, 9.5 / 3], rtol=1e-6)
  scalar, (half,) = output.result['bias']
  np.testing.assert_allclose(scalar, 2.0, rtol=1e-6)
  assert scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  np.testing.assert_allclose(
      output.measurements['weights'], [0, 1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6
  )
  assert output.measurements['num_byzantine'] == 2
  assert output.measurements['num_non_finite'] == 1
  assert output.measurements['is_exact']
  assert output.measurements['cohort_too_small']


def test_process_without_clients():
  process = mda.MinimumDiameterAveragingFactory(1).create(
      tff.TensorType(np.float32, [2])
  )
  output = process.next(process.initialize(), [])
  np.testing.assert_array_equal(output.result, [0.0, 0.0])
  assert output.measurements['weights'].shape == (0,)
  assert output.measurements['cohort_too_small']


def test_num_byzantine_is_checked():
  with pytest.raises(ValueError, match='found -1'):
    mda.MinimumDiameterAveragingFactory(-1)


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    mda.MinimumDiameterAveragingFactory(1).create(tff.TensorType(np.int32))
