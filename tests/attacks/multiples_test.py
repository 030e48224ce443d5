"""Multiples of the attacker's own update."""

import numpy as np
import pytest

from fedaot_tff.attacks import multiples
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'poisoning, factor',
    [
        (multiples.SignFlip(), -3),
        (multiples.SignFlip(scale=0.5), -0.5),
        (multiples.Scaling(), 10),
        (multiples.Scaling(factor=0.5), 0.5),
        # Of 5 clients 2 attack.
        (multiples.ModelReplacement(), 2.5),
        (multiples.ModelReplacement(boost=4), 4),
        (multiples.Zero(), 0),
    ],
)
def test_sends_a_multiple_of_the_update(poisoning, factor):
  update = np.array([1.5, -2.25, 0.0], np.float32)
  sent = hand_made.poison(poisoning, update)
  np.testing.assert_array_equal(sent, factor * update)


def test_the_mean_becomes_the_mean_of_the_attackers():
  own = hand_made.updates(2, 3)
  sent = [hand_made.poison(multiples.ModelReplacement(), u) for u in own]
  cohort = np.concatenate([sent, np.zeros([3, 3])])
  np.testing.assert_allclose(cohort.mean(axis=0), own.mean(axis=0), rtol=1e-6)


def test_sends_zeros_even_for_a_non_finite_update():
  sent = hand_made.poison(multiples.Zero(), [1.0, np.nan, -np.inf])
  np.testing.assert_array_equal(sent, np.zeros(3))
