"""Label flipping: the attackers train on mirrored labels."""

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import examples


class LabelFlip(attack.DataPoisoning):
  """Replaces each label y by C - 1 - y.

  If C is odd, the class in the middle keeps its label.

  Knowledge: the attackers' own data. Source: Fang et al., "Local Model
  Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security
  2020, section 5.1.
  """

  def poison(
      self,
      dataset: tf.data.Dataset,
      *,
      num_classes: int,
      attacker_index: int,
      seed: int,
  ) -> tf.data.Dataset:
    """Mirrors the labels; see `DataPoisoning.poison`. Nothing is random."""
    del attacker_index, seed
    return examples.relabel(dataset, np.arange(num_classes)[::-1])
