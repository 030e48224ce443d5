"""Tests of Bulyan against Krum and sorting by loops."""

import numpy as np
import pytest

from fedaot import namespace
from fedaot import rules
from fedaot.rules.bulyan import mean_around_median
from tests.rules import tables


def _mean(values, num_averaged):
  """The function on float64 columns."""
  table = np.asarray(values, np.float64)
  return mean_around_median(table, num_averaged, namespace.NUMPY)


def _reference_mean(table, num_averaged):
  """The mean of the values closest to the median, the smaller one first."""
  result = []
  for values in np.asarray(table, np.float64).T:
    median = np.median(values)
    closest = sorted(values, key=lambda x: (abs(x - median), x))
    result.append(np.mean(closest[:num_averaged]))
  return result


def _reference(updates, f):
  """Applies Krum to what it has not selected yet, then averages."""
  distances = tables.squared_distances(updates)
  left, selected = list(range(len(updates))), []
  theta = len(updates) - 2 * f
  while len(selected) < theta:
    scores = [
        np.sort(distances[i, left])[1 : 1 + max(len(left) - f - 2, 1)].sum()
        for i in left
    ]
    selected.append(left.pop(int(np.argmin(scores))))
  return _reference_mean(updates[selected], theta - 2 * f), sorted(selected)


def test_mean_around_median_by_hand():
  # The medians are 3 and 0.
  updates = [[1, -9], [2.5, -1], [3, 0], [4, 1], [100, 1]]
  np.testing.assert_allclose(_mean(updates, 1), [3, 0])
  np.testing.assert_allclose(_mean(updates, 3), [9.5 / 3, 0], atol=1e-12)
  np.testing.assert_allclose(_mean(updates, 4), [10.5 / 4, 0.25])
  # The midpoint of 2 and 4 is the median.
  np.testing.assert_allclose(_mean([[4], [2], [9], [1]], 3), [7 / 3])


def test_of_two_values_equally_far_the_smaller_comes_first():
  for num_averaged, expected in enumerate([0, -1, -4 / 3, -0.5, 0], start=1):
    np.testing.assert_allclose(
        _mean([[-2], [2], [0], [-2], [2]], num_averaged), [expected], atol=1e-12
    )


@pytest.mark.parametrize('n, beta', [(1, 1), (2, 2), (7, 3), (8, 4), (30, 10)])
def test_mean_around_median_matches_sorting(n, beta):
  rng = np.random.default_rng(n)
  # Ties on a small grid, and none.
  for table in (rng.normal(size=[n, 60]), rng.integers(0, 5, size=[n, 60])):
    np.testing.assert_allclose(
        _mean(table, beta), _reference_mean(table, beta), atol=1e-12
    )


def test_by_hand():
  # n = 7, f = 1: theta = 5, beta = 3. The far 50 and one of the ends are never
  # selected, so that the mean is of the three in the middle of 0, 1, 2, 3, 4.
  updates = np.array([[50.0], [0.0], [1.0], [2.0], [3.0], [4.0], [9.0]])
  result, measurements = rules.bulyan(1).measure(updates)
  np.testing.assert_allclose(result, [2.0])
  np.testing.assert_array_equal(
      measurements['is_selected'], [0, 1, 1, 1, 1, 1, 0]
  )
  assert not measurements['cohort_too_small']


@pytest.mark.parametrize('n, f', [(7, 1), (11, 2), (15, 3), (23, 5), (9, 0)])
def test_matches_the_reference(n, f):
  for seed in range(5):
    updates = tables.random_updates(n, seed=100 * n + seed)
    expected, selected = _reference(updates, f)
    result, measurements = rules.bulyan(f).measure(updates)
    np.testing.assert_array_equal(
        np.flatnonzero(measurements['is_selected']), selected
    )
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_selection_differs_from_the_best_scores():
  """Krum is applied anew to what is left."""
  differ = 0
  for seed in range(20):
    updates = tables.random_updates(11, seed=seed)
    selected = rules.bulyan(2).measure(updates)[1]['is_selected']
    best = rules.krum(2, num_selected=7).measure(updates)[1]['weights'] > 0
    differ += np.any(selected != best)
  assert differ


@pytest.mark.parametrize(
    'n, f', [(1, 1), (3, 1), (6, 3), (6, 2**31 - 1), (8, 2)]
)
def test_small_cohort_falls_back_to_the_median_of_the_selected(n, f):
  updates = tables.random_updates(n)
  result, measurements = rules.bulyan(f).measure(updates)
  selected = measurements['is_selected']
  assert selected.sum() == max(n - 2 * f, 1)
  np.testing.assert_allclose(
      result, np.median(updates[selected], axis=0), atol=1e-6
  )
  assert measurements['cohort_too_small']


def test_one_client_less_than_needed():
  assert not rules.bulyan(2).measure(np.ones([11, 1]))[1]['cohort_too_small']
  assert rules.bulyan(2).measure(np.ones([10, 1]))[1]['cohort_too_small']


def test_permutation_of_clients():
  updates = tables.random_updates(15)
  np.testing.assert_allclose(
      rules.bulyan(3)(updates[::-1]), rules.bulyan(3)(updates), atol=1e-7
  )
