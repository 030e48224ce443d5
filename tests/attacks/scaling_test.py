"""Scaling."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import scaling
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'options, factor', [({}, 10.0), ({'factor': 0.5}, 0.5)]
)
def test_sends_a_multiple_of_the_update(options, factor):
  update = np.array([1.5, -2.25, 0.0], np.float32)
  sent = scaling.Scaling(**options).poison(
      tf.constant(update), hand_made.attacker()
  )
  np.testing.assert_array_equal(sent, factor * update)


def test_refuses_a_wrong_factor():
  with pytest.raises(ValueError, match='factor must be positive'):
    scaling.Scaling(factor=-10.0)
