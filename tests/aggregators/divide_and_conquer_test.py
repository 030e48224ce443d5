"""Tests of divide and conquer against singular vectors in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import divide_and_conquer as dnc


def _reference_scores(sampled, finite):
  """Squared projections on the top right singular vector."""
  sampled = np.asarray(sampled, np.float64)
  centered = sampled[finite] - np.mean(sampled[finite], axis=0)
  v = np.linalg.svd(centered, full_matrices=False)[2][0]
  scores = np.full([len(sampled)], np.inf)
  for i, row in zip(finite, centered):
    scores[i] = np.dot(row, v) ** 2
  return scores


def _reference_selection(updates, finite, num_filtered, samples):
  """The updates that most of the samples keep, and how many samples."""
  counts = np.zeros([len(updates)], int)
  for coordinates in samples:
    scores = _reference_scores(updates[:, coordinates], finite)
    num_kept = max(len(finite) - num_filtered, 1)
    counts[np.argsort(scores, kind='stable')[:num_kept]] += 1
  return np.flatnonzero(counts == counts.max()), counts.max()


def _dnc(
    updates,
    num_byzantine,
    is_finite=None,
    *,
    seed=(0, 0),
    num_iterations=1,
    num_sampled=10000,
    filter_fraction=1.0,
):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  result = dnc.divide_and_conquer(
      tf.constant(updates),
      tf.constant(is_finite),
      tf.constant(num_byzantine),
      tf.constant(seed, tf.int64),
      num_iterations=num_iterations,
      num_sampled=num_sampled,
      filter_fraction=filter_fraction,
  )
  return dnc.DivideAndConquerResult(*(x.numpy() for x in result))


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def _selected(result):
  return np.flatnonzero(result.weights)


# Coordinates and scores.


@pytest.mark.parametrize('d, b', [(1, 1), (7, 7), (100, 10), (1000, 999)])
def test_coordinates_are_drawn_without_replacement(d, b):
  coordinates = dnc.sample_coordinates(tf.constant([3, 4]), d, b).numpy()
  assert len(set(coordinates)) == b
  assert coordinates.min() >= 0 and coordinates.max() < d
  np.testing.assert_array_equal(coordinates, np.sort(coordinates))


def test_every_coordinate_is_drawn_as_often():
  counts = np.zeros([50])
  for seed in range(400):
    counts[dnc.sample_coordinates(tf.constant([seed, 9]), 50, 10)] += 1
  # The mean is 80, the standard deviation of a count 8.
  assert counts.min() > 40 and counts.max() < 120


def test_scores_by_hand():
  # The mean is (0, 1) and the variance larger in the first coordinate.
  updates = [[10.0, 0.0], [-10.0, 0.0], [11.0, 0.0], [0.0, 5.0], [-11.0, 0.0]]
  scores = dnc.outlier_scores(tf.constant(updates), tf.fill([5], True))
  np.testing.assert_allclose(scores, [100, 100, 121, 0, 121], atol=1e-9)


@pytest.mark.parametrize('n, b', [(2, 1), (5, 40), (30, 4)])
@pytest.mark.parametrize('offset', [0.0, 1e2, 1e4])
def test_scores_match_singular_vectors(n, b, offset):
  updates = _random_updates(n, d=b) + np.float32(offset)
  np.testing.assert_allclose(
      dnc.outlier_scores(tf.constant(updates), tf.fill([n], True)),
      _reference_scores(updates, range(n)),
      rtol=1e-6,
      atol=1e-9,
  )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_scores_of_what_is_not_finite(poison):
  updates = _random_updates(9)
  updates[0, 3] = poison
  updates[7] = poison
  finite = [1, 2, 3, 4, 5, 6, 8]
  np.testing.assert_allclose(
      dnc.outlier_scores(tf.constant(updates), np.isin(range(9), finite)),
      _reference_scores(updates, finite),
      rtol=1e-6,
  )


# The rule.


def test_by_hand():
  # The mean is 3 and the scores are 9, 4, 36 and 1.
  updates = [[0.0], [1.0], [9.0], [2.0]]
  result = _dnc(updates, 1)
  np.testing.assert_allclose(result.update, [1.0], rtol=1e-6)
  np.testing.assert_allclose(result.weights, [1 / 3, 1 / 3, 0, 1 / 3])
  assert not result.cohort_too_small
  result = _dnc(updates, 1, filter_fraction=2.0)
  np.testing.assert_allclose(result.update, [1.5])
  np.testing.assert_allclose(_dnc(updates, 0).update, [3.0])


@pytest.mark.parametrize(
    'filter_fraction, num_byzantine, num_filtered',
    [(1.0, 3, 3), (1.1, 10, 11), (1.5, 3, 5), (0.5, 3, 2), (0.1, 3, 1)],
)
def test_number_of_filtered_updates(
    filter_fraction, num_byzantine, num_filtered
):
  result = _dnc(
      _random_updates(30), num_byzantine, filter_fraction=filter_fraction
  )
  assert len(_selected(result)) == 30 - num_filtered


@pytest.mark.parametrize('n, f', [(5, 1), (10, 3), (21, 9)])
@pytest.mark.parametrize('num_sampled', [1, 4, 19, 20])
def test_matches_the_reference(n, f, num_sampled, monkeypatch):
  samples = []
  sample_coordinates = dnc.sample_coordinates

  def record(*args):
    samples.append(sample_coordinates(*args).numpy())
    return tf.constant(samples[-1])

  monkeypatch.setattr(dnc, 'sample_coordinates', record)
  updates = _random_updates(n, d=20, seed=n)
  result = _dnc(updates, f, num_iterations=3, num_sampled=num_sampled)
  if num_sampled < 20:
    assert len({tuple(sample) for sample in samples}) == 3
    assert all(len(sample) == num_sampled for sample in samples)
  else:
    assert not samples
    samples = [np.arange(20)]
  selected, most = _reference_selection(updates, range(n), f, samples)
  np.testing.assert_array_equal(_selected(result), selected)
  np.testing.assert_allclose(
      result.weights[selected], 1 / len(selected), rtol=1e-6
  )
  np.testing.assert_allclose(
      result.update, np.mean(updates[selected], axis=0), atol=1e-6
  )
  assert result.cohort_too_small == (most < len(samples))


def test_every_update_an_outlier_somewhere():
  """Those that are kept most often are averaged, and it is told."""
  updates = 9.0 * np.eye(4)
  updates[:, 3] = [0.1, 0.2, 0.3, 9.0]
  result = _dnc(updates, 1, num_iterations=40, num_sampled=1)
  assert result.cohort_too_small
  assert 1 <= len(_selected(result)) < 4
  np.testing.assert_allclose(result.weights.sum(), 1, rtol=1e-6)
  result = _dnc(updates, 1, num_iterations=1, num_sampled=1)
  assert not result.cohort_too_small
  assert len(_selected(result)) == 3


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_left_out(poison):
  updates = _random_updates(10)
  updates[0, 3] = poison
  updates[7] = poison
  finite = [1, 2, 3, 4, 5, 6, 8, 9]
  result = _dnc(updates, 2, np.isin(np.arange(10), finite))
  selected, _ = _reference_selection(updates, finite, 2, [np.arange(6)])
  np.testing.assert_array_equal(_selected(result), selected)
  np.testing.assert_allclose(
      result.update, np.mean(updates[selected], axis=0), atol=1e-6
  )


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _dnc(np.full([n, 3], np.nan), 1, np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))
  assert result.cohort_too_small


@pytest.mark.parametrize(
    'n, f, too_small', [(1, 0, False), (1, 1, True), (4, 2, True)]
    + [(5, 2, False), (3, 2**30, True)],
)
def test_small_cohort_keeps_one_at_least(n, f, too_small):
  result = _dnc(_random_updates(n), f)
  assert result.cohort_too_small == too_small
  assert len(_selected(result)) == max(n - f, 1)


def test_non_finite_updates_make_the_cohort_small():
  updates = _random_updates(6)
  assert not _dnc(updates, 2).cohort_too_small
  assert _dnc(updates, 2, np.arange(6) >= 2).cohort_too_small


def test_samples_depend_on_the_seed():
  updates = _random_updates(30, d=200)

  def weights(seed):
    return _dnc(updates, 6, seed=seed, num_sampled=5, num_iterations=2).weights

  np.testing.assert_array_equal(weights([1, 2]), weights([1, 2]))
  assert (weights([1, 2]) != weights([1, 3])).any()
  assert (weights([1, 2]) != weights([2, 2])).any()


def test_permutation_of_clients():
  updates = _random_updates(10)
  order = np.random.default_rng(1).permutation(10)
  options = {'num_iterations': 2, 'num_sampled': 4}
  result = _dnc(updates, 2, **options)
  permuted = _dnc(updates[order], 2, **options)
  np.testing.assert_array_equal(permuted.weights, result.weights[order])
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)


def test_translation_by_a_hundred_times_the_spread():
  # Multiples of 1/256 and eight updates averaged, so that nothing is rounded.
  updates = np.round(_random_updates(10, d=300) * 256) / 256
  offset = np.round(_random_updates(1, d=300, seed=1) * 100)
  result, moved = _dnc(updates, 2), _dnc(updates + offset, 2)
  np.testing.assert_array_equal(moved.weights, result.weights)
  np.testing.assert_array_equal(moved.update, result.update + offset[0])


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
def test_scale(scale):
  updates = _random_updates(10)
  np.testing.assert_allclose(
      _dnc(scale * updates, 2).update,
      scale * _dnc(updates, 2).update,
      atol=1e-6 * abs(scale),
  )


def test_rotation():
  """With all coordinates in the sample."""
  updates = _random_updates(10)
  rotation, _ = np.linalg.qr(_random_updates(6, seed=1).astype(np.float64))
  np.testing.assert_allclose(
      _dnc(updates @ rotation, 3).update,
      _dnc(updates, 3).update @ rotation,
      atol=1e-6,
  )


@pytest.mark.parametrize('f', [0, 2])
def test_all_equal(f):
  updates = np.tile(_random_updates(1), [6, 1])
  result = _dnc(updates, f)
  np.testing.assert_allclose(result.update, updates[0], rtol=1e-6)
  assert len(_selected(result)) == 6 - f


@pytest.mark.parametrize('attack', [5.0, 1e9, 9e14])
def test_colluding_minority_is_filtered_out(attack):
  updates = _random_updates(12, d=100)
  updates[2:6] += attack
  result = _dnc(updates, 4, num_iterations=3, num_sampled=40)
  assert result.weights[2:6].sum() == 0
  assert 0 < len(_selected(result)) <= 8
  assert np.abs(result.update).max() < 4


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
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = dnc.divide_and_conquer_factory(0.25, seed=1, weighted=weighted)
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
    # Whatever weight a client claims has no effect.
    weights = [[1e9, 1.0, 1.0, np.nan]]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(_VALUE_TYPE)
    weights = []

  assert process.state_type == tff.FederatedType(np.int64, tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(
          weights=tff.TensorType(np.float32, [None]),
          cohort_too_small=np.bool_,
          num_byzantine=np.int32,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  np.testing.assert_array_equal(output.result['kernel'], [1.0, 0.25])
  scalar, (half,) = output.result['bias']
  assert scalar == 2.0 and scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  np.testing.assert_array_equal(
      output.measurements['weights'], [0, 0.5, 0, 0.5]
  )
  assert output.measurements['num_byzantine'] == 1
  assert output.measurements['num_non_finite'] == 1
  assert not output.measurements['cohort_too_small']
  assert output.state == 1


def test_process_draws_anew_each_round():
  """And again the same with the same seed and state."""
  updates = list(_random_updates(20, d=200))
  factory = dnc.DivideAndConquerFactory(
      5, num_iterations=2, num_sampled=3, seed=2**63 - 1
  )
  process = factory.create(tff.TensorType(np.float32, [200]))
  first = process.next(process.initialize(), updates)
  second = process.next(first.state, updates)
  np.testing.assert_array_equal(
      process.next(first.state, updates).result, second.result
  )
  assert (
      first.measurements['weights'] != second.measurements['weights']
  ).any()
  expected = _dnc(
      updates, 5, seed=[2**63 - 1, 1], num_iterations=2, num_sampled=3
  )
  np.testing.assert_array_equal(
      second.measurements['weights'], expected.weights
  )

  output = process.next(second.state, [])
  np.testing.assert_array_equal(output.result, np.zeros([200]))
  assert output.measurements['cohort_too_small']
  assert output.state == 3


@pytest.mark.parametrize(
    'arguments, options, error, found',
    [
        (['3'], {}, TypeError, "'3'"),
        ([-1], {}, ValueError, '-1'),
        ([1], {'num_iterations': 0}, ValueError, '`num_iterations`.*found 0'),
        ([1], {'num_iterations': 2.0}, TypeError, 'found 2.0'),
        ([1], {'num_sampled': 0}, ValueError, '`num_sampled`.*found 0'),
        ([1], {'num_sampled': True}, TypeError, 'found True'),
        ([1], {'filter_fraction': 0}, ValueError, 'found 0'),
        ([1], {'filter_fraction': float('nan')}, ValueError, 'found nan'),
        ([1], {'filter_fraction': float('inf')}, ValueError, 'found inf'),
        ([1], {'filter_fraction': '1'}, TypeError, "found '1'"),
        ([1], {'seed': -1}, ValueError, 'found -1'),
        ([1], {'seed': 2**63}, ValueError, 'found 9223372036854775808'),
        ([1], {'seed': 1.0}, TypeError, 'found 1.0'),
    ],
)
def test_construction_errors(arguments, options, error, found):
  with pytest.raises(error, match=found):
    dnc.DivideAndConquerFactory(*arguments, **options)


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    dnc.DivideAndConquerFactory(1).create(tff.TensorType(np.int32))
