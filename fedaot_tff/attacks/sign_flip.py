"""Sign flipping: the attackers send their update reversed and enlarged."""

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks


class SignFlip(attack.OwnUpdatePoisoning):
  """Sends -scale times the honest update.

  Knowledge: the attacker's own update. Source: Li et al., "RSA:
  Byzantine-Robust Stochastic Aggregation Methods for Distributed Learning from
  Heterogeneous Datasets", AAAI 2019, section 5.2.
  """

  def __init__(self, *, scale: float = 3.0):
    """Initializes `SignFlip`.

    Args:
      scale: How many times larger than the honest update; positive.

    Raises:
      TypeError: If `scale` is not a number.
      ValueError: If it is not positive and finite.
    """
    self._scale = checks.check_positive('scale', scale)

  def poison(self, update: tf.Tensor, attacker: attack.Attacker) -> tf.Tensor:
    """See `OwnUpdatePoisoning.poison`."""
    del attacker
    return -self._scale * update
