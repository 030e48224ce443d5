"""Tests for pixels."""

import numpy as np
import tensorflow as tf

from tasks import pixels


def test_to_floats():
  every = np.arange(256, dtype=np.uint8).reshape(16, 16)
  floats = pixels.to_floats(every)
  assert floats.dtype == np.float32
  assert floats.shape == (16, 16)
  assert (floats.min(), floats.max()) == (0.0, 1.0)
  np.testing.assert_allclose(floats, every / 255, rtol=1e-7)


def test_a_graph_gives_the_same_bits():
  every = np.arange(256, dtype=np.uint8)
  mapped = tf.data.Dataset.from_tensors(every).map(pixels.to_float_tensor)
  for tensor in (pixels.to_float_tensor(every), mapped.get_single_element()):
    assert tensor.dtype == tf.float32
    np.testing.assert_array_equal(tensor, pixels.to_floats(every))
