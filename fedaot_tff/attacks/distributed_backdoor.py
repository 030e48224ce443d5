"""Distributed backdoor: each attacker trains with a part of the trigger."""

from typing import Sequence

import numpy as np

from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import checks


class DistributedBackdoor(backdoor.Backdoor):
  """A `Backdoor` whose attackers share the pixels of the trigger.

  The trigger is cut into `num_parts` runs of pixels, taken row by row, whose
  lengths differ by at most one; with the default options each is a row. The
  attacker with index i trains with part i mod `num_parts`. Success is measured
  with the whole trigger, which no attacker ever used unless there is one part.

  Knowledge: the attackers' own data, and their numbers among the attackers.
  Source: Xie, Huang, Chen and Li, "DBA: Distributed Backdoor Attacks against
  Federated Learning", ICLR 2020. There the parts are separate bars with gaps;
  the updates are scaled as well, for which a boost can be added.
  """

  def __init__(
      self,
      *,
      target: int = 0,
      fraction: float = 0.5,
      size: int = 4,
      value: float = 1.0,
      num_parts: int = 4,
  ):
    """Initializes `DistributedBackdoor`.

    Args:
      target: The class that the attackers want.
      fraction: The fraction of an attacker's examples, in (0, 1].
      size: The side of the square in pixels.
      value: What its pixels become, in the units of the features.
      num_parts: Into how many parts the trigger is cut; at most `size**2`.

    Raises:
      TypeError: If an option is of the wrong kind.
      ValueError: If an option is not allowed.
    """
    super().__init__(target=target, fraction=fraction, size=size, value=value)
    self._num_parts = checks.check_int('num_parts', num_parts, minimum=1)
    if self._num_parts > self._size**2:
      raise ValueError(
          'num_parts must be at most the pixels of the trigger,'
          f' {self._size**2}; found {num_parts}.'
      )

  def _training_trigger(
      self, shape: Sequence[int], attacker_index: int
  ) -> np.ndarray:
    """See `Backdoor._training_trigger`."""
    pixels = backdoor.trigger_pixels(shape, self._size)
    # Outside the trigger, where the number is negative, this is no part.
    part = pixels * self._num_parts // self._size**2
    return part == attacker_index % self._num_parts
