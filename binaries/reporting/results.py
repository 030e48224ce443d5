"""Reads the folder that `binaries.compare` writes, finished or not."""

import csv
import dataclasses
import itertools
import pathlib
import types
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

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

FINISHED = 'finished'
# What a run without a result is; what tells most comes first.
FAILED, UNFINISHED, NOT_RUN = 'failed', 'unfinished', 'not run'
STATES = (FAILED, UNFINISHED, NOT_RUN)

# What names a run; also the levels of `Results.runs`, whose rows are in the
# order of the grid.
KEYS = ('byzantine_fraction', 'attack', 'aggregator', 'seed')
_AXES = ('byzantine_fractions', 'attacks', 'aggregators', 'seeds')
_KEY_KINDS = dict(zip(KEYS, (float, str, str, int)))
_MEASUREMENTS = dict.fromkeys(
    (
        'test_accuracy',
        'attack_success_rate',
        'attacker_weight',
        'detection_auroc',
        'seconds_per_round',
    ),
    float,
)
_CURVES = dict.fromkeys(('test_accuracy', 'attacker_weight'), float)
_MAX_ERROR_LENGTH = 300

RunKey = Tuple[float, str, str, int]


@dataclasses.dataclass(frozen=True)
class Results:
  """What a folder holds.

  Attributes:
    task: The task.
    rounds: The number of rounds of a run.
    byzantine_fractions: The fractions of attackers.
    attacks: The attacks.
    aggregators: The aggregators.
    seeds: The seeds.
    runs: A row for each run of the grid that these span, by `KEYS`: what was
      measured, NaN where nothing was; `state`; and `error`, a line.
    metrics: The rows of `metrics.csv` of finished runs, with `KEYS`.
    weights: The rows of `weights.csv` of finished runs, with `KEYS`, of rounds
      whose weights can tell attackers from honest clients.
    settings: What `settings.json` holds; empty without that file.
    run_info: What `run.json` holds; empty without that file.
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
    title = f'{self.task}, {count(self.rounds, "round")}'
    if len(self.seeds) > 1:
      title += f', {len(self.seeds)} seeds'
    return title


def count(number: int, noun: str) -> str:
  """As in '1 round' and '2 rounds'."""
  return f'{number} {noun}{"" if number == 1 else "s"}'


def read(
    folder: pathlib.Path, axes: Optional[Mapping[str, Sequence[Any]]] = None
) -> Results:
  """Reads a folder of `binaries.compare`.

  Columns are found by name; those that are missing or not known do no harm.

  Args:
    folder: The folder.
    axes: The grid to read: `byzantine_fractions`, `attacks`, `aggregators` and
      `seeds`, which may have no result yet. By default that of `run.json`, and
      whatever else has a result or was begun.

  Returns:
    What it holds.

  Raises:
    UserError: If there is no such folder, `results.csv` or `settings.json` is
      not what `binaries.compare` writes, or there are neither axes nor results.
  """
  if not folder.is_dir():
    raise application.UserError(
        f'there is no folder {folder}; name one that binaries.compare wrote.'
    )
  problems = []
  finished = _read_finished(folder / RESULTS_FILE)
  if finished.empty and axes is None:
    raise application.UserError(
        f'{folder / RESULTS_FILE} holds no results; run binaries.compare with'
        f' --output_dir={folder} first.'
    )
  settings = output_folder.read_json(folder / output_folder.SETTINGS_FILE) or {}
  run_info = _read_json(folder / run_record.FILE_NAME, problems)
  task = next(iter(finished['task']), '') or settings.get('task', 'unknown')
  runs_folder = folder / RUNS_FOLDER
  if axes is None:
    axes = _find_axes(run_info, task, finished.index, runs_folder, problems)
  runs = finished.reindex(
      pd.MultiIndex.from_product([axes[name] for name in _AXES], names=KEYS)
  )
  metrics, weights = [], []
  for key in runs.index:
    run_folder = runs_folder / _folder_name(task, key)
    if key not in finished.index:
      runs.loc[key, ['state', 'error']] = _find_state(run_folder)
      continue
    for rows, file_name, columns in (
        (metrics, run_metrics.FILE_NAME, ({'round': int}, _CURVES)),
        (weights, run_metrics.WEIGHTS_FILE_NAME, (_WEIGHTS,)),
    ):
      try:
        found = _read_csv(run_folder / file_name, *columns)
        rows += [{**row, **dict(zip(KEYS, key))} for row in found]
      except application.UserError as error:
        problems.append(str(error))
  rounds = [settings.get('rounds'), *finished['rounds']]
  rounds += [row['round'] for row in metrics]
  return Results(
      task=task,
      rounds=max((int(r) for r in rounds if pd.notna(r)), default=0),
      **{name: tuple(axes[name]) for name in _AXES},
      runs=runs,
      metrics=_make_table(metrics, {**_KEY_KINDS, 'round': int, **_CURVES}),
      weights=_select_telling(_make_table(weights, {**_KEY_KINDS, **_WEIGHTS})),
      settings=settings,
      run_info=run_info,
      problems=problems,
  )


def _read_finished(path: pathlib.Path) -> pd.DataFrame:
  """The rows of `results.csv`, by `KEYS`; the last one of a run holds."""
  optional = {'task': str, 'rounds': int, **_MEASUREMENTS}
  rows = _make_table(
      _read_csv(path, _KEY_KINDS, optional), {**_KEY_KINDS, **optional}
  )
  tasks = sorted(set(rows['task'].dropna()))
  if len(tasks) > 1:
    raise application.UserError(
        f'{path} mixes the tasks {", ".join(tasks)}; report on one at a time.'
    )
  rows = rows.drop_duplicates([*KEYS], keep='last').set_index([*KEYS])
  return rows.assign(task=''.join(tasks), state=FINISHED, error='')


def _read_csv(
    path: pathlib.Path,
    required: Mapping[str, Callable[[str], Any]],
    optional: Mapping[str, Callable[[str], Any]] = types.MappingProxyType({}),
) -> List[Dict[str, Any]]:
  """The complete rows of a CSV file, none if there is no file.

  Args:
    path: The file.
    required: The parsers of columns of which each row must have a value.
    optional: The parsers of others.

  Raises:
    UserError: If the file is something else; names the line.
  """
  line = 1
  try:
    rows = csv_log.read_rows(path)
    for line, row in enumerate(rows, start=2):
      for name, parse in {**required, **optional}.items():
        if row.get(name):
          row[name] = parse(row[name])
        elif name in required:
          raise ValueError(f'no value for {name}')
        else:
          row[name] = None
  except (OSError, ValueError, csv.Error) as error:
    raise application.UserError(
        f'cannot read {path}, line {line}:'
        f' {application.describe_error(error)}.'
    ) from error
  return rows


def _make_table(
    rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any]
) -> pd.DataFrame:
  floats = {name: float for name, kind in kinds.items() if kind is float}
  return pd.DataFrame(rows, columns=[*kinds]).astype(floats)


def _select_telling(weights: pd.DataFrame) -> pd.DataFrame:
  """The rounds that have attackers, honest clients and all weights."""
  rounds = weights.groupby([*KEYS, 'round'])
  of_round = rounds['weight']
  return weights[
      (of_round.transform('count') == of_round.transform('size'))
      & (rounds['is_byzantine'].transform('nunique') == 2)
  ]


def _parse_bit(text: str) -> bool:
  if text not in ('0', '1'):
    raise ValueError(f'is_byzantine must be 0 or 1, found {text!r}')
  return text == '1'


_WEIGHTS = {'round': int, 'is_byzantine': _parse_bit, 'weight': float}


def _read_json(path: pathlib.Path, problems: List[str]) -> Dict[str, Any]:
  """What a file holds; nothing, which is a problem, if that is no JSON."""
  try:
    return output_folder.read_json(path) or {}
  except application.UserError as error:
    problems.append(str(error).partition(';')[0])
    return {}


def _find_axes(
    run_info: Mapping[str, Any],
    task: str,
    finished: pd.MultiIndex,
    runs_folder: pathlib.Path,
    problems: List[str],
) -> Dict[str, List[Any]]:
  """The axes of the command, and what else has a result or was begun."""
  flags = run_info.get('flags')
  flags = flags if isinstance(flags, dict) else {}
  planned = []
  for axis, kind in zip(_AXES, _KEY_KINDS.values()):
    values = flags.get(axis, [])
    try:
      planned.append([kind(value) for value in values])
    except (TypeError, ValueError):
      problems.append(
          f'the flag {axis} in {run_record.FILE_NAME} is not understood:'
          f' {values!r}.'
      )
      planned.append([])
  found = [*finished]
  known = {
      _folder_name(task, key) for key in (*itertools.product(*planned), *found)
  }
  for folder in sorted(runs_folder.glob('*/')):
    if folder.name not in known:
      found += _read_key(folder, problems)
  return {
      axis: list(dict.fromkeys([*first, *(key[i] for key in found)]))
      for i, (axis, first) in enumerate(zip(_AXES, planned))
  }


def _read_key(folder: pathlib.Path, problems: List[str]) -> List[RunKey]:
  """The run that a folder says it is of; none, and a problem, if it is mute."""
  path = folder / run_record.FILE_NAME
  settings = _read_json(path, problems).get('settings', {})
  try:
    return [tuple(kind(settings[name]) for name, kind in _KEY_KINDS.items())]
  except (KeyError, TypeError, ValueError):
    problems.append(f'{path} does not tell which run {folder.name} is.')
    return []


def _folder_name(task: str, key: RunKey) -> str:
  return experiment.run_name(task, **dict(zip(KEYS, key)))


def _find_state(run_folder: pathlib.Path) -> Tuple[str, str]:
  """What a run without a result is, and its error in a line."""
  try:
    text = (run_folder / ERROR_FILE).read_text('utf-8', errors='replace')
  except OSError:
    return (UNFINISHED if run_folder.is_dir() else NOT_RUN), ''
  # The last line names the error.
  line = ['unknown error', *filter(None, map(str.strip, text.split('\n')))][-1]
  if len(line) > _MAX_ERROR_LENGTH:
    line = f'{line[:_MAX_ERROR_LENGTH]} ...'
  return FAILED, line
