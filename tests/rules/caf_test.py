"""Tests of CAF against eigenvectors of the covariance matrix itself."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference(updates, f, over_all=False):
  """The filter in d dimensions: the aggregate, its weights and variance."""
  x = np.float64(updates)
  n = len(x)
  c, best, least = np.ones([n]), None, np.inf
  while best is None or c.sum() > n - 2 * f:
    mean = c @ x / c.sum()
    covariance = (c[:, None] * (x - mean)).T @ (x - mean) / c.sum()
    values, vectors = np.linalg.eigh(covariance)
    if values[-1] < least:
      best, least = c / c.sum(), values[-1]
    tau = ((x - mean) @ vectors[:, -1]) ** 2
    c = c * (1 - tau / tau[(c > 0) | over_all].max())
    c[c < 0] = 0
  return best @ x, best, least


def test_by_hand():
  # The mean of 0, 1, 2 and 9 is 3, t is 9, 4, 1 and 36: weights 3/4, 8/9, 35/36
  # and 0, of the sum 47/18 > 2. Next the mean is 51/47, and 0 goes.
  updates = np.array([[0.0], [1.0], [2.0], [9.0]])
  result, measured = rules.caf(1).measure(updates)
  weights = np.array([27, 32, 35, 0]) / 94
  np.testing.assert_allclose(measured['weights'], weights)
  np.testing.assert_allclose(result, [102 / 94])
  variance = weights @ (updates[:, 0] - 102 / 94) ** 2
  np.testing.assert_allclose(measured['top_variance'], variance)
  # Nothing is filtered for f = 0.
  np.testing.assert_allclose(rules.caf(0)(updates), [3.0])


@pytest.mark.parametrize('n, f', [(2, 0), (5, 1), (10, 3), (20, 9), (25, 12)])
@pytest.mark.parametrize('d', [1, 4, 60])
def test_matches_the_filter_in_all_dimensions(n, f, d):
  for seed in range(3):
    updates = tables.random_updates(n, d, seed=100 * n + seed)
    updates[: f // 2] += 5
    expected, weights, variance = _reference(updates, f)
    result, measured = rules.caf(f).measure(updates.astype(np.float64))
    np.testing.assert_allclose(measured['weights'], weights, atol=1e-9)
    np.testing.assert_allclose(result, expected, atol=1e-9)
    np.testing.assert_allclose(measured['top_variance'], variance, atol=1e-9)


@pytest.mark.parametrize('n, f', [(4, 2), (7, 2**31 - 1)])
def test_without_a_majority_the_largest_minority_is_filtered(n, f):
  updates = tables.random_updates(n)
  result, measured = rules.caf(f).measure(updates)
  assert measured['cohort_too_small']
  np.testing.assert_array_equal(result, rules.caf((n - 1) // 2)(updates))


def test_far_minority_has_no_weight():
  honest = tables.random_updates(7, 30)
  updates = np.concatenate([honest, honest[:6] + 100])
  result, measured = rules.caf(6).measure(updates)
  assert measured['weights'][7:].sum() < 1e-6
  assert np.linalg.norm(result) < np.linalg.norm(honest, axis=1).max()


def test_differs_from_byzfl_in_whom_the_maximum_is_over_alone():
  """Recorded outputs of `byzfl.CAF(f)`, ByzFL 0.0.11.

  Its maximum is over updates without weight, too, so that after a far one is
  filtered each step takes next to nothing from others, and it does not end. The
  one random step of its power method is exact in one dimension.
  """
  updates = tables.RECORDED[:, :1]
  for f, expected in (
      (1, 0.537656369329),
      (2, 0.573626394235),
      (3, 0.817642073089),
  ):
    np.testing.assert_allclose(_reference(updates, f, True)[0], [expected])
    np.testing.assert_allclose(rules.caf(f)(updates), _reference(updates, f)[0])
