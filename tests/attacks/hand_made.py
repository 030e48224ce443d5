"""What attackers know and who they are, made by hand."""

from typing import Any, Tuple

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors


def attacker(
    *,
    index: int = 0,
    seed: int = 1,
    num_attackers: int = 2,
    num_clients: int = 5,
) -> attack.Attacker:
  """An attacker in the first round."""
  return attack.Attacker(
      index=tf.constant(index),
      seed=tf.constant([seed, 7]),
      round_num=tf.constant(1),
      num_attackers=tf.constant(num_attackers),
      num_clients=tf.constant(num_clients),
  )


def poison(
    poisoning: attack.OwnUpdatePoisoning, update: Any, **who: int
) -> np.ndarray:
  """What an `attacker` sends who knows its own update."""
  update = tf.constant(update, tf.float32)
  sent = poisoning.poison(update, attacker(**who))
  assert sent.dtype == tf.float32
  return sent.numpy()


def agree(
    poisoning: attack.CollusivePoisoning,
    rows: Any,
    state: Any = None,
    *,
    num_attackers: int = 2,
    round_num: int = 1,
    seed: int = 1,
    model: Any = None,
) -> Tuple[np.ndarray, Any]:
  """The vector and the new state of attackers who know honest rows [h, d]."""
  table = tf.constant(rows, tf.float32)
  num_honest, num_coordinates = table.shape
  if state is None:
    state = poisoning.initial_state(num_coordinates)
  if model is None:
    model = tf.zeros([num_coordinates])
  vector, state = poisoning.agree(
      attack.Knowledge(
          honest=table if poisoning.sees_table else vectors.moments(table),
          num_honest=tf.constant(num_honest),
          num_attackers=tf.constant(num_attackers),
          round_num=tf.constant(round_num),
          seed=tf.constant([seed, 7]),
          model=tf.constant(model, tf.float32),
      ),
      state,
  )
  assert vector.dtype == tf.float32
  return vector.numpy(), state


def updates(num_rows: int, num_columns: int, *, seed: int = 0) -> np.ndarray:
  """Float32 rows around a common mean of length about 1."""
  rng = np.random.default_rng(seed)
  mean = rng.normal(size=num_columns) / np.sqrt(num_columns)
  rows = mean + 0.3 * rng.normal(size=[num_rows, num_columns])
  return rows.astype(np.float32)
