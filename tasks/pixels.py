"""Pixels from 0 to 255 as floats from 0 to 1."""

import numpy as np
import tensorflow as tf

# A table gives the same floats in NumPy, in eager TensorFlow and in a graph,
# where the optimizer makes a division a multiplication, which rounds otherwise.
_VALUES = np.arange(256, dtype=np.float32) / np.float32(255)


def to_floats(features: np.ndarray) -> np.ndarray:
  """Returns `features / 255` as float32 if they are uint8, else themselves."""
  return _VALUES[features] if features.dtype == np.uint8 else features


def to_float_tensor(pixels: tf.Tensor) -> tf.Tensor:
  """Returns what `to_floats` does for a tensor of uint8; works in a graph."""
  return tf.gather(_VALUES, tf.cast(pixels, tf.int32))
