"""Vectors of length 1."""

import numpy as np

from fedaot_tff.attacks import unit_vector


def test_scales_to_length_one():
  np.testing.assert_allclose(unit_vector.unit([3.0, -4.0]), [0.6, -0.8])
  np.testing.assert_array_equal(unit_vector.unit([0.0, 0.0]), [0, 0])
