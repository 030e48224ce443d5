"""Min-Max."""

import numpy as np
import pytest

from fedaot_tff.attacks import min_max
from fedaot_tff.attacks import perturbation
from tests.attacks import hand_made


def test_by_hand():
  # The mean is (0, 1) and the largest distance 4. It bounds (0, 1 - g) first at
  # (0, 3), for g = 2.
  rows = [[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]]
  vector, state = min_max.MinMax().agree(hand_made.table_knowledge(rows), ())
  np.testing.assert_allclose(vector, [0.0, -1.0], atol=1e-6)
  assert state == ()


def _largest_distance(rows, vector):
  rows, vector = np.float64(rows), np.float64(vector)
  return np.linalg.norm(rows - vector, axis=1).max()


@pytest.mark.parametrize('direction', perturbation.DIRECTIONS)
@pytest.mark.parametrize('seed', range(3))
def test_goes_just_as_far_as_two_honest_updates_are_apart(direction, seed):
  rows = hand_made.updates(6, 40, seed=seed)
  vector, _ = min_max.MinMax(direction=direction).agree(
      hand_made.table_knowledge(rows), ()
  )
  mean = rows.mean(axis=0)
  bound = max(_largest_distance(rows, row) for row in rows)
  assert _largest_distance(rows, vector) == pytest.approx(bound, rel=1e-5)
  farther = mean + 1.01 * (vector - mean)
  assert _largest_distance(rows, farther) > bound
  line = {
      'unit_vector': -mean,
      'stddev': -rows.std(axis=0),
      'sign': -np.sign(mean),
  }[direction]
  moved = vector.numpy() - mean
  cosine = moved @ line / np.linalg.norm(moved) / np.linalg.norm(line)
  assert cosine == pytest.approx(1, abs=1e-5)
