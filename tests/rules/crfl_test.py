"""Tests of CRFL's clipping and noise."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def test_by_hand():
  # Norms 1, 5 and 8.5; the mean (2, 4) is as long as the root of 20.
  updates = np.array([[0.0, 1.0], [0.0, 5.0], [6.0, 6.0], [np.nan, 0.0]])
  rule = rules.crfl(noise_multiplier=0)
  result, measured = rule.measure(updates)
  np.testing.assert_allclose(result, [2, 4])
  np.testing.assert_allclose(measured['mean_norm'], np.sqrt(20))
  assert measured['norm_bound'] == 5 and measured['num_non_finite'] == 1
  result, measured = rules.crfl(norm_bound=2, noise_multiplier=0).measure(
      updates
  )
  np.testing.assert_allclose(result, [2 / np.sqrt(5), 4 / np.sqrt(5)])
  np.testing.assert_allclose(
      measured['weights'], [2 / np.sqrt(20) / 3] * 3 + [0]
  )


@pytest.mark.parametrize('n', [1, 2, 9])
def test_matches_the_formula(n):
  updates = np.float64(tables.random_updates(n, d=30, seed=n))
  mean = updates.mean(axis=0)
  for bound in (None, 0.1, 100.0):
    rho = bound or np.median(np.linalg.norm(updates, axis=1))
    expected = mean / max(1, np.linalg.norm(mean) / rho)
    rule = rules.crfl(norm_bound=bound, noise_multiplier=0)
    np.testing.assert_allclose(rule(updates), expected, rtol=1e-9)


def test_far_client_decides_the_direction_but_not_the_norm():
  updates = np.float64(tables.random_updates(9))
  updates[0] = 1e9
  result, measured = rules.crfl(noise_multiplier=0).measure(updates)
  np.testing.assert_allclose(np.linalg.norm(result), measured['norm_bound'])
  np.testing.assert_allclose(result, result[0], rtol=1e-6)


def test_noise_is_a_multiple_of_the_bound():
  updates = np.tile(tables.random_updates(1, d=20000), [3, 1])
  for bound in (None, 1000.0):
    rule = rules.crfl(norm_bound=bound, noise_multiplier=0.5, seed=1)
    noise = rule(updates) - updates[0]
    expected = 0.5 * (bound or np.linalg.norm(updates[0]))
    np.testing.assert_allclose(noise.std(), expected, rtol=0.03)
    assert abs(noise.mean()) < 0.05 * expected


@pytest.mark.parametrize('option', ['norm_bound', 'noise_multiplier'])
def test_refuses_wrong_options(option):
  with pytest.raises(ValueError, match=f'{option} .*found -1'):
    rules.crfl(**{option: -1})
