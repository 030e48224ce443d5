"""Measures the time and the memory that aggregators take.

For each aggregator of --aggregators, each number of clients N of --num_clients
and each dimension d of --dimension, rounds are played in a worker process of
their own, on updates of d float32 coordinates that the worker generates. Before
each round, the same generation alone, a round of TFF's MeanFactory and one of
its robust_aggregator (tff_robust) are timed, each in another worker; the time
of the generation is taken off. Times are medians over --repeats, after two
rounds that do not count, and ratios are those of the medians. The peak memory
of the worker contains the updates; `extra` is what is beyond the peak of a
worker that has played as many rounds of MeanFactory and nothing else. The row
of `mean` itself shows how exact ratios and extra are.

Each of the four has a worker of its own. Where these could hold more than half
of the machine's memory together, one at a time is started, plays its rounds and
is ended, in every repeat.

Writes the folder --output_dir as the measurements are made:

  benchmark.csv  a row a measurement: milliseconds a client, the ratios to
                 MeanFactory and to tff_robust, the peak memory of the worker
                 process and the extra over MeanFactory's
  benchmark.md   the tables that are also printed at the end; if there are
                 several N, with the power of N that fits the net time of a
                 round at each d (1.00 is linear), and likewise for several d
  benchmark.png  times and memory by N and by d, with logarithmic axes
  settings.json  what all measurements share
  errors/        for each measurement that failed a folder with error.txt

With --end_to_end, whole trainings are timed instead, as `binaries.train` has
them without attackers: for each task of --tasks, the aggregators and mean take
turns of --rounds rounds, --repeats times, after two rounds that do not count.
A ratio is the median over the repeats of the ratio of median times a round in
one repeat; evaluations are timed apart. Writes:

  end_to_end.csv  a row for each task and aggregator: seconds a round, the ratio
                  to mean with its range over the repeats, seconds of an
                  evaluation, and the ratio to mean with evaluations
  end_to_end.md   the tables that are also printed at the end
  settings.json and errors/ as above

With --profile, the rounds of FedAOT on generated updates are cut off after each
of their steps, and the differences of the cuts' times tell what each step
takes. Writes:

  profile.csv  a row for each aggregator, N and d: milliseconds of each step
  profile.md   the tables that are also printed at the end
  settings.json and errors/ as above

The same command goes on where an earlier one was interrupted. A measurement
that fails does not keep the others from being made; the exit code is 1 then.

To measure on one core, run it with `taskset -c 0`.

Examples:

  python -m binaries.benchmark --aggregators=mean,krum,fedaot --num_clients=10

  python -m binaries.benchmark --end_to_end --tasks=digits --rounds=10 \\
      --aggregators=mean,fedaot

  python -m binaries.benchmark --profile --num_clients=100 --repeats=15
"""

import contextlib
import dataclasses
import os
import pathlib
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence
from typing import Tuple

from absl import flags

from binaries import application
from binaries import benchmark_end_to_end as end_to_end
from binaries import benchmark_profile as profile
from binaries import benchmark_report as report
from binaries import comparison
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import output_folder
from binaries import progress as progress_lib
from fedaot_tff.aggregators import registry
from tasks import registry as tasks_registry

_RESULTS_FILE = 'benchmark.csv'
_TABLES_FILE = 'benchmark.md'
_FIGURE_FILE = 'benchmark.png'
_END_TO_END_FILE = 'end_to_end.csv'
_END_TO_END_TABLES_FILE = 'end_to_end.md'
_PROFILE_FILE = 'profile.csv'
_PROFILE_TABLES_FILE = 'profile.md'
# Rounds of FedAOT, whose names begin so, can be cut off after a step.
_PROFILED = 'fedaot'


class _Mode(NamedTuple):
  """What is measured.

  Attributes:
    flag: The flag that asks for it; None if it is what is measured without one.
    aggregators: The default of --aggregators.
    meaningless: The flags that have no meaning in this mode.
  """

  flag: Optional[str]
  aggregators: str
  meaningless: Tuple[str, ...]


_ROUNDS_MODE = _Mode(None, 'all', ('tasks', 'rounds'))
_END_TO_END_MODE = _Mode(
    'end_to_end',
    'mean,fedaot,fedaot_no_holdout',
    ('num_clients', 'dimension', 'time_tff_robust'),
)
_PROFILE_MODE = _Mode(
    'profile',
    'fedaot,fedaot_no_holdout',
    ('tasks', 'rounds', 'time_tff_robust'),
)

