"""Tests of minimum diameter averaging against trying every subset."""

import itertools

import numpy as np
import pytest

from fedaot import namespace
from fedaot import rules
from fedaot.rules.minimum_diameter_averaging import tightest_subset
from tests.rules import tables

# Of the module, whose name in the package is the rule's.
_GLOBALS = tightest_subset.__globals__


def _check(updates, f):
  """Checks the subset against all of its size."""
  updates = np.asarray(updates)
  n = len(updates)
  num_selected = n - min(f, (n - 1) // 2)
  distances = tables.squared_distances(updates)
  diameters = {
      subset: distances[np.ix_(subset, subset)].max()
      for subset in itertools.combinations(range(n), num_selected)
  }
  result, measured = rules.minimum_diameter_averaging(f).measure(updates)
  subset = tuple(np.flatnonzero(measured['weights']))
  assert diameters[subset] <= min(diameters.values()) * (1 + 1e-9)
  np.testing.assert_allclose(
      result, updates[list(subset)].mean(axis=0), atol=1e-5
  )
  assert measured['is_exact']
  assert measured['cohort_too_small'] == (n <= 2 * f)


def test_by_hand():
  # On a line, the tightest three of five are 4, 6 and 7, the tightest four 1,
  # 4, 6 and 7.
  updates = np.array([[6.0], [1.0], [40.0], [4.0], [7.0]])
  for f, expected in ((2, 17 / 3), (1, 4.5), (0, 11.6)):
    result = rules.minimum_diameter_averaging(f)(updates)
    np.testing.assert_allclose(result, [expected])


def test_differs_from_the_nearest_neighbors_of_one_update():
  # The second of three in a row has two neighbors at distance 1, which are 2
  # apart; the third makes a triangle of side 1.2 with the last two.
  x = 1 + 0.6 * 3**0.5
  updates = np.array([[-1, 0], [0, 0], [1, 0], [x, 0.6], [x, -0.6]])
  measured = rules.minimum_diameter_averaging(2).measure(updates)[1]
  np.testing.assert_array_equal(np.flatnonzero(measured['weights']), [2, 3, 4])


@pytest.mark.parametrize('d', [1, 2, 3, 20])
@pytest.mark.parametrize(
    'n, f',
    [(1, 0), (2, 0), (2, 1), (3, 1), (7, 1), (8, 3), (9, 4), (10, 0), (11, 5)]
    + [(5, 3), (6, 2**31 - 1)],
)
def test_matches_trying_every_subset(n, f, d):
  for seed in range(3):
    _check(tables.random_updates(n, d, seed=10 * n + seed), f)


@pytest.mark.parametrize('seed', range(5))
def test_ties(seed):
  """Updates on a small grid: many equal distances and updates."""
  updates = np.random.default_rng(seed).integers(0, 3, size=[9, 2])
  for f in (0, 2, 4):
    _check(updates.astype(np.float32), f)


def test_as_many_are_selected_as_asked_for_among_duplicates():
  updates = np.array([[2.0]] + [[1.0]] * 5 + [[2.0]])
  measured = rules.minimum_diameter_averaging(3).measure(updates)[1]
  np.testing.assert_allclose(measured['weights'], [0] + [0.25] * 4 + [0] * 2)


@pytest.mark.parametrize('max_candidates', [1, 8192])
def test_a_search_that_drops_candidates_says_so(max_candidates, monkeypatch):
  monkeypatch.setitem(_GLOBALS, '_MAX_CANDIDATES', max_candidates)
  # Five groups of three: distance 3 in a group, 2 between groups. A diameter of
  # 2 leaves one a group, so that no 7 keep to it, but to leave 8 out, each of
  # which ends two of the 15 larger distances, may seem enough.
  group = np.arange(15) // 3
  distances = np.where(group == group[:, np.newaxis], 9.0, 4.0)
  np.fill_diagonal(distances, 0.0)
  is_selected, is_exact = tightest_subset(distances, 7, namespace.NUMPY)
  assert np.sum(is_selected) == 7
  assert is_exact == (max_candidates > 1)


def test_dropped_candidates_at_most_double_the_diameter(monkeypatch):
  updates = tables.random_updates(11, d=2, seed=1)
  distances = tables.squared_distances(updates)

  def diameter():
    measured = rules.minimum_diameter_averaging(5).measure(updates)[1]
    selected = measured['weights'] > 0
    assert selected.sum() == 6
    return distances[selected][:, selected].max() ** 0.5, measured['is_exact']

  smallest, _ = diameter()
  monkeypatch.setitem(_GLOBALS, '_MAX_CANDIDATES', 0)
  larger, is_exact = diameter()
  assert not is_exact
  assert smallest * (1 + 1e-9) < larger <= 2 * smallest


@pytest.mark.parametrize('offset', [0.0, 100.0])
def test_finds_a_hidden_group_in_a_large_cohort(offset):
  """60 clients of which 18 attack: there are 9e14 subsets."""
  rng = np.random.default_rng(0)
  # Honest updates are the corners of a simplex of side 1. Each attacker is at
  # distance 0.2 from one of them, but at more than 1.05 from all others.
  honest = np.eye(42, 60) / np.sqrt(2)
  attackers = honest[rng.permutation(42)[:18]] * 1.1
  attackers[:, 42:] = 0.2 * np.eye(18)
  order = rng.permutation(60)
  updates = np.concatenate([honest, attackers])[order] + offset
  measured = rules.minimum_diameter_averaging(18).measure(updates)[1]
  assert measured['is_exact']
  np.testing.assert_array_equal(
      np.flatnonzero(measured['weights']), np.flatnonzero(order < 42)
  )
