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
does not keep the others from running; the exit code is 1 then. Rows are in
results.csv as soon as runs end, in the order of the grid: by seed, fraction,
aggregator and attack. Rows of other grids come first.

Runs go on in processes of their own, --num_workers side by side, each on its
share of the cores and, if there are several, on a GPU. A worker that is killed
costs the run that it was at. On GPUs a line at the end of each run tells how
busy they were and how much of their memory was in use at most. With
--context=native TFF's worker processes compute, on the CPU.

Example:

  python -m binaries.compare --aggregators=mean,fedaot --attacks=none,sign_flip
"""

import pathlib
import sys
from typing import Any, Callable, List, Sequence

from absl import flags

from binaries import application
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import grid as grid_lib
from binaries import output_folder
from fedaot_tff.aggregators import registry as aggregator_registry
from fedaot_tff.attacks import registry as attack_registry

_TABLES_FILE = 'comparison.md'
_FIGURE_FILE = 'comparison.png'

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
    [str(experiment_lib.default_of('byzantine_fraction'))],
    f'Comma-separated. {experiment_lib.SETTINGS["byzantine_fraction"].help}',
)
_SEEDS = flags.DEFINE_list(
    'seeds',
    [str(experiment_lib.default_of('seed'))],
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


def main() -> int:
  """Runs the program; returns its exit code."""
  grid = make_grid()
  folder = output_folder.make_folder(
      pathlib.Path(flags.FLAGS.output_dir or 'out/compare')
  )

  # Not needed before the end, but if matplotlib is missing, better now.
  # pylint: disable=g-import-not-at-top
  from binaries.reporting import figures
  from binaries.reporting import results as results_lib
  from binaries.reporting import tables

  # pylint: enable=g-import-not-at-top

  application.announce_resume()
  num_failed = grid_lib.run_unfinished(
      grid, folder, num_workers=_NUM_WORKERS.value, quiet=flags.FLAGS.quiet
  )
  results = results_lib.read(folder, grid.axes)
  summary = tables.summary_tables(results)
  (folder / _TABLES_FILE).write_text(
      '\n'.join(map(tables.format_markdown, summary)), encoding='utf-8'
  )
  figures.save_summary(folder / _FIGURE_FILE, results)
  print('\n'.join(map(tables.format_text, summary)))
  print(
      f'See {folder / _FIGURE_FILE}, {folder / _TABLES_FILE} and'
      f' {folder / grid_lib.RESULTS_FILE}',
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


def make_grid() -> grid_lib.Grid:
  """The grid that the flags describe; UserError if they describe none."""
  aggregators = aggregator_registry.split_list(_AGGREGATORS.value)
  attacks = attack_registry.split_list(_ATTACKS.value)
  fractions = _parse('byzantine_fractions', float, _BYZANTINE_FRACTIONS.value)
  seeds = _parse('seeds', int, _SEEDS.value)
  base = experiment_flags.make_experiment(
      **{name: experiment_lib.default_of(name) for name in experiment_lib.AXES}
  )
  try:
    return grid_lib.Grid(base, aggregators, attacks, fractions, seeds)
  except (TypeError, ValueError) as error:
    raise application.UserError(application.describe_error(error)) from error


def _parse(
    name: str, parse: Callable[[str], Any], texts: Sequence[str]
) -> List[Any]:
  try:
    return list(map(parse, texts))
  except ValueError as error:
    raise application.UserError(
        f'flag --{name}={",".join(texts)}: {error}'
    ) from error


def _write_report(folder: pathlib.Path, num_runs: int) -> pathlib.Path:
  """Writes the report; returns the path of the page."""
  from binaries.reporting import page  # pylint: disable=g-import-not-at-top

  if not flags.FLAGS.quiet:
    # It can take a minute.
    print(f'writing the report on {num_runs} runs', file=sys.stderr, flush=True)
  written = page.write(folder)
  for problem in written.problems:
    print(f'left out of the report: {problem}', file=sys.stderr)
  return written.page


if __name__ == '__main__':
  application.run(main)
