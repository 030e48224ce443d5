"""Label swapping."""

import numpy as np
import pytest

from fedaot_tff.attacks import label_swap
from tests.attacks import poisoned_data


def _poison(clean, num_classes, **options):
  return label_swap.LabelSwap(**options).poison(
      clean, num_classes=num_classes, attacker_index=1, seed=0
  )


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
@pytest.mark.parametrize(
    'options, num_classes, expected',
    [
        ({}, 2, [1, 0]),
        ({}, 5, [1, 0, 3, 2, 4]),
        ({}, 6, [1, 0, 3, 2, 5, 4]),
        ({'first': 4, 'second': 1}, 5, [0, 4, 2, 3, 1]),
        ({'first': 0, 'second': 1}, 3, [1, 0, 2]),
    ],
)
def test_swaps_labels_and_leaves_features_alone(
    dtype, options, num_classes, expected
):
  clean = poisoned_data.dataset(range(num_classes), dtype=dtype)
  poisoned = _poison(clean, num_classes, **options)
  assert poisoned.element_spec == clean.element_spec
  x, y = poisoned_data.arrays(poisoned)
  np.testing.assert_array_equal(y, expected)
  poisoned_data.assert_same_bits(x, poisoned_data.arrays(clean)[0])


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
  found_x, found_y = label_swap.LabelSwap(**options).success_examples(
      x, y, num_classes=5
  )
  poisoned_data.assert_same_bits(found_x, x[rows])
  poisoned_data.assert_same_bits(found_y, np.array(wanted, np.int32))


@pytest.mark.parametrize(
    'options, error, message',
    [
        ({'first': 1}, ValueError, 'both .* found 1 and None'),
        ({'second': 0}, ValueError, 'both .* found None and 0'),
        ({'first': 1, 'second': 1}, ValueError, 'different .* found 1 twice'),
        ({'first': -1, 'second': 1}, ValueError, 'first .* found -1'),
        ({'first': 1, 'second': 2.0}, TypeError, 'second .* found 2.0'),
        ({'first': True, 'second': 2}, TypeError, 'first .* found True'),
    ],
)
def test_refuses_wrong_options(options, error, message):
  with pytest.raises(error, match=message) as info:
    label_swap.LabelSwap(**options)
  assert '\n' not in str(info.value)


def test_refuses_classes_that_there_are_not():
  clean = poisoned_data.dataset([0, 1])
  with pytest.raises(ValueError, match='second must be .* below 5; found 5'):
    _poison(clean, 5, first=0, second=5)
  with pytest.raises(ValueError, match='first must be .* below 5; found 7'):
    label_swap.LabelSwap(first=7, second=0).success_examples(
        np.zeros([1, 3]), np.array([0]), num_classes=5
    )
  with pytest.raises(ValueError, match='num_classes .* found 1'):
    _poison(clean, 1)
