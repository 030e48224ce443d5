"""Gaussian noise in place of updates."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import gaussian_noise
from tests.attacks import hand_made

_UPDATE = np.linspace(-1, 3, 20_000).astype(np.float32)


@pytest.mark.parametrize(
    'options, stddev',
    [
        ({}, 100 * np.sqrt(np.mean(_UPDATE**2))),
        ({'scale': 0.5}, 0.5 * np.sqrt(np.mean(_UPDATE**2))),
        ({'scale': 0.5, 'stddev': 200.0}, 200.0),
    ],
)
def test_sends_normal_noise_of_the_given_strength(options, stddev):
  sent = gaussian_noise.GaussianNoise(**options).poison(
      tf.constant(_UPDATE), hand_made.attacker()
  ).numpy()
  assert sent.dtype == np.float32
  standard = sent / stddev
  # Five standard errors each.
  assert abs(np.mean(standard)) < 0.036
  assert np.std(standard) == pytest.approx(1, abs=0.025)
  assert np.mean(np.abs(standard) < 1) == pytest.approx(0.6827, abs=0.017)
  assert abs(np.corrcoef(sent, _UPDATE)[0, 1]) < 0.036


def test_seeds_fix_the_noise():
  poisoning = gaussian_noise.GaussianNoise()
  update = tf.constant(_UPDATE[:10])
  first, again, other = (
      poisoning.poison(update, hand_made.attacker(seed=seed)).numpy()
      for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, again)
  assert np.all(first != other)


def test_noise_like_zero_is_zero():
  noise = gaussian_noise.noise_like(tf.zeros([3]), 10.0, [1, 2])
  np.testing.assert_array_equal(noise, [0, 0, 0])


@pytest.mark.parametrize(
    'options, message',
    [({'scale': 0}, 'scale must'), ({'stddev': -1.0}, 'stddev must')],
)
def test_refuses_wrong_options(options, message):
  with pytest.raises(ValueError, match=message):
    gaussian_noise.GaussianNoise(**options)
