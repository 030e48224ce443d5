"""The runs of a comparison, in a folder, and their results in one table."""

import contextlib
import dataclasses
import functools
import pathlib
from typing import Any, Dict, List, Optional, Sequence, Tuple

from binaries import application
from binaries import cells as cells_lib
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import run_record
from binaries import single_run

_MEASURED = (
    'rounds',
    'test_accuracy',
    'attack_success_rate',
    'attacker_weight',
    'detection_auroc',
    'relative_deviation',
    'seconds_per_round',
)
_COLUMNS = ('task', *experiment_lib.AXES, *_MEASURED)

# The values of `experiment.AXES` of a run.
Key = Tuple[str, str, float, int]


@dataclasses.dataclass(frozen=True)
class Grid:
  """All combinations of aggregators, attacks, fractions and seeds.

  The other settings are those of `base`. ValueError if an axis is empty, or has
  a value twice or one that is not allowed.
  """

  base: experiment_lib.Experiment
  aggregators: Sequence[str]
  attacks: Sequence[str]
  byzantine_fractions: Sequence[float]
  seeds: Sequence[int]

  def __post_init__(self):
    for name, values in self.axes.items():
      if not values:
        raise ValueError(f'{name} is empty; give one or more.')
      for value in values:
        if values.count(value) > 1:
          raise ValueError(f'{name} has {value!r} twice.')
    self.experiments  # Checks them.  # pylint: disable=pointless-statement

  @property
  def axes(self) -> Dict[str, List[Any]]:
    """The values of each axis, by its plural."""
    names = (f'{name}s' for name in experiment_lib.AXES)
    return {name: list(getattr(self, name)) for name in names}

  @functools.cached_property
  def experiments(self) -> Dict[Key, experiment_lib.Experiment]:
    """The runs, in the order in which one worker runs them.

    It is also that of `results.csv`: by seed first, for what a runner keeps.
    """
    keys = [
        (aggregator, attack, fraction, seed)
        for seed in self.seeds
        for fraction in self.byzantine_fractions
        for aggregator in self.aggregators
        for attack in self.attacks
    ]
    names = experiment_lib.AXES
    return {
        key: dataclasses.replace(self.base, **dict(zip(names, key)))
        for key in keys
    }

  @property
  def settings(self) -> Dict[str, Any]:
    """The settings that all runs share."""
    settings = self.base.to_dict()
    return {n: v for n, v in settings.items() if n not in experiment_lib.AXES}


def run_unfinished(
    grid: Grid,
    folder: pathlib.Path,
    *,
    num_workers: int = 1,
    ray_address: Optional[str] = None,
    quiet: bool = False,
) -> int:
  """Runs the experiments that have no result yet; returns how many failed.

  Rows are written to the table as runs end, in the order of the grid. Those of
  other grids stay and come first.

  UserError if the folder is a single run's, has other settings, is damaged,
  cannot be written or is being written, or if a package is missing.
  """
  with output_folder.locked(folder):
    output_folder.check_kind(folder, 'a single run', single_run.FILES)
    _check_settings(folder, grid.settings)
    path = folder / output_folder.RESULTS_FILE
    results = dict(
        csv_log.read_rows(path, _COLUMNS, _parse_result, settings=grid.settings)
    )
    _write_results(grid, folder, results)
    num_runs = len(grid.experiments)
    cells = [
        cells_lib.Cell(
            f'{number}/{num_runs} {e.aggregator}, {e.attack},'
            f' {100 * e.byzantine_fraction:g}%, seed {e.seed}',
            e,
            folder / 'runs' / e.name,
        )
        for number, (key, e) in enumerate(grid.experiments.items(), start=1)
        if key not in results
    ]
    if not cells:
      return 0
    # With the axes spelled out.
    flags = {
        **grid.settings,
        **grid.axes,
        'num_workers': num_workers,
        'ray_address': ray_address,
        'output_dir': str(folder),
    }
    run_record.write(folder, seed=list(grid.seeds), flags=flags)
    num_failed = 0
    with (
        progress_lib.Progress(
            num_runs,
            grid.base.task_options['rounds'],
            num_finished=num_runs - len(cells),
            quiet=quiet,
        ) as progress,
        contextlib.closing(
            cells_lib.run(
                cells,
                progress,
                num_workers=num_workers,
                ray_address=ray_address,
            )
        ) as outcomes,
    ):
      for e, of_run, rows, error in outcomes:
        if error is not None:
          num_failed += 1
          of_run.warn(f'failed: {error}')
          of_run.end('failed')
          continue
        axes = {n: getattr(e, n) for n in experiment_lib.AXES}
        summary = run_metrics.summarize(rows)
        results[tuple(axes.values())] = {
            'task': e.task,
            **axes,
            'rounds': len(rows),
            **summary,
        }
        _write_results(grid, folder, results)
        of_run.end(f'test accuracy {rows[-1]["test_accuracy"]:.4f}')
    return num_failed


def _parse_result(row: Dict[str, str]) -> Tuple[Key, Dict[str, str]]:
  """A row, whose texts stay, and its key."""
  kinds = dict(zip(experiment_lib.AXES, (str, str, float, int)))
  return tuple(kind(row[name]) for name, kind in kinds.items()), row


def _check_settings(folder: pathlib.Path, settings: Dict[str, Any]) -> None:
  """Raises UserError if the folder is of a comparison with other settings."""
  path = folder / output_folder.SETTINGS_FILE
  earlier = output_folder.read_json(path)
  if earlier is None:
    output_folder.write_json(path, settings)
  elif difference := output_folder.describe_difference(earlier, settings):
    raise application.UserError(
        f'{folder} holds a comparison with {difference} ({path.name}); choose'
        ' another --output_dir.'
    )


def _write_results(
    grid: Grid, folder: pathlib.Path, results: Dict[Key, Dict[str, Any]]
) -> None:
  others = [row for k, row in results.items() if k not in grid.experiments]
  rows = [results[k] for k in grid.experiments if k in results]
  output_folder.replace_file(
      folder / output_folder.RESULTS_FILE,
      csv_log.format_rows(_COLUMNS, [*others, *rows], grid.settings),
  )
