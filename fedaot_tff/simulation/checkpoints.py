"""The newest states of a training, in a folder.

A checkpoint is a file that holds values, never code: a line with the format and
the CRC-32 of what follows; the manifest, a line of JSON with the round and the
name, dtype and shape of each array of the state; and the arrays' bytes.
"""

from collections.abc import Callable
import json
import os
import pathlib
import re
import shutil
from typing import Any, List, NamedTuple, Optional, Tuple, Union
import zlib

from absl import logging
import numpy as np
import tree

from fedaot import checks

_PREFIX = 'round_'
_UNREADABLE_PREFIX = 'unreadable_'
_UNFINISHED = '.unfinished'
_HEAD = b'fedaot checkpoint 1, CRC-32 %08x\n'


class Checkpoint(NamedTuple):
  """A state and the round after which it was saved."""

  round_num: int
  state: Any


class Checkpoints:
  """Saves and restores states, structures of numbers and arrays.

  The folder, made if there is none, has a file `round_ROUND` for each of the
  `keep` >= 1 newest states. A state appears in it as a whole or not at all,
  however the process ends; one that cannot be read nevertheless, as after a
  power failure, is passed over, of which `warn` is told in a line. Whatever
  else is in the folder stays. Only one process at a time may use it.
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
    self._keep = checks.check_int('keep', keep, minimum=1)
    self.folder = pathlib.Path(folder)
    self.folder.mkdir(parents=True, exist_ok=True)
    self._warn = warn

  def rounds(self) -> List[int]:
    """The rounds of the states in the folder, ascending."""
    return rounds(self.folder)

  def restore(
      self, structure: Any, *, last_round: Optional[int] = None
  ) -> Optional[Checkpoint]:
    """Restores the newest state that can be read, up to `last_round` if given.

    It has the structure, dtypes and shapes of `structure`, such as
    `process.initialize()`; where that has no rows, it may have some.

    Newer ones leave the list of `rounds`: those that cannot be read are renamed
    to `unreadable_round_ROUND`, those after `last_round` are removed.
    """
    for round_num in reversed(self.rounds()):
      path = self._path(round_num)
      if last_round is not None and round_num > last_round:
        _remove(path)
        continue
      try:
        return Checkpoint(round_num, _read(path, round_num, structure))
      except Exception as error:  # pylint: disable=broad-exception-caught
        # A file that somebody else wrote can raise all kinds.
        self._warn(
            f'the checkpoint of round {round_num} cannot be read and is passed'
            f' over: {_describe(error)}'
        )
        unreadable = path.with_name(_UNREADABLE_PREFIX + path.name)
        _remove(unreadable)
        path.rename(unreadable)
    return None

  def save(self, state: Any, round_num: int) -> None:
    """Saves the state after a round; removes the oldest beyond `keep`.

    Raises:
      OSError: If it cannot be written; those that were there are kept.
      TypeError: If the state holds something else than numbers and arrays.
    """
    content = _serialize(state, round_num)
    path = self._path(round_num)
    unfinished = path.with_name(path.name + _UNFINISHED)
    try:
      with open(unfinished, 'wb') as file:
        file.writelines(content)
        file.flush()
        os.fsync(file.fileno())
      os.replace(unfinished, path)
    except OSError as error:
      unfinished.unlink(missing_ok=True)
      raise OSError(
          f'cannot write the checkpoint {path}: {_describe(error)}'
      ) from error
    for old in self.rounds()[: -self._keep]:
      _remove(self._path(old))

  def _path(self, round_num: int) -> pathlib.Path:
    return self.folder / f'{_PREFIX}{round_num}'


def rounds(folder: pathlib.Path) -> List[int]:
  """The rounds of the states in a folder, ascending; [] for no folder."""
  names = (path.name for path in folder.glob(f'{_PREFIX}*'))
  found = (re.fullmatch(f'{_PREFIX}(0|[1-9][0-9]*)', name) for name in names)
  return sorted(int(match[1]) for match in found if match)


def remove_all(folder: pathlib.Path) -> None:
  """Removes all states, also those that are unreadable or unfinished."""
  for path in folder.glob(f'*{_PREFIX}[0-9]*'):
    _remove(path)


def _serialize(state: Any, round_num: int) -> List[Any]:
  """The parts of a file, in order."""
  arrays = _list_arrays(state)
  manifest = {
      'round': round_num,
      'arrays': [[name, a.dtype.name, a.shape] for name, a in arrays],
  }
  parts = [f'{json.dumps(manifest)}\n'.encode()]
  for _, array in arrays:
    # Its bytes, without a copy.
    parts.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
  checksum = 0
  for part in parts:
    checksum = zlib.crc32(part, checksum)
  return [_HEAD % checksum, *parts]


def _read(path: pathlib.Path, round_num: int, structure: Any) -> Any:
  """The state in a file; an Exception unless it fits."""
  if path.is_dir():
    raise ValueError(
        'it is a folder, as of an earlier version, and may hold code.'
    )
  if not path.is_file():
    raise ValueError('it is no file.')
  with open(path, 'rb') as file:
    head, content = file.readline(len(_HEAD) + 9), file.read()
  if head != _HEAD % zlib.crc32(content):
    raise ValueError('it is damaged, or of another version.')
  offset = content.index(b'\n') + 1
  manifest = json.loads(content[:offset])
  if manifest['round'] != round_num:
    raise ValueError(f'it is that of round {manifest["round"]}.')
  expected = _list_arrays(structure)
  names = [name for name, _ in expected]
  others = set(names).symmetric_difference(n for n, _, _ in manifest['arrays'])
  if others:
    raise ValueError(f'only one of it and the training has {min(others)}.')
  leaves = []
  for (name, like), (found, dtype, shape) in zip(expected, manifest['arrays']):
    allowed = [size or of_file for size, of_file in zip(like.shape, shape)]
    if (found, dtype, shape) != (name, like.dtype.name, allowed) or (
        len(shape) != like.ndim
    ):
      raise ValueError(
          f'{found} is {dtype} {shape} in it, and {like.dtype.name}'
          f' {list(like.shape)} in the training.'
      )
    size = int(np.prod(shape, dtype=object))
    array = np.frombuffer(content, like.dtype, size, offset)
    offset += array.nbytes
    leaves.append(array.reshape(shape).copy()[()])
  if offset != len(content):
    raise ValueError(f'it has {len(content) - offset} bytes too many.')
  return tree.unflatten_as(structure, leaves)


def _list_arrays(state: Any) -> List[Tuple[str, np.ndarray]]:
  """Name and value of each leaf of a structure."""
  arrays = []
  for path, leaf in tree.flatten_with_path(state):
    name, array = '/'.join(map(str, path)), np.asarray(leaf)
    if array.dtype.hasobject:
      raise TypeError(
          f'a state must hold numbers; found {type(leaf).__name__} in {name}.'
      )
    arrays.append((name, array))
  return arrays


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path, ignore_errors=True)
  else:
    path.unlink(missing_ok=True)


def _describe(error: Exception) -> str:
  """The error in one line."""
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return ' '.join(str(error).split())[:200] or type(error).__name__
