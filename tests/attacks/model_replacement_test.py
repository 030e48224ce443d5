"""Model replacement."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import model_replacement
from tests.attacks import hand_made


def test_the_mean_becomes_the_mean_of_the_attackers():
  own = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
  attacker = hand_made.attacker(num_attackers=2, num_clients=5)
  sent = [
      model_replacement.ModelReplacement().poison(tf.constant(u), attacker)
      for u in own
  ]
  np.testing.assert_allclose(sent[0], [2.5, -5.0])
  cohort = np.concatenate([sent, np.zeros([3, 2])])
  np.testing.assert_allclose(cohort.mean(axis=0), own.mean(axis=0))


def test_a_fixed_boost_needs_no_counts():
  sent = model_replacement.ModelReplacement(boost=4).poison(
      tf.constant([1.0, -2.0]), hand_made.attacker()
  )
  np.testing.assert_array_equal(sent, [4, -8])


def test_refuses_a_wrong_boost():
  with pytest.raises(ValueError, match='boost must be positive'):
    model_replacement.ModelReplacement(boost=0)
