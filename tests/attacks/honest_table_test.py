"""Moments of a table."""

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import honest_table
from tests.attacks import hand_made


def test_moments_are_those_of_the_columns():
  rows = hand_made.updates(5, 4) + 1000.0
  mean, stddev = honest_table.moments(tf.constant(rows))
  rows = rows.astype(np.float64)
  np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-6)
  np.testing.assert_allclose(stddev, rows.std(axis=0), rtol=1e-3)


def test_moments_of_no_rows_are_zero():
  mean, stddev = honest_table.moments(tf.zeros([0, 2]))
  np.testing.assert_array_equal([mean, stddev], np.zeros([2, 2]))
