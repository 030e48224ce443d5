"""Label swapping with scaled updates."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import swap_scaling
from tests.attacks import poisoned_data


@pytest.mark.parametrize(
    'options, expected',
    [({}, [1, 0, 3, 2]), ({'first': 0, 'second': 3}, [3, 1, 2, 0])],
)
def test_swaps_labels(options, expected):
  poisoned = swap_scaling.data_poisoning(**options).poison(
      poisoned_data.dataset(range(4)), num_classes=4, attacker_index=0, seed=0
  )
  np.testing.assert_array_equal(poisoned_data.arrays(poisoned)[1], expected)


@pytest.mark.parametrize(
    'options, factor', [({}, 10.0), ({'factor': 0.5}, 0.5)]
)
def test_scales_updates(options, factor):
  update = np.array([1.5, -2.25, 0.0], np.float32)
  attacker = attack.Attacker(
      index=tf.constant(1),
      seed=tf.constant([0, 1]),
      round_num=tf.constant(1),
      num_attackers=tf.constant(2),
      num_clients=tf.constant(4),
  )
  sent = swap_scaling.update_poisoning(**options).poison(
      tf.constant(update), attacker
  )
  np.testing.assert_array_equal(sent, factor * update)


def test_refuses_wrong_options():
  with pytest.raises(ValueError, match='found 1 and None'):
    swap_scaling.data_poisoning(first=1)
  with pytest.raises(TypeError, match="factor .* found '3'"):
    swap_scaling.update_poisoning(factor='3')
