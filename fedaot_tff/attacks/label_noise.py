"""Label noise: the attackers train on random wrong labels."""

import collections

import numpy as np
import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import examples


class LabelNoise(attack.DataPoisoning):
  """Replaces labels by uniformly random other ones.

  Of an attacker's n examples, `round(fraction * n)` get the label
  (y + u) mod C, with u drawn from 1 to C - 1 for each of them.

  Knowledge: the attackers' own data. It is the symmetric label noise of Ghosh,
  Kumar and Sastry, "Robust Loss Functions under Label Noise for Deep Neural
  Networks", AAAI 2017, with a fixed number of wrong labels.
  """

  def __init__(self, *, fraction: float = 1.0):
    self._fraction = checks.check_number(
        'fraction', fraction, above=0, maximum=1
    )

  def poison(self, dataset, *, num_classes, attacker_index, seed):
    del attacker_index
    examples.check(dataset)
    checks.check_int('num_classes', num_classes, minimum=2)
    generator = np.random.default_rng(seed)
    chosen = examples.choose(dataset, self._fraction, generator)
    draws = generator.integers(1, num_classes, size=len(chosen))

    @tf.autograph.experimental.do_not_convert
    def shift_label(example, shift):
      y = example['y']
      # Not a modulus, which would bring labels outside [0, C) in.
      shifted = tf.gather(
          tf.roll(tf.range(num_classes), -shift, axis=0), tf.cast(y, tf.int64)
      )
      return collections.OrderedDict(example, y=tf.cast(shifted, y.dtype))

    shifts = tf.data.Dataset.from_tensor_slices(np.where(chosen, draws, 0))
    return tf.data.Dataset.zip((dataset, shifts)).map(shift_label)
