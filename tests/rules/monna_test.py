"""Tests of MoNNA."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference(updates, pivot, f):
  distances = np.linalg.norm(np.float64(updates) - pivot, axis=1)
  nearest = np.argsort(distances, kind='stable')[: len(updates) - f]
  return updates[nearest].mean(axis=0)


def test_by_hand():
  # Distances to (1, 0): 1, 1, 3, 9.
  updates = np.array([[0.0, 0.0], [1.0, 1.0], [4.0, 0.0], [10.0, 0.0]])
  result, measured = rules.monna(1).measure(
      updates, reference=np.array([1.0, 0.0])
  )
  np.testing.assert_allclose(result, [5 / 3, 1 / 3])
  np.testing.assert_allclose(measured['weights'], [1 / 3] * 3 + [0])
  # Of the two nearest the first.
  np.testing.assert_array_equal(
      rules.monna(3)(updates, reference=np.array([1.0, 0.0])), [0.0, 0.0]
  )


@pytest.mark.parametrize('n, f', [(1, 0), (7, 0), (10, 3), (11, 8)])
def test_matches_the_formula(n, f):
  updates = tables.random_updates(n, d=30, seed=n)
  for pivot in (updates[0], np.ones([30], np.float32)):
    np.testing.assert_allclose(
        rules.monna(f)(updates, reference=pivot),
        _reference(updates, pivot, f),
        atol=1e-6,
    )


def test_trusted_pivot_withstands_a_majority():
  honest = tables.random_updates(3, 20) * 0.1 + 1
  updates = np.concatenate([-honest, -2 * honest, honest])
  np.testing.assert_allclose(
      rules.monna(6)(updates, reference=np.ones([20])),
      honest.mean(axis=0),
      atol=1e-6,
  )


@pytest.mark.parametrize('f', [3, 2**31 - 1])
def test_nearest_is_left_where_all_may_be_byzantine(f):
  updates = tables.random_updates(3)
  result, measured = rules.monna(f).measure(updates, reference=updates[1])
  np.testing.assert_array_equal(result, updates[1])
  assert measured['cohort_too_small']


def test_pivot_must_be_given():
  with pytest.raises(ValueError, match='reference must be given: .*monna'):
    rules.monna(1)(np.ones([4, 2]))


def test_equals_byzfl():
  """Recorded outputs of `byzfl.MoNNA(f, idx)`, ByzFL 0.0.11."""
  for f, pivot, expected in (
      (1, 0, [0.466666666667, 0.316666666667, 0.033333333333]),
      (2, 3, [0.06, 0.32, 0.42]),
      (3, 6, [2.3, -2.225, 2.55]),
  ):
    np.testing.assert_allclose(
        rules.monna(f)(tables.RECORDED, reference=tables.RECORDED[pivot]),
        expected,
    )
