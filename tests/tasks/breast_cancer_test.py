"""Tests for breast_cancer's features."""

import numpy as np
from sklearn import datasets

import tasks
from tests.tasks import contract_test


def test_features_are_standardized_on_the_clients_alone():
  task = tasks.load_task('breast_cancer')
  x = np.concatenate([x for x, _ in contract_test.clients(task)])
  x = x.astype(np.float64)
  np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=1e-6)
  np.testing.assert_allclose(x.std(axis=0), 1.0, atol=1e-6)
  # Were the test set part of it, its mean would pull that of the clients.
  assert np.abs(task.test['x'].mean(axis=0)).max() > 0.05
  # Of all three the same affine map makes the original features.
  every = np.concatenate([x, task.holdout['x'], task.test['x']])
  found, expected = (
      np.sort((table - table.mean(axis=0)) / table.std(axis=0), axis=0)
      for table in (every, datasets.load_breast_cancer().data)
  )
  np.testing.assert_allclose(found, expected, atol=1e-4)
  # Malignant tumours, class 0, have the larger radius.
  radius, y = task.test['x'][:, 0], task.test['y']
  assert radius[y == 0].mean() > 0.5 > 0.0 > radius[y == 1].mean()


def test_constant_feature_is_shifted_only():
  task = tasks.load_task(
      'breast_cancer',
      num_clients=1,
      cohort_size=1,
      partition='iid',
      holdout_size=449,
  )
  x, _ = contract_test.client(task, 0)
  assert x.tolist() == [[0.0] * 30]
