"""Choosing examples."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import examples


def _choose(num, fraction, generator):
  return examples.choose(tf.data.Dataset.range(num), fraction, generator)


@pytest.mark.parametrize(
    'num, fraction, expected',
    [(10, 0.25, 2), (10, 0.35, 4), (7, 1.0, 7), (3, 0.1, 0), (0, 0.5, 0)],
)
def test_chooses_exactly_so_many(num, fraction, expected):
  chosen = _choose(num, fraction, np.random.default_rng(0))
  assert chosen.shape == (num,)
  assert chosen.sum() == expected


def test_every_example_is_chosen_equally_often():
  generator = np.random.default_rng(0)
  total = sum(_choose(5, 0.4, generator) * 1 for _ in range(2000))
  np.testing.assert_allclose(total / 2000, 0.4, atol=0.05)