_AGGREGATORS = flags.DEFINE_string(
    'aggregators',
    None,
    'Comma-separated, each NAME, NAME:OPTION=VALUE,... or WRAPPER+NAME; all'
    ' stands for all without options and wrappers:'
    f' {", ".join(registry.aggregator_names())}. Wrappers:'
    f' {", ".join(registry.wrapper_names())}. Default:'
    f' {_ROUNDS_MODE.aggregators}; with --end_to_end'
    f' {_END_TO_END_MODE.aggregators}; with --profile'
    f' {_PROFILE_MODE.aggregators}.',
)
_NUM_CLIENTS = flags.DEFINE_list(
    'num_clients', ['10'], 'Comma-separated numbers of clients of a round, N.'
)
_DIMENSION = flags.DEFINE_list(
    'dimension',
    ['1000000'],
    'Comma-separated numbers of coordinates of an update, d; at least 2.',
)
_TIME_TFF_ROBUST = flags.DEFINE_bool(
    'time_tff_robust',
    True,
    'Time tff_robust before each round, too, for the ratio to it. Without it,'
    ' sizes can be measured for which it has not enough memory.',
)
_END_TO_END = flags.DEFINE_bool(
    'end_to_end',
    False,
    'Time whole trainings, with --tasks and --rounds, rather than rounds of'
    ' generated updates, with --num_clients and --dimension.',
)
_TASKS = flags.DEFINE_list(
    'tasks',
    ['mnist5k', 'digits', 'breast_cancer'],
    'With --end_to_end, comma-separated tasks, with their default options:'
    f' {", ".join(tasks_registry.TASKS)}.',
)
_ROUNDS = flags.DEFINE_integer(
    'rounds',
    15,
    'With --end_to_end, the rounds that an aggregator trains at a time.',
    lower_bound=1,
)
_PROFILE = flags.DEFINE_bool(
    'profile',
    False,
    'Time the steps of rounds of FedAOT, rather than whole rounds.',
)
_REPEATS = flags.DEFINE_integer(
    'repeats', 3, 'How often each measurement is repeated.', lower_bound=1
)
_BYZANTINE_FRACTION = flags.DEFINE_float(
    'byzantine_fraction',
    0.1,
    'The fraction of attackers that the aggregators are told to withstand.',
    lower_bound=0.0,
    upper_bound=0.99,
)
_SEED = flags.DEFINE_integer(
    'seed',
    0,
    'Fixes the updates, or all that is random in a training.',
    lower_bound=0,
    upper_bound=2**30,
)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', 'out/benchmark', 'The folder for the results.'
)
_QUIET = flags.DEFINE_bool('quiet', False, 'Report no progress.')


def main() -> int:
  """Runs the program; returns its exit code."""
  mode = _mode()
  for name in mode.meaningless:
    if flags.FLAGS[name].present:
      where = (
          f'with --{mode.flag}'
          if mode.flag
          else f'without --{_END_TO_END_MODE.flag}'
      )
      raise application.UserError(
          f'flag --{name} means nothing {where}; leave it out.'
      )
  if mode is _END_TO_END_MODE:
    return _benchmark_trainings()
  if mode is _PROFILE_MODE:
    return _profile_rounds()
  return _benchmark_rounds()


def _mode() -> _Mode:
  """What is to be measured."""
  if _END_TO_END.value and _PROFILE.value:
    raise application.UserError(
        'flags --end_to_end and --profile exclude each other; leave one out.'
    )
  if _END_TO_END.value:
    return _END_TO_END_MODE
  return _PROFILE_MODE if _PROFILE.value else _ROUNDS_MODE


class _Kind(NamedTuple):
  """A kind of measurement of generated updates.

  Attributes:
    make_runner: Makes a context manager of what has the method `run` of
      `benchmark_runner.Runner`. It imports TensorFlow, which takes seconds.
    summarize: Makes a measurement of its key's parts and what `run` yields.
    to_row: Makes a row of a measurement.
    parse_row: Makes a measurement of a row.
    net_ms: The milliseconds of a round of a measurement.
  """

  make_runner: Callable[[], contextlib.AbstractContextManager]
  summarize: Callable[..., Any]
  to_row: Callable[[Any], Dict[str, Any]]
  parse_row: Callable[[Dict[str, str]], Any]
  net_ms: Callable[[Any], float]


