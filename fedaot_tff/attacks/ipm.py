"""Inner product manipulation: the attackers send the honest mean reversed."""

from typing import Any

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack


def reversed_mean(moments: attack.HonestMoments, epsilon: Any) -> tf.Tensor:
  """-epsilon times the mean of the honest updates."""
  return -epsilon * moments.mean


class Ipm(attack.CollusivePoisoning):
  """Sends the honest mean times -epsilon, with epsilon > 0.

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
    self._epsilon = checks.check_number('epsilon', epsilon, above=0)

  def agree(self, knowledge, state):
    return reversed_mean(knowledge.honest, self._epsilon), state
