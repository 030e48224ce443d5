"""Compares aggregators under attacks, in one simulated federation each.

Runs all combinations of --aggregators, --attacks, --byzantine_fractions and
--seeds and writes the folder --output_dir as the runs finish:

  results.csv     a row a run: the test accuracy and the success rate of the
                  attack after the last round, the means over the rounds of the
                  attackers' share of the aggregation weights and of the AUROC
                  of the weights as a detector of attackers, and the medians of
                  the aggregate's deviation from the mean of the honest updates
                  (relative to the norm of that mean) and of the seconds
  comparison.md   the table of accuracies that is also printed at the end
  comparison.png  accuracies, and weights on the attackers, by round
  report.html     the report that binaries.report makes, with report/ beside it
  settings.json   the settings that all runs share
  run.json        the command, the axes of the grid and the versions
  runs/           for each run a folder with metrics.csv, a row a round, and
                  error.txt if it failed

The same command goes on where an earlier one was interrupted. A run that fails
does not keep the others from running; the exit code is 1 then. Rows are written
to results.csv as runs end, and put into the order of the grid at the end: by
seed, fraction, aggregator and attack. Rows of other grids keep their places.

With --num_workers=N, N runs go on side by side in processes of their own, each
on its share of the cores. A worker that is killed costs the run that it was at.
With --context=in_process and several GPUs, the workers take one each, in turn.

With --context=in_process on GPUs, with workers or without, a line at the end of
each run tells how busy its GPUs were and how much of their memory was in use at
most.

Example:

  python -m binaries.compare --aggregators=mean,fedaot --attacks=none,sign_flip
"""

from collections.abc import Iterator
import contextlib
import fcntl
import itertools
import os
import pathlib
import sys
from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

from absl import flags

from binaries import application
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import run_record
from binaries import single_run
from binaries import worker_pool
from fedaot_tff.aggregators import registry as aggregator_registry
from fedaot_tff.attacks import registry as attack_registry

_RESULTS_FILE = 'results.csv'
_TABLES_FILE = 'comparison.md'
_FIGURE_FILE = 'comparison.png'
_RESULTS_COLUMNS = (
    'task',
    'aggregator',
    'attack',
    'byzantine_fraction',
    'seed',
    'rounds',
    'test_accuracy',
    'attack_success_rate',
    'attacker_weight',
    'detection_auroc',
    'relative_deviation',
    'seconds_per_round',
)
# From so many runs on, a report can take long enough to say so.
_MANY_RUNS = 50

flags.adopt_module_key_flags(experiment_flags)
_AGGREGATORS = flags.DEFINE_string(
    'aggregators',
    'mean,tff_robust,coordinate_median,krum,fedaot,fedaot_no_holdout,oracle',
    'Comma-separated; all stands for all without options and wrappers.'
    f' {experiment_lib.SETTINGS["aggregator"].help}',
)
_ATTACKS = flags.DEFINE_string(
    'attacks',
    'none,label_flip,sign_flip',
    'Comma-separated; all stands for all without options.'
    f' {experiment_lib.SETTINGS["attack"].help}',
)
_BYZANTINE_FRACTIONS = flags.DEFINE_list(
    'byzantine_fractions',
    [str(experiment_flags.default_of('byzantine_fraction'))],
    f'Comma-separated. {experiment_lib.SETTINGS["byzantine_fraction"].help}',
)
_SEEDS = flags.DEFINE_list(
    'seeds',
    [str(experiment_flags.default_of('seed'))],
    f'Comma-separated. {experiment_lib.SETTINGS["seed"].help}',
)
_NUM_WORKERS = flags.DEFINE_integer(
    'num_workers',
    1,
    'How many runs go on side by side; each gets its share of the cores.',
    lower_bound=1,
)
_REPORT = flags.DEFINE_bool(
    'report', True, 'Make the report for a browser at the end.'
)


class Grid:
  """The runs of the comparison.

  Attributes:
    aggregators: The aggregators.
    attacks: The attacks.
    fractions: The fractions of attackers.
    seeds: The seeds.
    experiments: The runs, in the order in which one worker runs them and in
      which `results.csv` has them at the end: by seed first, for what the
      runner keeps.
  """

  def __init__(self):
    self.aggregators = _check_axis(
        'aggregators', aggregator_registry.split_list(_AGGREGATORS.value)
    )
    self.attacks = _check_axis(
        'attacks', attack_registry.split_list(_ATTACKS.value)
    )
    self.fractions = _parse_axis(
        'byzantine_fractions', float, _BYZANTINE_FRACTIONS.value
    )
    self.seeds = _parse_axis('seeds', int, _SEEDS.value)
    self.experiments = [
        experiment_flags.make_experiment(
            aggregator=aggregator,
            attack=attack,
            byzantine_fraction=fraction,
            seed=seed,
        )
        for seed, fraction, aggregator, attack in itertools.product(
            self.seeds, self.fractions, self.aggregators, self.attacks
        )
    ]

  @property
  def task(self) -> str:
    """The task."""
    return self.experiments[0].task

  @property
  def rounds(self) -> int:
    """The number of rounds of a run."""
    return self.experiments[0].task_options['rounds']

  @property
  def settings(self) -> Dict[str, Any]:
    """The settings that all runs share."""
    return {
        name: value
        for name, value in self.experiments[0].to_dict().items()
        if name not in experiment_flags.AXES
    }


