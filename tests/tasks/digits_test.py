"""Tests for digits."""

import numpy as np
import pytest
import tensorflow as tf

from tasks import digits
from tests.tasks import client_arrays
from tests.tasks import task_checks


@pytest.fixture(name='task', scope='module')
def _task():
  return digits.load()


def test_sizes_and_balance(task):
  assert task.name == 'digits'
  assert task.num_classes == 10
  assert task.test['y'].size == 397
  assert task.holdout['y'].size == 100
  sizes = [y.size for _, y in client_arrays.of_all(task.client_data)]
  assert len(sizes) == 30
  assert sum(sizes) == 1300
  assert min(sizes) >= 10
  for y in (task.test['y'], task.holdout['y']):
    # A class has 174 to 183 of the 1,797 digits.
    assert np.ptp(np.bincount(y)) <= 3
  total = sum(
      np.bincount(y)
      for y in (task.test['y'], task.holdout['y'], task_checks.labels(task))
  )
  assert total.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_all_digits_are_used_once(task):
  task_checks.check_disjoint(task)


def test_examples(task):
  assert task.client_data.element_type_structure == {
      'x': tf.TensorSpec([8, 8, 1], tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }
  x = task.test['x']
  assert np.unique(x * 16).tolist() == list(range(17))
  # The first and last column of a digit are all but empty.
  assert x[:, :, [0, -1]].mean() < 0.03 < 0.3 < x.mean()


def test_labels_belong_to_the_images(task):
  """A mean image a class, from the clients, classifies the test images."""
  clients = client_arrays.of_all(task.client_data)
  x = np.concatenate([x for x, _ in clients]).reshape(-1, 64)
  y = np.concatenate([y for _, y in clients])
  means = np.stack([x[y == label].mean(axis=0) for label in range(10)])
  test = task.test['x'].reshape(-1, 1, 64)
  found = np.linalg.norm(test - means, axis=-1).argmin(axis=-1)
  assert np.mean(found == task.test['y']) > 0.8


def test_seeds():
  task_checks.check_seeds(digits.load)


def test_test_set_is_the_same_for_other_options(task):
  other = digits.load(partition='iid', num_clients=10, holdout_size=20)
  for key in ('x', 'y'):
    np.testing.assert_array_equal(other.test[key], task.test[key])
  sizes = [y.size for _, y in client_arrays.of_all(other.client_data)]
  assert sizes == [138] * 10


def test_shards():
  shards = digits.load(partition='shards', shards_per_client=1)
  for _, y in client_arrays.of_all(shards.client_data):
    assert np.unique(y).size <= 2


@pytest.mark.parametrize(
    'model, num_parameters', [('mlp', 7510), ('cnn', 19466)]
)
def test_trains(model, num_parameters):
  task = digits.load(model=model)
  assert client_arrays.num_parameters(task) == num_parameters
  client_arrays.check_one_round(task)


def test_training_defaults(task):
  assert (task.batch_size, task.client_epochs) == (10, 2)
  assert (task.client_learning_rate, task.rounds) == (0.2, 30)
  assert task.cohort_size == 10


def test_wrong_options_raise():
  with pytest.raises(ValueError, match="`model`.*found 'rnn'"):
    digits.load(model='rnn')
  with pytest.raises(ValueError, match="`partition`.*found 'rnn'"):
    digits.load(partition='rnn')
  with pytest.raises(ValueError, match='between 1 and 1399, found 1400'):
    digits.load(holdout_size=1400)
  with pytest.raises(ValueError, match='at most 130 clients'):
    digits.load(num_clients=131)
