"""Label flipping."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import label_flip


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
def test_mirrors_labels_and_leaves_features_alone(dtype):
  x = np.random.default_rng(0).normal(size=[7, 2, 3]).astype(np.float32)
  y = np.array([0, 1, 2, 3, 4, 4, 0], dtype)
  clean = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
  poisoned = label_flip.LabelFlip().poison(clean, num_classes=5, seed=1)
  assert poisoned.element_spec == clean.element_spec
  examples = list(poisoned.as_numpy_iterator())
  np.testing.assert_array_equal([e['y'] for e in examples], 4 - y.astype(int))
  np.testing.assert_array_equal([e['x'] for e in examples], x)
  assert all(e['y'].dtype == dtype for e in examples)
