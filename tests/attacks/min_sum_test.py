"""Min-Sum."""

import numpy as np
import pytest

from fedaot_tff.attacks import min_sum
from fedaot_tff.attacks import perturbation
from tests.attacks import hand_made


def test_by_hand():
  # The mean is (0, 1). Of (2, 0) the squared distances sum to 16 + 13 = 29, of
  # (0, 3) to 26, of the mean to 5 + 5 + 4 = 14, so that 3 g^2 = 15.
  rows = [[2.0, 0.0], [-2.0, 0.0], [0.0, 3.0]]
  vector, state = min_sum.MinSum().agree(hand_made.table_knowledge(rows), ())
  np.testing.assert_allclose(vector, [0.0, 1 - np.sqrt(5)], atol=1e-6)
  assert state == ()


def _sum_of_squares(rows, vector):
  return ((np.float64(rows) - np.float64(vector)) ** 2).sum()


@pytest.mark.parametrize('direction', perturbation.DIRECTIONS)
@pytest.mark.parametrize('seed', range(3))
def test_goes_just_as_far_as_the_farthest_honest_update(direction, seed):
  rows = hand_made.updates(6, 40, seed=seed)
  vector, _ = min_sum.MinSum(direction=direction).agree(
      hand_made.table_knowledge(rows), ()
  )
  mean = rows.mean(axis=0)
  bound = max(_sum_of_squares(rows, row) for row in rows)
  assert _sum_of_squares(rows, vector) == pytest.approx(bound, rel=1e-5)
  assert _sum_of_squares(rows, mean + 1.01 * (vector - mean)) > bound
