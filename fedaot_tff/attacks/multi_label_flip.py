"""Multi-label flipping: each attacker permutes the labels in its own way."""

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import examples


class MultiLabelFlip(attack.DataPoisoning):
  """Replaces each label y by pi(y), with a permutation pi an attacker.

  An attacker draws pi from its seed, uniformly among the permutations without
  fixed points, so that every one of its labels is wrong. Attackers do not agree
  on a permutation: their updates differ from each other, which defences that
  look for alike updates must stand.

  Knowledge: the attackers' own data. It generalizes the fixed map of
  `label_flip.LabelFlip`.
  """

  def poison(
      self,
      dataset: tf.data.Dataset,
      *,
      num_classes: int,
      attacker_index: int,
      seed: int,
  ) -> tf.data.Dataset:
    """Permutes the labels; see `DataPoisoning.poison`.

    Raises:
      ValueError: If there are fewer than 2 classes.
    """
    del attacker_index
    checks.check_int('num_classes', num_classes, minimum=2)
    return examples.relabel(dataset, derangement(num_classes, seed))


def derangement(num: int, seed: int) -> np.ndarray:
  """A uniformly random permutation [num] of `range(num)` with no fixed point.

  Args:
    num: At least 2.
    seed: Fixes it; nonnegative.
  """
  generator = np.random.default_rng(seed)
  identity = np.arange(num)
  while True:
    # One in e permutations has no fixed point; taking the first that has none
    # leaves all of them equally likely.
    permutation = generator.permutation(num)
    if np.all(permutation != identity):
      return permutation
