"""Tables of updates, and a reference for all Gram rules."""

import numpy as np


def random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def squared_distances(updates):
  """By differences, not by inner products."""
  updates = np.asarray(updates, np.float64)
  return np.sum((updates[:, np.newaxis] - updates) ** 2, axis=-1)
