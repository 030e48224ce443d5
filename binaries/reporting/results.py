"""Reads the folder that `binaries.compare` writes, finished or not."""

from collections.abc import Iterator
import csv
import dataclasses
import math
import pathlib
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import pandas as pd

from binaries import application
from binaries import csv_log
from binaries import experiment
from binaries import output_folder
from binaries import run_metrics
from binaries import run_record

RESULTS_FILE = 'results.csv'
ERROR_FILE = 'error.txt'
RUNS_FOLDER = 'runs'

FINISHED, FAILED = 'finished', 'failed'
_UNFINISHED, _NOT_RUN = 'unfinished', 'not run'

# What names a run; also the levels of `Results.runs`, whose rows are in the
# order of the grid.
KEYS = ('byzantine_fraction', 'attack', 'aggregator', 'seed')
_AXES = ('byzantine_fractions', 'attacks', 'aggregators', 'seeds')
_KEY_KINDS = dict(zip(KEYS, (float, str, str, int)))
MEASUREMENTS = (
    'test_accuracy',
    'attack_success_rate',
    'attacker_weight',
    'detection_auroc',
    'seconds_per_round',
)
_CURVES = {'round': int, 'test_accuracy': float, 'attacker_weight': float}
_WEIGHTS = {'round': int, 'is_byzantine': int, 'weight': float}

RunKey = Tuple[float, str, str, int]


@dataclasses.dataclass(frozen=True)
class Results:
  """What a folder holds.

  Attributes:
    runs: A row for each run of the grid that the axes span, by `KEYS`: what was
      measured, NaN where nothing was; `state`; and `error`, a line.
    metrics: The rows of `metrics.csv` of finished runs, with `KEYS`.
    weights: The rows of `weights.csv` of finished runs, with `KEYS`, of rounds
      whose weights can tell attackers from honest clients.
    settings, run_info: What `settings.json` and `run.json` hold, if anything.
    problems: What of the folder could not be read, in a sentence each.
  """

  task: str
  rounds: int
  byzantine_fractions: Sequence[float]
  attacks: Sequence[str]
  aggregators: Sequence[str]
  seeds: Sequence[int]
  runs: pd.DataFrame
  metrics: pd.DataFrame
  weights: pd.DataFrame
  settings: Dict[str, Any]
  run_info: Dict[str, Any]
  problems: List[str]

  @property
  def num_finished(self) -> int:
    """The number of runs that have a result."""
    return int((self.runs['state'] == FINISHED).sum())

  @property
  def title(self) -> str:
    """Task, rounds and seeds."""
    title = f'{self.task}, {self.rounds} round{"s" * (self.rounds != 1)}'
    if len(self.seeds) > 1:
      title += f', {len(self.seeds)} seeds'
    return title


def read(
    folder: pathlib.Path, axes: Optional[Mapping[str, Sequence[Any]]] = None
) -> Results:
  """Reads a folder of `binaries.compare`.

  Columns are found by name; those that are missing or not known do no harm.

  Args:
    folder: The folder.
    axes: The grid to read, which may have no result yet. By default that of
      `run.json`, and whatever else has a result or was begun.

  Raises:
    UserError: If there is no such folder, `results.csv` or `settings.json` is
      not what `binaries.compare` writes, or there are neither axes nor results.
  """
  if not folder.is_dir():
    raise application.UserError(
        f'there is no folder {folder}; name one that binaries.compare wrote.'
    )
  problems = []
  settings = output_folder.read_json(folder / output_folder.SETTINGS_FILE)
  finished = _read_finished(folder / RESULTS_FILE, settings)
  if finished.empty and axes is None:
    raise application.UserError(
        f'{folder / RESULTS_FILE} holds no results; run binaries.compare with'
        f' --output_dir={folder} first.'
    )
  run_info = _read_json(folder / run_record.FILE_NAME, problems)
  known = settings or {}
  task = next(iter(finished['task']), '') or known.get('task', 'unknown')
  runs_folder = folder / RUNS_FOLDER
  if axes is None:
    axes = _find_axes(run_info, finished.index, runs_folder, problems)
  runs = finished.reindex(
      pd.MultiIndex.from_product([axes[name] for name in _AXES], names=KEYS)
  )
  metrics, weights = [], []
  for key in runs.index:
    names = {n: kind(k) for (n, kind), k in zip(_KEY_KINDS.items(), key)}
    run_folder = runs_folder / experiment.run_name(task, **names)
    if key not in finished.index:
      runs.loc[key, ['state', 'error']] = _find_state(run_folder)
      continue
    for tables, file_name, kinds, required in (
        (metrics, run_metrics.FILE_NAME, _CURVES, ['round']),
        (weights, run_metrics.WEIGHTS_FILE_NAME, _WEIGHTS, [*_WEIGHTS]),
    ):
      path = run_folder / file_name
      if tables is metrics and not path.exists():
        problems.append(f'there is no {path}.')
      try:
        of_run = None if settings is None else {**settings, **names}
        table = _read_csv(path, kinds, required, of_run)
        tables.append(table.assign(**names))
      except application.UserError as error:
        problems.append(str(error))
  metrics = _concatenate(metrics, _CURVES)
  rounds = [known.get('rounds'), *finished['rounds'], *metrics['round']]
  return Results(
      task=task,
      rounds=max((int(r) for r in rounds if pd.notna(r)), default=0),
      **{name: tuple(axes[name]) for name in _AXES},
      runs=runs,
      metrics=metrics,
      weights=_select_telling(_concatenate(weights, _WEIGHTS)),
      settings=known,
      run_info=run_info,
      problems=problems,
  )


