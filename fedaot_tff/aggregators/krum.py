"""Krum's mathematics on TensorFlow, for attacks that know the rule."""

import math

import tensorflow as tf

from fedaot.rules import geometry
from fedaot.rules.krum import krum_scores as _krum_scores
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.namespace import TENSORFLOW

inner_products = flat_updates.inner_products


def squared_distances(updates: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Squared distances of rows, infinite where one is not finite."""
  distances = geometry.squared_distances(inner_products(updates), TENSORFLOW)
  both_finite = is_finite[:, tf.newaxis] & is_finite
  is_own = tf.eye(tf.shape(updates)[0]) > 0
  return tf.where(is_own, 0.0, tf.where(both_finite, distances, math.inf))


def krum_scores(distances, is_finite, num_neighbors) -> tf.Tensor:
  """Scores of rows, infinite for those that are not finite."""
  scores = _krum_scores(
      distances, tf.cast(num_neighbors, tf.int64), TENSORFLOW
  )
  return tf.where(is_finite, scores, math.inf)