def _benchmark_rounds() -> int:
  """Measures rounds of generated updates."""
  axes = _parse_axes()
  kind = _Kind(
      _make_runner,
      report.summarize,
      dataclasses.asdict,
      report.parse_row,
      lambda measurement: measurement.ms_per_round,
  )
  folder = output_folder.make_folder(pathlib.Path(_OUTPUT_DIR.value))
  with csv_log.CsvLog(
      folder / _RESULTS_FILE, report.COLUMNS, keep=True
  ) as log:
    _check_settings(folder, _settings())

    # Not needed before the end, but if matplotlib is missing, better now.
    from binaries import benchmark_figure  # pylint: disable=g-import-not-at-top

    num_failed = _measure_missing(axes.keys, kind, folder, log)
    measurements = _read(log, kind.parse_row)
  tables = report.make_tables(measurements, *axes)
  _write_tables(folder / _TABLES_FILE, tables)
  benchmark_figure.save_figure(
      folder / _FIGURE_FILE,
      {key: m for key, m in measurements.items() if key in axes.keys},
      *axes,
  )
  print(
      f'See {folder / _FIGURE_FILE}, {folder / _TABLES_FILE} and'
      f' {folder / _RESULTS_FILE}'
  )
  _check_failures(num_failed, len(axes.keys))
  return 0


def _profile_rounds() -> int:
  """Measures the steps of FedAOT's rounds of generated updates."""
  axes = _parse_axes()
  for name in axes.aggregators:
    aggregator = registry.get_aggregator(name)
    if not aggregator.name.startswith(_PROFILED) or aggregator.wrappers:
      raise application.UserError(
          f'flag --profile takes FedAOT alone, such as'
          f' {_PROFILE_MODE.aggregators}; found aggregator {name!r}.'
      )
  kind = _Kind(
      _make_step_runner,
      profile.summarize,
      profile.Profile.to_row,
      profile.parse_row,
      lambda measurement: measurement.net_ms,
  )
  folder = output_folder.make_folder(pathlib.Path(_OUTPUT_DIR.value))
  with csv_log.CsvLog(
      folder / _PROFILE_FILE, profile.COLUMNS, keep=True
  ) as log:
    _check_settings(folder, dict(_settings(), profile=True))
    num_failed = _measure_missing(axes.keys, kind, folder, log)
    profiles = _read(log, kind.parse_row)
  _write_tables(
      folder / _PROFILE_TABLES_FILE, profile.make_tables(profiles, *axes)
  )
  print(f'See {folder / _PROFILE_TABLES_FILE} and {folder / _PROFILE_FILE}')
  _check_failures(num_failed, len(axes.keys))
  return 0


def _make_runner() -> contextlib.AbstractContextManager:
  from binaries import benchmark_runner  # pylint: disable=g-import-not-at-top

  return contextlib.closing(
      benchmark_runner.Runner(
          byzantine_fraction=_BYZANTINE_FRACTION.value,
          seed=_SEED.value,
          time_tff_robust=_TIME_TFF_ROBUST.value,
      )
  )


def _make_step_runner() -> contextlib.AbstractContextManager:
  from binaries import benchmark_steps  # pylint: disable=g-import-not-at-top

  return contextlib.nullcontext(
      benchmark_steps.StepRunner(
          byzantine_fraction=_BYZANTINE_FRACTION.value, seed=_SEED.value
      )
  )


