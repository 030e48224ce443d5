"""Scaling: the attackers send their updates enlarged."""

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks


class Scaling(attack.OwnUpdatePoisoning):
  """Sends `factor` times the own update.

  The direction is that of an honest client, yet in a mean the attackers' data
  outweigh all others and the step is too long.

  Knowledge: the attacker's own update. Source: the explicit boosting of
  Bhagoji, Chakraborty, Mittal and Calo, "Analyzing Federated Learning through
  an Adversarial Lens", ICML 2019, here without their targeted examples.
  """

  def __init__(self, *, factor: float = 10.0):
    """Initializes `Scaling`.

    Args:
      factor: How many times larger than the attacker's own update; positive.

    Raises:
      TypeError: If `factor` is not a number.
      ValueError: If it is not positive and finite.
    """
    self._factor = checks.check_positive('factor', factor)

  def poison(self, update: tf.Tensor, attacker: attack.Attacker) -> tf.Tensor:
    """See `OwnUpdatePoisoning.poison`."""
    del attacker
    return self._factor * update
