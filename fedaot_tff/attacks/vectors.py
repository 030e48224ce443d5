"""Vectors and tables that several attacks are made of."""

import tensorflow as tf

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.attacks import attack

# Of the rows of a float32 table [N, d] with static d: float64 [N, N].
inner_products = flat_updates.inner_products


def squared_distances(products: tf.Tensor) -> tf.Tensor:
  """Squared distances [N, N] from inner products; zero on the diagonal."""
  squares = tf.linalg.diag_part(products)
  return tf.maximum(squares[:, tf.newaxis] + squares - 2 * products, 0)


def unit(vector: tf.Tensor) -> tf.Tensor:
  """The vector scaled to length 1; zero stays zero."""
  return tf.math.divide_no_nan(vector, tf.norm(vector))


def noise_like(vector: tf.Tensor, scale: float, seed: tf.Tensor) -> tf.Tensor:
  """Normal noise with root mean square length scale ||vector||; seed [2]."""
  num_coordinates = tf.cast(tf.size(vector), tf.float32)
  stddev = scale * tf.norm(vector) / tf.sqrt(num_coordinates)
  return stddev * tf.random.stateless_normal(tf.shape(vector), seed)


def moments(table: tf.Tensor) -> attack.HonestMoments:
  """Mean and standard deviation of the columns; zero if there are no rows."""
  count = tf.cast(tf.shape(table)[0], tf.float32)
  # From the first row on, lest an offset that all share cost digits.
  first = table[:1]
  mean = tf.reduce_sum(first, axis=0) + tf.math.divide_no_nan(
      tf.reduce_sum(table - first, axis=0), count
  )
  squares = tf.reduce_sum(tf.math.squared_difference(table, mean), axis=0)
  return attack.HonestMoments(
      mean, tf.sqrt(tf.math.divide_no_nan(squares, count))
  )
