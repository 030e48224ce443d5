"""Tests of Bulyan against Krum and sorting by loops in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import bulyan
from fedaot_tff.aggregators import krum


def _reference_selection(updates, finite, num_byzantine, num_selected):
  """Applies Krum to what it has not selected yet."""
  updates = np.asarray(updates, np.float64)
  left, selected = list(finite), []
  while len(selected) < num_selected:
    scores = []
    for i in left:
      distances = sorted(
          np.sum((updates[i] - updates[j]) ** 2) for j in left if j != i
      )
      num_neighbors = max(len(left) - num_byzantine - 2, 1)
      scores.append(sum(distances[:num_neighbors]))
    selected.append(left.pop(int(np.argmin(scores))))
  return sorted(selected)


def _reference_mean(updates, selected, num_averaged):
  """The mean of the values closest to the median, the smaller one first."""
  result = []
  for values in np.asarray(updates, np.float64)[selected].T:
    median = np.median(values)
    closest = sorted(values, key=lambda x: (abs(x - median), x))
    result.append(np.mean(closest[:num_averaged]))
  return np.array(result)


def _reference(updates, finite, f):
  theta = len(finite) - 2 * f
  selected = _reference_selection(updates, finite, f, theta)
  return _reference_mean(updates, selected, theta - 2 * f), selected


@tf.function(autograph=False)
def _graph_bulyan(updates, is_finite, num_byzantine):
  return bulyan.bulyan(updates, is_finite, num_byzantine)


def _bulyan(updates, num_byzantine, is_finite=None):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  # As in a TFF computation, the number of rows is not known beforehand.
  function = _graph_bulyan.get_concrete_function(
      tf.TensorSpec([None, updates.shape[1]], tf.float32),
      tf.TensorSpec([None], tf.bool),
      tf.TensorSpec([], tf.int32),
  )
  result = function(
      tf.constant(updates), tf.constant(is_finite), tf.constant(num_byzantine)
  )
  return bulyan.BulyanResult(*(x.numpy() for x in result))


def _mean_around_median(updates, num_averaged, selected=None):
  updates = np.asarray(updates, np.float32)
  is_selected = np.ones([len(updates)], np.bool_)
  if selected is not None:
    is_selected = np.isin(np.arange(len(updates)), selected)
  return bulyan.mean_around_median(
      tf.constant(updates), tf.constant(is_selected), tf.constant(num_averaged)
  ).numpy()


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


# The mean around the median.


def test_mean_around_median_by_hand():
  # The medians are 3 and 0.
  updates = [[1, -9], [2.5, -1], [3, 0], [4, 1], [100, 1]]
  np.testing.assert_allclose(_mean_around_median(updates, 1), [3, 0])
  np.testing.assert_allclose(
      _mean_around_median(updates, 3), [9.5 / 3, 0], atol=1e-6
  )
  np.testing.assert_allclose(
      _mean_around_median(updates, 4), [10.5 / 4, 0.25], atol=1e-6
  )
  # The midpoint of 2 and 4 is the median.
  np.testing.assert_allclose(
      _mean_around_median([[4], [2], [9], [1]], 3), [7 / 3], rtol=1e-6
  )


def test_of_two_values_equally_far_the_smaller_comes_first():
  updates = [[-2], [2], [0], [-2], [2]]
  for num_averaged, expected in enumerate([0, -1, -4 / 3, -0.5, 0], start=1):
    np.testing.assert_allclose(
        _mean_around_median(updates, num_averaged), [expected], atol=1e-6
    )


@pytest.mark.parametrize('n, beta', [(1, 1), (2, 2), (7, 3), (8, 4), (30, 10)])
def test_mean_around_median_matches_sorting(n, beta):
  updates = _random_updates(n, seed=n)
  np.testing.assert_allclose(
      _mean_around_median(updates, beta),
      _reference_mean(updates, list(range(n)), beta),
      atol=1e-6,
  )


@pytest.mark.parametrize('n, beta', [(7, 3), (8, 4), (9, 6)])
def test_mean_around_median_with_ties(n, beta):
  updates = np.random.default_rng(n).integers(0, 5, size=[n, 60])
  np.testing.assert_allclose(
      _mean_around_median(updates, beta),
      _reference_mean(updates, list(range(n)), beta),
      atol=1e-6,
  )


@pytest.mark.parametrize('d', [1, 6, 7, 8, 15])
def test_blocks_of_columns_are_put_together(d, monkeypatch):
  monkeypatch.setattr(bulyan, '_BLOCK_COLUMNS', 7)
  updates = _random_updates(7, d=d)
  np.testing.assert_allclose(
      _mean_around_median(updates, 3, [0, 2, 3, 4, 6]),
      _reference_mean(updates, [0, 2, 3, 4, 6], 3),
      atol=1e-6,
  )


def test_mean_around_median_under_a_large_offset():
  """Summing the values themselves would round off the offset's last digits."""
  updates = _random_updates(1001, d=10) + np.float32(1e4)
  np.testing.assert_allclose(
      _mean_around_median(updates, 501),
      _reference_mean(updates, list(range(1001)), 501),
      rtol=2.4e-7,
  )


