"""Examples before and after poisoning, for the tests of data poisoning."""

import collections
from typing import Any, Sequence, Tuple

import numpy as np
import tensorflow as tf


def dataset(
    y: Sequence[int], *, shape: Sequence[int] = (3,), dtype: Any = np.int64
) -> tf.data.Dataset:
  """Clean examples with the labels `y` and features of `shape`.

  The features are normal, with -0.0 and NaN as the first one of every example
  in turn.
  """
  x = np.random.default_rng(len(y)).normal(size=[len(y), *shape])
  x = x.astype(np.float32)
  x.reshape([len(y), -1])[::2, 0] = -0.0
  x.reshape([len(y), -1])[1::2, 0] = np.nan
  return tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(x=x, y=np.array(y, np.int64).astype(dtype))
  )


def arrays(examples: tf.data.Dataset) -> Tuple[np.ndarray, np.ndarray]:
  """Features and labels, with a leading example dimension."""
  read = list(examples.as_numpy_iterator())
  return np.stack([e['x'] for e in read]), np.stack([e['y'] for e in read])


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
  assert actual.dtype == expected.dtype
  assert actual.shape == expected.shape
  assert actual.tobytes() == expected.tobytes()
