"""Tests of FoolsGold against the paper's algorithm by loops."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference_rates(updates, confidence):
  units = updates / np.linalg.norm(updates, axis=1, keepdims=True)
  n = len(updates)
  cosines = np.where(np.eye(n), 0, units @ units.T)
  v = np.maximum(cosines.max(axis=1), 0)
  rates = np.array(
      [
          1
          - max(
              cosines[i, j] * (v[i] / v[j] if v[j] > v[i] else 1.0)
              for j in range(n)
          )
          for i in range(n)
      ]
  )
  rates = rates / rates.max()
  with np.errstate(divide='ignore'):
    return np.clip(confidence * (np.log(rates / (1 - rates)) + 0.5), 0, 1)


def test_copies_have_no_weight_by_hand():
  # Row 2 is orthogonal to the others, which are copies up to their length.
  result, measured = rules.foolsgold().measure(
      np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
  )
  np.testing.assert_array_equal(measured['learning_rates'], [0, 0, 1])
  np.testing.assert_array_equal(result, [0.0, 5.0])


def test_pardoning_by_hand():
  # Cosines: 0.6 of rows 0 and 1, 0.8 of rows 1 and 2, 0 of rows 0 and 2. Row 0
  # is pardoned by 0.6 / 0.8: 0.45, so that the novelties are 0.55, 0.2 and 0.2.
  measured = rules.foolsgold(confidence=2.0).measure(
      np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
  )[1]
  np.testing.assert_array_equal(measured['learning_rates'], [1, 0, 0])


@pytest.mark.parametrize('n', [2, 3, 8, 9])
@pytest.mark.parametrize('confidence', [1.0, 0.4])
@pytest.mark.parametrize('offset', [0.0, 0.3, 1e4])
def test_matches_loops(n, confidence, offset):
  updates = np.float64(tables.random_updates(n, d=40, seed=n)) + offset
  rates = _reference_rates(updates, confidence)
  result, measured = rules.foolsgold(confidence=confidence).measure(updates)
  np.testing.assert_allclose(measured['learning_rates'], rates, atol=1e-5)
  np.testing.assert_allclose(
      result, rates @ updates / rates.sum(), rtol=1e-6, atol=1e-5
  )


def test_learning_rates_are_in_the_order_of_clients():
  updates = np.array([[np.nan, 0.0], [3.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
  measured = rules.foolsgold().measure(updates)[1]
  np.testing.assert_array_equal(measured['learning_rates'], [0, 0, 0, 1])


def test_if_each_has_a_copy_all_weigh_the_same():
  updates = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
  measured = rules.foolsgold().measure(updates)[1]
  np.testing.assert_allclose(measured['weights'], [0.25] * 4)


def test_zero_updates_resemble_nobody():
  updates = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
  measured = rules.foolsgold().measure(updates)[1]
  np.testing.assert_array_equal(measured['learning_rates'], [1, 1, 0, 0])