def main() -> int:
  """Runs the program; returns its exit code."""
  grid = Grid()
  folder = output_folder.make_folder(
      pathlib.Path(flags.FLAGS.output_dir or 'out/compare')
  )
  application.set_resume_command(_resume_command())
  with _lock(folder):
    with csv_log.CsvLog(
        folder / _RESULTS_FILE, _RESULTS_COLUMNS, keep=True
    ) as log:
      _check_settings(folder, grid.settings)

      # Not needed before the end, but if matplotlib is missing, better now.
      # pylint: disable=g-import-not-at-top
      from binaries.reporting import figures
      from binaries.reporting import results as results_lib
      from binaries.reporting import tables

      # pylint: enable=g-import-not-at-top

      num_failed = _run_unfinished(grid, folder, log)
    _sort_results(grid, folder / _RESULTS_FILE)
    results = results_lib.read(
        folder,
        {
            'aggregators': grid.aggregators,
            'attacks': grid.attacks,
            'byzantine_fractions': grid.fractions,
            'seeds': grid.seeds,
        },
    )
    summary = tables.summary_tables(results)
    (folder / _TABLES_FILE).write_text(
        '\n'.join(map(tables.format_markdown, summary)), encoding='utf-8'
    )
    figures.save_summary(folder / _FIGURE_FILE, results)
    print('\n'.join(map(tables.format_text, summary)))
    print(
        f'See {folder / _FIGURE_FILE}, {folder / _TABLES_FILE} and'
        f' {folder / _RESULTS_FILE}',
        flush=True,
    )
    if _REPORT.value and results.num_finished:
      print(_write_report(folder, results.num_finished), flush=True)
  if num_failed:
    raise application.UserError(
        f'{num_failed} of {len(grid.experiments)} runs failed; the same command'
        ' tries them again.'
    )
  return 0


def _resume_command() -> str:
  """The command line of this program, for the shell that it runs in."""
  interpreter = os.path.relpath(sys.executable)
  if interpreter.startswith(os.pardir):
    interpreter = sys.executable
  return run_record.command().replace('python', interpreter, 1)


