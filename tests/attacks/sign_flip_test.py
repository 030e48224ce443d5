"""Sign flipping."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import sign_flip
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'options, factor', [({}, -3.0), ({'scale': 0.5}, -0.5)]
)
def test_sends_minus_scale_times_the_update(options, factor):
  update = np.array([1.5, -2.25, 0.0], np.float32)
  sent = sign_flip.SignFlip(**options).poison(
      tf.constant(update), hand_made.attacker()
  )
  np.testing.assert_array_equal(sent, factor * update)


@pytest.mark.parametrize('scale, error', [('3', TypeError), (0, ValueError)])
def test_refuses_a_wrong_scale(scale, error):
  with pytest.raises(error, match=f'scale must .* found {scale!r}'):
    sign_flip.SignFlip(scale=scale)
