"""Accuracy of Flower's strategies and of ours under attack, as a table.

```
.venv-flower/bin/python -m benchmarks.flower_accuracy --csv=docs/flower.csv
```

Runs the app of examples/flower: its ServerApp, its ClientApp and the messages
between them, in this process instead of in `flwr run`, which gives the same
numbers more slowly.
"""

import argparse
import contextlib
import csv
import io
import json
import logging
import pathlib
import statistics
import sys
import tempfile

import tomllib

_APP = pathlib.Path(__file__).resolve().parents[1] / 'examples' / 'flower'
sys.path.insert(0, str(_APP))

# ruff: noqa: E402
from fedaotapp import client_app
from fedaotapp import server_app
from fedaotapp import task
from flwr.app import Context
from flwr.app import RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.supercore.task_identity import TaskIdentity
import torch


class InProcessGrid(Grid):
  """A grid whose nodes, numbered from 1, are calls of a ClientApp."""

  run = None

  def __init__(self, app, num_nodes, run_config):
    self._app = app
    self._contexts = {
        i
        + 1: Context(
            run_id=1,
            node_id=i + 1,
            node_config={'partition-id': i, 'num-partitions': num_nodes},
            state=RecordDict(),
            run_config=run_config,
        )
        for i in range(num_nodes)
    }

  def get_node_ids(self):
    return list(self._contexts)

  def send_and_receive(self, messages, *, timeout=None):
    del timeout
    messages = sorted(messages, key=lambda m: m.metadata.dst_node_id)
    return [
        self._app(m, self._contexts[m.metadata.dst_node_id]) for m in messages
    ]

  def get_nodes(self):
    raise NotImplementedError

  set_run = create_message = push_messages = pull_messages = get_nodes


class _HonestMean(flower.FedAvg):
  """What a strategy that knew the attackers would do."""

  num_byzantine = 0

  def aggregate_train(self, server_round, replies):
    return super().aggregate_train(
        server_round,
        [m for m in replies if m.metadata.src_node_id > self.num_byzantine],
    )


def _honest_mean(n, f, seed, **options):
  del n, seed
  strategy = _HonestMean(**options)
  strategy.num_byzantine = f
  return strategy


def run(**run_config):
  """The accuracies of a run, by round."""
  with open(_APP / 'pyproject.toml', 'rb') as file:
    config = tomllib.load(file)['tool']['flwr']['app']['config']
  with tempfile.NamedTemporaryFile('r', suffix='.json') as result:
    config.update(run_config, result=result.name)
    num_clients = config['num-clients']
    grid = InProcessGrid(client_app.app, num_clients, config)
    context = Context(
        run_id=1,
        node_id=0,
        node_config={},
        state=RecordDict(),
        run_config=config,
    )
    with contextlib.redirect_stdout(io.StringIO()):
      server_app.app(grid, context)
    return {int(k): v for k, v in json.load(result).items()}


def _list_of(known):
  """A parser of names with commas between, of those that are known."""

  def parse(text):
    names = text.split(',')
    for name in names:
      if name not in known:
        raise argparse.ArgumentTypeError(
            f'{name!r} is not one of {", ".join(known)}'
        )
    return names

  return parse


def _integers(text):
  return [int(number) for number in text.split(',')]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
      '--attacks',
      default='none,sign_flip,label_flip',
      type=_list_of(task.ATTACKS),
  )
  parser.add_argument('--seeds', default='0,1,2', type=_integers)
  parser.add_argument('--byzantine_fraction', type=float, default=0.4)
  parser.add_argument('--rounds', type=int, default=20)
  parser.add_argument(
      '--strategies',
      default=','.join(server_app.STRATEGIES),
      type=_list_of(server_app.STRATEGIES),
  )
  parser.add_argument(
      '--csv',
      type=argparse.FileType('w', encoding='utf-8'),
      help='a file for all accuracies',
  )
  flags = parser.parse_args()
  if flags.rounds < 1:
    parser.error(f'--rounds must be at least 1; found {flags.rounds}')
  logging.getLogger('flwr').setLevel(logging.ERROR)
  torch.set_num_threads(1)
  TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
  server_app.STRATEGIES['honest_mean'] = _honest_mean
  attacks, rows = flags.attacks, []
  print('| strategy |', ' | '.join(attacks), '|')
  print('| --- |', ' | '.join(['---:'] * len(attacks)), '|')
  for strategy in [*flags.strategies, 'honest_mean']:
    cells = []
    for attack in attacks:
      finals = []
      for seed in flags.seeds:
        accuracy = run(
            **{
                'strategy': strategy,
                'attack': attack,
                'byzantine-fraction': flags.byzantine_fraction,
                'seed': seed,
                'num-server-rounds': flags.rounds,
            }
        )[flags.rounds]
        finals.append(100 * accuracy)
        rows.append((strategy, attack, seed, f'{finals[-1]:.1f}'))
      cells.append(
          f'{statistics.mean(finals):.1f} ({min(finals):.1f} to'
          f' {max(finals):.1f})'
      )
    print(f'| {strategy} |', ' | '.join(cells), '|', flush=True)
  if flags.csv:
    csv.writer(flags.csv, lineterminator='\n').writerows(
        [('strategy', 'attack', 'seed', 'accuracy'), *rows]
    )


if __name__ == '__main__':
  main()
