"""A little is enough: a shift within the spread of the honest updates."""

from typing import Any, Optional

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack


def shifted_mean(moments: attack.HonestMoments, z: Any) -> tf.Tensor:
  """The mean of the honest updates minus z standard deviations."""
  return moments.mean - z * moments.stddev


def largest_unnoticed_z(
    num_honest: tf.Tensor, num_attackers: tf.Tensor
) -> tf.Tensor:
  """How many standard deviations the attackers can be off unnoticed.

  With n clients, f of them attackers, these need s = floor(n / 2 + 1) - f
  honest supporters for a majority. z is the quantile of the standard normal
  distribution at (n - f - s) / (n - f), beyond which s of the n - f honest
  values are to be expected. Where the formula leaves it open, z is clipped: a
  majority of attackers counts as needing one supporter, and z is never below 0,
  which the formula gives where f is small against n.
  """
  num_clients = num_honest + num_attackers
  supporters = tf.maximum(num_clients // 2 + 1 - num_attackers, 1)
  probability = tf.math.divide_no_nan(
      tf.cast(num_honest - supporters, tf.float64),
      tf.cast(num_honest, tf.float64),
  )
  # Below one half z would be negative, and at 0 not finite.
  z = tf.math.ndtri(tf.maximum(probability, 0.5))
  return tf.cast(z, tf.float32)


class Alie(attack.CollusivePoisoning):
  """Sends mean minus z standard deviations of the honest updates.

  Closer to the mean than many honest updates, it yet adds up. z is any number,
  by default `largest_unnoticed_z` of the round.

  Knowledge: mean and standard deviation of the honest updates, n and f. Source:
  Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing Defenses For
  Distributed Learning", NeurIPS 2019.
  """

  def __init__(self, *, z: Optional[float] = None):
    self._z = None if z is None else checks.check_number('z', z)

  def agree(self, knowledge, state):
    z = self._z
    if z is None:
      z = largest_unnoticed_z(knowledge.num_honest, knowledge.num_attackers)
    return shifted_mean(knowledge.honest, z), state
