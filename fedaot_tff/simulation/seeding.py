"""Random generators of a simulation, all derived from its one seed."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
  """What random numbers are for. Different purposes are independent."""

  ATTACKERS = 0
  COHORT = 1
  EXAMPLE_ORDER = 2
  POISONING = 3
  CLIENT_SIZES = 4


def generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
  """A new generator, the same for the same arguments on every machine.

  `seed` is that of the simulation; nonnegative `keys`, such as the round, tell
  the uses of one purpose apart.
  """
  return np.random.default_rng(
      np.random.SeedSequence(seed, spawn_key=(purpose, *keys))
  )
