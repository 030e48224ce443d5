"""Label flipping."""

import numpy as np
import pytest

from fedaot_tff.attacks import label_flip
from tests.attacks import poisoned_data


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
def test_mirrors_labels_and_leaves_features_alone(dtype):
  clean = poisoned_data.dataset([0, 1, 2, 3, 4, 4, 0], dtype=dtype)
  poisoned = label_flip.LabelFlip().poison(
      clean, num_classes=5, attacker_index=2, seed=1
  )
  assert poisoned.element_spec == clean.element_spec
  x, y = poisoned_data.arrays(poisoned)
  np.testing.assert_array_equal(y, [4, 3, 2, 1, 0, 0, 4])
  assert y.dtype == dtype
  poisoned_data.assert_same_bits(x, poisoned_data.arrays(clean)[0])


def test_has_no_success_examples():
  found = label_flip.LabelFlip().success_examples(
      np.zeros([2, 3]), np.array([0, 1]), num_classes=2
  )
  assert found is None
