"""Makes folders such as `binaries.compare` writes, for tests of the report.

A run is named by aggregator, attack and, if it is not these, seed 0 and a
fraction of attackers of 0.4.
"""

import json
import pathlib
import random
from typing import Any, Iterable, Mapping, Optional, Tuple

from binaries import csv_log
from binaries import experiment
from binaries.reporting import results as results_lib

_CURVES = ('round', 'test_accuracy', 'attacker_weight', 'unheard_of')


def _names(aggregator, attack, seed=0, fraction=0.4):
  names = ('aggregator', 'attack', 'byzantine_fraction', 'seed')
  return dict(zip(names, (aggregator, attack, fraction, seed)))


def write(
    folder: pathlib.Path,
    runs: Mapping[tuple, Any],
    *,
    rounds: int = 3,
    run_info: Optional[Mapping[str, Any]] = None,
) -> pathlib.Path:
  """Writes results, settings and metrics of runs, and returns the folder.

  Of each run `runs` has the final accuracy, or all measurements by column.
  """
  folder.mkdir(parents=True, exist_ok=True)
  columns = ('task', *_names('', ''), 'rounds', *results_lib.MEASUREMENTS)
  rows = []
  for key, measured in runs.items():
    if not isinstance(measured, dict):
      measured = {'test_accuracy': measured}
    row = {'task': 'digits', 'rounds': rounds, **_names(*key), **measured}
    rows.append({**dict.fromkeys(columns), **row})
    write_metrics(folder, key, rounds, **measured)
  settings = _settings(rounds)
  (folder / 'results.csv').write_text(
      csv_log.format_rows(columns, rows, settings)
  )
  (folder / 'settings.json').write_text(json.dumps(settings))
  if run_info is not None:
    (folder / 'run.json').write_text(json.dumps(run_info))
  return folder


def _settings(rounds):
  return {'task': 'digits', 'rounds': rounds, 'data_dir': None}


def read(folder: pathlib.Path, *arguments, **options) -> results_lib.Results:
  """Writes what `write` does and reads it."""
  return results_lib.read(write(folder, *arguments, **options))


def run_folder(folder: pathlib.Path, key: tuple) -> pathlib.Path:
  """The folder of a run, which is made."""
  path = folder / 'runs' / experiment.run_name('digits', **_names(*key))
  path.mkdir(parents=True, exist_ok=True)
  return path


def write_metrics(
    folder, key, rounds, test_accuracy=0.5, attacker_weight=None, **unused
) -> None:
  """Writes a `metrics.csv` in which the accuracy rises to its end."""
  rows = [
      dict(zip(_CURVES, (i, test_accuracy * i / rounds, attacker_weight, 'x')))
      for i in range(1, rounds + 1)
  ]
  path = run_folder(folder, key) / 'metrics.csv'
  settings = {**_settings(rounds), **_names(*key)}
  path.write_text(csv_log.format_rows(_CURVES, rows, settings))


def write_weights(
    folder: pathlib.Path, key: tuple, clients: Iterable[Tuple[int, int, float]]
) -> None:
  """Writes a `weights.csv` of round, is_byzantine and weight."""
  lines = [','.join(map(str, client)) for client in clients]
  (run_folder(folder, key) / 'weights.csv').write_text(
      '\n'.join(['round,is_byzantine,weight', *lines]) + '\n'
  )


def write_large(
    folder: pathlib.Path, *, num_aggregators: int, num_attacks: int
) -> pathlib.Path:
  """Writes made-up results, with a failed and an unfinished run."""
  numbers = random.Random(0)
  aggregators = ['mean', 'krum', 'fedaot', 'oracle']
  aggregators += [f'trimmed_mean:beta=0.{i}' for i in range(1, 99)]
  attacks = ['none', 'sign_flip', '<script>alert("x")</script>&']
  attacks += [f'scaled_noise:scale={i}' for i in range(1, 99)]
  runs = {}
  for aggregator in aggregators[:num_aggregators]:
    for attack in attacks[:num_attacks]:
      for seed in (0, 1):
        run = {
            'test_accuracy': numbers.uniform(0.1, 0.95),
            'seconds_per_round': numbers.uniform(0.1, 0.5),
        }
        if attack != 'none' and aggregator in ('krum', 'fedaot'):
          run['attacker_weight'] = numbers.uniform(0, 0.4)
          run['detection_auroc'] = numbers.uniform(0.5, 1)
          run['attack_success_rate'] = numbers.random()
        runs[aggregator, attack, seed] = run
  failed, unfinished = ('krum', 'sign_flip'), ('fedaot', 'none')
  del runs[(*failed, 0)], runs[(*unfinished, 0)]
  info = {'machine': {'platform': 'Linux-' + 80 * 'x'}}
  write(folder, runs, run_info=info)
  (run_folder(folder, failed) / 'error.txt').write_text(
      'Traceback (most recent call last):\nValueError: <b>too many</b>\n'
  )
  write_metrics(folder, unfinished, 2)
  clients = [
      (i, int(j < 4), numbers.random() * (0.5 if j < 4 else 1))
      for i in range(1, 4)
      for j in range(10)
  ]
  write_weights(folder, ('krum', attacks[2]), clients)
  return folder
