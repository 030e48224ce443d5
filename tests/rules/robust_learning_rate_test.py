"""Tests of the robust learning rate."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference(updates, threshold):
  result = []
  for values in np.float64(updates).T:
    votes = sum(1 if v > 0 else -1 if v < 0 else 0 for v in values)
    result.append(np.mean(values) * (1 if abs(votes) >= threshold else -1))
  return result


def test_by_hand():
  # Votes 3, 1, -3 and 0.
  updates = np.array([[1.0, 9, -2, 0], [2, 1, -3, 4], [3, -1, -1, -1]])
  np.testing.assert_allclose(
      rules.robust_learning_rate(0, threshold=2)(updates), [2, -3, -2, -1]
  )
  # theta = f + 1 = 1.
  result, measured = rules.robust_learning_rate(0).measure(updates)
  np.testing.assert_allclose(result, [2, 3, -2, -1])
  assert measured['num_byzantine'] == 0 and not measured['cohort_too_small']


@pytest.mark.parametrize('n, f', [(1, 0), (8, 1), (9, 2), (20, 6)])
def test_matches_votes(n, f):
  updates = np.round(tables.random_updates(n, 50, seed=n), 1) + 0.2
  for threshold in (None, 1, f + 2):
    rule = rules.robust_learning_rate(f, threshold=threshold)
    np.testing.assert_allclose(
        rule(updates),
        _reference(updates, min(threshold or f + 1, n)),
        atol=1e-6,
    )


def test_attackers_alone_are_driven_away_from():
  # Honest clients have nothing to say of the last coordinate.
  honest = np.array([[1.0, 1e-9], [1, -1e-9]] * 4)
  updates = np.concatenate([honest, [[1.0, 5.0]] * 2])
  result = rules.robust_learning_rate(2)(updates)
  np.testing.assert_allclose(result, [1, -1])


@pytest.mark.parametrize('options', [{}, {'threshold': 5}])
def test_threshold_is_the_cohort_at_most(options):
  updates = np.array([[1.0, 2.0], [3.0, -2.0]])
  result, measured = rules.robust_learning_rate(3, **options).measure(updates)
  np.testing.assert_allclose(result, [2, 0])
  assert measured['cohort_too_small']


@pytest.mark.parametrize(
    'threshold, error', [(0, ValueError), (1.5, TypeError)]
)
def test_refuses_a_wrong_threshold(threshold, error):
  with pytest.raises(error, match=f'threshold .*found {threshold}'):
    rules.robust_learning_rate(1, threshold=threshold)
