"""Tests of the mean around the median."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference(updates, f):
  """Sorts every coordinate by the distance to its median."""
  result = []
  for values in np.float64(updates).T:
    median = np.median(values)
    closest = sorted(values, key=lambda x: (abs(x - median), x))
    result.append(np.mean(closest[: len(values) - f]))
  return result


def test_by_hand():
  # Medians 3 and 0; 100 and -9 are the farthest.
  updates = np.array([[1.0, -9], [2, -1], [3, 0], [4, 1], [100, 2]])
  result, measured = rules.meamed(1).measure(updates)
  np.testing.assert_allclose(result, [2.5, 0.5])
  assert measured['num_byzantine'] == 1 and not measured['cohort_too_small']
  np.testing.assert_allclose(rules.meamed(0)(updates), updates.mean(axis=0))


@pytest.mark.parametrize('n, f', [(1, 0), (2, 0), (3, 1), (10, 2), (21, 10)])
def test_matches_the_reference(n, f):
  updates = tables.random_updates(n, 40, seed=n)
  np.testing.assert_allclose(
      rules.meamed(f)(updates), _reference(updates, f), atol=1e-6
  )


@pytest.mark.parametrize('n, f', [(4, 2), (5, 4), (3, 2**31 - 1)])
def test_without_a_majority_the_largest_minority_is_left_out(n, f):
  updates = tables.random_updates(n)
  result, measured = rules.meamed(f).measure(updates)
  assert measured['cohort_too_small']
  np.testing.assert_allclose(
      result, _reference(updates, (n - 1) // 2), atol=1e-6
  )


def test_equals_byzfl():
  """Recorded outputs of `byzfl.Meamed(f)`, ByzFL 0.0.11."""
  for f, expected in (
      (1, [0.466666666667, 0.316666666667, 0.033333333333]),
      (2, [0.82, 0.62, 0.42]),
      (3, [0.4, 0.375, 0.7]),
  ):
    np.testing.assert_allclose(rules.meamed(f)(tables.RECORDED), expected)