# The rule.


def test_by_hand():
  # f = 1, so that Krum selects five of seven: 3 (score 9 + 4 + 12.25 + 16 with
  # four neighbors), 1 (score 67.25 with three), 6.5 (42.5 with two), 0 before 7
  # (each other's nearest, score 49), 7 before 20 (score 169).
  updates = [[0.0], [1.0], [3.0], [6.5], [7.0], [20.0], [-9.0]]
  result = _bulyan(updates, 1)
  np.testing.assert_array_equal(result.is_selected, [True] * 5 + [False] * 2)
  # Closest to the median 3 of the selected are 3, 1 and 0.
  np.testing.assert_allclose(result.update, [4 / 3], rtol=1e-6)
  assert not result.cohort_too_small


@pytest.mark.parametrize(
    'n, f', [(3, 0), (8, 0), (7, 1), (8, 1), (11, 2), (13, 2), (16, 3)]
)
def test_matches_the_reference(n, f):
  updates = _random_updates(n, seed=n)
  result = _bulyan(updates, f)
  expected, selected = _reference(updates, range(n), f)
  np.testing.assert_array_equal(np.flatnonzero(result.is_selected), selected)
  np.testing.assert_allclose(result.update, expected, atol=1e-6)
  assert not result.cohort_too_small


def test_selection_differs_from_the_best_scores():
  """Scores are taken anew among the rest, not once."""
  num_different = 0
  for seed in range(10):
    updates = _random_updates(11, d=2, seed=seed)
    selected = _reference_selection(updates, range(11), 2, 7)
    is_finite = tf.fill([11], True)
    distances = krum.squared_distances(tf.constant(updates), is_finite)
    scores = krum.krum_scores(distances, is_finite, tf.constant(7))
    num_different += set(selected) != set(np.argsort(scores)[:7])
    is_selected = bulyan.select_by_krum(distances, is_finite, 2, 7)
    np.testing.assert_array_equal(np.flatnonzero(is_selected), selected)
  assert num_different > 0


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_left_out(poison):
  updates = _random_updates(13)
  updates[0, 3] = poison
  updates[7] = poison
  finite = [i for i in range(13) if i not in (0, 7)]
  expected, selected = _reference(updates, finite, 2)
  result = _bulyan(updates, 2, np.isin(np.arange(13), finite))
  np.testing.assert_array_equal(np.flatnonzero(result.is_selected), selected)
  np.testing.assert_allclose(result.update, expected, atol=1e-6)


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _bulyan(np.full([n, 3], np.nan), 1, np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  assert not result.is_selected.any()
  assert result.cohort_too_small


@pytest.mark.parametrize(
    'n, f, num_selected', [(1, 1, 1), (4, 1, 2), (5, 1, 3), (10, 2, 6)]
    + [(8, 3, 2), (6, 3, 1), (6, 2**30, 1)],
)
def test_small_cohort_falls_back_to_the_median_of_the_selected(
    n, f, num_selected
):
  updates = _random_updates(n, seed=n)
  result = _bulyan(updates, f)
  assert result.cohort_too_small
  selected = _reference_selection(updates, range(n), f, num_selected)
  np.testing.assert_array_equal(np.flatnonzero(result.is_selected), selected)
  num_averaged = max(num_selected - 2 * f, 2 - num_selected % 2)
  np.testing.assert_allclose(
      result.update, _reference_mean(updates, selected, num_averaged), atol=1e-6
  )


@pytest.mark.parametrize('n, f', [(2, 0), (6, 1), (10, 2)])
def test_one_client_less_than_needed(n, f):
  assert _bulyan(_random_updates(n), f).cohort_too_small
  assert not _bulyan(_random_updates(n + 1), f).cohort_too_small


def test_permutation_of_clients():
  # With f = 3 two neighbors count to the end, and there are no ties.
  updates = _random_updates(16)
  order = np.random.default_rng(1).permutation(16)
  result, permuted = _bulyan(updates, 3), _bulyan(updates[order], 3)
  np.testing.assert_array_equal(
      permuted.is_selected, result.is_selected[order]
  )
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)


