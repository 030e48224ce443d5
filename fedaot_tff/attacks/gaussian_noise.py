"""Gaussian noise: the attackers send noise instead of their updates."""

from typing import Optional

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks


def noise_like(
    update: tf.Tensor, scale: float, seed: tf.Tensor
) -> tf.Tensor:
  """Isotropic noise that is about `scale` times as long as an update.

  Args:
    update: Float32 [d].
    scale: The expected squared norm of the noise is `scale**2` times the
      squared norm of the update.
    seed: int32 [2].

  Returns:
    Float32 [d], independent draws of mean 0 and standard deviation
    `scale * ||update|| / sqrt(d)`.
  """
  num_coordinates = tf.cast(tf.size(update), tf.float32)
  stddev = scale * tf.norm(update) / tf.sqrt(num_coordinates)
  return stddev * tf.random.stateless_normal(tf.shape(update), seed)


class GaussianNoise(attack.OwnUpdatePoisoning):
  """Sends noise that has nothing to do with the data.

  The noise is N(0, sigma^2 I), where sigma is either a constant, `stddev`, or
  `scale * ||u|| / sqrt(d)` with the attacker's own update u of d coordinates,
  so that the noise is about `scale` times as long as an update. Each attacker
  draws its own noise in each round.

  Knowledge: the attacker's own update, and that only for its length. Source:
  the Gaussian attackers in the experiments of Blanchard, El Mhamdi, Guerraoui
  and Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
  Descent", NeurIPS 2017, who send `stddev` 200 in place of gradients. The
  default is relative, since the updates of clients are of any length.
  """

  def __init__(self, *, scale: float = 100.0, stddev: Optional[float] = None):
    """Initializes `GaussianNoise`.

    Args:
      scale: How many times longer than the attacker's own update; positive.
      stddev: The standard deviation of each coordinate, positive; `scale` has
        no use then. None (default) goes by `scale`.

    Raises:
      TypeError: If an option is not a number.
      ValueError: If it is not positive and finite.
    """
    self._scale = checks.check_positive('scale', scale)
    if stddev is not None:
      stddev = checks.check_positive('stddev', stddev)
    self._stddev = stddev

  def poison(self, update: tf.Tensor, attacker: attack.Attacker) -> tf.Tensor:
    """See `OwnUpdatePoisoning.poison`."""
    if self._stddev is None:
      return noise_like(update, self._scale, attacker.seed)
    return tf.random.stateless_normal(
        tf.shape(update), attacker.seed, stddev=self._stddev
    )
