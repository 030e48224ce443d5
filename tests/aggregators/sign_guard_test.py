"""Tests of SignGuard against mean shift of scikit-learn and NumPy."""

import collections

import numpy as np
import pytest
from sklearn import cluster
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import sign_guard


def _reference_features(updates):
  return np.array([
      [np.mean(row > 0), np.mean(row == 0), np.mean(row < 0)]
      for row in np.asarray(updates)
  ])


def _reference_cluster(points):
  labels = cluster.MeanShift(
      bandwidth=cluster.estimate_bandwidth(points, quantile=0.5),
      cluster_all=False,
  ).fit_predict(points)
  return labels == np.argmax(np.bincount(labels[labels >= 0]))


def _reference(updates):
  """Both filters on all coordinates, and the mean clipped to the median."""
  updates = np.asarray(updates, np.float64)
  norms = np.linalg.norm(updates, axis=1)
  median = np.median(norms)
  is_trusted = (
      (norms >= 0.1 * median)
      & (norms <= 3 * median)
      & _reference_cluster(_reference_features(updates))
  )
  scales = np.minimum(1, median / norms)
  return (scales[:, np.newaxis] * updates)[is_trusted].mean(axis=0), is_trusted


def _sign_guard(
    updates, is_finite=None, coordinate_fraction=1.0, seed=(0, 0), **options
):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  result = sign_guard.sign_guard(
      tf.constant(updates),
      tf.constant(is_finite),
      tf.constant(seed, tf.int64),
      coordinate_fraction=coordinate_fraction,
      **options,
  )
  return sign_guard.SignGuardResult(*(x.numpy() for x in result))


def _largest_cluster(points):
  return sign_guard.largest_cluster(tf.constant(points, tf.float64)).numpy()


def _random_updates(n, d=60, seed=0):
  """Updates of which about two thirds of the coordinates are positive."""
  rng = np.random.default_rng(seed)
  return (rng.normal(size=[n, d]) + 0.4).astype(np.float32)


# Clusters.


def test_sign_features_by_hand():
  np.testing.assert_array_equal(
      sign_guard.sign_features(
          tf.constant([[1.0, -2.0, 0.0, 3.0], [-1.0, -1e-30, -3.0, np.inf]])
      ),
      [[0.5, 0.25, 0.25], [0.25, 0.0, 0.75]],
  )


def test_largest_cluster_by_hand():
  np.testing.assert_array_equal(
      _largest_cluster([[0.9], [0.1], [0.12], [0.91], [0.11], [0.13]]),
      [0, 1, 1, 0, 1, 1],
  )
  np.testing.assert_array_equal(
      _largest_cluster([[0.5], [0.5], [0.6], [0.5]]), [1, 1, 0, 1]
  )


@pytest.mark.parametrize('n, num_far', [(8, 2), (20, 6), (31, 12), (50, 20)])
@pytest.mark.parametrize('far', [0.05, 0.2, 0.6])
def test_largest_cluster_matches_scikit_learn(n, num_far, far):
  rng = np.random.default_rng(n)
  points = rng.normal(0.3, 0.02, size=[n, 3])
  points[:num_far] += far
  np.testing.assert_array_equal(
      _largest_cluster(points), _reference_cluster(points)
  )


@pytest.mark.parametrize('n', [0, 1, 2, 5])
def test_equal_points_are_one_cluster(n):
  np.testing.assert_array_equal(
      _largest_cluster(np.tile([[0.2, 0.0, 0.8]], [n, 1])), [True] * n
  )


# The rule.


def test_by_hand():
  # The median norm is 5. Row 1 is too short and row 4 too long, row 5 has the
  # signs of nobody else; rows 2 and 3 are of the lengths 5 and 10.
  updates = [[4, 3], [0.2, 0.1], [3, 4], [8, 6], [90, 90], [-3, -3]]
  result = _sign_guard(updates)
  np.testing.assert_array_equal(result.passes_norm, [1, 0, 1, 1, 0, 1])
  np.testing.assert_array_equal(result.passes_signs, [1, 1, 1, 1, 1, 0])
  assert result.norm_bound == 5
  np.testing.assert_allclose(result.weights, [1 / 3, 0, 1 / 3, 1 / 3, 0, 0])
  np.testing.assert_allclose(result.update, [11 / 3, 10 / 3], rtol=1e-6)


def test_bounds_of_norms():
  updates = [[2.0, 2], [1.0, 1], [2.0, 2], [6.0, 6], [2.0, 2]]
  for options, passes in (
      ({'lower': 0.5, 'upper': 3.0}, [1, 1, 1, 1, 1]),
      ({'lower': 0.51, 'upper': 2.99}, [1, 0, 1, 0, 1]),
      ({'lower': 0.0, 'upper': np.inf}, [1, 1, 1, 1, 1]),
  ):
    result = _sign_guard(updates, **options)
    np.testing.assert_array_equal(result.passes_norm, passes)


