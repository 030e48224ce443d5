"""Attackers who train on labels that they map to others, class by class."""

import abc
import collections
from typing import Optional

import numpy as np
import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import examples


class LabelMap(attack.DataPoisoning):
  """Replaces each label y by `new_labels(...)[y]`.

  Reading the data raises `tf.errors.InvalidArgumentError` at a label that is no
  class. Knowledge: the attackers' own data.
  """

  @abc.abstractmethod
  def new_labels(self, num_classes: int, seed: int) -> np.ndarray:
    """The new labels [C] of the C >= 2 classes."""

  def poison(self, dataset, *, num_classes, attacker_index, seed):
    del attacker_index
    examples.check(dataset)
    checks.check_int('num_classes', num_classes, minimum=2)
    new_labels = self.new_labels(num_classes, seed)

    @tf.autograph.experimental.do_not_convert
    def replace(example):
      y = example['y']
      new_label = tf.gather(new_labels, tf.cast(y, tf.int64))
      return collections.OrderedDict(example, y=tf.cast(new_label, y.dtype))

    return dataset.map(replace)


class LabelFlip(LabelMap):
  """Replaces y by C - 1 - y; if C is odd, the middle class keeps its label.

  Source: Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust
  Federated Learning", USENIX Security 2020, section 5.1.
  """

  def new_labels(self, num_classes, seed):
    del seed
    return np.arange(num_classes)[::-1]


class MultiLabelFlip(LabelMap):
  """Replaces y by pi(y), with a permutation pi of each attacker's own.

  pi is uniform among the permutations without fixed points. As attackers do not
  agree on it, their updates differ, which defences that look for alike updates
  must stand. It generalizes `LabelFlip` and stems from no paper.
  """

  def new_labels(self, num_classes, seed):
    generator = np.random.default_rng(seed)
    while True:
      # One in e permutations has no fixed point; taking the first that has none
      # leaves all of them equally likely.
      permutation = generator.permutation(num_classes)
      if np.all(permutation != np.arange(num_classes)):
        return permutation


class LabelSwap(LabelMap):
  """Swaps the labels of two classes, or of all neighbouring classes.

  Without `first` and `second` the classes 2k and 2k + 1 change places for each
  k; if C is odd, the last class keeps its label. The attack succeeds with a
  test example of a swapped class that is taken for the other one.

  Source: the attack from a source class to a target class of Tolpegin et al.,
  "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020, in
  both directions at once.
  """

  def __init__(
      self, *, first: Optional[int] = None, second: Optional[int] = None
  ):
    if first is not None or second is not None:
      if first is None or second is None or first == second:
        raise ValueError(
            'first and second must be two different classes, or both None;'
            f' found {first!r} and {second!r}.'
        )
      first = checks.check_int('first', first, minimum=0)
      second = checks.check_int('second', second, minimum=0)
    self._first, self._second = first, second

  def new_labels(self, num_classes, seed=0):
    del seed
    new_labels = np.arange(num_classes)
    if self._first is None:
      new_labels[: num_classes - num_classes % 2] ^= 1
    else:
      for name, label in (('first', self._first), ('second', self._second)):
        checks.check_int(name, label, minimum=0, maximum=num_classes - 1)
      new_labels[[self._first, self._second]] = self._second, self._first
    return new_labels

  def success_examples(self, x, y, *, num_classes):
    wanted = self.new_labels(num_classes)[y].astype(y.dtype)
    is_swapped = wanted != y
    return x[is_swapped], wanted[is_swapped]
