"""Tests of Krum against explicit pairwise distances."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference_weights(updates, f, m):
  """By loops over pairs, as in the paper."""
  n = len(updates)
  scores = []
  for row in tables.squared_distances(updates):
    scores.append(np.sort(row)[1 : 1 + max(n - f - 2, 1)].sum())
  weights = np.zeros([n])
  weights[np.argsort(scores, kind='stable')[:m]] = 1 / min(m, n)
  return weights


def test_by_hand():
  # Squared distances on a line; f = 1 leaves 5 - 1 - 2 = 2 neighbors:
  # scores 1 + 9, 1 + 4, 4 + 9, 49 + 81, 16 + 49 in the order of the rows.
  updates = np.array([[0.0], [1.0], [3.0], [19.0], [10.0]])
  result, measurements = rules.krum(1).measure(updates)
  np.testing.assert_array_equal(result, [1.0])
  np.testing.assert_array_equal(measurements['weights'], [0, 1, 0, 0, 0])
  assert not measurements['cohort_too_small']
  np.testing.assert_allclose(rules.krum(1, num_selected=3)(updates), [4 / 3])
  # n - f = 4: all but the update of the largest score. At least one is
  # selected, and a NaN lowers n.
  all_but_f = rules.krum(1, num_selected=None)
  np.testing.assert_allclose(all_but_f(updates), [3.5])
  updates[3] = np.nan
  np.testing.assert_allclose(all_but_f(updates), [4 / 3])
  weights = rules.krum(9, num_selected=None).measure(updates)[1]['weights']
  assert np.count_nonzero(weights) == 1


def test_number_of_neighbors_by_hand():
  # The pair at 0 and 0.1 wins with n - f - 2 = 1 neighbor, the middle 10 of the
  # rest with two.
  updates = np.array([[0.0], [0.1], [9.0], [10.0], [11.0]])
  np.testing.assert_array_equal(rules.krum(2)(updates), [0.0])
  np.testing.assert_array_equal(rules.krum(1)(updates), [10.0])


@pytest.mark.parametrize(
    'n, f, m', [(7, 0, 1), (7, 2, 1), (10, 3, 4), (20, 8, 12), (21, 5, 21)]
)
def test_matches_explicit_distances(n, f, m):
  updates = tables.random_updates(n, seed=n + f)
  weights = _reference_weights(updates, f, m)
  result, measurements = rules.krum(f, num_selected=m).measure(updates)
  np.testing.assert_allclose(measurements['weights'], weights)
  np.testing.assert_allclose(result, weights @ updates, atol=1e-6)
  assert not measurements['cohort_too_small']


@pytest.mark.parametrize(
    'n, f, too_small',
    [(3, 0, False), (4, 3, True), (5, 2, False), (5, 3, True), (5, 50, True)],
)
def test_small_cohort_falls_back_to_one_neighbor(n, f, too_small):
  updates = tables.random_updates(n, seed=n)
  updates[0] += 10.0  # Of equal scores the first would win.
  _, measurements = rules.krum(f).measure(updates)
  assert measurements['cohort_too_small'] == too_small
  np.testing.assert_array_equal(
      measurements['weights'], _reference_weights(updates, f, 1)
  )
  # What is not finite makes a cohort small as well.
  lost = np.concatenate([updates, np.full([3, 6], np.nan, np.float32)])
  assert rules.krum(f).measure(lost)[1]['cohort_too_small'] == too_small


def test_more_than_there_are_are_selected():
  updates = tables.random_updates(4)
  result = rules.krum(0, num_selected=9)(updates)
  np.testing.assert_allclose(result, updates.mean(axis=0), atol=1e-7)


def test_copies_are_neighbors_at_distance_zero():
  updates = tables.random_updates(6)
  updates[4:] = updates[1]
  np.testing.assert_array_equal(rules.krum(2)(updates), updates[1])
  # Two each: the first of the best pair wins.
  doubled = np.concatenate([updates[:4], updates[:4]])
  _, measurements = rules.krum(2).measure(doubled)
  np.testing.assert_array_equal(
      measurements['weights'], _reference_weights(doubled, 2, 1)
  )


def test_huge_client_does_not_blur_the_others():
  updates = tables.random_updates(12, d=50)
  expected = rules.krum(3, num_selected=4).measure(updates[1:])[1]['weights']
  updates[0] = 9e14
  weights = rules.krum(4, num_selected=4).measure(updates)[1]['weights']
  np.testing.assert_array_equal(weights[1:], expected)
