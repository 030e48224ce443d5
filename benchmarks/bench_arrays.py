"""FedAOT and the rules of `fedaot.rules` on arrays, next to `numpy.mean`.

`extra_mb` is the most that a round allocates, less what the mean does. Choose
rules with `-k`.
"""

import functools
import inspect
import tracemalloc

import numpy as np
import pytest

import fedaot
from fedaot import rules

_SEED = 0


def _make_rule(make, *inner):
  options = {'num_byzantine': 0.1, 'seed': _SEED}
  known = inspect.signature(make).parameters
  return make(*inner, **{k: v for k, v in options.items() if k in known})


_RULES = {name: _make_rule(make) for name, make in rules.RULES.items()}
_RULES.update(
    {
        f'{name}+krum': _make_rule(make, _RULES['krum'])
        for name, make in rules.WRAPPERS.items()
    }
)


class _HoldOut:
  """A hold-out that costs as good as nothing: its loss is linear."""

  num_examples = 100

  def train(self, model, positions):
    return [array - 1 for array in model]

  def loss_and_gradient(self, model, positions):
    return float(model[0][0]), [np.ones_like(array) for array in model]


@pytest.mark.parametrize('mode', ['fedaot', 'fedaot_no_holdout'])
def test_fedaot(mode, updates, time_on_arrays):
  aggregator = fedaot.FedAOTAggregator(
      _HoldOut() if mode == 'fedaot' else None, seed=_SEED
  )
  model = [np.zeros_like(updates[0])]
  client_models = [[-update] for update in updates]

  def play():
    aggregator.learn(aggregator.aggregate(model, client_models))

  time_on_arrays(play)


@pytest.mark.parametrize('rule', _RULES.values(), ids=_RULES)
def test_rule(rule, updates, time_on_arrays):
  time_on_arrays(functools.partial(rule, updates, reference=updates[0]))


@pytest.fixture(name='updates')
def _updates(num_clients, dimension):
  """[N, d] in [-0.5, 1.5): noise around what all share."""
  generator = np.random.default_rng(_SEED)
  table = generator.random([num_clients, dimension], dtype=np.float32)
  return 2 * table - 0.5


@pytest.fixture(name='time_on_arrays')
def _time_on_arrays(benchmark, note, time_in_turns, updates):
  """A function that compares rounds with the mean of the updates."""

  def time_on_arrays(play):
    num_clients, dimension = updates.shape
    benchmark.group = f'arrays, N = {num_clients}, d = {dimension}'
    mean = functools.partial(np.mean, updates, axis=0)
    time_in_turns(play, mean, num_clients=num_clients)
    note(extra_mb=_peak_mb(play) - _peak_mb(mean))

  return time_on_arrays


def _peak_mb(play):
  """The most that a call allocates, in 10^6 bytes."""
  tracemalloc.start()
  try:
    play()
    return tracemalloc.get_traced_memory()[1] / 1e6
  finally:
    tracemalloc.stop()
