"""Tests of SignGuard against mean shift of scikit-learn."""

import numpy as np
import pytest
from sklearn import cluster

from fedaot import namespace
from fedaot import rules
from fedaot.rules.sign_guard import largest_cluster
from tests.rules import tables


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
  signs = np.array(
      [
          [np.mean(row > 0), np.mean(row == 0), np.mean(row < 0)]
          for row in updates
      ]
  )
  is_trusted = (norms >= 0.1 * median) & (norms <= 3 * median)
  is_trusted &= _reference_cluster(signs)
  scales = np.minimum(1, median / norms)
  return (scales[:, np.newaxis] * updates)[is_trusted].mean(axis=0), is_trusted


def _largest_cluster(points):
  return largest_cluster(np.asarray(points, np.float64), namespace.NUMPY)


def _sign_guard(updates, **options):
  return rules.sign_guard(coordinate_fraction=1.0, **options).measure(
      np.asarray(updates)
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
  points = np.random.default_rng(n).normal(0.3, 0.02, size=[n, 3])
  points[:num_far] += far
  np.testing.assert_array_equal(
      _largest_cluster(points), _reference_cluster(points)
  )


def test_by_hand():
  # The median norm is 5. Row 1 is too short and row 4 too long, row 5 has the
  # signs of nobody else; rows 2 and 3 are of the lengths 5 and 10.
  updates = [[4.0, 3], [0.2, 0.1], [3, 4], [8, 6], [90, 90], [-3, -3]]
  result, measured = _sign_guard(updates)
  assert measured['norm_bound'] == 5
  assert measured['num_norm_rejected'] == 2
  assert measured['num_sign_rejected'] == 1
  np.testing.assert_allclose(
      measured['weights'], [1 / 3, 0, 1 / 3, 1 / 6, 0, 0]
  )
  np.testing.assert_allclose(result, [11 / 3, 10 / 3])


def test_bounds_of_norms():
  updates = [[2.0, 0], [1.0, 0], [2.0, 0], [6.0, 0], [2.0, 0]]
  for options, num_rejected in (
      ({'lower': 0.5, 'upper': 3.0}, 0),
      ({'lower': 0.51, 'upper': 3.0}, 1),
      ({'lower': 0.5, 'upper': 2.99}, 1),
      ({'lower': 0.0, 'upper': np.inf}, 0),
  ):
    measured = _sign_guard(updates, **options)[1]
    assert measured['num_norm_rejected'] == num_rejected


@pytest.mark.parametrize('n', [9, 20])
def test_matches_reference(n):
  updates = tables.random_updates(n, d=60, seed=n) + np.float32(0.4)
  updates[: n // 4] *= -1
  updates[-1] *= 2.5
  updates[-2] *= 20
  expected, is_trusted = _reference(updates)
  result, measured = _sign_guard(updates)
  np.testing.assert_array_equal(measured['weights'] > 0, is_trusted)
  np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
  assert not measured['weights'][: n // 4].any()


def test_same_random_coordinates_for_all_updates():
  # Copies have the same signs in any coordinates.
  updates = np.tile(tables.random_updates(1, d=50), [8, 1])
  for seed in range(10):
    rule = rules.sign_guard(coordinate_fraction=0.1, seed=seed)
    assert rule.measure(updates)[1]['num_sign_rejected'] == 0


def test_as_many_coordinates_as_asked_for():
  # One of a hundred is negative in every other client: whoever looks at one
  # coordinate sees it once in a hundred rounds.
  updates = np.ones([10, 100])
  updates[::3, 7] = -1
  rule = rules.sign_guard(coordinate_fraction=0.01, seed=1)
  rejected = [
      rule.measure(updates, round_num=r)[1]['num_sign_rejected'] > 0
      for r in range(300)
  ]
  assert 0 < sum(rejected) < 12
  assert _sign_guard(updates)[1]['num_sign_rejected'] == 4
