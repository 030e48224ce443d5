"""Multi-label flipping."""

import collections

import numpy as np
import pytest

from fedaot_tff.attacks import multi_label_flip
from tests.attacks import poisoned_data


def _poison(clean, *, num_classes=10, attacker_index=0, seed=0):
  return multi_label_flip.MultiLabelFlip().poison(
      clean, num_classes=num_classes, attacker_index=attacker_index, seed=seed
  )


@pytest.mark.parametrize('dtype', [np.int32, np.uint8])
@pytest.mark.parametrize('seed', [0, 2**31 - 1, 2**62])
def test_permutes_the_labels_without_fixed_points(dtype, seed):
  labels = np.tile(np.arange(10), 2)
  clean = poisoned_data.dataset(labels, dtype=dtype)
  poisoned = _poison(clean, seed=seed)
  assert poisoned.element_spec == clean.element_spec
  x, y = poisoned_data.arrays(poisoned)
  np.testing.assert_array_equal(y[:10], y[10:])
  np.testing.assert_array_equal(np.sort(y[:10]), np.arange(10))
  assert np.all(y != labels)
  poisoned_data.assert_same_bits(x, poisoned_data.arrays(clean)[0])


def test_the_seed_tells_the_permutation():
  clean = poisoned_data.dataset(range(10))
  first = poisoned_data.arrays(_poison(clean, seed=1))[1]
  again = poisoned_data.arrays(_poison(clean, seed=1, attacker_index=3))[1]
  other = poisoned_data.arrays(_poison(clean, seed=2))[1]
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)


def test_all_permutations_without_fixed_points_are_equally_likely():
  counts = collections.Counter(
      tuple(multi_label_flip.derangement(4, seed)) for seed in range(1800)
  )
  assert len(counts) == 9
  assert min(counts.values()) > 140
  assert max(counts.values()) < 260


def test_two_classes_are_swapped():
  poisoned = _poison(poisoned_data.dataset([0, 1, 1]), num_classes=2)
  np.testing.assert_array_equal(poisoned_data.arrays(poisoned)[1], [1, 0, 0])


def test_refuses_a_single_class():
  with pytest.raises(ValueError, match='num_classes .* found 1'):
    _poison(poisoned_data.dataset([0]), num_classes=1)