def _measure_missing(
    keys: Sequence[report.Key],
    kind: _Kind,
    folder: pathlib.Path,
    log: csv_log.CsvLog,
) -> int:
  """Makes the measurements that are missing; returns how many failed."""
  measured = _read(log, kind.parse_row)
  missing = [key for key in keys if key not in measured]
  if not missing:
    return 0
  num_failed = 0
  with progress_lib.Progress(
      len(missing), _REPEATS.value, quiet=_QUIET.value
  ) as progress, kind.make_runner() as runner:
    for number, (aggregator, n, d) in enumerate(missing, start=1):
      progress.start_run(
          f'{number}/{len(missing)} {aggregator}, {n} clients, {d} coordinates'
      )
      error_folder = _error_folder(folder, aggregator, n, d)
      repeats = []
      try:
        for repeat in runner.run(aggregator, n, d, _REPEATS.value):
          repeats.append(repeat)
          measurement = kind.summarize(aggregator, n, d, repeats)
          description = f'{kind.net_ms(measurement) / n:.3g} ms a client'
          progress.advance(
              f'repeat {len(repeats)}/{_REPEATS.value}, {description}'
          )
      except Exception as error:  # pylint: disable=broad-exception-caught
        num_failed += 1
        _report_failure(progress, error_folder, error)
        continue
      application.remove_error(error_folder)
      log.append(kind.to_row(measurement))
      progress.end_run(description)
  return num_failed


def _write_tables(
    path: pathlib.Path, tables: Sequence[comparison.Table]
) -> None:
  """Writes tables as Markdown and prints them."""
  path.write_text(
      '\n'.join(map(comparison.format_markdown, tables)), encoding='utf-8'
  )
  print('\n'.join(map(comparison.format_text, tables)))


def _check_failures(num_failed: int, num_measurements: int) -> None:
  """Raises UserError if measurements failed."""
  if num_failed:
    raise application.UserError(
        f'{num_failed} of {num_measurements} measurements failed; the same'
        ' command tries them again.'
    )


def _benchmark_trainings() -> int:
  """Times whole trainings."""
  aggregators = _parse_aggregators()
  tasks = _check_axis('tasks', tuple(_TASKS.value))
  experiments = {task: _make_experiments(task, aggregators) for task in tasks}
  folder = output_folder.make_folder(pathlib.Path(_OUTPUT_DIR.value))
  with csv_log.CsvLog(
      folder / _END_TO_END_FILE, end_to_end.COLUMNS, keep=True
  ) as log:
    _check_settings(
        folder, dict(_settings(), end_to_end=True, rounds=_ROUNDS.value)
    )
    num_failed = _time_missing(experiments, aggregators, folder, log)
    measurements = _read(log, end_to_end.parse_row)
  _write_tables(
      folder / _END_TO_END_TABLES_FILE,
      end_to_end.make_tables(measurements, tasks, aggregators),
  )
  print(
      f'See {folder / _END_TO_END_TABLES_FILE} and {folder / _END_TO_END_FILE}'
  )
  _check_failures(num_failed, len(tasks) * len(aggregators))
  return 0


def _make_experiments(
    task: str, aggregators: Sequence[str]
) -> Dict[str, experiment_lib.Experiment]:
  try:
    return end_to_end.make_experiments(
        task,
        aggregators,
        rounds=_ROUNDS.value,
        repeats=_REPEATS.value,
        byzantine_fraction=_BYZANTINE_FRACTION.value,
        seed=_SEED.value,
    )
  except (TypeError, ValueError) as error:
    raise application.UserError(application.describe_error(error)) from error


def _time_missing(
    experiments: Dict[str, Dict[str, experiment_lib.Experiment]],
    aggregators: Sequence[str],
    folder: pathlib.Path,
    log: csv_log.CsvLog,
) -> int:
  """Times what is missing; returns how many measurements failed."""
  timed = _read(log, end_to_end.parse_row)
  missing = {}
  for task in experiments:
    names = [name for name in aggregators if (task, name) not in timed]
    if names:
      missing[task] = names
  if not missing:
    return 0
  # The trainings with mean that the others are measured against among them.
  trainings = {
      task: {
          name: experiment
          for name, experiment in experiments[task].items()
          if name in names or name == end_to_end.REFERENCE
      }
      for task, names in missing.items()
  }
  num_failed = 0
  with progress_lib.Progress(
      sum(map(len, trainings.values())),
      end_to_end.NUM_WARM_UP_ROUNDS + _ROUNDS.value * _REPEATS.value,
      quiet=_QUIET.value,
  ) as progress:
    # Takes seconds, as it needs TensorFlow.
    from binaries import runner  # pylint: disable=g-import-not-at-top

    for task, names in missing.items():
      times, errors = end_to_end.train_in_turns(
          runner.Runner(),
          trainings[task],
          progress,
          rounds=_ROUNDS.value,
          repeats=_REPEATS.value,
      )
      if end_to_end.REFERENCE in errors:
        # There is nothing to measure the others against.
        errors = dict.fromkeys(trainings[task], errors[end_to_end.REFERENCE])
      for name in trainings[task]:
        progress.select_run(end_to_end.label(trainings[task][name]))
        error_folder = _error_folder(folder, task, name)
        if name in errors:
          num_failed += name in names
          _report_failure(progress, error_folder, errors[name])
          continue
        application.remove_error(error_folder)
        measurement = end_to_end.summarize(
            task, name, times[name], times[end_to_end.REFERENCE]
        )
        if name in names:
          log.append(dataclasses.asdict(measurement))
        progress.end_run(f'{measurement.seconds_per_round:.3g} s a round')
  return num_failed


