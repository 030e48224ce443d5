"""Tests of FLTrust on arrays."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def test_by_hand():
  # Cosines with the root 0.6, 1, -1 and, for the zero update, none.
  updates = np.array([[3.0, 4.0], [10.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
  root = np.array([2.0, 0.0])
  result, measured = rules.fltrust().measure(updates, reference=root)
  np.testing.assert_allclose(measured['trust_scores'], [0.6, 1, 0, 0])
  assert measured['num_trusted'] == 2
  np.testing.assert_allclose(
      result, (0.6 * np.array([1.2, 1.6]) + np.array([2.0, 0.0])) / 1.6
  )


@pytest.mark.parametrize('n', [1, 7, 20])
def test_matches_the_formula(n):
  updates = np.float64(tables.random_updates(n, d=9, seed=n)) + 0.3
  root = np.linspace(0.5, 1.5, 9)
  norms, root_norm = np.linalg.norm(updates, axis=1), np.linalg.norm(root)
  scores = np.maximum(updates @ root / norms / root_norm, 0)
  expected = (scores * root_norm / norms) @ updates / scores.sum()
  np.testing.assert_allclose(
      rules.fltrust()(updates, reference=root), expected, rtol=1e-9
  )


def test_zero_without_trust():
  updates = np.array([[-1.0, 0.0], [0.0, 1.0], [np.nan, 1.0]])
  for root in ([2.0, 0.0], [0.0, 0.0]):
    result, measured = rules.fltrust().measure(
        updates, reference=np.array(root)
    )
    np.testing.assert_array_equal(result, [0.0, 0.0])
    assert measured['num_trusted'] == 0


def test_root_must_be_given():
  for rule in (rules.fltrust(), rules.median_norm_bounding(rules.fltrust())):
    with pytest.raises(ValueError, match='reference must be given: .*fltrust'):
      rule(np.ones([4, 2]))


def test_length_of_updates_does_not_matter():
  updates = np.float64(tables.random_updates(5)) + 0.5
  lengths = np.array([1e-9, 1.0, 3.0, 1e6, 1e12])[:, np.newaxis]
  root = np.ones(6)
  np.testing.assert_allclose(
      rules.fltrust()(lengths * updates, reference=root),
      rules.fltrust()(updates, reference=root),
  )
