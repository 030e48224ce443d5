"""Label noise."""

import gc

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import func_graph

from fedaot_tff.attacks import examples
from fedaot_tff.attacks import label_noise
from tests.attacks import poisoned_data


def _labels(labels, **options):
  poisoned = label_noise.LabelNoise(**options).poison(
      poisoned_data.dataset(labels), num_classes=5, attacker_index=0, seed=0
  )
  return poisoned_data.arrays(poisoned)[1]


@pytest.mark.parametrize(
    'options, num_wrong',
    [({}, 20), ({'fraction': 0.275}, 6), ({'fraction': 0.01}, 0)],
)
def test_exactly_a_fraction_of_the_labels_is_wrong(options, num_wrong):
  labels = np.arange(20) % 5
  assert np.sum(_labels(labels, **options) != labels) == num_wrong


def test_wrong_labels_are_uniform():
  counts = np.bincount(_labels([2] * 2000), minlength=5)
  assert counts[2] == 0
  np.testing.assert_allclose(counts[[0, 1, 3, 4]], 500, atol=90)


def test_every_example_is_chosen_equally_often():
  generator = np.random.default_rng(0)
  dataset = tf.data.Dataset.range(5)
  total = sum(examples.choose(dataset, 0.4, generator) * 1 for _ in range(2000))
  np.testing.assert_allclose(total / 2000, 0.4, atol=0.05)


def test_counting_leaves_nothing_behind():
  def choose():
    dataset = tf.data.Dataset.range(5).filter(lambda _: True)
    chosen = examples.choose(dataset, 0.4, np.random.default_rng(0))
    assert (len(chosen), sum(chosen)) == (5, 2)

  def graphs():
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, func_graph.FuncGraph)]

  choose()
  # Held, so that what other tests leave behind is neither freed nor mistaken.
  before = graphs()
  choose()
  assert not {*map(id, graphs())} - {*map(id, before)}
