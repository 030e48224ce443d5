"""Inner product manipulation: the attackers send the honest mean reversed."""

from typing import Any, Tuple

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks


class Ipm(attack.CollusivePoisoning):
  """Sends -epsilon times the mean of the honest updates.

  With f attackers among n clients of equal weight, the mean of all updates is
  (1 - (f / n) (1 + epsilon)) times the honest one. It is reversed if epsilon
  exceeds n / f - 1: 1.5 for 40 % attackers, 4 for 20 %. A small epsilon, below
  1, only shortens the mean, but is harder to tell from honest updates and is
  what the paper turns on Krum.

  Knowledge: the mean of the honest updates. Source: Xie, Koyejo and Gupta,
  "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product
  Manipulation", UAI 2019.
  """

  def __init__(self, *, epsilon: float = 2.0):
    """Initializes `Ipm`.

    Args:
      epsilon: How many times larger than the honest mean; positive. By default
        40 % attackers turn the mean into -0.2 times the honest one.

    Raises:
      TypeError: If `epsilon` is not a number.
      ValueError: If it is not positive and finite.
    """
    self._epsilon = checks.check_positive('epsilon', epsilon)

  def agree(
      self, knowledge: attack.Knowledge, state: Any
  ) -> Tuple[tf.Tensor, Any]:
    """See `CollusivePoisoning.agree`."""
    return -self._epsilon * knowledge.honest.mean, state