@contextlib.contextmanager
def _lock(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other comparisons out of the folder.

  The lock is the folder's own, not that of a file in it, which may be replaced.
  It is this process's alone and ends with it.
  """
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    os.close(descriptor)
    raise application.UserError(
        f'another program is writing to {folder}; wait until it has ended or'
        ' choose another --output_dir.'
    ) from error
  except OSError:
    pass  # A network file system; the lock of `results.csv` has to do.
  try:
    yield
  finally:
    os.close(descriptor)


def _run_unfinished(
    grid: Grid, folder: pathlib.Path, log: csv_log.CsvLog
) -> int:
  """Runs the experiments that have no result yet; returns how many failed."""
  results = _read_results(folder / _RESULTS_FILE)
  cells = [
      _make_cell(grid, number, experiment, folder)
      for number, experiment in enumerate(grid.experiments, start=1)
      if _key(experiment) not in results
  ]
  if not cells:
    return 0
  _write_run_record(grid, folder)
  num_finished = len(grid.experiments) - len(cells)
  num_failed = 0
  with progress_lib.Progress(
      len(grid.experiments),
      grid.rounds,
      rounds_done=(
          num_finished * grid.rounds + sum(cell.rounds_done for cell in cells)
      ),
      quiet=flags.FLAGS.quiet,
  ) as progress:
    num_workers = min(_NUM_WORKERS.value, len(cells))
    if num_workers > 1:
      outcomes = worker_pool.run_side_by_side(
          cells, progress, num_workers=num_workers
      )
    else:
      outcomes = worker_pool.run_in_order(cells, progress)
    with contextlib.closing(outcomes):
      for outcome in outcomes:
        if outcome.error is not None:
          num_failed += 1
          progress.warn(f'failed: {outcome.error}')
          progress.end_run('failed')
          continue
        log.append(_make_result(outcome.cell.experiment, outcome.rows))
        accuracy = outcome.rows[-1]['test_accuracy']
        progress.end_run(f'test accuracy {accuracy:.4f}')
  return num_failed


def _make_cell(
    grid: Grid,
    number: int,
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
) -> worker_pool.Cell:
  """What the workers need of a run, the `number`-th of the grid."""
  run_folder = _run_folder(folder, experiment)
  return worker_pool.Cell(
      label=(
          f'{number}/{len(grid.experiments)} {experiment.aggregator},'
          f' {experiment.attack}, {100 * experiment.byzantine_fraction:g}%,'
          f' seed {experiment.seed}'
      ),
      experiment=experiment,
      folder=run_folder,
      rounds_done=_count_rounds_done(experiment, run_folder),
  )


def _count_rounds_done(
    experiment: experiment_lib.Experiment, run_folder: pathlib.Path
) -> int:
  """How many rounds of a run need not be run again."""
  if not run_folder.is_dir():
    return 0
  try:
    with single_run.Run(experiment, run_folder) as run:
      return len(run.rows) if run.is_finished else run.newest_checkpoint
  except application.UserError:
    # The run is going to fail with it.
    return 0


def _write_run_record(grid: Grid, folder: pathlib.Path) -> None:
  """Writes `run.json`, with the axes of the grid spelled out."""
  run_record.write(
      folder,
      seed=list(grid.seeds),
      flags={
          **grid.settings,
          'aggregators': list(grid.aggregators),
          'attacks': list(grid.attacks),
          'byzantine_fractions': list(grid.fractions),
          'seeds': list(grid.seeds),
          'num_workers': _NUM_WORKERS.value,
          'output_dir': str(folder),
      },
  )


def _sort_results(grid: Grid, path: pathlib.Path) -> None:
  """Puts the rows of the grid's runs into its order; others keep their places.

  The file is replaced as a whole or not at all.
  """
  results = _read_results(path)
  of_grid = [_key(e) for e in grid.experiments if _key(e) in results]
  grid_keys, next_of_grid = set(of_grid), iter(of_grid)
  in_order = [
      next(next_of_grid) if key in grid_keys else key for key in results
  ]
  if in_order == list(results):
    return
  unfinished = path.with_suffix('.unfinished')
  with csv_log.CsvLog(unfinished, _RESULTS_COLUMNS, keep=False) as log:
    for key in in_order:
      log.append(results[key])
  os.replace(unfinished, path)


def _write_report(folder: pathlib.Path, num_runs: int) -> pathlib.Path:
  """Writes the report; returns the path of the page."""
  from binaries.reporting import page  # pylint: disable=g-import-not-at-top

  duration = ', which can take a minute' if num_runs >= _MANY_RUNS else ''
  if not flags.FLAGS.quiet:
    print(
        f'writing the report on {num_runs} runs{duration}',
        file=sys.stderr,
        flush=True,
    )
  written = page.write(folder)
  for problem in written.problems:
    print(f'left out of the report: {problem}', file=sys.stderr)
  return written.page


def _check_settings(
    folder: pathlib.Path, settings: Mapping[str, Any]
) -> None:
  """Raises UserError if the folder is of a comparison with other settings."""
  earlier = output_folder.read_settings(folder)
  if earlier is None:
    output_folder.write_settings(folder, settings)
    return
  difference = output_folder.describe_difference(
      experiment_lib.complete_settings(earlier), settings
  )
  if difference is not None:
    raise application.UserError(
        f'{folder} holds a comparison with {difference}; choose another'
        ' --output_dir.'
    )


def _run_folder(
    folder: pathlib.Path, experiment: experiment_lib.Experiment
) -> pathlib.Path:
  return folder / 'runs' / experiment.name


def _key(experiment: experiment_lib.Experiment) -> Tuple[str, str, float, int]:
  return (
      experiment.aggregator,
      experiment.attack,
      experiment.byzantine_fraction,
      experiment.seed,
  )


def _make_result(
    experiment: experiment_lib.Experiment, rows: Sequence[Mapping[str, Any]]
) -> Dict[str, Any]:
  """The row of `results.csv` of a finished run."""
  return {
      'task': experiment.task,
      'aggregator': experiment.aggregator,
      'attack': experiment.attack,
      'byzantine_fraction': experiment.byzantine_fraction,
      'seed': experiment.seed,
      'rounds': len(rows),
      **run_metrics.summarize(rows),
  }


def _read_results(
    path: pathlib.Path,
) -> Dict[Tuple[str, str, float, int], Dict[str, str]]:
  """The finished runs, in the order of the file."""
  return {
      (
          row['aggregator'],
          row['attack'],
          float(row['byzantine_fraction']),
          int(row['seed']),
      ): row
      for row in csv_log.read_rows(path)
  }


def _parse_axis(
    name: str, parse: Callable[[str], Any], texts: Sequence[str]
) -> Tuple[Any, ...]:
  """The values of a list of numbers."""
  try:
    return _check_axis(name, tuple(map(parse, texts)))
  except ValueError as error:
    raise application.UserError(
        f'flag --{name}={",".join(texts)}: {error}'
    ) from error


def _check_axis(name: str, values: Tuple[Any, ...]) -> Tuple[Any, ...]:
  """The values, which must be there and differ."""
  if not values:
    raise application.UserError(f'flag --{name} is empty; give one or more.')
  for value in values:
    if values.count(value) > 1:
      raise application.UserError(f'flag --{name} has {value!r} twice.')
  return values


if __name__ == '__main__':
  application.run(main)
