"""Label noise: the attackers train on random wrong labels."""

import collections

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import examples


class LabelNoise(attack.DataPoisoning):
  """Replaces labels by uniformly random other ones.

  Of an attacker's n examples, `round(fraction * n)` get the label
  (y + u) mod C, with u drawn from 1 to C - 1 for each of them. The attacker's
  seed fixes which examples and labels.

  Knowledge: the attackers' own data. It is the symmetric label noise of Ghosh,
  Kumar and Sastry, "Robust Loss Functions under Label Noise for Deep Neural
  Networks", AAAI 2017, with a fixed number of wrong labels.
  """

  def __init__(self, *, fraction: float = 1.0):
    """Initializes `LabelNoise`.

    Args:
      fraction: The fraction of an attacker's labels, in (0, 1].

    Raises:
      TypeError: If `fraction` is not a number.
      ValueError: If it is outside.
    """
    self._fraction = checks.check_fraction('fraction', fraction)

  def poison(
      self,
      dataset: tf.data.Dataset,
      *,
      num_classes: int,
      attacker_index: int,
      seed: int,
  ) -> tf.data.Dataset:
    """Replaces labels; see `DataPoisoning.poison`.

    Raises:
      ValueError: If there are fewer than 2 classes, or `dataset` never ends.
    """
    del attacker_index
    checks.check_int('num_classes', num_classes, minimum=2)
    generator = np.random.default_rng(seed)
    num = examples.num_examples(dataset)
    chosen = examples.choose(num, self._fraction, generator)
    shifts = np.where(chosen, generator.integers(1, num_classes, size=num), 0)

    def shift_label(example, shift):
      y = example['y']
      # Not a modulus, which would bring labels outside [0, C) in.
      shifted = tf.gather(
          tf.roll(tf.range(num_classes), -shift, axis=0), tf.cast(y, tf.int64)
      )
      return collections.OrderedDict(example, y=tf.cast(shifted, y.dtype))

    return tf.data.Dataset.zip(
        (dataset, tf.data.Dataset.from_tensor_slices(shifts))
    ).map(shift_label)
