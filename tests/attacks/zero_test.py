"""Zero updates."""

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import zero
from tests.attacks import hand_made


def test_sends_zeros_even_for_a_non_finite_update():
  sent = zero.Zero().poison(
      tf.constant([1.0, np.nan, -np.inf]), hand_made.attacker()
  ).numpy()
  np.testing.assert_array_equal(sent, np.zeros(3))
  assert sent.dtype == np.float32
