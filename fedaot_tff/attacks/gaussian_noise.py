"""Gaussian noise: the attackers send noise instead of their updates."""

from typing import Optional

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors


class GaussianNoise(attack.OwnUpdatePoisoning):
  """Sends draws of N(0, sigma^2 I), new ones each attacker and round.

  sigma is `stddev`, or without it scale ||u|| / sqrt(d), so that the noise is
  `scale` times longer than the attacker's own update u of d coordinates.

  Knowledge: the attacker's own update, and that only for its length. Source:
  the Gaussian attackers in the experiments of Blanchard, El Mhamdi, Guerraoui
  and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
  Descent", NeurIPS 2017, who send sigma = 200 in place of gradients. The
  default is relative, since the updates of clients are of any length.
  """

  def __init__(self, *, scale: float = 100.0, stddev: Optional[float] = None):
    self._scale = checks.check_number('scale', scale, above=0)
    if stddev is not None:
      stddev = checks.check_number('stddev', stddev, above=0)
    self._stddev = stddev

  def poison(self, update, attacker):
    if self._stddev is None:
      return vectors.noise_like(update, self._scale, attacker.seed)
    return tf.random.stateless_normal(
        tf.shape(update), attacker.seed, stddev=self._stddev
    )
