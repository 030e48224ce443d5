"""Reads the folder that `binaries.compare` writes, finished or not."""

import csv
import dataclasses
import json
import math
import pathlib
import re
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional
from typing import Sequence, Tuple

import numpy as np

from binaries import application
from binaries import comparison as comparison_lib
from binaries import csv_log
from binaries import output_folder
from binaries import run_metrics
from fedaot_tff import named_spec
from fedaot_tff.aggregators import registry as aggregator_registry

RESULTS_FILE = 'results.csv'
RUN_INFO_FILE = 'run.json'
WEIGHTS_FILE = 'weights.csv'
ERROR_FILE = 'error.txt'
RUNS_FOLDER = 'runs'

# What a run without a result is.
FAILED, UNFINISHED, NOT_RUN = 'failed', 'unfinished', 'not run'

_KEY_COLUMNS = ('aggregator', 'attack', 'byzantine_fraction', 'seed')
_MEASURED_COLUMNS = (
    'test_accuracy',
    'attack_success_rate',
    'attacker_weight',
    'detection_auroc',
    'seconds_per_round',
)
_CURVE_COLUMNS = ('test_accuracy', 'attacker_weight')
_WEIGHT_COLUMNS = ('round', 'is_byzantine', 'weight')
_MAX_ERROR_LENGTH = 300


class RoundWeights(NamedTuple):
  """The weights of a round's clients.

  Attributes:
    is_byzantine: Bool [N], whether each client is an attacker.
    weights: Float [N], the aggregation weights.
  """

  is_byzantine: np.ndarray
  weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Results:
  """What a folder holds.

  Attributes:
    comparison: The axes, in the order in which they were found, and the
      finished runs.
    metrics: The rows of `metrics.csv` of finished runs.
    weights: The rounds of `weights.csv` of finished runs that have that file.
    states: What the runs without a result are: failed, unfinished or not run.
    errors: The errors of failed runs, in a line each.
    settings: What `settings.json` holds; empty without that file.
    run_info: What `run.json` holds; empty without that file.
    problems: What of the folder could not be read, in a sentence each.
  """

  comparison: comparison_lib.Comparison
  metrics: Dict[comparison_lib.RunKey, List[Dict[str, str]]]
  weights: Dict[comparison_lib.RunKey, List[RoundWeights]]
  states: Dict[comparison_lib.RunKey, str]
  errors: Dict[comparison_lib.RunKey, str]
  settings: Dict[str, Any]
  run_info: Dict[str, Any]
  problems: List[str]


def read(folder: pathlib.Path) -> Results:
  """Reads a folder of `binaries.compare`.

  Columns are found by name; those that are missing or not known do no harm.

  Args:
    folder: The folder.

  Returns:
    What it holds.

  Raises:
    UserError: If there is no such folder, no run has finished, or `results.csv`
      or `settings.json` is not what `binaries.compare` writes.
  """
  if not folder.is_dir():
    raise application.UserError(
        f'there is no folder {folder}; name one that binaries.compare wrote.'
    )
  problems = []
  finished = _read_results(folder / RESULTS_FILE)
  tasks = {result['task'] for result in finished.values() if 'task' in result}
  if len(tasks) > 1:
    raise application.UserError(
        f'{folder / RESULTS_FILE} mixes the tasks {", ".join(sorted(tasks))};'
        ' report on one at a time.'
    )
  task = ''.join(tasks)
  settings = output_folder.read_settings(folder) or {}
  run_info = _read_run_info(folder / RUN_INFO_FILE, problems)
  folders = _list_folders(folder / RUNS_FOLDER)
  planned = _planned_axes(run_info, problems)
  found = [*finished]
  names = {folder_name(task, key) for key in finished}
  for name in folders:
    key = None if name in names else _parse_name(name, task, planned, found)
    if key is not None:
      found.append(key)
  axes = [
      tuple(dict.fromkeys([*first, *(key[i] for key in found)]))
      for i, first in enumerate(planned)
  ]
  metrics, weights = {}, {}
  for key in finished:
    run_folder = folder / RUNS_FOLDER / folder_name(task, key)
    rows = _read_metrics(run_folder / run_metrics.FILE_NAME, problems)
    if rows:
      metrics[key] = rows
    rounds = _read_weights(run_folder / WEIGHTS_FILE, problems)
    if rounds:
      weights[key] = rounds
  comparison = comparison_lib.Comparison(
      task=task or str(settings.get('task', 'unknown task')),
      rounds=_count_rounds(finished, settings, metrics),
      aggregators=axes[0],
      attacks=axes[1],
      byzantine_fractions=axes[2],
      seeds=axes[3],
      results=finished,
  )
  states, errors = {}, {}
  for key in run_keys(comparison):
    if key in finished:
      continue
    name = folder_name(task, key)
    states[key] = UNFINISHED if name in folders else NOT_RUN
    error = _read_error(folder / RUNS_FOLDER / name / ERROR_FILE)
    if error is not None:
      states[key] = FAILED
      errors[key] = error
  return Results(
      comparison, metrics, weights, states, errors, settings, run_info, problems
  )


