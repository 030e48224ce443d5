"""Tests for the random generators of a simulation."""

import numpy as np

from fedaot_tff.simulation import seeding


def test_the_arguments_tell_the_numbers():
  draws = [
      seeding.generator(seed, purpose, *keys).integers(2**60)
      for _ in range(2)
      for seed in (0, 1, 2**40)
      for purpose in seeding.Purpose
      for keys in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
  ]
  once, again = np.split(np.array(draws), 2)
  np.testing.assert_array_equal(once, again)
  # Nor does code outside draw the same from the bare seed.
  bare = [np.random.default_rng(s).integers(2**60) for s in (0, 1, 2**40)]
  assert len({*once, *bare}) == len(once) + len(bare)
