"""Compares aggregators under attacks, in one simulated federation each.

Runs all combinations of --aggregators, --attacks, --byzantine_fractions and
--seeds and writes the folder --output_dir as the runs finish:

  results.csv     a row a run: the test accuracy and the success rate of the
                  attack after the last round, the means over the rounds of the
                  attackers' share of the aggregation weights and of the AUROC
                  of the weights as a detector of attackers, and the medians of
                  the aggregate's deviation from the mean of the honest updates
                  (relative to the norm of that mean) and of the seconds;
                  without it, it is made anew from runs/
  comparison.md   the table of accuracies that is also printed at the end
  comparison.png  accuracies, and weights on the attackers, by round
  report.html     the report that binaries.report makes, with report/ beside it
  settings.json   the settings that all runs share
  run.json        the command, the axes of the grid and the versions
  runs/           for each run a folder with metrics.csv, a row a round, and
                  error.txt if it failed

The same command goes on where an earlier one was interrupted, and tries again
what failed. Rows are in the order of the grid: by seed, fraction, aggregator
and attack; those of other grids come first. With --num_workers, that many runs
go on side by side in workers of Ray, each with its share of the cores and GPUs,
on this machine or on those of the cluster at --ray_address; if a worker is
killed, another one goes on with its run.

Example:

  python -m binaries.compare --aggregators=mean,fedaot --attacks=none,sign_flip
"""

from concurrent import futures
import importlib
import importlib.util
import pathlib
import sys

from absl import flags

from binaries import application
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import grid as grid_lib
from binaries import output_folder
from fedaot_tff.aggregators import registry as aggregator_registry
from fedaot_tff.attacks import registry as attack_registry


class _ListOf(flags.ListParser):
  """Parses comma-separated numbers of a kind."""

  def __init__(self, kind):
    super().__init__()
    self._kind = kind

  def parse(self, argument):
    return list(map(self._kind, super().parse(argument)))


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
_BYZANTINE_FRACTIONS, _SEEDS = (
    flags.DEFINE(
        _ListOf(experiment_lib.SETTINGS[name].kind),
        f'{name}s',
        [getattr(experiment_lib.Experiment, name)],
        f'Comma-separated. {experiment_lib.SETTINGS[name].help}',
    )
    for name in ('byzantine_fraction', 'seed')
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

  for package in ('matplotlib', 'pandas'):
    # Not needed before the end, but if one is missing, better now.
    if importlib.util.find_spec(package) is None:
      raise ModuleNotFoundError(f'No module named {package!r}')
  application.announce_resume()
  with futures.ThreadPoolExecutor(1) as background:
    # The import takes a second, in which workers can start.
    background.submit(importlib.import_module, 'binaries.reporting.page')
    num_failed = grid_lib.run_unfinished(
        grid,
        folder,
        num_workers=_NUM_WORKERS.value,
        ray_address=flags.FLAGS.ray_address,
        quiet=flags.FLAGS.quiet,
    )
  # pylint: disable=g-import-not-at-top
  from binaries.reporting import figures
  from binaries.reporting import page
  from binaries.reporting import results as results_lib
  from binaries.reporting import tables

  results = results_lib.read(folder, grid.axes)
  summary = tables.summary_tables(results)
  output_folder.replace_file(
      folder / 'comparison.md', '\n'.join(map(tables.format_markdown, summary))
  )
  figures.save_summary(folder / 'comparison.png', results)
  print('\n'.join(map(tables.format_text, summary)))
  print(
      f'See {folder}/comparison.png, {folder}/comparison.md and'
      f' {folder / output_folder.RESULTS_FILE}',
      flush=True,
  )
  if _REPORT.value and results.num_finished:
    if not flags.FLAGS.quiet:
      # It can take a minute.
      message = f'writing the report on {results.num_finished} runs'
      print(message, file=sys.stderr, flush=True)
    written = page.write(folder)
    for problem in written.problems:
      print(f'left out of the report: {problem}', file=sys.stderr)
    print(written.page)
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
  axes = {n: getattr(experiment_lib.Experiment, n) for n in experiment_lib.AXES}
  base = experiment_flags.make_experiment(**axes)
  try:
    return grid_lib.Grid(
        base, aggregators, attacks, _BYZANTINE_FRACTIONS.value, _SEEDS.value
    )
  except (TypeError, ValueError) as error:
    raise application.UserError(application.describe_error(error)) from error


if __name__ == '__main__':
  application.run(main)
