"""Label flipping: the attackers train on mirrored labels."""

import collections

import tensorflow as tf

from fedaot_tff.attacks import attack


class LabelFlip(attack.DataPoisoning):
  """Replaces each label y by C - 1 - y.

  Knowledge: the attackers' own data. Source: Fang et al., "Local Model
  Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security
  2020, section 5.1.
  """

  def poison(
      self, dataset: tf.data.Dataset, num_classes: int, seed: int
  ) -> tf.data.Dataset:
    """Mirrors the labels; see `DataPoisoning.poison`. The seed has no use."""
    del seed

    def flip(example):
      flipped = tf.cast(num_classes - 1, example['y'].dtype) - example['y']
      return collections.OrderedDict(x=example['x'], y=flipped)

    return dataset.map(flip)
