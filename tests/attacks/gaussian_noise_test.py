"""Gaussian noise in place of updates."""

import numpy as np
import pytest

from fedaot_tff.attacks import gaussian_noise
from tests.attacks import hand_made

_UPDATE = np.linspace(-1, 3, 20_000).astype(np.float32)
_RMS = np.sqrt(np.mean(_UPDATE**2))


@pytest.mark.parametrize(
    'options, stddev',
    [
        ({}, 100 * _RMS),
        ({'scale': 0.5}, 0.5 * _RMS),
        ({'scale': 0.5, 'stddev': 200.0}, 200.0),
    ],
)
def test_sends_normal_noise_of_the_given_strength(options, stddev):
  sent = hand_made.poison(gaussian_noise.GaussianNoise(**options), _UPDATE)
  standard = sent / stddev
  # Five standard errors each.
  assert abs(np.mean(standard)) < 0.036
  assert np.std(standard) == pytest.approx(1, abs=0.025)
  assert np.mean(np.abs(standard) < 1) == pytest.approx(0.6827, abs=0.017)
  assert abs(np.corrcoef(sent, _UPDATE)[0, 1]) < 0.036
