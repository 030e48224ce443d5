"""Trains a model in one simulated federation, possibly under attack.

Writes the folder --output_dir as the training goes on:

  metrics.csv    a row a round: accuracy and loss on the test set, the
                 attackers' share of the aggregation weights, the AUROC of the
                 weights as a detector of attackers, and more; the columns with
                 times are last
  settings.json  the settings of the run
  error.txt      the traceback if the run failed

Example:

  python -m binaries.train --aggregator=fedaot --attack=sign_flip
"""

import pathlib

from absl import flags

from binaries import application
from binaries import csv_log
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import single_run

experiment_flags.define_settings(*experiment_flags.AXES)
flags.adopt_module_key_flags(experiment_flags)
_OVERWRITE = flags.DEFINE_bool(
    'overwrite', False, 'Replace what another run left in --output_dir.'
)


def main() -> int:
  """Runs the program; returns its exit code."""
  experiment = experiment_flags.make_experiment()
  folder = output_folder.make_folder(
      pathlib.Path(flags.FLAGS.output_dir or f'out/train/{experiment.name}')
  )
  if not _OVERWRITE.value:
    _check_replaceable(folder, experiment)
  output_folder.write_settings(folder, experiment.to_dict())
  with progress_lib.Progress(
      1, experiment.task_options['rounds'], quiet=flags.FLAGS.quiet
  ) as progress:
    # Takes seconds, as it needs TensorFlow.
    from binaries import runner  # pylint: disable=g-import-not-at-top

    progress.start_run(f'{experiment.aggregator}, {experiment.attack}')
    rows = single_run.run(runner.Runner(), experiment, folder, progress)
  print(
      f'Test accuracy {rows[-1]["test_accuracy"]:.4f} after {len(rows)} rounds;'
      f' see {folder / run_metrics.FILE_NAME}'
  )
  return 0


def _check_replaceable(
    folder: pathlib.Path, experiment: experiment_lib.Experiment
) -> None:
  """Raises UserError unless what is in the folder is no loss.

  That is the case for an unfinished run with the same settings, which makes the
  same rows again.
  """
  rows = csv_log.read_rows(folder / run_metrics.FILE_NAME)
  if not rows:
    return
  difference = output_folder.describe_difference(
      output_folder.read_settings(folder) or {}, experiment.to_dict()
  )
  if difference is not None:
    found = f'a run with {difference}'
  elif int(rows[-1]['round']) >= experiment.task_options['rounds']:
    found = 'a finished run'
  else:
    return
  raise application.UserError(
      f'{folder} holds {found}; choose another --output_dir or add --overwrite.'
  )


if __name__ == '__main__':
  application.run(main)