def run_keys(
    comparison: comparison_lib.Comparison,
) -> Iterable[comparison_lib.RunKey]:
  """All runs of the grid that a comparison's axes span."""
  for fraction in comparison.byzantine_fractions:
    for attack in comparison.attacks:
      for aggregator in comparison.aggregators:
        for seed in comparison.seeds:
          yield aggregator, attack, fraction, seed


def folder_name(task: str, key: comparison_lib.RunKey) -> str:
  """The name of a run's folder.

  It is that of `Experiment.name`, but may hold names of aggregators and attacks
  that are not registered.
  """
  aggregator, attack, fraction, seed = key
  parts = (task, aggregator, attack, repr(float(fraction)), str(seed))
  return re.sub(r'[^\w.=-]', '_', '-'.join(parts), flags=re.ASCII)


def _read_results(
    path: pathlib.Path,
) -> Dict[comparison_lib.RunKey, Dict[str, str]]:
  """The finished runs."""
  rows = _read_rows(path)
  if not rows:
    raise application.UserError(
        f'{path} holds no results; run binaries.compare with'
        f' --output_dir={path.parent} first.'
    )
  missing = [name for name in _KEY_COLUMNS if name not in rows[0]]
  if missing:
    raise application.UserError(
        f'{path} has no column {missing[0]}; it must be the file that'
        ' binaries.compare writes.'
    )
  results = {}
  for number, row in enumerate(rows, start=2):
    row = {name: text for name, text in row.items() if name and text}
    try:
      key = (
          row['aggregator'],
          row['attack'],
          float(row['byzantine_fraction']),
          int(row['seed']),
      )
      for name in _MEASURED_COLUMNS:
        float(row.get(name, 0))
      int(row.get('rounds', 0))
    except (KeyError, ValueError) as error:
      raise application.UserError(
          f'{path}, line {number}: {_describe(error)}; mend or drop the line.'
      ) from error
    results[key] = row
  return results


def _read_rows(path: pathlib.Path) -> List[Dict[str, str]]:
  """The rows of a CSV file, none if there is no file."""
  try:
    return csv_log.read_rows(path)
  except (OSError, ValueError, csv.Error) as error:
    raise application.UserError(
        f'cannot read {path}: {_describe(error)}.'
    ) from error


def _describe(error: Exception) -> str:
  if isinstance(error, KeyError):
    return f'no value for {error.args[0]}'
  return application.describe_error(error)


def _read_run_info(path: pathlib.Path, problems: List[str]) -> Dict[str, Any]:
  try:
    run_info = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return {}
  except (OSError, ValueError) as error:
    problems.append(f'{path} cannot be read: {_describe(error)}.')
    return {}
  if not isinstance(run_info, dict):
    problems.append(f'{path} does not hold names and values.')
    return {}
  return run_info


def _planned_axes(
    run_info: Mapping[str, Any], problems: List[str]
) -> Tuple[Sequence[Any], ...]:
  """Aggregators, attacks, fractions and seeds of the command, if known."""
  flags = run_info.get('flags')
  flags = flags if isinstance(flags, dict) else {}
  axes = []
  for name, split, parse in (
      ('aggregators', aggregator_registry.split_list, str),
      ('attacks', named_spec.split_list, str),
      ('byzantine_fractions', lambda text: text.split(','), float),
      ('seeds', lambda text: text.split(','), int),
  ):
    value = flags.get(name) or ()
    try:
      parts = split(value) if isinstance(value, str) else value
      axes.append(tuple(map(parse, parts)))
    except (TypeError, ValueError) as error:
      problems.append(
          f'the flag {name} in {RUN_INFO_FILE} is not understood:'
          f' {_describe(error)}.'
      )
      axes.append(())
  return tuple(axes)


def _list_folders(path: pathlib.Path) -> List[str]:
  if not path.is_dir():
    return []
  return sorted(entry.name for entry in path.iterdir() if entry.is_dir())


