"""Mimic."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import mimic
from tests.attacks import hand_made


def _run(attack, rounds):
  """The vectors and the last state of an attack over rounds of updates."""
  state, vectors = None, []
  for i, rows in enumerate(rounds):
    vector, state = hand_made.agree(attack, rows, state, round_num=i + 1)
    vectors.append(vector)
  return vectors, state


def test_a_step_of_ojas_rule():
  honest = hand_made.updates(4, 5)
  mean, direction = hand_made.updates(2, 5, seed=1)
  found_mean, found_direction = mimic.learn_direction(
      tf.constant(honest), mean, direction, tf.constant(3)
  )
  new_mean = 0.75 * mean + 0.25 * honest.mean(axis=0)
  spread = sum((x - new_mean) * ((x - new_mean) @ direction) for x in honest)
  z = 0.75 * direction + 0.25 * spread / np.linalg.norm(spread)
  np.testing.assert_allclose(found_mean, new_mean, rtol=1e-5)
  np.testing.assert_allclose(found_direction, z / np.linalg.norm(z), rtol=1e-4)


def test_learns_where_updates_vary_and_imitates_the_farthest_client():
  rng = np.random.default_rng(0)
  rounds = 0.1 * rng.normal(size=[12, 6, 8])
  rounds[:, :, 3] += np.array([-2, -1, 0, 0, 1, 2.0])
  rounds += 5.0
  vectors, state = _run(mimic.Mimic(), rounds)
  assert abs(state['direction'][3]) > 0.95
  np.testing.assert_allclose(np.linalg.norm(state['direction']), 1, rtol=1e-5)
  # The farthest client of the side to which z happens to point.
  chosen = 5 if state['direction'][3] > 0 else 0
  np.testing.assert_array_equal(vectors[-1], np.float32(rounds[-1][chosen]))


@pytest.mark.parametrize('columns', [slice(1), slice(5), slice(None, None, 2)])
def test_imitates_the_same_client_beside_an_offset_of_1e9(columns):
  for seed in range(5):
    # Multiples of 128, which float32 can hold at 1e9.
    rows = 128 * np.round(5 * hand_made.updates(7, 10, seed=seed))
    offset = np.zeros(10, np.float32)
    offset[columns] = 2.0**30
    expected, _ = hand_made.agree(mimic.Mimic(), rows)
    found, _ = hand_made.agree(mimic.Mimic(), rows + offset)
    np.testing.assert_array_equal(found - offset, expected)


def test_learning_ends_after_the_warm_up():
  rounds = [hand_made.updates(4, 5, seed=seed) for seed in range(4)]
  _, one = _run(mimic.Mimic(warmup_rounds=2), rounds[:1])
  _, two = _run(mimic.Mimic(warmup_rounds=2), rounds[:2])
  vectors, four = _run(mimic.Mimic(warmup_rounds=2), rounds)
  _, all_four = _run(mimic.Mimic(warmup_rounds=4), rounds)
  for name in ('mean', 'direction'):
    assert np.any(one[name] != two[name])
    np.testing.assert_array_equal(two[name], four[name])
    assert np.any(all_four[name] != four[name])
  chosen = np.argmax(rounds[3] @ two['direction'].numpy())
  np.testing.assert_array_equal(vectors[3], rounds[3][chosen])


def test_rounds_without_honest_clients_teach_nothing():
  rows = hand_made.updates(4, 5)
  _, before = _run(mimic.Mimic(), [rows])
  vectors, after = _run(mimic.Mimic(), [rows, np.zeros([0, 5])])
  np.testing.assert_array_equal(vectors[1], np.zeros(5))
  for name in ('mean', 'direction'):
    np.testing.assert_allclose(after[name], before[name], rtol=1e-6)


@pytest.mark.parametrize('target', mimic.TARGETS)
def test_few_honest_clients(target):
  rows = hand_made.updates(1, 5)
  vectors, _ = _run(
      mimic.Mimic(target=target),
      [np.zeros([0, 5]), rows, np.tile(rows, [3, 1])],
  )
  np.testing.assert_array_equal(vectors, [np.zeros(5), rows[0], rows[0]])
