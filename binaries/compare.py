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
  settings.json   the settings that all runs share
  runs/           for each run a folder with metrics.csv, a row a round, and
                  error.txt if it failed

The same command goes on where an earlier one was interrupted. A run that fails
does not keep the others from running; the exit code is 1 then.

Example:

  python -m binaries.compare --aggregators=mean,fedaot --attacks=none,sign_flip
"""

import itertools
import pathlib
from typing import Any, Callable, Dict, Mapping, Sequence, Tuple

from absl import flags

from binaries import application
from binaries import comparison as comparison_lib
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import single_run
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


def main() -> int:
  """Runs the program; returns its exit code."""
  aggregators = _check_axis(
      'aggregators', aggregator_registry.split_list(_AGGREGATORS.value)
  )
  attacks = _check_axis('attacks', attack_registry.split_list(_ATTACKS.value))
  fractions = _parse_axis(
      'byzantine_fractions', float, _BYZANTINE_FRACTIONS.value
  )
  seeds = _parse_axis('seeds', int, _SEEDS.value)
  # By seed first, for what the runner keeps.
  experiments = [
      experiment_flags.make_experiment(
          aggregator=aggregator,
          attack=attack,
          byzantine_fraction=fraction,
          seed=seed,
      )
      for seed, fraction, aggregator, attack in itertools.product(
          seeds, fractions, aggregators, attacks
      )
  ]
  folder = output_folder.make_folder(
      pathlib.Path(flags.FLAGS.output_dir or 'out/compare')
  )
  with csv_log.CsvLog(
      folder / _RESULTS_FILE, _RESULTS_COLUMNS, keep=True
  ) as log:
    _check_settings(folder, experiments[0])

    # Not needed before the end, but if matplotlib is missing, better now.
    from binaries import figure  # pylint: disable=g-import-not-at-top

    num_failed = _run_unfinished(experiments, folder, log)
    results = _read_results(log)
  metrics = {
      _key(e): csv_log.read_rows(
          _run_folder(folder, e) / run_metrics.FILE_NAME
      )
      for e in experiments
      if _key(e) in results
  }
  comparison = comparison_lib.Comparison(
      task=experiments[0].task,
      rounds=experiments[0].task_options['rounds'],
      aggregators=aggregators,
      attacks=attacks,
      byzantine_fractions=fractions,
      seeds=seeds,
      results=results,
  )
  tables = comparison_lib.make_tables(comparison)
  (folder / _TABLES_FILE).write_text(
      '\n'.join(map(comparison_lib.format_markdown, tables)), encoding='utf-8'
  )
  figure.save_figure(folder / _FIGURE_FILE, comparison, metrics)
  print('\n'.join(map(comparison_lib.format_text, tables)))
  print(
      f'See {folder / _FIGURE_FILE}, {folder / _TABLES_FILE} and'
      f' {folder / _RESULTS_FILE}'
  )
  if num_failed:
    raise application.UserError(
        f'{num_failed} of {len(experiments)} runs failed; the same command'
        ' tries them again.'
    )
  return 0


def _run_unfinished(
    experiments: Sequence[experiment_lib.Experiment],
    folder: pathlib.Path,
    log: csv_log.CsvLog,
) -> int:
  """Runs the experiments that have no result yet; returns how many failed."""
  results = _read_results(log)
  unfinished = [e for e in experiments if _key(e) not in results]
  if not unfinished:
    return 0
  num_failed = 0
  with progress_lib.Progress(
      len(unfinished),
      experiments[0].task_options['rounds'],
      quiet=flags.FLAGS.quiet,
  ) as progress:
    # Takes seconds, as it needs TensorFlow.
    from binaries import runner  # pylint: disable=g-import-not-at-top

    shared_runner = runner.Runner()
    for number, experiment in enumerate(unfinished, start=1):
      progress.start_run(
          f'{number}/{len(unfinished)} {experiment.aggregator},'
          f' {experiment.attack}, {100 * experiment.byzantine_fraction:g}%,'
          f' seed {experiment.seed}'
      )
      run_folder = output_folder.make_folder(_run_folder(folder, experiment))
      try:
        rows = single_run.run(shared_runner, experiment, run_folder, progress)
      except application.UserError as error:
        num_failed += 1
        progress.warn(f'failed: {error}')
        progress.end_run('failed')
        continue
      log.append(_make_result(experiment, rows))
      progress.end_run(f'test accuracy {rows[-1]["test_accuracy"]:.4f}')
  return num_failed


def _check_settings(
    folder: pathlib.Path, experiment: experiment_lib.Experiment
) -> None:
  """Raises UserError if the folder is of a comparison with other settings."""
  settings = {
      name: value
      for name, value in experiment.to_dict().items()
      if name not in experiment_flags.AXES
  }
  earlier = output_folder.read_settings(folder)
  if earlier is None:
    output_folder.write_settings(folder, settings)
    return
  difference = output_folder.describe_difference(earlier, settings)
  if difference is not None:
    raise application.UserError(
        f'{folder} holds a comparison with {difference}; choose another'
        ' --output_dir.'
    )


def _run_folder(
    folder: pathlib.Path, experiment: experiment_lib.Experiment
) -> pathlib.Path:
  return folder / 'runs' / experiment.name


def _key(experiment: experiment_lib.Experiment) -> comparison_lib.RunKey:
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
    log: csv_log.CsvLog,
) -> Dict[comparison_lib.RunKey, Dict[str, str]]:
  """The finished runs."""
  return {
      (
          row['aggregator'],
          row['attack'],
          float(row['byzantine_fraction']),
          int(row['seed']),
      ): row
      for row in log.rows()
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
