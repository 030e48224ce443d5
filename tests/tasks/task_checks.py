"""Properties that the splits of every task have."""

import numpy as np

from tests.tasks import client_arrays


def labels(task):
  """Returns the labels of all clients together."""
  return np.concatenate([y for _, y in client_arrays.of_all(task.client_data)])


def check_disjoint(task):
  """Checks that no example is in two sets, or twice in one."""
  x = np.concatenate([x for x, _ in client_arrays.of_all(task.client_data)])
  sets = [x, task.holdout['x'], task.test['x']]
  distinct = set().union(*map(client_arrays.images, sets))
  assert len(distinct) == sum(map(len, sets))


def check_seeds(load, fixed=()):
  """Checks that the seed decides on everything but what is `fixed`."""
  first, again, other = (_arrays(load(seed=seed)) for seed in (0, 0, 1))
  for part, values in first.items():
    assert _same(values, again[part]), part
    assert _same(values, other[part]) == (part in fixed), part


def _arrays(task):
  clients = client_arrays.of_all(task.client_data)
  return {
      'clients': [array for client in clients for array in client],
      'holdout': list(task.holdout.values()),
      'test': list(task.test.values()),
      'weights': list(task.model.initial_weights[0]),
  }


def _same(a, b):
  return len(a) == len(b) and all(map(np.array_equal, a, b))
