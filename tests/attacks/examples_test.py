"""Choosing and relabelling examples."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import examples
from tests.attacks import poisoned_data


@pytest.mark.parametrize(
    'num, fraction, expected',
    [(10, 0.25, 2), (10, 0.35, 4), (7, 1.0, 7), (3, 0.1, 0), (0, 0.5, 0)],
)
def test_chooses_exactly_so_many(num, fraction, expected):
  chosen = examples.choose(num, fraction, np.random.default_rng(0))
  assert chosen.shape == (num,)
  assert chosen.sum() == expected == round(fraction * num)


def test_every_example_is_chosen_equally_often():
  generator = np.random.default_rng(0)
  total = sum(examples.choose(5, 0.4, generator) * 1 for _ in range(2000))
  np.testing.assert_allclose(total / 2000, 0.4, atol=0.05)


def test_counts_examples_of_unknown_cardinality():
  dataset = tf.data.Dataset.range(10)
  assert examples.num_examples(dataset) == 10
  odd = dataset.filter(lambda n: n % 2 == 1)
  assert odd.cardinality() == tf.data.UNKNOWN_CARDINALITY
  assert examples.num_examples(odd) == 5
  with pytest.raises(ValueError, match='must be finite'):
    examples.num_examples(dataset.repeat())


@pytest.mark.parametrize('dtype', [np.int32, np.int64, np.uint8])
def test_relabels_by_the_table_alone(dtype):
  clean = poisoned_data.dataset([0, 1, 2, 2], dtype=dtype, shape=[2, 3])
  relabelled = examples.relabel(clean, np.array([2, 2, 1]))
  assert relabelled.element_spec == clean.element_spec
  assert relabelled.cardinality() == 4
  x, y = poisoned_data.arrays(relabelled)
  np.testing.assert_array_equal(y, [2, 2, 1, 1])
  poisoned_data.assert_same_bits(x, poisoned_data.arrays(clean)[0])


def test_keeps_the_order_of_the_components():
  clean = tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(y=np.array([1]), x=np.ones([1, 2]))
  )
  relabelled = examples.relabel(clean, np.array([1, 0]))
  assert relabelled.element_spec == clean.element_spec


@pytest.mark.parametrize('label', [-1, 3])
def test_refuses_labels_that_are_no_classes(label):
  relabelled = examples.relabel(poisoned_data.dataset([label]), np.arange(3))
  with pytest.raises(tf.errors.InvalidArgumentError):
    poisoned_data.arrays(relabelled)
