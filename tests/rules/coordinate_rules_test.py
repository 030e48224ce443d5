"""Tests of the median and the trimmed mean against sorting."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def test_median_by_hand():
  updates = np.array([[1.0, -7.0], [9.0, 3.0], [2.0, 5.0], [4.0, 1.0]])
  np.testing.assert_array_equal(rules.coordinate_median()(updates), [3.0, 2.0])
  np.testing.assert_array_equal(
      rules.coordinate_median()(updates[:3]), [2.0, 3.0]
  )


def test_median_of_large_numbers_in_half_precision():
  updates = np.float16([[60000.0], [62000.0]])
  assert rules.coordinate_median()(updates) == np.float16(61000)


@pytest.mark.parametrize('n', [1, 2, 7, 8, 101])
def test_median_matches_numpy(n):
  updates = tables.random_updates(n, d=33, seed=n)
  np.testing.assert_array_equal(
      rules.coordinate_median()(updates), np.median(updates, axis=0)
  )


def test_trimmed_mean_by_hand():
  updates = np.array(
      [[1.0, -7.0], [9.0, 3.0], [2.0, 5.0], [4.0, 1.0], [3.0, 90.0]]
  )
  for f, expected in ((0, [3.8, 18.4]), (1, [3.0, 3.0]), (2, [3.0, 3.0])):
    np.testing.assert_allclose(rules.trimmed_mean(f)(updates), expected)
  np.testing.assert_allclose(rules.trimmed_mean(1)(updates[:4]), [3.0, 2.0])
  # Of equal values as many count as are not dropped.
  ties = np.array([[1.0], [5.0], [1.0], [5.0], [1.0]])
  np.testing.assert_allclose(rules.trimmed_mean(1)(ties), [7 / 3])


@pytest.mark.parametrize(
    'n, f', [(1, 0), (3, 1), (4, 1), (9, 2), (10, 4), (101, 30)]
)
def test_trimmed_mean_matches_sorting(n, f):
  updates = tables.random_updates(n, d=33, seed=n)
  result, measurements = rules.trimmed_mean(f).measure(updates)
  ordered = np.sort(updates.astype(np.float64), axis=0)
  np.testing.assert_allclose(result, ordered[f : n - f].mean(axis=0), atol=1e-7)
  assert not measurements['cohort_too_small']


@pytest.mark.parametrize('n, f', [(2, 1), (5, 3), (6, 3), (6, 2**31 - 1)])
def test_small_cohort_falls_back_to_the_median(n, f):
  updates = tables.random_updates(n)
  result, measurements = rules.trimmed_mean(f).measure(updates)
  np.testing.assert_allclose(result, np.median(updates, axis=0), atol=1e-7)
  assert measurements['cohort_too_small']


@pytest.mark.parametrize('huge', [1e9, 9e14])
def test_what_is_dropped_costs_no_precision(huge):
  updates = np.float32([[2.0], [huge], [3.0], [4.0], [-huge]])
  np.testing.assert_array_equal(rules.trimmed_mean(1)(updates), [3.0])


def test_many_clients_with_a_shared_offset():
  updates = tables.random_updates(1001) + np.float32(1e4)
  exact = np.sort(updates.astype(np.float64), axis=0)[250:751].mean(axis=0)
  np.testing.assert_allclose(rules.trimmed_mean(250)(updates), exact, rtol=1e-7)


@pytest.mark.parametrize(
    'rule', [rules.coordinate_median(), rules.trimmed_mean(4)]
)
def test_minority_cannot_leave_the_honest_range(rule):
  honest = tables.random_updates(9, d=50, seed=1)
  for attack in (9e14, -9e14, 0.7):
    updates = np.concatenate([honest, np.full([4, 50], attack, np.float32)])
    result = rule(updates)
    assert np.all(honest.min(axis=0) <= result)
    assert np.all(result <= honest.max(axis=0))
