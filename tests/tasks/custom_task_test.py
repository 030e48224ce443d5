"""A task in a user's own code, from NumPy arrays."""

import numpy as np

from tasks import array_client_data
from tasks import image_models
from tasks import partition
from tasks import task
from tests.tasks import client_arrays


def _make_task(x, y):
  test, holdout, train = partition.stratified_split(
      y, {'test_size': 100, 'holdout_size': 50}, seed=0
  )
  parts = partition.dirichlet(y[train], num_clients=10, alpha=0.5, seed=0)
  return task.Task(
      name='mine',
      client_data=array_client_data.ArrayClientData(
          x, y, [train[part] for part in parts]
      ),
      holdout={'x': x[holdout], 'y': y[holdout]},
      test={'x': x[test], 'y': y[test]},
      model=image_models.mlp(x.shape[1:], num_classes=3, seed=0),
      num_classes=3,
      batch_size=10,
      client_epochs=1,
      client_learning_rate=0.1,
      rounds=20,
      cohort_size=5,
  )


def test_custom_task_trains():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((600, 4)).astype(np.float32)
  mine = _make_task(x, np.argmax(x[:, :3], axis=1))
  sizes = [y.size for _, y in client_arrays.of_all(mine.client_data)]
  assert len(sizes) == 10
  assert sum(sizes) == 450
  client_arrays.check_one_round(mine)
