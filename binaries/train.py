"""Trains a model in one simulated federation, possibly under attack.

Writes the folder --output_dir as the training goes on:

  metrics.csv    a row a round: accuracy and loss on the test set, the
                 attackers' share of the aggregation weights, the AUROC of the
                 weights as a detector of attackers, and more; the columns with
                 times are last
  weights.csv    a row a client and round, if the aggregator measures weights
  run.json       what made the run: command, settings, versions, machine
  checkpoints/   the newest states of model, optimizers, attack and defence
  tensorboard/   with --tensorboard, what `tensorboard --logdir` reads
  error.txt      the traceback if the run failed

The same command goes on where an earlier one was interrupted, after the newest
checkpoint, with the numbers of an uninterrupted run; the result of a finished
run is printed. A run with other settings or of other code is left alone.

Example:

  python -m binaries.train --aggregator=fedaot --attack=sign_flip
"""

import os
import pathlib

from absl import flags

from binaries import application
from binaries import experiment as experiment_lib
from binaries import experiment_flags
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import single_run

experiment_flags.define_settings(*experiment_lib.AXES)
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
  if flags.FLAGS.ray_address is not None:
    if experiment.context != 'ray':
      raise application.UserError('--ray_address needs --context=ray.')
    os.environ['RAY_ADDRESS'] = flags.FLAGS.ray_address
  folder = pathlib.Path(
      flags.FLAGS.output_dir or f'out/train/{experiment.name}'
  )
  # The command that goes on must not overwrite what this one left.
  application.announce_resume(*['--nooverwrite'] * _OVERWRITE.value)
  with progress_lib.Progress(
      1, experiment.task_options['rounds'], quiet=flags.FLAGS.quiet
  ) as progress:
    rows = single_run.run(
        experiment,
        folder,
        progress.start_run(f'{experiment.aggregator}, {experiment.attack}'),
        overwrite=_OVERWRITE.value,
        remedy='add --overwrite',
        checkpoint_every=_CHECKPOINT_EVERY.value,
        tensorboard=_TENSORBOARD.value,
        keep_checkpoints=True,
    )
  print(
      f'Test accuracy {rows[-1]["test_accuracy"]:.4f} after {len(rows)} rounds;'
      f' see {folder / run_metrics.FILE_NAME}'
  )
  return 0


if __name__ == '__main__':
  application.run(main)
