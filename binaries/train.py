"""Trains a model in one simulated federation, possibly under attack.

Writes the folder --output_dir as the training goes on:

  metrics.csv    a row a round: accuracy and loss on the test set, the
                 attackers' share of the aggregation weights, the AUROC of the
                 weights as a detector of attackers, and more; the columns with
                 times are last
  weights.csv    a row for each client of a round, if the aggregator measures
                 its weights
  settings.json  the settings of the run
  run.json       what made the run: command, versions, machine, seed
  checkpoints/   the newest states of model, optimizers, attack and defence
  tensorboard/   with --tensorboard: scalars, histograms of the weights of
                 clients and model, and images of the examples; read it with
                 `tensorboard --logdir`
  error.txt      the traceback if the run failed

The same command goes on where an earlier one was interrupted, after the newest
checkpoint, with the numbers of an uninterrupted run. If the run in --output_dir
is finished, its result is printed. A run with other settings or of other code
is left alone.

With --context=in_process a line on the standard error tells which devices the
clients and the server work on. If these are GPUs, a line at the end tells how
busy they were during the run and how much of their memory was in use at most.

Example:

  python -m binaries.train --aggregator=fedaot --attack=sign_flip
"""

import pathlib
import sys

from absl import flags

from binaries import application
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import run_record
from binaries import single_run

experiment_flags.define_settings(*experiment_flags.AXES)
flags.adopt_module_key_flags(experiment_flags)
_OVERWRITE = flags.DEFINE_bool(
    'overwrite',
    False,
    'Begin anew; replace what another run left in --output_dir.',
)
_CHECKPOINT_EVERY = flags.DEFINE_integer(
    'checkpoint_every',
    single_run.DEFAULT_CHECKPOINT_EVERY,
    'Save a checkpoint every so many rounds, and after the last.',
    lower_bound=1,
)
_TENSORBOARD = flags.DEFINE_bool(
    'tensorboard', False, 'Write event files for TensorBoard.'
)


def main() -> int:
  """Runs the program; returns its exit code."""
  experiment = experiment_flags.make_experiment()
  folder = output_folder.make_folder(
      pathlib.Path(flags.FLAGS.output_dir or f'out/train/{experiment.name}')
  )
  with single_run.Run(
      experiment, folder, overwrite=_OVERWRITE.value, remedy='add --overwrite'
  ) as run:
    if not run.is_finished:
      output_folder.write_settings(folder, experiment.to_dict())
      _finish(run, experiment, folder)
    rows = run.rows
  print(
      f'Test accuracy {rows[-1]["test_accuracy"]:.4f} after {len(rows)} rounds;'
      f' see {folder / run_metrics.FILE_NAME}'
  )
  return 0


def _finish(
    run: single_run.Run,
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
) -> None:
  """Trains the rounds that are left."""
  application.set_resume_command(_resume_command())
  rounds_done = run.newest_checkpoint
  if rounds_done and not flags.FLAGS.quiet:
    print(
        f'{folder}: goes on after the checkpoint of round {rounds_done}',
        file=sys.stderr,
    )
  with progress_lib.Progress(
      1,
      experiment.task_options['rounds'],
      rounds_done=rounds_done,
      quiet=flags.FLAGS.quiet,
  ) as progress:
    # Takes seconds, as it needs TensorFlow.
    from binaries import runner  # pylint: disable=g-import-not-at-top

    progress.start_run(
        f'{experiment.aggregator}, {experiment.attack}', rounds_done
    )
    run.finish(
        runner.Runner(),
        progress,
        checkpoint_every=_CHECKPOINT_EVERY.value,
        tensorboard=_TENSORBOARD.value,
        keep_checkpoints=True,
    )


def _resume_command() -> str:
  """This program's command, which must not overwrite what it left."""
  command = run_record.resume_command()
  return f'{command} --nooverwrite' if _OVERWRITE.value else command


if __name__ == '__main__':
  application.run(main)
