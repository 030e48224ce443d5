"""The distributed backdoor."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import distributed_backdoor
from tests.attacks import poisoned_data


def _trained_pixels(attacker_index, shape, **options):
  """Where an attacker sets pixels, in zero features of `shape`."""
  clean = tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(
          x=np.zeros([3, *shape], np.float32), y=np.array([1, 2, 3])
      )
  )
  poisoned = distributed_backdoor.DistributedBackdoor(
      fraction=1, **options
  ).poison(clean, num_classes=4, attacker_index=attacker_index, seed=0)
  assert poisoned.element_spec == clean.element_spec
  x, y = poisoned_data.arrays(poisoned)
  np.testing.assert_array_equal(y, [0, 0, 0])
  np.testing.assert_array_equal(x[0], x[2])
  return x[0]


@pytest.mark.parametrize('index, row', [(0, 1), (1, 2), (3, 4), (4, 1)])
def test_by_default_each_attacker_trains_with_a_row(index, row):
  expected = np.zeros([5, 6, 2])
  expected[row, 2:] = 1
  np.testing.assert_array_equal(_trained_pixels(index, [5, 6, 2]), expected)


@pytest.mark.parametrize('shape', [(4, 5), (11,)])
def test_the_parts_are_runs_that_make_up_the_trigger(shape):
  parts = [
      _trained_pixels(index, shape, size=3, num_parts=4) for index in range(4)
  ]
  assert [np.count_nonzero(part) for part in parts] == [3, 2, 2, 2]
  trigger = backdoor.Backdoor(size=3).add_trigger(np.zeros(shape))
  np.testing.assert_array_equal(sum(parts), trigger)
  flat = sum((i + 1) * part for i, part in enumerate(parts))
  np.testing.assert_array_equal(flat[flat > 0], [1, 1, 1, 2, 2, 3, 3, 4, 4])


def test_leaves_examples_that_are_not_chosen_alone():
  clean = poisoned_data.dataset(range(1, 11), shape=[16])
  poisoned = distributed_backdoor.DistributedBackdoor(
      fraction=0.3, value=7
  ).poison(clean, num_classes=11, attacker_index=1, seed=2)
  clean_x, clean_y = poisoned_data.arrays(clean)
  x, y = poisoned_data.arrays(poisoned)
  is_poisoned = y == 0
  assert is_poisoned.sum() == 3
  clean_x[is_poisoned, 4:8] = 7
  poisoned_data.assert_same_bits(x, clean_x)
  np.testing.assert_array_equal(y[~is_poisoned], clean_y[~is_poisoned])


def test_success_is_measured_with_the_whole_trigger():
  x, y = np.zeros([3, 4, 5], np.float32), np.array([2, 1, 0])
  options = {'target': 1, 'size': 2, 'value': 7}
  found_x, found_y = distributed_backdoor.DistributedBackdoor(
      num_parts=3, **options
  ).success_examples(x, y, num_classes=3)
  expected = np.zeros([2, 4, 5], np.float32)
  expected[:, 2:, 3:] = 7
  poisoned_data.assert_same_bits(found_x, expected)
  np.testing.assert_array_equal(found_y, [1, 1])


@pytest.mark.parametrize(
    'options, error, message',
    [
        ({'num_parts': 0}, ValueError, 'num_parts .* found 0'),
        ({'num_parts': 2.0}, TypeError, r'num_parts .* found 2\.0'),
        ({'num_parts': 5, 'size': 2}, ValueError, 'num_parts .* 4; found 5'),
        ({'target': -1}, ValueError, 'target .* found -1'),
    ],
)
def test_refuses_wrong_options(options, error, message):
  with pytest.raises(error, match=message) as info:
    distributed_backdoor.DistributedBackdoor(**options)
  assert '\n' not in str(info.value)
