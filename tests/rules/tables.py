"""Tables of updates, and a reference for all Gram rules."""

import numpy as np


def random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def squared_distances(updates):
  """By differences, not by inner products."""
  updates = np.asarray(updates, np.float64)
  return np.sum((updates[:, np.newaxis] - updates) ** 2, axis=-1)


# Of which tests hold what ByzFL 0.0.11 returned.
RECORDED = np.array(
    [
        [0.3, -1.2, 0.5],
        [1.1, 0.4, -0.7],
        [-0.6, 0.9, 0.2],
        [0.8, -0.1, 1.4],
        [2.5, 0.3, -1.9],
        [-1.3, 1.6, 0.7],
        [7.0, -8.0, 9.0],
    ]
)
