"""Tests for the random generators of a simulation."""

import numpy as np
import pytest

from fedaot_tff.simulation import seeding


def _draw(*args):
  return seeding.generator(*args).integers(2**60)


def test_same_arguments_give_the_same_numbers():
  args = (5, seeding.Purpose.COHORT, 3)
  assert _draw(*args) == _draw(*args)


def test_other_arguments_give_other_numbers():
  draws = [
      _draw(seed, purpose, *keys)
      for seed in (0, 1, 2**40)
      for purpose in seeding.Purpose
      for keys in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
  ]
  # Nor those that code outside draws from the bare seed.
  draws += [np.random.default_rng(s).integers(2**60) for s in (0, 1, 2**40)]
  assert len(set(draws)) == len(draws)


def test_accepts_integers():
  assert seeding.check_seed(np.int64(4)) == 4


@pytest.mark.parametrize('seed', [1.0, '1', None, True])
def test_rejects_other_kinds(seed):
  with pytest.raises(TypeError, match='seed must be an int; found'):
    seeding.check_seed(seed)


def test_rejects_negative_seeds():
  with pytest.raises(ValueError, match='seed must not be negative; found -1'):
    seeding.check_seed(-1)