@pytest.mark.parametrize('n', [9, 20])
def test_matches_reference(n):
  updates = _random_updates(n, seed=n)
  updates[:n // 4] *= -1
  updates[-1] *= 2.5
  updates[-2] *= 20
  expected, is_trusted = _reference(updates)
  assert is_trusted.any()
  result = _sign_guard(updates)
  np.testing.assert_array_equal(result.weights > 0, is_trusted)
  np.testing.assert_allclose(result.weights.sum(), 1.0, rtol=1e-6)
  np.testing.assert_allclose(result.update, expected, rtol=1e-5, atol=1e-6)
  assert not result.weights[: n // 4].any()


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_left_out(poison):
  updates = _random_updates(11)
  updates[0, 3] = poison
  updates[7] = poison
  is_finite = ~np.isin(np.arange(11), [0, 7])
  expected, is_trusted = _reference(updates[is_finite])
  result = _sign_guard(updates, is_finite)
  np.testing.assert_array_equal(result.weights[is_finite] > 0, is_trusted)
  assert result.weights[0] == 0 and result.weights[7] == 0
  np.testing.assert_allclose(result.update, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _sign_guard(np.full([n, 3], np.nan), np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))


def test_one_client_all_equal_and_all_zero():
  updates = _random_updates(1)
  np.testing.assert_allclose(_sign_guard(updates).update, updates[0], rtol=1e-6)
  np.testing.assert_allclose(
      _sign_guard(np.tile(updates, [6, 1])).update, updates[0], rtol=1e-5
  )
  np.testing.assert_array_equal(
      _sign_guard(np.zeros([3, 2])).update, [0.0, 0.0]
  )


def test_huge_or_sign_flipped_minority_has_no_weight():
  honest = _random_updates(11)
  updates = np.concatenate([np.full([2, 60], 9e14), -honest[:3], honest])
  result = _sign_guard(updates)
  np.testing.assert_array_equal(result.weights[:5], [0] * 5)
  assert (result.weights[5:] > 0).sum() >= 8
  assert np.linalg.norm(result.update) <= np.linalg.norm(honest, axis=1).max()


def test_permutation_and_scale():
  updates = _random_updates(11)
  updates[:3] *= -1
  result = _sign_guard(updates)
  order = np.random.default_rng(1).permutation(11)
  permuted = _sign_guard(updates[order])
  np.testing.assert_array_equal(permuted.weights, result.weights[order])
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)
  for scale in (1024.0, -(2.0**-30)):
    np.testing.assert_allclose(
        _sign_guard(scale * updates).update, scale * result.update, rtol=1e-5
    )


def test_large_shared_offset_leaves_one_sign():
  updates = _random_updates(9) + 100
  result = _sign_guard(updates)
  assert result.passes_signs.all() and result.passes_norm.all()
  np.testing.assert_allclose(result.update, updates.mean(axis=0), rtol=1e-2)


def test_same_random_coordinates_for_all_updates():
  """Updates that differ in one coordinate differ only if it is looked at."""
  updates = np.ones([5, 10], np.float32)
  updates[4, 6] = -1.0

  def rejected(coordinate_fraction):
    passes = tf.function(
        lambda seed: sign_guard.sign_guard(
            tf.constant(updates),
            tf.fill([5], True),
            seed,
            coordinate_fraction=coordinate_fraction,
        ).passes_signs[4]
    )
    return np.mean([
        not passes(tf.constant([5, round_number], tf.int64))
        for round_number in range(200)
    ])

  np.testing.assert_allclose(rejected(0.3), 0.3, atol=0.12)
  # At least one coordinate, here of ten.
  np.testing.assert_allclose(rejected(0.01), 0.1, atol=0.08)


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


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = sign_guard.sign_guard_factory(
      coordinate_fraction=1.0, seed=4, weighted=weighted
  )
  types, weights = [_VALUE_TYPE], []
  if weighted:
    types.append(tff.TensorType(np.float32))
    weights.append([1e9, 1.0, 0.0, np.nan, 1.0, 1.0])
  process = factory.create(*types)
  assert process.state_type == tff.FederatedType(np.int64, tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  clients = [
      _client(1.0, 1.0, 1.0, 1.0),
      _client(1.0, 1.0, 1.0, 1.0),
      _client(1.0, 1.0, 1.0, 1.0),
      _client(-1.0, -1.0, -1.0, -1.0),
      _client(9.0, 9.0, 9.0, 9.0),
      _client(1.0, np.nan, 1.0, 1.0),
  ]
  output = process.next(process.initialize(), clients, *weights)
  assert output.state == 1
  np.testing.assert_allclose(output.result['kernel'], [1.0, 1.0], rtol=1e-6)
  scalar, (half,) = output.result['bias']
  np.testing.assert_allclose(scalar, 1.0, rtol=1e-6)
  assert scalar.dtype == np.float64 and half.dtype == np.float16
  np.testing.assert_allclose(
      output.measurements['weights'], [1 / 3] * 3 + [0, 0, 0]
  )
  assert output.measurements['norm_bound'] == 2.0
  assert output.measurements['num_norm_rejected'] == 1
  assert output.measurements['num_sign_rejected'] == 1
  assert output.measurements['num_non_finite'] == 1
  output = process.next(output.state, [], *([[]] if weighted else []))
  np.testing.assert_array_equal(output.result['kernel'], [0.0, 0.0])


@pytest.mark.parametrize(
    'options, error, found',
    [
        ({'lower': '1'}, TypeError, "`lower` .*'1'"),
        ({'upper': True}, TypeError, '`upper` .*True'),
        ({'coordinate_fraction': None}, TypeError, 'None'),
        ({'lower': -0.1}, ValueError, '-0.1'),
        ({'lower': 1.1}, ValueError, '1.1'),
        ({'upper': 0.9}, ValueError, '0.9'),
        ({'upper': float('nan')}, ValueError, 'nan'),
        ({'coordinate_fraction': 0}, ValueError, 'found 0'),
        ({'coordinate_fraction': 1.5}, ValueError, '1.5'),
        ({'seed': -1}, ValueError, '-1'),
    ],
)
def test_construction_errors(options, error, found):
  with pytest.raises(error, match=found):
    sign_guard.sign_guard_factory(**options)
