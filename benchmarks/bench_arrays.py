"""FedAOT and the rules of `fedaot.rules` on arrays, next to `numpy.mean`.

`extra_mb` is what they allocate at the most, less what the mean does.
"""

import tracemalloc

import numpy as np
import pytest

import fedaot

_SEED = 0


def _make_updates(num_clients, dimension):
  """Noise around what all share."""
  generator = np.random.default_rng(_SEED)
  updates = generator.random([num_clients, dimension], dtype=np.float32)
  return 2 * updates - 0.5


class _HoldOut:
  """A hold-out that costs as good as nothing: its loss is linear."""

  num_examples = 100

  def train(self, model, positions):
    return [array - 1 for array in model]

  def loss_and_gradient(self, model, positions):
    return float(model[0][0]), [np.ones_like(array) for array in model]


@pytest.mark.parametrize('holdout', [None, _HoldOut()], ids=['none', 'holdout'])
def test_fedaot(benchmark, holdout, num_clients, dimension, time_on_arrays):
  aggregator = fedaot.FedAOTAggregator(holdout, seed=_SEED)
  model = [np.zeros(dimension, np.float32)]
  client_models = -_make_updates(num_clients, dimension)

  def play():
    new_model = aggregator.aggregate(model, [[row] for row in client_models])
    aggregator.learn(new_model)

  time_on_arrays(play, client_models)


@pytest.fixture(name='time_on_arrays')
def _time_on_arrays(benchmark, note, time_in_turns):
  """A function that compares a round with the mean of a table."""

  def time_on_arrays(play, table):
    num_clients, dimension = table.shape
    benchmark.group = f'arrays, N = {num_clients}, d = {dimension}'

    def mean():
      return np.mean(table, axis=0)

    time_in_turns(play, mean, num_clients=num_clients)
    note(extra_mb=_peak_mb(play) - _peak_mb(mean))

  return time_on_arrays


def _peak_mb(play):
  """The most that a call allocates, in 10^6 bytes."""
  tracemalloc.start()
  play()
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return peak / 1e6
