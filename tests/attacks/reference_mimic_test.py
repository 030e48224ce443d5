"""Reference mimicry."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import reference_mimic
from tests.attacks import hand_made


def _cosine(a, b):
  return np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)


def test_blend_without_news_is_the_reference():
  found = reference_mimic.against_news(
      tf.constant([0.0, 2.0]), tf.constant([0.0, -3.0]), 0.75
  )
  np.testing.assert_array_equal(found, [0, 1])


def test_remembers_moves_of_the_model_and_sends_honest_lengths():
  attack = reference_mimic.ReferenceMimic(poison=0.5, scale=1.5, memory=0.25)
  models = np.float32([[1, 1, 1], [3, 1, 1], [3, 2, 1]])
  state = None
  for i, model in enumerate(models):
    rows = hand_made.updates(4, 3, seed=i)
    vector, state = hand_made.agree(
        attack, rows, state, round_num=i + 1, model=model
    )
    if i == 0:
      np.testing.assert_allclose(vector, rows.mean(axis=0), rtol=1e-5)
      np.testing.assert_array_equal(state['reference'], np.zeros(3))
  reference = 0.25 * 0.75 * np.array([2, 0, 0]) + 0.75 * np.array([0, 1, 0])
  np.testing.assert_allclose(state['reference'], reference)
  along = reference / np.linalg.norm(reference)
  mean = rows.mean(axis=0)
  news = mean - mean @ along * along
  blend = along - 0.5 * news / np.linalg.norm(news)
  length = np.sqrt(np.mean(np.sum(rows**2, axis=1)))
  np.testing.assert_allclose(
      vector, 1.5 * length * blend / np.linalg.norm(blend), rtol=1e-5
  )
  assert _cosine(vector, reference) == pytest.approx(1.25**-0.5, rel=1e-5)


@pytest.mark.parametrize('num_honest', [0, 1])
def test_few_honest_clients(num_honest):
  rows = hand_made.updates(1, 3)[:num_honest]
  state = None
  for i in range(3):
    vector, state = hand_made.agree(
        reference_mimic.ReferenceMimic(),
        rows,
        state,
        round_num=i + 1,
        model=[i, i, 0.0],
    )
  expected = 2 * np.linalg.norm(rows[0]) if num_honest else 0
  np.testing.assert_allclose(np.linalg.norm(vector), expected, rtol=1e-5)


def test_attackers_send_different_vectors_of_about_the_same_direction():
  vector = hand_made.updates(1, 10_000)[0]
  attack = reference_mimic.ReferenceMimic(jitter=0.5)
  sent = [
      attack.send(None, vector, hand_made.attacker(seed=seed)).numpy()
      for seed in (1, 2)
  ]
  assert _cosine(sent[0], sent[1]) == pytest.approx(0.8, abs=0.02)
  assert _cosine(sent[0], vector) == pytest.approx(0.8**0.5, abs=0.02)
  exact = reference_mimic.ReferenceMimic(jitter=0).send(
      None, tf.constant(vector), hand_made.attacker()
  )
  np.testing.assert_array_equal(exact, vector)
