"""Sign flipping."""

import math

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.attacks import sign_flip
from tests import small_problem


@pytest.mark.parametrize(
    'options, factor', [({}, -3.0), ({'scale': 0.5}, -0.5)]
)
def test_attackers_send_minus_scale_times_their_update(options, factor):
  process = sign_flip.SignFlip(**options).create(
      tff.TensorType(np.float32, [3])
  )
  updates = [
      np.array([1.5, -2.25, 0.0], np.float32),
      np.array([0.1, np.inf, 1e30], np.float32),
  ]
  output = process.next(process.initialize(), updates, [True, False])
  np.testing.assert_array_equal(output.result[0], factor * updates[0])
  small_problem.assert_bit_identical(output.result[1], updates[1])


@pytest.mark.parametrize(
    'scale, error',
    [
        ('3', TypeError),
        (True, TypeError),
        (None, TypeError),
        (0, ValueError),
        (-1.0, ValueError),
        (math.inf, ValueError),
        (math.nan, ValueError),
    ],
)
def test_refuses_a_wrong_scale(scale, error):
  with pytest.raises(error, match=f'found {scale!r}') as info:
    sign_flip.SignFlip(scale=scale)
  assert '\n' not in str(info.value)
