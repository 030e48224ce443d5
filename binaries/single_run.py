"""One run of an experiment, which may have been begun by an earlier process.

The folder of a run:

  metrics.csv    a row a round
  weights.csv    a row for each client of a round, if the aggregator measures
                 its weights
  run.json       what made the run: command, settings, versions, machine
  checkpoints/   the newest states, from which an interrupted run goes on
  tensorboard/   event files, if they are asked for
  error.txt      the traceback if the run failed
"""

from collections.abc import Iterator
import contextlib
import pathlib
import re
import shutil
from typing import Any, Dict, List, Optional

from binaries import application
from binaries import experiment as experiment_lib
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_log
from binaries import run_record

DEFAULT_CHECKPOINT_EVERY = 10

_CHECKPOINTS_FOLDER = 'checkpoints'
_TENSORBOARD_FOLDER = 'tensorboard'
# What `fedaot_tff.simulation.checkpoints` writes; group 1 is the round.
_CHECKPOINT_NAME = re.compile(r'round_(\d+)')
_ANY_CHECKPOINT_NAME = re.compile(r'(unreadable_)?round_\d+(_temp\d+)?')


class Run:
  """A run in its folder, which nobody else can write to meanwhile."""

  def __init__(
      self,
      experiment: experiment_lib.Experiment,
      folder: pathlib.Path,
      *,
      overwrite: bool = False,
      remedy: str = 'remove it',
  ):
    """Opens a folder for a run; no complete row in it is changed.

    Args:
      experiment: The settings.
      folder: The folder, which exists.
      overwrite: Whether to begin anew whatever is in the folder, which removes
        the files of another run.
      remedy: What to do about a folder that holds something else, as the error
        is to say it.

    Raises:
      UserError: If the folder holds a run with other settings, or one that
        other code has begun; if it cannot be written, or another process is
        writing it.
    """
    self._experiment = experiment
    self._folder = folder
    self._num_rounds = experiment.task_options['rounds']
    self._log = run_log.RunLog(folder, keep=not overwrite)
    try:
      if overwrite:
        _remove_results(folder)
      found = self._describe_other() if self._log.rows else None
      if found is not None:
        raise application.UserError(
            f'{folder} holds {found}; choose another --output_dir or {remedy}.'
        )
    except BaseException:
      self.close()
      raise

  @property
  def rows(self) -> List[Dict[str, Any]]:
    """The rows of `metrics.csv` there are."""
    return self._log.rows

  @property
  def is_finished(self) -> bool:
    """Whether all rounds are there."""
    return len(self._log.rows) == self._num_rounds

  @property
  def newest_checkpoint(self) -> int:
    """The round after which the run can go on; 0 if it has to begin anew."""
    return max(
        (
            round_num
            for round_num in _checkpoint_rounds(self._folder)
            if round_num <= len(self._log.rows)
        ),
        default=0,
    )

  def finish(
      self,
      runner: Any,
      progress: progress_lib.Progress,
      *,
      checkpoint_every: int = DEFAULT_CHECKPOINT_EVERY,
      tensorboard: bool = False,
      keep_checkpoints: bool = False,
  ) -> List[Dict[str, Any]]:
    """Runs the rounds that are left; see `run`."""
    if self.is_finished:
      return self.rows
    try:
      application.remove_error(self._folder)
      self._write_record()
      self._train(
          runner, progress, checkpoint_every, tensorboard, keep_checkpoints
      )
    except application.UserError:
      raise
    except Exception as error:
      raise application.UserError(
          application.write_error(self._folder, error)
      ) from error
    if not keep_checkpoints:
      _remove_checkpoints(self._folder)
    return self.rows

  def close(self) -> None:
    """Closes the files, which also lets others write to the folder."""
    self._log.close()

  def __enter__(self) -> 'Run':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def _describe_other(self) -> Optional[str]:
    """What keeps the rows in the folder from being this run's, if anything."""
    record = run_record.read(self._folder)
    if record is None:
      return f'a run without {run_record.FILE_NAME}'
    difference = output_folder.describe_difference(
        experiment_lib.complete_settings(record.get('settings') or {}),
        self._experiment.to_dict(),
    )
    if difference is None and not self.is_finished:
      difference = run_record.describe_other_versions(record)
    return None if difference is None else f'a run with {difference}'

  def _write_record(self) -> None:
    if self._log.rows:
      run_record.add_continuation(self._folder)
    else:
      run_record.write(
          self._folder,
          seed=self._experiment.seed,
          settings=self._experiment.to_dict(),
      )

  def _train(
      self,
      runner: Any,
      progress: progress_lib.Progress,
      checkpoint_every: int,
      tensorboard: bool,
      keep_checkpoints: bool,
  ) -> None:
    records = runner.run(
        self._experiment,
        checkpoint_folder=self._folder / _CHECKPOINTS_FOLDER,
        checkpoint_every=checkpoint_every,
        last_checkpoint=len(self._log.rows),
        release_managers=[self._log],
        tensorboard_folder=(
            self._folder / _TENSORBOARD_FOLDER if tensorboard else None
        ),
        warn=progress.warn,
        note=progress.note,
        remark=progress.remark,
    )
    # Closed, so that what is remarked at the end comes even if the last rounds
    # are not asked for.
    with contextlib.closing(records):
      self._log_rounds(records, progress, checkpoint_every, keep_checkpoints)

  def _log_rounds(
      self,
      records: Iterator[Any],
      progress: progress_lib.Progress,
      checkpoint_every: int,
      keep_checkpoints: bool,
  ) -> None:
    accuracy = 'not evaluated yet'
    for _ in records:
      *earlier, row = self._log.rows[-2:]
      was_finite = all(r['model_is_finite'] for r in earlier)
      if row['test_accuracy'] is not None:
        accuracy = f'test accuracy {row["test_accuracy"]:.4f}'
      progress.advance(f'round {row["round"]}/{self._num_rounds}, {accuracy}')
      if was_finite and not row['model_is_finite']:
        progress.warn(f'the model is not finite from round {row["round"]} on')
      is_last = row['round'] == self._num_rounds
      if is_last or row['round'] % checkpoint_every == 0:
        self._log.sync()
      if is_last and not keep_checkpoints:
        # The next checkpoint would be saved only to be removed.
        break


