"""The edge-case backdoor."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import edge_case
from tests.attacks import poisoned_data

# Class 0 is about 1, class 1 about 20, class 2 a single example.
_X = np.float32([[0], [20], [1], [26], [2], [18], [-9], [7], [16], [20]])
_Y = np.array([0, 1, 0, 1, 0, 1, 0, 2, 1, 1])


def _poison(x, y, **options):
  clean = tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))
  return poisoned_data.arrays(
      edge_case.EdgeCase(**options).poison(
          clean, num_classes=3, attacker_index=0, seed=4
      )
  )


@pytest.mark.parametrize(
    'share, expected', [(0.2, [3, 6, 7]), (0.25, [3, 6, 7, 8]), (1, range(10))]
)
def test_the_tail_is_farthest_from_the_mean_of_its_class(share, expected):
  # The means of 4, 5 and 1 examples are -1.5, 20 and 7.
  found = edge_case.tail(_X, _Y, share)
  np.testing.assert_array_equal(np.flatnonzero(found), expected)


def test_replaces_a_fraction_by_tail_examples_of_other_classes_in_turn():
  x, y = _poison(_X, _Y, target=0, fraction=0.4, tail_share=0.2)
  is_poisoned = np.any(x != _X, axis=1) | (y != _Y)
  # An example may be replaced by itself, with another label.
  assert is_poisoned.sum() == 4
  np.testing.assert_array_equal(x[is_poisoned], [[26], [7], [26], [7]])
  np.testing.assert_array_equal(y[is_poisoned], np.zeros(4))


def test_keeps_examples_that_are_all_of_the_target():
  x, y = _poison(_X, np.full(10, 2), target=2)
  np.testing.assert_array_equal(x, _X)
  np.testing.assert_array_equal(y, np.full(10, 2))


def test_success_is_the_target_for_the_tail_of_the_other_classes():
  x, y = edge_case.EdgeCase(target=1, tail_share=0.2).success_examples(
      _X, _Y, num_classes=3
  )
  np.testing.assert_array_equal(x, [[-9], [7]])
  np.testing.assert_array_equal(y, [1, 1])


def test_refuses_a_target_that_is_no_class():
  for call in (
      lambda attack: attack.success_examples(_X, _Y, num_classes=3),
      lambda attack: _poison(_X, _Y, target=3),
  ):
    with pytest.raises(ValueError, match='target must be .* <= 2; found 3'):
      call(edge_case.EdgeCase(target=3))
