"""Tests for breast_cancer."""

import numpy as np
import pytest
from sklearn import datasets
import tensorflow as tf

from tasks import breast_cancer
from tests.tasks import client_arrays
from tests.tasks import task_checks


@pytest.fixture(name='task', scope='module')
def _task():
  return breast_cancer.load()


def _client_features(task):
  return np.concatenate(
      [x for x, _ in client_arrays.of_all(task.client_data)]
  ).astype(np.float64)


def test_sizes_and_balance(task):
  assert task.name == 'breast_cancer'
  assert task.num_classes == 2
  assert np.bincount(task.test['y']).tolist() == [44, 75]
  assert np.bincount(task.holdout['y']).tolist() == [19, 31]
  assert np.bincount(task_checks.labels(task)).tolist() == [149, 251]
  sizes = [y.size for _, y in client_arrays.of_all(task.client_data)]
  assert len(sizes) == 20
  assert min(sizes) >= 5
  assert task.client_data.element_type_structure == {
      'x': tf.TensorSpec([30], tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }


def test_all_tumours_are_used_once(task):
  task_checks.check_disjoint(task)


def test_features_are_standardized_on_the_clients_alone(task):
  x = _client_features(task)
  np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-6)
  np.testing.assert_allclose(x.std(axis=0), 1.0, atol=1e-6)
  # Were the test set part of it, its mean would pull that of the clients.
  assert np.abs(task.test['x'].mean(axis=0)).max() > 0.05


def test_test_set_has_the_same_scale_as_the_clients(task):
  """The split's examples are affine in the original features, all alike."""
  features, labels = datasets.load_breast_cancer(return_X_y=True)
  x = np.concatenate([_client_features(task), task.holdout['x']])
  x = np.concatenate([x, task.test['x']])
  # An affine increasing map keeps the order of every feature.
  expected = (features - features.mean(axis=0)) / features.std(axis=0)
  found = (x - x.mean(axis=0)) / x.std(axis=0)
  np.testing.assert_allclose(
      np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-4
  )
  # Malignant tumours, class 0, have the larger radius.
  radius = task.test['x'][:, 0]
  y = task.test['y']
  assert radius[y == 0].mean() > 0.5 > 0.0 > radius[y == 1].mean()
  assert features[labels == 0, 0].mean() > features[labels == 1, 0].mean()


def test_constant_feature_is_shifted_only():
  task = breast_cancer.load(
      num_clients=1, cohort_size=1, partition='iid', holdout_size=449
  )
  ((x, _),) = client_arrays.of_all(task.client_data)
  assert x.tolist() == [[0.0] * 30]


def test_seeds():
  task_checks.check_seeds(breast_cancer.load)


def test_test_set_has_the_same_tumours_for_other_options(task):
  other = breast_cancer.load(partition='shards', holdout_size=20)
  np.testing.assert_array_equal(other.test['y'], task.test['y'])
  for feature, wanted in zip(other.test['x'].T, task.test['x'].T):
    assert np.corrcoef(feature, wanted)[0, 1] > 1 - 1e-6
  assert task_checks.labels(other).size == 430


def test_trains(task):
  assert client_arrays.num_parameters(task) == 1058
  client_arrays.check_one_round(task)


def test_training_defaults(task):
  assert (task.batch_size, task.client_epochs) == (10, 2)
  assert (task.client_learning_rate, task.rounds) == (0.1, 20)
  assert task.cohort_size == 10


def test_wrong_options_raise():
  with pytest.raises(ValueError, match="`partition`.*found 'rnn'"):
    breast_cancer.load(partition='rnn')
  with pytest.raises(ValueError, match='between 1 and 449, found 450'):
    breast_cancer.load(holdout_size=450)
  with pytest.raises(ValueError, match='at most 80 clients'):
    breast_cancer.load(num_clients=81)
