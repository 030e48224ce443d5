"""Random generators of a simulation, all derived from its one seed."""

import enum
from typing import Any

import numpy as np


class Purpose(enum.IntEnum):
  """What random numbers are for. Different purposes are independent."""

  ATTACKERS = 0
  COHORT = 1
  EXAMPLE_ORDER = 2
  POISONING = 3
  CLIENT_SIZES = 4


def check_seed(seed: Any) -> int:
  """Returns a seed as an int.

  Raises:
    TypeError: If it is not an integer.
    ValueError: If it is negative.
  """
  if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
    raise TypeError(
        f'seed must be an int; found {seed!r} of type {type(seed).__name__}.'
    )
  if seed < 0:
    raise ValueError(f'seed must not be negative; found {seed}.')
  return int(seed)


def generator(seed: int, purpose: Purpose, *keys: int) -> np.random.Generator:
  """The generator for a purpose.

  Args:
    seed: The seed of the simulation.
    purpose: What the numbers are for.
    *keys: Nonnegative integers, such as the round, that tell the uses of one
      purpose apart.

  Returns:
    A new generator, the same for the same arguments on every machine.
  """
  return np.random.default_rng(
      np.random.SeedSequence(seed, spawn_key=(purpose, *keys))
  )
