"""Vectors and tables that several attacks are made of."""

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import vectors
from tests.attacks import hand_made


def test_scales_to_length_one():
  np.testing.assert_allclose(vectors.unit([3.0, -4.0]), [0.6, -0.8])
  np.testing.assert_array_equal(vectors.unit([0.0, 0.0]), [0, 0])


def test_noise_like_zero_is_zero():
  noise = vectors.noise_like(tf.zeros([3]), 10.0, [1, 2])
  np.testing.assert_array_equal(noise, [0, 0, 0])


def test_moments_are_those_of_the_columns():
  rows = hand_made.updates(5, 4) + 1000.0
  mean, stddev = vectors.moments(tf.constant(rows))
  rows = rows.astype(np.float64)
  np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-6)
  np.testing.assert_allclose(stddev, rows.std(axis=0), rtol=1e-3)


def test_moments_of_no_rows_are_zero():
  mean, stddev = vectors.moments(tf.zeros([0, 2]))
  np.testing.assert_array_equal([mean, stddev], np.zeros([2, 2]))


def test_distances_from_inner_products():
  rows = hand_made.updates(4, 6) + 1e4
  found = vectors.squared_distances(
      vectors.inner_products(tf.constant(rows, tf.float32))
  )
  rows = rows.astype(np.float64)
  expected = ((rows[:, np.newaxis] - rows) ** 2).sum(axis=2)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  np.testing.assert_array_equal(np.diag(found), np.zeros(4))
