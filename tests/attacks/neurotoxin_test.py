"""Neurotoxin."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import neurotoxin
from tests.attacks import hand_made


def _send(poisoning, models, update):
  """What is sent in the last of the rounds with these global models."""
  state = None
  for round_num, model in enumerate(models, start=1):
    vector, state = hand_made.agree(
        poisoning,
        hand_made.updates(3, len(model)),
        state,
        round_num=round_num,
        model=model,
    )
  return poisoning.send(
      tf.constant(update, tf.float32), vector, hand_made.attacker()
  ).numpy()


def test_by_hand():
  poisoning = neurotoxin.Neurotoxin(top=0.4)
  models = [[9, 9, 9, 9, 9], [0, 0, 0, 0, 0], [3, -4, 0, 1, -2]]
  update = [1, 2, 3, 4, np.inf]
  # 3 of 5 stay, those that moved by 0, 1 and 2 in the last round.
  np.testing.assert_array_equal(
      _send(poisoning, models, update), [0, 0, 3, 4, np.inf]
  )


def test_sends_all_where_the_model_has_not_moved():
  update = [1, 2, 3, 4]
  for models in (np.ones([1, 4]), np.ones([3, 4]), [[1] * 4, [0] * 4]):
    found = _send(neurotoxin.Neurotoxin(top=0.5), models, update)
    np.testing.assert_array_equal(found, update)


@pytest.mark.parametrize('top', [0.01, 0.05, 0.3, 0.99])
@pytest.mark.parametrize('num', [1, 7, 100])
def test_leaves_out_the_coordinates_that_moved_most(top, num):
  models = hand_made.updates(2, num, seed=num)
  update = np.arange(1, num + 1)
  found = _send(neurotoxin.Neurotoxin(top=top), models, update)
  order = np.argsort(-np.abs(models[1] - models[0]))
  expected = update.copy()
  expected[order[: int(top * num)]] = 0
  np.testing.assert_array_equal(found, expected)
