"""Sign flipping: the attackers send their update reversed and enlarged."""

import math
from typing import Any

import tensorflow as tf

from fedaot_tff.attacks import attack


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
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
      raise TypeError(f'scale must be a number; found {scale!r}.')
    if not (scale > 0 and math.isfinite(scale)):
      raise ValueError(f'scale must be positive and finite; found {scale!r}.')

    def poison(update: Any) -> Any:
      return tf.nest.map_structure(
          lambda t: t * tf.cast(-scale, t.dtype), update
      )

    super().__init__(poison)
