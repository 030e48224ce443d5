"""Measures the time and the memory that aggregators take.

For each aggregator of --aggregators, each number of clients N of --num_clients
and each dimension d of --dimension, rounds are played in a worker process of
their own, on updates of d float32 coordinates that the worker generates. Before
each round, the same generation alone and a round of TFF's MeanFactory are timed
in another worker; the time of the generation is taken off. Times are medians
over --repeats, after one round that does not count.

Writes the folder --output_dir as the measurements are made:

  benchmark.csv  a row a measurement: milliseconds a client, the ratio to
                 MeanFactory and the peak memory of the worker process
  benchmark.md   the tables that are also printed at the end, with the fitted
                 powers of N and d if there are several
  benchmark.png  times and memory by N and by d, with logarithmic axes
  settings.json  what all measurements share
  errors/        for each measurement that failed a folder with error.txt

The same command goes on where an earlier one was interrupted. A measurement
that fails does not keep the others from being made; the exit code is 1 then.

To measure on one core, run it with `taskset -c 0`.

Example:

  python -m binaries.benchmark --aggregators=mean,krum,fedaot --num_clients=10
"""

import dataclasses
import os
import pathlib
import re
from typing import Any, Dict, List, Sequence, Tuple

from absl import flags

from binaries import application
from binaries import benchmark_report as report
from binaries import comparison
from binaries import csv_log
from binaries import output_folder
from binaries import progress as progress_lib
from fedaot_tff.aggregators import registry

_RESULTS_FILE = 'benchmark.csv'
_TABLES_FILE = 'benchmark.md'
_FIGURE_FILE = 'benchmark.png'

_AGGREGATORS = flags.DEFINE_string(
    'aggregators',
    'all',
    'Comma-separated, each NAME, NAME:OPTION=VALUE,... or WRAPPER+NAME; all'
    ' stands for all without options and wrappers:'
    f' {", ".join(registry.aggregator_names())}. Wrappers:'
    f' {", ".join(registry.wrapper_names())}.',
)
_NUM_CLIENTS = flags.DEFINE_list(
    'num_clients', ['10'], 'Comma-separated numbers of clients of a round, N.'
)
_DIMENSION = flags.DEFINE_list(
    'dimension',
    ['1000000'],
    'Comma-separated numbers of coordinates of an update, d; at least 2.',
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
    'seed', 0, 'Fixes the updates.', lower_bound=0, upper_bound=2**30
)
_OUTPUT_DIR = flags.DEFINE_string(
    'output_dir', 'out/benchmark', 'The folder for the results.'
)
_QUIET = flags.DEFINE_bool('quiet', False, 'Report no progress.')


def main() -> int:
  """Runs the program; returns its exit code."""
  aggregators = _parse_aggregators(_AGGREGATORS.value)
  num_clients = _parse_sizes('num_clients', _NUM_CLIENTS.value, minimum=1)
  dimensions = _parse_sizes('dimension', _DIMENSION.value, minimum=2)
  # By size first, for what the runner keeps.
  keys = [
      (aggregator, n, d)
      for d in dimensions
      for n in num_clients
      for aggregator in aggregators
  ]
  folder = output_folder.make_folder(pathlib.Path(_OUTPUT_DIR.value))
  with csv_log.CsvLog(
      folder / _RESULTS_FILE, report.COLUMNS, keep=True
  ) as log:
    _check_settings(folder)

    # Not needed before the end, but if matplotlib is missing, better now.
    from binaries import benchmark_figure  # pylint: disable=g-import-not-at-top

    num_failed = _measure_missing(keys, folder, log)
    measurements = _read_measurements(log)
  tables = report.make_tables(
      measurements, aggregators, num_clients, dimensions
  )
  (folder / _TABLES_FILE).write_text(
      '\n'.join(map(comparison.format_markdown, tables)), encoding='utf-8'
  )
  benchmark_figure.save_figure(
      folder / _FIGURE_FILE,
      {key: m for key, m in measurements.items() if key in keys},
      aggregators,
      num_clients,
      dimensions,
  )
  print('\n'.join(map(comparison.format_text, tables)))
  print(
      f'See {folder / _FIGURE_FILE}, {folder / _TABLES_FILE} and'
      f' {folder / _RESULTS_FILE}'
  )
  if num_failed:
    raise application.UserError(
        f'{num_failed} of {len(keys)} measurements failed; the same command'
        ' tries them again.'
    )
  return 0


def _measure_missing(
    keys: Sequence[report.Key], folder: pathlib.Path, log: csv_log.CsvLog
) -> int:
  """Makes the measurements that are missing; returns how many failed."""
  measured = _read_measurements(log)
  missing = [key for key in keys if key not in measured]
  if not missing:
    return 0
  num_failed = 0
  with progress_lib.Progress(
      len(missing), _REPEATS.value, quiet=_QUIET.value
  ) as progress:
    # Takes seconds, as it needs TensorFlow.
    from binaries import benchmark_runner  # pylint: disable=g-import-not-at-top

    runner = benchmark_runner.Runner(
        byzantine_fraction=_BYZANTINE_FRACTION.value, seed=_SEED.value
    )
    for number, (aggregator, n, d) in enumerate(missing, start=1):
      progress.start_run(
          f'{number}/{len(missing)} {aggregator}, {n} clients, {d} coordinates'
      )
      error_folder = folder / 'errors' / _folder_name(aggregator, n, d)
      repeats = []
      try:
        for repeat in runner.run(aggregator, n, d, _REPEATS.value):
          repeats.append(repeat)
          progress.advance(
              f'repeat {len(repeats)}/{_REPEATS.value},'
              f' {_describe(report.summarize(aggregator, n, d, repeats))}'
          )
      except Exception as error:  # pylint: disable=broad-exception-caught
        num_failed += 1
        output_folder.make_folder(error_folder)
        progress.warn(
            f'failed: {application.write_error(error_folder, error)}'
        )
        progress.end_run('failed')
        continue
      application.remove_error(error_folder)
      measurement = report.summarize(aggregator, n, d, repeats)
      log.append(dataclasses.asdict(measurement))
      progress.end_run(_describe(measurement))
    runner.close()
  return num_failed


def _describe(measurement: report.Measurement) -> str:
  return f'{measurement.ms_per_client:.3g} ms a client'


def _folder_name(aggregator: str, num_clients: int, dimension: int) -> str:
  name = f'{aggregator}-{num_clients}-{dimension}'
  return re.sub(r'[^\w.=-]', '_', name, flags=re.ASCII)


def _check_settings(folder: pathlib.Path) -> None:
  """Raises UserError if the folder is of a benchmark with other settings."""
  settings = dict(
      repeats=_REPEATS.value,
      byzantine_fraction=_BYZANTINE_FRACTION.value,
      seed=_SEED.value,
      cores=_usable_cores(),
  )
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


def _read_measurements(
    log: csv_log.CsvLog,
) -> Dict[report.Key, report.Measurement]:
  measurements = map(report.parse_row, log.rows())
  return {measurement.key: measurement for measurement in measurements}


def _parse_aggregators(text: str) -> Tuple[str, ...]:
  """The aggregators, which must be known."""
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
