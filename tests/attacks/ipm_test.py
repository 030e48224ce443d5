"""Inner product manipulation."""

import numpy as np
import pytest

from fedaot_tff.attacks import ipm
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'options, epsilon', [({}, 2.0), ({'epsilon': 0.5}, 0.5)]
)
def test_sends_the_mean_reversed(options, epsilon):
  vector, state = hand_made.agree(ipm.Ipm(**options), [[1, 5], [3, -1]])
  np.testing.assert_allclose(vector, [-2 * epsilon, -2 * epsilon])
  assert state == ()


def test_the_default_reverses_the_mean_at_40_percent():
  rows = hand_made.updates(6, 5)
  vector, _ = hand_made.agree(ipm.Ipm(), rows)
  mean = np.concatenate([rows, np.tile(vector, [4, 1])]).mean(axis=0)
  np.testing.assert_allclose(mean, -0.2 * rows.mean(axis=0), rtol=1e-4)