def test_translation_by_a_hundred_times_the_spread():
  # Multiples of 1/256 and four values averaged, so that nothing is rounded.
  updates = np.round(_random_updates(12, d=300) * 256) / 256
  offset = np.round(_random_updates(1, d=300, seed=1) * 100)
  result, moved = _bulyan(updates, 2), _bulyan(updates + offset, 2)
  np.testing.assert_array_equal(moved.is_selected, result.is_selected)
  np.testing.assert_array_equal(moved.update, result.update + offset[0])


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
def test_scale(scale):
  updates = _random_updates(11)
  np.testing.assert_allclose(
      _bulyan(scale * updates, 2).update,
      scale * _bulyan(updates, 2).update,
      atol=1e-6 * abs(scale),
  )


@pytest.mark.parametrize('f', [0, 1])
def test_all_equal(f):
  updates = np.tile(_random_updates(1), [8, 1])
  np.testing.assert_array_equal(_bulyan(updates, f).update, updates[0])


@pytest.mark.parametrize('attack', [9e14, -1e9, 30.0])
def test_minority_cannot_leave_the_honest_range(attack):
  honest = _random_updates(9)
  attackers = np.zeros([2, 6], np.float32)
  attackers[:, 2] = attack
  result = _bulyan(np.concatenate([attackers, honest]), 2).update
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
    _client(9e14, 9e14, 9e14, 1.0),
    _client(1.0, 0.0, np.nan, 4.0),
    _client(1.0, 2.0, 7.0, 4.0),
    _client(1.0, 2.0, 7.0, 4.0),
    _client(2.0, 2.0, 7.0, 4.0),
    _client(1.0, 2.5, 8.0, 4.0),
    _client(1.0, 2.0, 7.0, 5.0),
    _client(1.0, 12.0, 7.0, 4.0),
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = bulyan.bulyan_factory(0.2, weighted=weighted)
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
    # Whatever weight a client claims has no effect.
    weights = [[1e9, 1.0, 1.0, 0.0, np.nan, 1.0, 1.0, 1.0]]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(_VALUE_TYPE)
    weights = []

  assert process.state_type == tff.FederatedType((), tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(
          is_selected=tff.TensorType(np.bool_, [None]),
          cohort_too_small=np.bool_,
          num_byzantine=np.int32,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  # Of seven finite clients the five near [1, 2, 7, 4] are selected, and of each
  # coordinate the three values that agree are averaged.
  np.testing.assert_array_equal(output.result['kernel'], [1.0, 2.0])
  scalar, (half,) = output.result['bias']
  assert scalar == 7.0 and scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  np.testing.assert_array_equal(
      output.measurements['is_selected'],
      [False, False, True, True, True, True, True, False],
  )
  assert output.measurements['num_byzantine'] == 1
  assert output.measurements['num_non_finite'] == 1
  assert not output.measurements['cohort_too_small']


def test_process_without_clients():
  process = bulyan.BulyanFactory(1).create(tff.TensorType(np.float32, [2]))
  output = process.next(process.initialize(), [])
  np.testing.assert_array_equal(output.result, [0.0, 0.0])
  assert output.measurements['cohort_too_small']


def test_num_byzantine_is_checked():
  with pytest.raises(ValueError, match='found -1'):
    bulyan.BulyanFactory(-1)


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    bulyan.BulyanFactory(1).create(tff.TensorType(np.int32))
