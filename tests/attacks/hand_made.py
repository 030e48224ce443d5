"""What attackers know and who they are, made by hand."""

from typing import Any

import numpy as np
import tensorflow as tf

from fedaot_tff.attacks import attack


def attacker(
    *, seed: int = 1, num_attackers: int = 2, num_clients: int = 5
) -> attack.Attacker:
  """An attacker in the first round."""
  return attack.Attacker(
      index=tf.constant(0),
      seed=tf.constant([seed, 7]),
      round_num=tf.constant(1),
      num_attackers=tf.constant(num_attackers),
      num_clients=tf.constant(num_clients),
  )


def _knowledge(honest, rows, num_attackers, round_num, seed, model):
  if model is None:
    model = np.zeros(np.shape(rows)[1:])
  return attack.Knowledge(
      honest=honest,
      num_honest=tf.constant(len(rows)),
      num_attackers=tf.constant(num_attackers),
      round_num=tf.constant(round_num),
      seed=tf.constant([seed, 7]),
      model=tf.constant(model, tf.float32),
  )


def table_knowledge(
    rows: Any,
    *,
    num_attackers: int = 2,
    round_num: int = 1,
    seed: int = 1,
    model: Any = None,
) -> attack.Knowledge:
  """The knowledge of an attack that sees the rows [h, d] one by one."""
  table = tf.constant(rows, tf.float32)
  return _knowledge(table, rows, num_attackers, round_num, seed, model)


def moments_knowledge(
    rows: Any,
    *,
    num_attackers: int = 2,
    round_num: int = 1,
    seed: int = 1,
    model: Any = None,
) -> attack.Knowledge:
  """The knowledge of an attack that sees moments of the rows [h, d]."""
  rows = np.asarray(rows, np.float64)
  count = max(len(rows), 1)
  mean = rows.sum(axis=0) / count
  stddev = np.sqrt(((rows - mean) ** 2).sum(axis=0) / count)
  moments = attack.HonestMoments(
      tf.constant(mean, tf.float32), tf.constant(stddev, tf.float32)
  )
  return _knowledge(moments, rows, num_attackers, round_num, seed, model)


def updates(num_rows: int, num_columns: int, *, seed: int = 0) -> np.ndarray:
  """Float32 rows around a common mean of length about 1."""
  rng = np.random.default_rng(seed)
  mean = rng.normal(size=num_columns) / np.sqrt(num_columns)
  rows = mean + 0.3 * rng.normal(size=[num_rows, num_columns])
  return rows.astype(np.float32)