def _parse_name(
    name: str,
    task: str,
    planned: Tuple[Sequence[Any], ...],
    found: Sequence[comparison_lib.RunKey],
) -> Optional[comparison_lib.RunKey]:
  """The run that a folder is of, None if its name does not tell.

  Args:
    name: The folder's name.
    task: The task.
    planned: The axes of the command, as far as they are known.
    found: The runs that are known already; names of theirs are preferred, as
      those of folders have lost their special characters.
  """
  match = re.fullmatch(
      rf'{re.escape(task)}-(.+)-(\d\.\d+(?:e-\d+)?|\de-\d+)-(\d+)',
      name,
      flags=re.ASCII,
  )
  if not match:
    return None
  fraction, seed = float(match[2]), int(match[3])
  aggregators = [*planned[0], *dict.fromkeys(key[0] for key in found)]
  attacks = [*planned[1], *dict.fromkeys(key[1] for key in found)]
  for aggregator in aggregators:
    for attack in attacks:
      if folder_name(task, (aggregator, attack, fraction, seed)) == name:
        return aggregator, attack, fraction, seed
  for aggregator in aggregators:
    prefix = re.sub(r'[^\w.=-]', '_', aggregator, flags=re.ASCII)
    if match[1].startswith(f'{prefix}-'):
      return aggregator, match[1][len(prefix) + 1 :], fraction, seed
  aggregator, dash, attack = match[1].partition('-')
  if not dash:
    return None
  for known in attacks:
    suffix = re.sub(r'[^\w.=-]', '_', known, flags=re.ASCII)
    if match[1].endswith(f'-{suffix}'):
      return match[1][: -len(suffix) - 1], known, fraction, seed
  return aggregator, attack, fraction, seed


def _read_metrics(
    path: pathlib.Path, problems: List[str]
) -> List[Dict[str, str]]:
  """The rows of a `metrics.csv`; none, and a problem, if it is corrupt."""
  try:
    rows = _read_rows(path)
    for row in rows:
      int(row['round'])
      for name in _CURVE_COLUMNS:
        float(row.get(name) or 0)
  except application.UserError as error:
    problems.append(str(error))
    return []
  except (KeyError, TypeError, ValueError) as error:
    problems.append(f'cannot read {path}: {_describe(error)}.')
    return []
  return rows


def _read_weights(
    path: pathlib.Path, problems: List[str]
) -> List[RoundWeights]:
  """The rounds of a `weights.csv` whose weights tell clients apart."""
  by_round = {}
  try:
    for row in _read_rows(path):
      round_num, is_byzantine, weight = (row[name] for name in _WEIGHT_COLUMNS)
      if is_byzantine not in ('0', '1'):
        raise ValueError(f'is_byzantine must be 0 or 1, found {is_byzantine!r}')
      by_round.setdefault(int(round_num), []).append(
          (is_byzantine == '1', float(weight))
      )
  except application.UserError as error:
    problems.append(str(error))
    return []
  except (KeyError, TypeError, ValueError) as error:
    problems.append(f'cannot read {path}: {_describe(error)}.')
    return []
  rounds = []
  for _, clients in sorted(by_round.items()):
    is_byzantine, weights = zip(*clients)
    if any(map(math.isnan, weights)) or len(set(is_byzantine)) < 2:
      continue
    rounds.append(RoundWeights(np.array(is_byzantine), np.array(weights)))
  return rounds


def _count_rounds(
    finished: Mapping[comparison_lib.RunKey, Mapping[str, str]],
    settings: Mapping[str, Any],
    metrics: Mapping[comparison_lib.RunKey, Sequence[Mapping[str, str]]],
) -> int:
  numbers = [int(result.get('rounds', 0)) for result in finished.values()]
  numbers += [int(rows[-1]['round']) for rows in metrics.values()]
  rounds = settings.get('rounds')
  if not any(numbers) and isinstance(rounds, int):
    return rounds
  return max(numbers)


def _read_error(path: pathlib.Path) -> Optional[str]:
  """The last line of an `error.txt`, which names the error."""
  try:
    lines = path.read_text(encoding='utf-8', errors='replace').split('\n')
  except OSError:
    return None
  line = ([''] + [line.strip() for line in lines if line.strip()])[-1]
  if len(line) > _MAX_ERROR_LENGTH:
    line = f'{line[:_MAX_ERROR_LENGTH]} ...'
  return line or 'unknown error'
