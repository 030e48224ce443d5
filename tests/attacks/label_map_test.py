"""Labels that are mapped class by class."""

import collections

import numpy as np
import pytest

from fedaot_tff.attacks import label_map
from tests.attacks import poisoned_data


@pytest.mark.parametrize(
    'poisoning, num_classes, expected',
    [
        (label_map.LabelFlip(), 5, [4, 3, 2, 1, 0]),
        (label_map.LabelFlip(), 2, [1, 0]),
        (label_map.MultiLabelFlip(), 2, [1, 0]),
        (label_map.LabelSwap(), 2, [1, 0]),
        (label_map.LabelSwap(), 5, [1, 0, 3, 2, 4]),
        (label_map.LabelSwap(), 6, [1, 0, 3, 2, 5, 4]),
        (label_map.LabelSwap(first=4, second=1), 5, [0, 4, 2, 3, 1]),
        (label_map.LabelSwap(first=0, second=1), 3, [1, 0, 2]),
    ],
)
def test_maps_labels(poisoning, num_classes, expected):
  clean = poisoned_data.dataset([*range(num_classes), 0])
  poisoned = poisoning.poison(
      clean, num_classes=num_classes, attacker_index=2, seed=1
  )
  _, y = poisoned_data.arrays(poisoned)
  np.testing.assert_array_equal(y, [*expected, expected[0]])


def test_keeps_the_order_of_the_components():
  clean = poisoned_data.dataset([0, 1]).map(
      lambda e: collections.OrderedDict(y=e['y'], x=e['x'])
  )
  poisoned = label_map.LabelFlip().poison(
      clean, num_classes=2, attacker_index=0, seed=0
  )
  assert list(poisoned.element_spec) == ['y', 'x']


def test_all_permutations_without_fixed_points_are_equally_likely():
  counts = collections.Counter(
      tuple(label_map.MultiLabelFlip().new_labels(4, seed))
      for seed in range(1800)
  )
  assert len(counts) == 9
  assert all(np.all(np.arange(4) != found) for found in counts)
  assert all(sorted(found) == [0, 1, 2, 3] for found in counts)
  assert min(counts.values()) > 140
  assert max(counts.values()) < 260


@pytest.mark.parametrize(
    'options, rows, wanted',
    [
        ({}, [0, 1, 2, 3, 5], [2, 0, 3, 1, 2]),
        ({'first': 3, 'second': 4}, [0, 4, 5], [4, 3, 4]),
    ],
)
def test_success_is_to_be_taken_for_the_other_class(options, rows, wanted):
  x = np.random.default_rng(0).normal(size=[6, 2, 2])
  y = np.array([3, 1, 2, 0, 4, 3], np.int32)
  found_x, found_y = label_map.LabelSwap(**options).success_examples(
      x, y, num_classes=5
  )
  poisoned_data.assert_same_bits(found_x, x[rows])
  poisoned_data.assert_same_bits(found_y, np.array(wanted, np.int32))


@pytest.mark.parametrize(
    'options, error, message',
    [
        ({'first': 1}, ValueError, 'two different .* found 1 and None'),
        ({'second': 0}, ValueError, 'two different .* found None and 0'),
        ({'first': 1, 'second': 1}, ValueError, 'different .* found 1 and 1'),
        ({'first': -1, 'second': 1}, ValueError, 'first .* found -1'),
        ({'first': 1, 'second': 2.0}, TypeError, 'second .* found 2.0'),
        ({'first': True, 'second': 2}, TypeError, 'first .* found True'),
    ],
)
def test_refuses_wrong_options(options, error, message):
  with pytest.raises(error, match=message) as info:
    label_map.LabelSwap(**options)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize('name, pair', [('first', (7, 0)), ('second', (0, 5))])
def test_refuses_classes_that_there_are_not(name, pair):
  swap = label_map.LabelSwap(first=pair[0], second=pair[1])
  message = f'{name} must be .* <= 4; found {max(pair)}'
  with pytest.raises(ValueError, match=message):
    swap.poison(
        poisoned_data.dataset([0]), num_classes=5, attacker_index=0, seed=0
    )
  with pytest.raises(ValueError, match=message):
    swap.success_examples(np.zeros([1, 3]), np.array([0]), num_classes=5)
