"""How attackers choose and relabel examples of their data."""

import collections

import numpy as np
import tensorflow as tf


def num_examples(dataset: tf.data.Dataset) -> int:
  """The number of examples; counts them if the dataset does not know.

  Raises:
    ValueError: If the dataset never ends.
  """
  cardinality = int(dataset.cardinality())
  if cardinality == tf.data.INFINITE_CARDINALITY:
    raise ValueError('dataset must be finite; found one that never ends.')
  if cardinality == tf.data.UNKNOWN_CARDINALITY:
    return int(dataset.reduce(np.int64(0), lambda count, _: count + 1))
  return cardinality


def choose(
    num: int, fraction: float, generator: np.random.Generator
) -> np.ndarray:
  """Chooses `round(fraction * num)` of `num` examples, all equally likely.

  Args:
    num: The number n of examples.
    fraction: What to choose of them, in [0, 1].
    generator: Where the choice is drawn from.

  Returns:
    Bool [n], true for the chosen ones.
  """
  chosen = np.zeros([num], np.bool_)
  chosen[generator.permutation(num)[: round(fraction * num)]] = True
  return chosen


def relabel(
    dataset: tf.data.Dataset, new_labels: np.ndarray
) -> tf.data.Dataset:
  """Replaces each label y by `new_labels[y]`.

  Args:
    dataset: Unbatched examples, `OrderedDict(x=..., y=...)`.
    new_labels: Integer [C].

  Returns:
    A dataset of the same element type. Reading it raises
    `tf.errors.InvalidArgumentError` at a label outside [0, C).
  """

  def replace(example):
    y = example['y']
    new_label = tf.gather(new_labels, tf.cast(y, tf.int64))
    return collections.OrderedDict(example, y=tf.cast(new_label, y.dtype))

  return dataset.map(replace)
