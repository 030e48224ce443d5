"""Label swapping: the attackers exchange the labels of pairs of classes."""

from typing import Optional, Tuple

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import examples


class LabelSwap(attack.DataPoisoning):
  """Swaps the labels of two classes, or of all neighbouring classes.

  By default the classes 2k and 2k + 1 change places for each k (if C is odd,
  the last class keeps its label): y becomes y + 1 if it is even and y - 1 if it
  is odd. With `first` and `second` only these two classes do. The attack
  succeeds with a test example of a swapped class that is taken for the other
  one.

  Knowledge: the attackers' own data. It is the attack from a source class to a
  target class of Tolpegin et al., "Data Poisoning Attacks Against Federated
  Learning Systems", ESORICS 2020, in both directions at once.
  """

  def __init__(
      self, *, first: Optional[int] = None, second: Optional[int] = None
  ):
    """Initializes `LabelSwap`.

    Args:
      first: A class; None (default) swaps all neighbours.
      second: The other class; None exactly if `first` is.

    Raises:
      TypeError: If a class is neither an int nor None.
      ValueError: If a class is negative, only one is given, or they are equal.
    """
    if (first is None) != (second is None):
      raise ValueError(
          'first and second must be given both or not at all; found'
          f' {first!r} and {second!r}.'
      )
    self._pair = None
    if first is not None:
      self._pair = (
          checks.check_int('first', first, minimum=0),
          checks.check_int('second', second, minimum=0),
      )
      if first == second:
        raise ValueError(
            f'first and second must be different classes; found {first} twice.'
        )

  def poison(
      self,
      dataset: tf.data.Dataset,
      *,
      num_classes: int,
      attacker_index: int,
      seed: int,
  ) -> tf.data.Dataset:
    """Swaps the labels; see `DataPoisoning.poison`. Nothing is random.

    Raises:
      ValueError: If a class is not below `num_classes`, or there are fewer than
        2 classes.
    """
    del attacker_index, seed
    return examples.relabel(dataset, self._new_labels(num_classes))

  def success_examples(
      self, x: np.ndarray, y: np.ndarray, *, num_classes: int
  ) -> Tuple[np.ndarray, np.ndarray]:
    """The examples of the swapped classes; see the base class."""
    wanted = self._new_labels(num_classes)[y].astype(y.dtype)
    is_swapped = wanted != y
    return x[is_swapped], wanted[is_swapped]

  def _new_labels(self, num_classes: int) -> np.ndarray:
    """The new labels [C] of the classes."""
    checks.check_int('num_classes', num_classes, minimum=2)
    new_labels = np.arange(num_classes)
    if self._pair is None:
      num_paired = num_classes - num_classes % 2
      new_labels[:num_paired] ^= 1
    else:
      first, second = self._pair
      checks.check_class('first', first, num_classes)
      checks.check_class('second', second, num_classes)
      new_labels[[first, second]] = second, first
    return new_labels
