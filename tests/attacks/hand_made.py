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


def knowledge(
    rows: Any,
    *,
    sees_table: bool = True,
    num_attackers: int = 2,
    round_num: int = 1,
    seed: int = 1,
    model: Any = None,
    defence_state: Any = (),
    root: Any = (),
) -> attack.Knowledge:
  """What colluding attackers know who see the honest rows [h, d]."""
  table = tf.constant(rows, tf.float32)
  if model is None:
    model = tf.zeros([table.shape[1]])
  return attack.Knowledge(
      honest=table if sees_table else vectors.moments(table),
      num_honest=tf.constant(table.shape[0]),
      num_attackers=tf.constant(num_attackers),
      round_num=tf.constant(round_num),
      seed=tf.constant([seed, 7]),
      model=tf.constant(model, tf.float32),
      defence_state=defence_state,
      root=root,
  )


def agree(
    poisoning: attack.CollusivePoisoning, rows: Any, state: Any = None, **known
) -> Tuple[np.ndarray, Any]:
  """The vector and the new state of attackers with this `knowledge`."""
  known = knowledge(rows, sees_table=poisoning.sees_table, **known)
  if state is None:
    state = poisoning.initial_state(known.model.shape[0])
  vector, state = poisoning.agree(known, state)
  assert vector.dtype == tf.float32
  return vector.numpy(), state


def updates(num_rows: int, num_columns: int, *, seed: int = 0) -> np.ndarray:
  """Float32 rows around a common mean of length about 1."""
  rng = np.random.default_rng(seed)
  mean = rng.normal(size=num_columns) / np.sqrt(num_columns)
  rows = mean + 0.3 * rng.normal(size=[num_rows, num_columns])
  return rows.astype(np.float32)
