"""A little is enough."""

import statistics

import numpy as np
import pytest

from fedaot_tff.attacks import alie
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'num_clients, num_attackers, probability',
    [
        # s = floor(51) - 24 = 2 and 5 + 1 - 2 = 4.
        (50, 24, 24 / 26),
        (10, 2, 4 / 8),
        (11, 3, 5 / 8),
        # A majority: one supporter.
        (10, 7, 2 / 3),
    ],
)
def test_z_is_a_quantile_of_the_normal_distribution(
    num_clients, num_attackers, probability
):
  z = alie.largest_unnoticed_z(num_clients - num_attackers, num_attackers)
  expected = statistics.NormalDist().inv_cdf(probability)
  assert float(z) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    'num_honest, num_attackers', [(9, 1), (1, 0), (1, 5), (0, 0), (0, 5)]
)
def test_z_is_clipped_where_the_formula_gives_no_number_above_zero(
    num_honest, num_attackers
):
  assert float(alie.largest_unnoticed_z(num_honest, num_attackers)) == 0


def test_by_default_z_follows_the_round():
  rows = hand_made.updates(6, 3)
  vector, _ = hand_made.agree(alie.Alie(), rows, num_attackers=4)
  z = statistics.NormalDist().inv_cdf(4 / 6)
  np.testing.assert_allclose(
      vector, rows.mean(axis=0) - z * rows.std(axis=0), rtol=1e-5
  )
