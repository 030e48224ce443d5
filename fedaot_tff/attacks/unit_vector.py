"""Vectors of length 1."""

import tensorflow as tf


def unit(vector: tf.Tensor) -> tf.Tensor:
  """Scales a vector to length 1.

  Args:
    vector: Float32 [d].

  Returns:
    Float32 [d]; zero if `vector` is zero.
  """
  return tf.math.divide_no_nan(vector, tf.norm(vector))
