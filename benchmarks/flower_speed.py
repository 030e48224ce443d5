"""CPU time of a round's `aggregate_train`, Flower's strategies and ours.

```
.venv-flower/bin/python -m benchmarks.flower_speed --clients=100
```

Strategies take turns, so that what else the machine does strikes all alike.
"""

import argparse
import logging
import time

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import ConfigRecord
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity
import numpy as np

from fedaot import rules
from fedaot.flower import FedAOT
from fedaot.flower import Robust

# 1,200,962 floats in six tensors, as of a small convolutional network.
_SHAPES = {
    'conv1.weight': (64, 3, 3, 3),
    'conv2.weight': (128, 64, 3, 3),
    'fc1.weight': (1088, 1024),
    'fc1.bias': (1088,),
    'fc2.weight': (9, 1088),
    'rest': (514,),
}


class _Nodes:

  def __init__(self, num_nodes):
    self._num_nodes = num_nodes

  def get_node_ids(self):
    return list(range(1, self._num_nodes + 1))


def _strategies(num_clients):
  f = int(0.4 * num_clients)
  return {
      'FedAvg': flower.FedAvg(),
      'FedAOT': FedAOT(seed=1),
      'Krum': flower.Krum(num_malicious_nodes=f),
      'MultiKrum': flower.MultiKrum(
          num_malicious_nodes=f, num_nodes_to_select=num_clients - f
      ),
      'FedMedian': flower.FedMedian(),
      'FedTrimmedAvg': flower.FedTrimmedAvg(beta=0.4),
      'Robust(krum)': Robust(rules.krum(f)),
      'Robust(coordinate_median)': Robust(rules.coordinate_median()),
      'Robust(nnm(trimmed_mean))': Robust(rules.nnm(rules.trimmed_mean(f))),
  }


def _cohort(num_clients):
  """A model and those of clients, 40 % of which flip their update."""
  rng = np.random.default_rng(0)
  draw = lambda scale: {
      name: scale * rng.standard_normal(shape, np.float32)
      for name, shape in _SHAPES.items()
  }
  model, drift = draw(0.1), draw(0.01)
  records = []
  for i in range(num_clients):
    sign = -1 if i < int(0.4 * num_clients) else 1
    noise = draw(0.01)
    records.append(
        {
            name: Array(model[name] + sign * (drift[name] + noise[name]))
            for name in _SHAPES
        }
    )
  return ArrayRecord({name: Array(model[name]) for name in _SHAPES}), records


def _replies(records):
  """Messages anew: some strategies empty them."""
  return [
      Message(
          RecordDict(
              {
                  'arrays': ArrayRecord(record),
                  'metrics': MetricRecord({'num-examples': 100, 'loss': 0.5}),
              }
          ),
          reply_to=Message(RecordDict(), dst_node_id=i, message_type='train'),
      )
      for i, record in enumerate(records, start=1)
  ]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--clients', type=int, default=100)
  parser.add_argument('--repetitions', type=int, default=5)
  parser.add_argument('--strategies', help='names with commas; default all')
  flags = parser.parse_args()
  for name in ('clients', 'repetitions'):
    if getattr(flags, name) < 1:
      parser.error(f'--{name} must be at least 1; found {getattr(flags, name)}')
  logging.getLogger('flwr').setLevel(logging.ERROR)
  TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
  strategies = _strategies(flags.clients)
  if flags.strategies:
    names = flags.strategies.split(',')
    if unknown := set(names) - set(strategies):
      parser.error(
          f'--strategies: {", ".join(unknown)}; known: {", ".join(strategies)}'
      )
    strategies = {name: strategies[name] for name in names}
  arrays, records = _cohort(flags.clients)
  times = {name: [] for name in strategies}
  for repetition in range(flags.repetitions + 1):
    for name, strategy in strategies.items():
      strategy.configure_train(
          repetition, arrays, ConfigRecord(), _Nodes(flags.clients)
      )
      replies = _replies(records)
      start = time.process_time()
      strategy.aggregate_train(repetition, replies)
      if repetition:  # The first one warms up.
        times[name].append(time.process_time() - start)
  print('| strategy | CPU ms | smallest | of FedAvg |')
  print('| --- | ---: | ---: | ---: |')
  base = np.median(times.get('FedAvg', [np.nan]))
  for name, values in times.items():
    median = np.median(values)
    print(
        f'| {name} | {1e3 * median:.0f} | {1e3 * min(values):.0f} |'
        f' {median / base:.2f} |'
    )


if __name__ == '__main__':
  main()
