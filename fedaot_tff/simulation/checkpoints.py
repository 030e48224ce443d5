"""The newest states of a training, in a folder."""

import asyncio
from collections.abc import Callable, Coroutine
import concurrent.futures
import os
import pathlib
import re
import shutil
from typing import Any, List, NamedTuple, Optional, Union

from absl import logging
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks

_PREFIX = 'round_'
_UNREADABLE_PREFIX = 'unreadable_'


class Checkpoint(NamedTuple):
  """A state and the round after which it was saved."""

  round_num: int
  state: Any


class Checkpoints:
  """Saves and restores states with a `tff.program.FileProgramStateManager`.

  The folder, made if there is none, has a folder `round_ROUND` for each of the
  `keep` >= 1 newest states. A state appears in it as a whole or not at all,
  however the process ends; one that cannot be read nevertheless, as after a
  power failure, is passed over, of which `warn` is told in a line. Only one
  process at a time may use the folder.
  """

  def __init__(
      self,
      folder: Union[str, os.PathLike],
      *,
      keep: int = 3,
      warn: Callable[[str], None] = logging.warning,
  ):
    checks.check_kind('folder', folder, str, os.PathLike)
    checks.check_kind('warn', warn, Callable)
    self._folder = pathlib.Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    self._warn = warn
    self._manager = tff.program.FileProgramStateManager(
        os.fspath(self._folder),
        _PREFIX,
        keep_total=checks.check_int('keep', keep, minimum=1),
        keep_first=False,
    )

  def rounds(self) -> List[int]:
    """The rounds of the states in the folder, ascending."""
    return run_coroutine(self._manager.get_versions()) or []

  def restore(
      self, structure: Any, *, last_round: Optional[int] = None
  ) -> Optional[Checkpoint]:
    """Restores the newest state that can be read, up to `last_round` if given.

    `structure` is a state of the same kind, such as `process.initialize()`.
    Newer ones leave the list of `rounds`: those that cannot be read are renamed
    to `unreadable_round_ROUND`, those after `last_round` are removed.
    """
    self._remove_unfinished()
    for round_num in reversed(self.rounds()):
      path = self._path(round_num)
      if last_round is not None and round_num > last_round:
        shutil.rmtree(path)
        continue
      try:
        state = run_coroutine(self._manager.load(round_num, structure))
      except Exception as error:  # pylint: disable=broad-exception-caught
        # Files that were torn make TensorFlow raise all kinds.
        self._warn(
            f'the checkpoint of round {round_num} cannot be read and is passed'
            f' over: {_describe(error)}'
        )
        unreadable = path.with_name(_UNREADABLE_PREFIX + path.name)
        shutil.rmtree(unreadable, ignore_errors=True)
        path.rename(unreadable)
        continue
      return Checkpoint(round_num, state)
    return None

  def save(self, state: Any, round_num: int) -> None:
    """Saves the state after a round; removes the oldest beyond `keep`.

    Raises:
      OSError: If it cannot be written; those that were there are kept.
      tff.program.ProgramStateExistsError: If there is one of the round.
    """
    try:
      run_coroutine(self._manager.save(state, round_num))
    except (OSError, tf.errors.OpError) as error:
      self._remove_unfinished()
      raise OSError(
          f'cannot write the checkpoint {self._path(round_num)}:'
          f' {_describe(error)}'
      ) from error

  def _path(self, round_num: int) -> pathlib.Path:
    return self._folder / f'{_PREFIX}{round_num}'

  def _remove_unfinished(self) -> None:
    """Removes what TFF's manager left when it was stopped while saving."""
    for path in self._folder.iterdir():
      if re.fullmatch(rf'{_PREFIX}\d+_temp\d+', path.name):
        shutil.rmtree(path, ignore_errors=True)


def run_coroutine(coroutine: Coroutine) -> Any:
  """Runs a coroutine to its end, also where an event loop runs already."""
  try:
    asyncio.get_running_loop()
  except RuntimeError:
    return asyncio.run(coroutine)
  # As in a notebook. A loop cannot be entered again, but another thread has
  # none.
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
    return executor.submit(asyncio.run, coroutine).result()


def _describe(error: Exception) -> str:
  """The error in one line."""
  return ' '.join(str(error).split())[:200] or type(error).__name__
