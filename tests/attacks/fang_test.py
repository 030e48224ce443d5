"""Attacks on coordinate-wise rules and on Krum."""

import numpy as np
import pytest

from fedaot_tff.attacks import fang
from tests.attacks import hand_made

# --- Trimmed mean and median -------------------------------------------------


@pytest.mark.parametrize('factor', [2.0, 5.0])
def test_draws_between_the_extreme_and_factor_times_it(factor):
  # A mean above zero: below the smallest, which is above, then below zero. A
  # mean below zero: above the largest.
  rows = np.array([[1, 9, -9, -1], [2, -2, 2, -4]], np.float32)
  rows = np.repeat(rows, 500, axis=1)
  vector, state = hand_made.agree(fang.FangTrimmedMean(factor=factor), rows)
  for found, (near, far) in zip(
      np.reshape(vector, [4, 500]),
      [(1, 1 / factor), (-2, -2 * factor), (2, 2 * factor), (-1, -1 / factor)],
  ):
    way = (found - near) / (far - near)
    assert np.all((way >= 0) & (way <= 1))
    assert np.mean(way) == pytest.approx(0.5, abs=0.07)
    assert np.std(way) == pytest.approx(12**-0.5, abs=0.03)
  assert state == ()


# --- Krum --------------------------------------------------------------------


def _krum_scores(rows, num_neighbors):
  """In NumPy, by differences."""
  rows = np.float64(rows)
  squares = ((rows[:, np.newaxis] - rows) ** 2).sum(axis=2)
  return np.sort(squares, axis=1)[:, 1 : 1 + num_neighbors].sum(axis=1)


def _bound(rows, num_attackers):
  """The upper bound of lambda in NumPy."""
  h, d = rows.shape
  scores = _krum_scores(rows, max(h - 2, 1))
  return np.sqrt(scores.min() / max(h - num_attackers - 1, 1) / d) + np.sqrt(
      (np.float64(rows) ** 2).sum(axis=1).max() / d
  )


def _selects(rows, vector, num_attackers):
  """Whether Krum takes the vector in a cohort with copies of it at the end."""
  cohort = np.concatenate([rows, np.tile(vector, [num_attackers, 1])])
  return np.argmin(_krum_scores(cohort, max(len(rows) - 2, 1))) >= len(rows)


@pytest.mark.parametrize('num_attackers', [2, 4])
@pytest.mark.parametrize('seed', range(3))
def test_krum_takes_the_first_of_the_halved_steps_it_can(num_attackers, seed):
  rows = hand_made.updates(7, 30, seed=seed)
  vector, state = hand_made.agree(
      fang.FangKrum(), rows, num_attackers=num_attackers
  )
  assert _selects(rows, vector, num_attackers)
  steps = -vector / np.sign(rows.mean(axis=0))
  np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
  halvings = np.log2(_bound(rows, num_attackers) / steps[0])
  assert halvings == pytest.approx(round(halvings), abs=1e-5)
  assert halvings > 0.5
  assert not _selects(rows, 2 * vector, num_attackers)
  assert state == ()


def test_krum_takes_a_majority_at_any_step():
  # n - 2 f - 1 and n - f - 2 count as 1.
  rows = hand_made.updates(3, 4)
  vector, _ = hand_made.agree(fang.FangKrum(), rows, num_attackers=5)
  assert _selects(rows, vector, 5)
  np.testing.assert_allclose(np.abs(vector), _bound(rows, 5), rtol=1e-5)


@pytest.mark.parametrize('num_attackers', [2, 5, 6, 8])
@pytest.mark.parametrize('columns', [slice(1), slice(9), slice(None, None, 2)])
def test_krum_takes_the_same_beside_an_offset_of_1e9(columns, num_attackers):
  rows = hand_made.updates(7, 30)
  rows[:, columns] = 2.0**30
  signs, step = np.sign(rows.mean(axis=0)), _bound(rows, num_attackers)
  while step >= 1e-5 and not _selects(rows, -step * signs, num_attackers):
    step /= 2
  vector, _ = hand_made.agree(
      fang.FangKrum(), rows, num_attackers=num_attackers
  )
  np.testing.assert_allclose(vector, -step * signs, rtol=1e-6)
