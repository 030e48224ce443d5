"""How attackers choose examples of their data."""

import numpy as np
import tensorflow as tf


def choose(
    dataset: tf.data.Dataset, fraction: float, generator: np.random.Generator
) -> np.ndarray:
  """Chooses `round(fraction * n)` of n unbatched examples, all equally likely.

  They are counted if the dataset does not know n. Returns bool [n], true for
  the chosen ones; raises ValueError if the dataset never ends.
  """
  num = int(dataset.cardinality())
  if num == tf.data.INFINITE_CARDINALITY:
    raise ValueError('dataset must be finite; found one that never ends.')
  if num == tf.data.UNKNOWN_CARDINALITY:
    num = int(dataset.reduce(np.int64(0), lambda count, _: count + 1))
  chosen = np.zeros([num], np.bool_)
  chosen[generator.permutation(num)[: round(fraction * num)]] = True
  return chosen
