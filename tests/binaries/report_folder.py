"""Makes folders such as `binaries.compare` writes, for tests of the report.

A run is named by aggregator, attack, fraction of attackers and seed.
"""

import json
import pathlib
import random
from typing import Any, Iterable, Mapping, Optional, Sequence, Tuple

from binaries import csv_log
from binaries import experiment
from binaries.reporting import results as results_lib

_KEYS = ('aggregator', 'attack', 'byzantine_fraction', 'seed')
_COLUMNS = (
    'task', *_KEYS, 'rounds', 'test_accuracy', 'attack_success_rate',
    'attacker_weight', 'detection_auroc', 'seconds_per_round',
)


def write(
    folder: pathlib.Path,
    accuracies: Mapping[Tuple[str, str, float, int], float],
    *,
    others: Optional[Mapping[Any, Mapping[str, float]]] = None,
    columns: Sequence[str] = _COLUMNS,
    rounds: int = 3,
    settings: Optional[Mapping[str, Any]] = None,
    run_info: Optional[Mapping[str, Any]] = None,
) -> pathlib.Path:
  """Writes results, settings and metrics of runs, and returns the folder.

  `accuracies` and `others`, by column, are measurements for aggregator, attack,
  fraction and seed; `settings` and `run_info` the files' content.
  """
  folder.mkdir(parents=True, exist_ok=True)
  rows = []
  for key, accuracy in accuracies.items():
    others_of_run = (others or {}).get(key, {})
    rows.append({
        **dict.fromkeys(columns),
        **dict(zip(_KEYS, key)),
        **dict(task='digits', rounds=rounds, test_accuracy=accuracy),
        **others_of_run,
    })
    write_metrics(folder, key, accuracy, rounds, others_of_run)
  (folder / 'results.csv').write_text(csv_log.format_rows(columns, rows))
  if settings is None:
    settings = {'task': 'digits', 'rounds': rounds, 'data_dir': None}
  (folder / 'settings.json').write_text(json.dumps(settings))
  if run_info is not None:
    (folder / 'run.json').write_text(json.dumps(run_info))
  return folder


def read(folder: pathlib.Path, *arguments, **options) -> results_lib.Results:
  """Writes what `write` does and reads it."""
  return results_lib.read(write(folder, *arguments, **options))


def run_folder(folder: pathlib.Path, key) -> pathlib.Path:
  """The folder of a run, which is made."""
  name = experiment.run_name('digits', **dict(zip(_KEYS, key)))
  path = folder / 'runs' / name
  path.mkdir(parents=True, exist_ok=True)
  return path


def write_metrics(
    folder: pathlib.Path,
    key,
    accuracy: float,
    rounds: int,
    others: Mapping[str, float],
) -> None:
  """Writes a `metrics.csv` in which the accuracy rises to its end."""
  rows = [
      {
          'round': i,
          'test_accuracy': accuracy * i / rounds,
          'attacker_weight': others.get('attacker_weight'),
          'unheard_of': 'x',
      }
      for i in range(1, rounds + 1)
  ]
  path = run_folder(folder, key) / 'metrics.csv'
  path.write_text(csv_log.format_rows(tuple(rows[0]), rows))


def write_weights(
    folder: pathlib.Path, key, clients: Iterable[Tuple[int, int, float]]
) -> None:
  """Writes a `weights.csv` of round, is_byzantine and weight."""
  lines = [','.join(map(str, client)) for client in clients]
  (run_folder(folder, key) / 'weights.csv').write_text(
      '\n'.join(['round,is_byzantine,weight', *lines]) + '\n'
  )


def write_large(
    folder: pathlib.Path, *, num_aggregators: int, num_attacks: int, seeds: int
) -> pathlib.Path:
  """Writes made-up results, with a failed and an unfinished run."""
  numbers = random.Random(0)
  aggregators = ['mean', 'krum', 'fedaot', 'oracle']
  aggregators += [f'trimmed_mean:beta=0.{i}' for i in range(1, 99)]
  aggregators = aggregators[:num_aggregators]
  attacks = ['none', 'sign_flip', '<script>alert("x")</script>&']
  attacks += [f'scaled_noise:scale={i}' for i in range(1, 99)]
  attacks = attacks[:num_attacks]
  accuracies, others = {}, {}
  for seed in range(seeds):
    for aggregator in aggregators:
      for attack in attacks:
        key = (aggregator, attack, 0.4, seed)
        accuracies[key] = numbers.uniform(0.1, 0.95)
        others[key] = {'seconds_per_round': numbers.uniform(0.1, 0.5)}
        if attack != 'none' and aggregator in ('krum', 'fedaot'):
          others[key].update(
              attacker_weight=numbers.uniform(0, 0.4),
              detection_auroc=numbers.uniform(0.5, 1),
              attack_success_rate=numbers.random(),
          )
  failed = ('krum', 'sign_flip', 0.4, 0)
  unfinished = ('fedaot', 'none', 0.4, 0)
  del accuracies[failed], accuracies[unfinished]
  run_info = {'machine': {'platform': 'Linux-' + 80 * 'x'}}
  write(folder, accuracies, others=others, run_info=run_info)
  (run_folder(folder, failed) / 'error.txt').write_text(
      'Traceback (most recent call last):\nValueError: <b>too many</b>\n'
  )
  write_metrics(folder, unfinished, 0.5, 2, {})
  for aggregator in ('krum', 'fedaot'):
    key = (aggregator, attacks[2], 0.4, 0)
    write_weights(
        folder,
        key,
        [
            (i, int(j < 4), numbers.random() * (0.5 if j < 4 else 1))
            for i in range(1, 4)
            for j in range(10)
        ],
    )
  return folder
