"""Tests of FLAME against HDBSCAN of scikit-learn and linking one by one."""

import numpy as np
import pytest
from sklearn import cluster

from fedaot import namespace
from fedaot import rules
from fedaot.rules.flame import majority_cluster
from tests.rules import tables


def _cosine_distances(updates):
  updates = np.asarray(updates, np.float64)
  units = updates / np.linalg.norm(updates, axis=1, keepdims=True)
  distances = np.maximum(1 - units @ units.T, 0)
  np.fill_diagonal(distances, 0)
  return (distances + distances.T) / 2


def _reference_cluster(distances):
  """The first component of more than half as links are added one by one."""
  n = len(distances)
  labels = np.arange(n)
  pairs = [(i, j) for i in range(n) for j in range(i)]
  for i, j in sorted(pairs, key=lambda pair: (distances[pair], pair)):
    labels[labels == labels[i]] = labels[j]
    members = labels == labels[j]
    if members.sum() > n / 2:
      return members
  return np.ones([n], bool)


def _cluster(distances):
  return majority_cluster(np.asarray(distances, np.float64), namespace.NUMPY)


def test_cluster_by_hand():
  for points, expected in (
      # More than half is 3 of 5 and 3 of 4.
      ([0, 10, 1, 5, 2], [1, 0, 1, 0, 1]),
      # The pairs are linked first, but neither is more than half.
      ([0, 1, 5, 6.5, 9], [0, 0, 1, 1, 1]),
      ([0, 1, 5, 6], [1, 1, 1, 1]),
      # A chain is as long as its longest link.
      ([0, 1, 2, 3, 4, 5.5], [1, 1, 1, 1, 1, 0]),
  ):
    points = np.array(points)[:, np.newaxis]
    np.testing.assert_array_equal(_cluster(np.abs(points - points.T)), expected)


@pytest.mark.parametrize('n', [2, 3, 8, 9, 20])
def test_cluster_matches_linking_one_by_one(n):
  for seed in range(5):
    distances = _cosine_distances(tables.random_updates(n, d=4, seed=seed))
    np.testing.assert_array_equal(
        _cluster(distances), _reference_cluster(distances)
    )


@pytest.mark.parametrize('n', [9, 10, 25, 40])
def test_cluster_matches_hdbscan(n):
  for seed in range(5):
    distances = _cosine_distances(tables.random_updates(n, 4, seed) + 0.5)
    labels = cluster.HDBSCAN(
        min_cluster_size=n // 2 + 1,
        min_samples=1,
        metric='precomputed',
        allow_single_cluster=True,
        copy=True,
    ).fit_predict(distances)
    np.testing.assert_array_equal(_cluster(distances), labels == 0)


def test_by_hand():
  # Three of five in one direction, norms 1, 2, 3, 4 and 5: the median is 3.
  updates = np.array([[1.0, 0], [0, -2], [3, 0], [4, 0], [-5, -5]])
  updates[4] *= 5 / np.linalg.norm(updates[4])
  result, measured = rules.flame(noise_multiplier=0).measure(updates)
  assert measured['norm_bound'] == 3
  np.testing.assert_allclose(measured['weights'], [1 / 3, 0, 1 / 3, 1 / 4, 0])
  np.testing.assert_allclose(result, [7 / 3, 0])


@pytest.mark.parametrize('n', [2, 9, 20])
def test_matches_reference(n):
  updates = tables.random_updates(n, d=8, seed=n)
  norms = np.linalg.norm(updates, axis=1)
  members = _reference_cluster(_cosine_distances(updates))
  clipped = updates * np.minimum(1, np.median(norms) / norms)[:, np.newaxis]
  np.testing.assert_allclose(
      rules.flame(noise_multiplier=0)(updates),
      clipped[members].mean(axis=0),
      atol=1e-6,
  )


def test_opposite_minority_is_left_out():
  honest = tables.random_updates(7, seed=1) * 0.1 + 1
  updates = np.concatenate([honest, -honest[:6]])
  measured = rules.flame(noise_multiplier=0).measure(updates)[1]
  np.testing.assert_array_equal(measured['weights'] > 0, [1] * 7 + [0] * 6)


def test_noise_has_the_size_of_the_median_norm():
  updates = np.tile(tables.random_updates(1, d=20000), [3, 1])
  noise = rules.flame(noise_multiplier=0.5, seed=1)(updates) - updates[0]
  bound = np.linalg.norm(updates[0])
  np.testing.assert_allclose(noise.std(), 0.5 * bound, rtol=0.03)
  assert abs(noise.mean()) < 0.02 * bound


@pytest.mark.parametrize('offset', [0.0, 300.0])
def test_rounding_keeps_nobody_out(offset):
  """Computed cosines that are not symmetric admit too few of 20."""
  rule = rules.flame(noise_multiplier=0)
  for seed in range(40):
    updates = tables.random_updates(20, 1000, seed).astype(np.float64)
    updates += offset * tables.random_updates(1, 1000, seed=99)
    members = _reference_cluster(_cosine_distances(updates))
    found = rule.measure(updates)[1]['weights'] > 0
    np.testing.assert_array_equal(found, members)


@pytest.mark.parametrize('f', [1, 5])
def test_rounding_keeps_nobody_out_of_what_is_mixed(f):
  rule = rules.nnm(rules.flame(noise_multiplier=0), f)
  for seed in range(40):
    updates = tables.random_updates(20, 1000, seed).astype(np.float64)
    order = np.argsort(tables.squared_distances(updates), axis=1)
    mixed = updates[order[:, : 20 - f]].mean(axis=1)
    members = _reference_cluster(_cosine_distances(mixed))
    norms = np.linalg.norm(mixed, axis=1)
    clipped = mixed * np.minimum(1, np.median(norms) / norms)[:, np.newaxis]
    np.testing.assert_allclose(
        rule(updates), clipped[members].mean(axis=0), atol=1e-6
    )


def test_equal_cosines_of_unequal_norms_are_links_of_one_length():
  # Four directions of pairwise cosine 1/2, whatever their lengths.
  directions = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], np.float64)
  for scales in ([1, 3, 7], [0.1, 1e-3, 5], [1e6, 1.7, 0.3]):
    updates = np.array(scales)[:, np.newaxis] * directions
    found = rules.flame(noise_multiplier=0).measure(updates)[1]['weights'] > 0
    np.testing.assert_array_equal(found, [True] * 3)