def _read_finished(path: pathlib.Path, settings) -> pd.DataFrame:
  """The rows of `results.csv`, by `KEYS`; the last one of a run holds."""
  optional = dict.fromkeys(('rounds', *MEASUREMENTS), float)
  kinds = {'task': object, **_KEY_KINDS, **optional}
  rows = _read_csv(path, kinds, [*KEYS], settings)
  tasks = sorted(set(rows['task'].dropna()))
  if len(tasks) > 1:
    raise application.UserError(
        f'{path} mixes the tasks {", ".join(tasks)}; report on one at a time.'
    )
  rows = rows.drop_duplicates([*KEYS], keep='last').set_index([*KEYS])
  return rows.assign(task=''.join(tasks), state=FINISHED, error='')


def _read_csv(
    path: pathlib.Path,
    kinds: Mapping[str, Any],
    required: List[str],
    settings: Optional[Mapping[str, Any]],
) -> pd.DataFrame:
  """The complete rows of a CSV file, none if there is no file.

  Raises:
    UserError: If a value is of another kind, or a required one is missing.
  """
  try:
    rows = csv_log.read_rows(path, settings=settings)
    table = pd.DataFrame(rows, columns=[*kinds])
    table = table.replace('', math.nan)
    for name in required:
      if table[name].isna().any():
        raise ValueError(f'no value for {name}')
    return table.astype(kinds)
  except (OSError, ValueError, csv.Error) as error:
    raise application.UserError(
        f'cannot read {path}: {application.describe_error(error)}.'
    ) from error


def _concatenate(tables, kinds) -> pd.DataFrame:
  empty = pd.DataFrame(columns=[*kinds, *KEYS])
  return pd.concat([t for t in tables if len(t)] or [empty])


def _select_telling(weights: pd.DataFrame) -> pd.DataFrame:
  """The rounds that have attackers, honest clients and all weights."""
  rounds = weights.groupby([*KEYS, 'round'])
  of_round = rounds['weight']
  return weights[
      (of_round.transform('count') == of_round.transform('size'))
      & (rounds['is_byzantine'].transform('nunique') == 2)
  ]


def _read_json(path: pathlib.Path, problems: List[str]) -> Dict[str, Any]:
  """What a file holds; nothing, which is a problem, if that is no JSON."""
  try:
    return output_folder.read_json(path) or {}
  except application.UserError as error:
    problems.append(str(error).partition(';')[0])
    return {}


def _find_axes(run_info, finished, runs_folder, problems):
  """The axes of the command, and what else has a result or was begun."""
  flags = run_info.get('flags', {})
  planned = [[]] * len(_AXES)
  try:
    planned = [
        [kind(value) for value in flags.get(axis, [])]
        for axis, kind in zip(_AXES, _KEY_KINDS.values())
    ]
  except (AttributeError, TypeError, ValueError):
    problems.append(
        f'the flags in {run_record.FILE_NAME} are not understood: {flags!r}.'
    )
  found = [*finished, *_begun(runs_folder, problems)]
  return {
      axis: list(dict.fromkeys([*first, *(key[i] for key in found)]))
      for i, (axis, first) in enumerate(zip(_AXES, planned))
  }


def _begun(runs_folder: pathlib.Path, problems: List[str]) -> Iterator[RunKey]:
  """The runs that say in their own records which they are."""
  for path in sorted(runs_folder.glob(f'*/{run_record.FILE_NAME}')):
    settings = _read_json(path, problems).get('settings', {})
    try:
      yield tuple(kind(settings[name]) for name, kind in _KEY_KINDS.items())
    except (KeyError, TypeError, ValueError):
      problems.append(f'{path} does not tell which run it is of.')


def _find_state(run_folder: pathlib.Path) -> Tuple[str, str]:
  """What a run without a result is, and its error in a line."""
  try:
    content = output_folder.read_file(run_folder / ERROR_FILE)
  except OSError:
    return (_UNFINISHED if run_folder.is_dir() else _NOT_RUN), ''
  # The last line names the error.
  lines = content.decode('utf-8', errors='replace').strip().split('\n')
  return FAILED, lines[-1][:300] or 'unknown error'