def _report_failure(
    progress: progress_lib.Progress,
    error_folder: pathlib.Path,
    error: Exception,
) -> None:
  """Ends a run that failed."""
  output_folder.make_folder(error_folder)
  progress.warn(f'failed: {application.write_error(error_folder, error)}')
  progress.end_run('failed')


def _error_folder(folder: pathlib.Path, *key: Any) -> pathlib.Path:
  """Where the error of a measurement is written."""
  name = re.sub(r'[^\w.=-]', '_', '-'.join(map(str, key)), flags=re.ASCII)
  return folder / 'errors' / name


def _settings() -> Dict[str, Any]:
  """What all measurements of a folder share."""
  return dict(
      repeats=_REPEATS.value,
      byzantine_fraction=_BYZANTINE_FRACTION.value,
      seed=_SEED.value,
      cores=_usable_cores(),
  )


def _check_settings(folder: pathlib.Path, settings: Dict[str, Any]) -> None:
  """Raises UserError if the folder is of a benchmark with other settings."""
  earlier = output_folder.read_settings(folder)
  if earlier is None:
    output_folder.write_settings(folder, settings)
    return
  difference = output_folder.describe_difference(earlier, settings)
  if difference is not None:
    raise application.UserError(
        f'{folder} holds a benchmark with {difference}; choose another'
        ' --output_dir.'
    )


def _usable_cores() -> int:
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _read(
    log: csv_log.CsvLog, parse_row: Callable[[Dict[str, str]], Any]
) -> Dict[Tuple[Any, ...], Any]:
  """The measurements in a file by their key."""
  return {
      measurement.key: measurement for measurement in map(parse_row, log.rows())
  }


class _Axes(NamedTuple):
  """The axes of a benchmark of generated updates.

  Attributes:
    aggregators: The aggregators.
    num_clients: The numbers of clients.
    dimensions: The dimensions.
  """

  aggregators: Tuple[str, ...]
  num_clients: Tuple[int, ...]
  dimensions: Tuple[int, ...]

  @property
  def keys(self) -> List[report.Key]:
    """All measurements, by size first, for what the runner keeps."""
    return [
        (aggregator, n, d)
        for d in self.dimensions
        for n in self.num_clients
        for aggregator in self.aggregators
    ]


def _parse_axes() -> _Axes:
  return _Axes(
      _parse_aggregators(),
      _parse_sizes('num_clients', _NUM_CLIENTS.value, minimum=1),
      _parse_sizes('dimension', _DIMENSION.value, minimum=2),
  )


def _parse_aggregators() -> Tuple[str, ...]:
  """The aggregators, which must be known."""
  text = _AGGREGATORS.value
  if text is None:
    text = _mode().aggregators
  aggregators = registry.split_list(text)
  for aggregator in aggregators:
    try:
      registry.get_aggregator(aggregator)
    except ValueError as error:
      raise application.UserError(str(error)) from error
  return _check_axis('aggregators', aggregators)


def _parse_sizes(
    name: str, texts: List[str], minimum: int
) -> Tuple[int, ...]:
  """The values of a list of numbers."""
  try:
    values = tuple(map(int, texts))
  except ValueError as error:
    raise application.UserError(
        f'flag --{name}={",".join(texts)}: {error}'
    ) from error
  for value in values:
    if value < minimum:
      raise application.UserError(
          f'flag --{name} must be at least {minimum}; found {value}.'
      )
  return _check_axis(name, values)


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
