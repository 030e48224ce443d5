"""Moments of a table of honest updates."""

import tensorflow as tf

from fedaot_tff.attacks import attack


def moments(honest: tf.Tensor) -> attack.HonestMoments:
  """Mean and population standard deviation, coordinate by coordinate.

  Args:
    honest: Float32 [h, d], one update a row.

  Returns:
    The `HonestMoments`; zero if there are no rows.
  """
  count = tf.cast(tf.shape(honest)[0], tf.float32)
  mean = tf.math.divide_no_nan(tf.reduce_sum(honest, axis=0), count)
  squares = tf.reduce_sum(tf.math.squared_difference(honest, mean), axis=0)
  return attack.HonestMoments(
      mean, tf.sqrt(tf.math.divide_no_nan(squares, count))
  )