def run(
    runner: Any,
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
    progress: progress_lib.Progress,
    *,
    checkpoint_every: int = DEFAULT_CHECKPOINT_EVERY,
    tensorboard: bool = False,
    keep_checkpoints: bool = False,
) -> List[Dict[str, Any]]:
  """Runs an experiment, or what an earlier process has left to do of it.

  Args:
    runner: A `runner.Runner`.
    experiment: The settings.
    folder: The folder of the run. If it holds a part of the same run, that is
      gone on with after its newest checkpoint; a finished run is not run again.
    progress: Told each round that is run.
    checkpoint_every: The number of rounds from checkpoint to checkpoint.
    tensorboard: Whether to write event files for TensorBoard.
    keep_checkpoints: Whether the newest checkpoints stay when the run is
      finished.

  Returns:
    The rows of `metrics.csv`.

  Raises:
    UserError: If the folder holds something else, cannot be written, or another
      process is writing it; or if the run fails.
  """
  with Run(experiment, folder) as opened:
    return opened.finish(
        runner,
        progress,
        checkpoint_every=checkpoint_every,
        tensorboard=tensorboard,
        keep_checkpoints=keep_checkpoints,
    )


def _checkpoint_rounds(folder: pathlib.Path) -> List[int]:
  matches = (
      _CHECKPOINT_NAME.fullmatch(path.name)
      for path in (folder / _CHECKPOINTS_FOLDER).glob('round_*')
  )
  return [int(match[1]) for match in matches if match]


def _remove_checkpoints(folder: pathlib.Path) -> None:
  """Removes the checkpoints, and their folder if nothing else is in it."""
  checkpoints = folder / _CHECKPOINTS_FOLDER
  if not checkpoints.is_dir():
    return
  for path in checkpoints.iterdir():
    if _ANY_CHECKPOINT_NAME.fullmatch(path.name):
      shutil.rmtree(path, ignore_errors=True)
  if not any(checkpoints.iterdir()):
    checkpoints.rmdir()


def _remove_results(folder: pathlib.Path) -> None:
  """Removes what a run leaves besides its CSV files."""
  _remove_checkpoints(folder)
  (folder / run_record.FILE_NAME).unlink(missing_ok=True)
  for path in (folder / _TENSORBOARD_FOLDER).glob('events.out.tfevents.*'):
    path.unlink()
