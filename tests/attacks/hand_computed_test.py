"""What attackers send, against numbers computed by hand."""

import numpy as np
import pytest

from fedaot_tff.attacks import registry
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'text, expected',
    [
        ('sign_flip', [-3.0, -6.0]),
        ('sign_flip:scale=0.5', [-0.5, -1.0]),
        ('scaling', [10.0, 20.0]),
        ('scaling:factor=2', [2.0, 4.0]),
        ('swap_scaling:factor=7,first=1,second=3', [7.0, 14.0]),
        # Of 5 clients 2 attack.
        ('model_replacement', [2.5, 5.0]),
        ('model_replacement:boost=3,target=2', [3.0, 6.0]),
        # An attacker with an odd number.
        ('noise_backdoor', [3.0, 6.0]),
        ('noise_backdoor:boost=4,noise_scale=2', [4.0, 8.0]),
        ('zero', [0.0, 0.0]),
    ],
)
def test_knowing_the_own_update(text, expected):
  sent = hand_made.poison(
      registry.get_attack(text).update_poisoning, [1.0, 2.0], index=1
  )
  np.testing.assert_allclose(sent, expected, rtol=1e-6)


_TRIANGLE = [[2, 0], [-2, 0], [0, 3]]


@pytest.mark.parametrize(
    'text, rows, num_attackers, expected',
    [
        ('ipm', [[1, 5], [3, -1]], 2, [-4, -4]),
        ('ipm:epsilon=0.5', [[1, 5], [3, -1]], 2, [-1, -1]),
        ('alie:z=1.5', [[1, 5], [3, 5]], 2, [0.5, 5]),
        # The mean is (0, 1) and the largest distance 4. It bounds (0, 1 - g)
        # first at (0, 3), for g = 2.
        ('min_max', _TRIANGLE, 2, [0, -1]),
        # Of (2, 0) the squared distances sum to 16 + 13 = 29, of (0, 3) to 26,
        # of the mean to 5 + 5 + 4 = 14, so that 3 g^2 = 15.
        ('min_sum', _TRIANGLE, 2, [0, 1 - 5**0.5]),
        ('mimic:target=first', [[1, 5], [3, -1]], 2, [1, 5]),
        # One attacker far from updates that coincide is never selected. The
        # bound of the step is 1: 1, 1/2, 1/4, 1/8, 1/16.
        ('fang_krum:threshold=0.1', [[1, 1]] * 5, 1, [-1 / 16, -1 / 16]),
        ('fang_krum', np.zeros([0, 2]), 2, [0, 0]),
        ('fang_trimmed_mean', np.zeros([0, 2]), 2, [0, 0]),
    ],
)
def test_knowing_the_honest_updates(text, rows, num_attackers, expected):
  vector, state = hand_made.agree(
      registry.get_attack(text).update_poisoning,
      rows,
      num_attackers=num_attackers,
  )
  np.testing.assert_allclose(vector, expected, rtol=1e-6, atol=1e-6)
  assert state == ()


@pytest.mark.parametrize('text', ['min_max', 'min_sum'])
def test_offset_that_honest_updates_share_moves_the_vector_alone(text):
  poisoning = registry.get_attack(f'{text}:direction=stddev').update_poisoning
  # Multiples of 64, which float32 can hold at 1e9.
  rows = 192 * np.float32(_TRIANGLE)
  expected, _ = hand_made.agree(poisoning, rows, num_attackers=2)
  for offset in ([2.0**30, 0], [2.0**30, 2.0**30], [2.0**26, -(2.0**30)]):
    offset = np.float32(offset)
    found, _ = hand_made.agree(poisoning, rows + offset, num_attackers=2)
    np.testing.assert_allclose(found - offset, expected, atol=64)
