"""One run of an experiment, which may have been begun by an earlier process.

`binaries.train` tells what is in the folder of a run.
"""

import atexit
import contextlib
import functools
import pathlib
from typing import Any, Dict, List, Optional

from binaries import application
from binaries import experiment as experiment_lib
from binaries import gpus
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_metrics
from binaries import run_record
from fedaot_tff.simulation import checkpoints as checkpoints_lib
from tasks import registry as tasks

DEFAULT_CHECKPOINT_EVERY = 10

_CHECKPOINTS_FOLDER = 'checkpoints'
_TENSORBOARD = 'tensorboard'
# What a folder is told by to be a run's.
FILES = (
    run_metrics.FILE_NAME,
    run_metrics.WEIGHTS_FILE_NAME,
    _CHECKPOINTS_FOLDER,
)


def run(
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
    progress: progress_lib.RunProgress,
    *,
    overwrite: bool = False,
    remedy: str = 'remove it',
    checkpoint_every: int = DEFAULT_CHECKPOINT_EVERY,
    tensorboard: bool = False,
    keep_checkpoints: bool = False,
    patience: float = 0.0,
) -> List[Dict[str, Any]]:
  """Runs an experiment, or what an earlier process has left to do of it.

  A part of the same run in the folder is gone on with after its newest
  checkpoint; a finished run is not run again. Returns `metrics.csv`'s rows.

  Args:
    experiment: The settings.
    folder: The folder of the run.
    progress: Told each round that is run.
    overwrite: Whether to begin anew, and remove the files of another run.
    remedy: What the error says to do about a folder with something else.
    checkpoint_every: The number of rounds from checkpoint to checkpoint.
    tensorboard: Whether to write event files for TensorBoard.
    keep_checkpoints: Whether the newest stay when the run is finished.
    patience: For how many seconds to wait if another program runs it.

  Raises:
    UserError: If the folder holds a comparison, or a run with other settings or
      of other code, which is left alone; if it is damaged or cannot be written
      or locked; if the run fails.
    ModuleNotFoundError: If a package is missing.
  """
  with output_folder.locked(folder, patience=patience):
    # Before --overwrite removes anything, and whether or not there are rows.
    output_folder.check_kind(
        folder,
        'a comparison',
        (output_folder.SETTINGS_FILE, output_folder.RESULTS_FILE),
    )
    if overwrite:
      _remove_results(folder)
    settings, record = experiment.to_dict(), run_record.read(folder)
    with contextlib.closing(
        run_metrics.RunLog(folder, settings, (record or {}).get('settings'))
    ) as log:
      if other := _describe_other(experiment, record, log.rows):
        raise application.UserError(
            f'{folder} holds {other}; choose another --output_dir or {remedy}.'
        )
      if len(log.rows) == experiment.task_options['rounds']:
        return log.rows
      try:
        (folder / application.ERROR_FILE).unlink(missing_ok=True)
        if log.rows:
          run_record.add_continuation(folder)
        else:
          run_record.write(folder, seed=experiment.seed, settings=settings)
        _train(
            experiment,
            folder,
            progress,
            log,
            checkpoint_every,
            tensorboard,
            keep_checkpoints,
        )
      except (application.UserError, ModuleNotFoundError):
        raise
      except Exception as error:
        message = application.write_error(folder, error)
        raise application.UserError(message) from error
      return log.rows


@functools.lru_cache(maxsize=None)
def shared_runner() -> Any:
  """The `runner.Runner` of this process; to import it takes seconds."""
  from binaries import runner  # pylint: disable=g-import-not-at-top

  # TensorFlow cannot free functions any more while Python ends, and says so.
  atexit.register(shared_runner.cache_clear)
  return runner.Runner()


def _describe_other(
    experiment: experiment_lib.Experiment,
    record: Optional[Dict[str, Any]],
    rows: List[Dict[str, Any]],
) -> Optional[str]:
  """What keeps the rows from being this run's, if anything."""
  if not rows:
    return None
  if record is None:
    return f'a run without {run_record.FILE_NAME}'
  difference = output_folder.describe_difference(
      record.get('settings', {}), experiment.to_dict()
  )
  if difference is None and len(rows) < experiment.task_options['rounds']:
    difference = run_record.describe_other_versions(record)
  return difference and f'a run with {difference} ({run_record.FILE_NAME})'


def _train(
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
    progress: progress_lib.RunProgress,
    log: run_metrics.RunLog,
    checkpoint_every: int,
    tensorboard: bool,
    keep_checkpoints: bool,
) -> None:
  """Trains the rounds that are left."""
  checkpoints = checkpoints_lib.Checkpoints(
      folder / _CHECKPOINTS_FOLDER,
      settings=experiment.to_dict(),
      warn=progress.warn,
  )
  # After which the run can go on; 0 if it has to begin anew.
  rounds_done = max(
      (r for r in checkpoints.rounds() if r <= len(log.rows)), default=0
  )
  if rounds_done:
    progress.remark(f'goes on after the checkpoint of round {rounds_done}')
    progress.skip(rounds_done)
  # It would be told after TensorFlow has been loaded.
  tasks.find_data(experiment.task, **experiment.task_options)
  num_rounds = experiment.task_options['rounds']
  accuracy = 'not evaluated yet'
  with contextlib.ExitStack() as stack:
    if experiment.context == 'in_process':
      stack.enter_context(gpus.monitored(progress.remark))
    for _ in shared_runner().run(
        experiment,
        checkpoints=checkpoints,
        checkpoint_every=checkpoint_every,
        last_checkpoint=len(log.rows),
        release_managers=[log],
        tensorboard_folder=folder / _TENSORBOARD if tensorboard else None,
        note=progress.note,
    ):
      row = log.rows[-1]
      if row['test_accuracy'] is not None:
        accuracy = f'test accuracy {row["test_accuracy"]:.4f}'
      progress.advance(f'round {row["round"]}/{num_rounds}, {accuracy}')
      # Once: in rounds without evaluation there is no loss to tell.
      *before, is_finite = [r['model_is_finite'] for r in log.rows]
      if all(before) and not is_finite:
        progress.warn(
            f'the model or its loss is not finite in round {row["round"]}'
        )
      is_last = row['round'] == num_rounds
      if is_last or row['round'] % checkpoint_every == 0:
        log.sync()
      if is_last and not keep_checkpoints:
        # The next checkpoint would be saved only to be removed.
        break
  if not keep_checkpoints:
    _remove_checkpoints(folder)


def _remove_checkpoints(folder: pathlib.Path) -> None:
  """Removes the checkpoints, and their folder if nothing else is in it."""
  path = folder / _CHECKPOINTS_FOLDER
  checkpoints_lib.remove_all(path)
  with contextlib.suppress(OSError):
    path.rmdir()


def _remove_results(folder: pathlib.Path) -> None:
  """Removes what a run leaves; its rows before what tells whose they are."""
  for name in (
      run_metrics.FILE_NAME,
      run_metrics.WEIGHTS_FILE_NAME,
      run_record.FILE_NAME,
  ):
    output_folder.remove_file(folder / name)
  _remove_checkpoints(folder)
  for path in (folder / _TENSORBOARD).glob('events.out.tfevents.*'):
    path.unlink()
