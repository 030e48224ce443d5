"""The folder that a program writes its results to."""

from collections.abc import Iterator
import contextlib
import errno
import fcntl
import json
import os
import pathlib
import time
from typing import Any, BinaryIO, Dict, Iterable, Mapping, Optional, Union

from binaries import application

SETTINGS_FILE = 'settings.json'
RESULTS_FILE = 'results.csv'
_LOCK_FILE = '.lock'
_SECONDS_BETWEEN_TRIES = 0.2


def make_folder(path: pathlib.Path) -> pathlib.Path:
  """Makes a folder and those above it, or UserError; returns the path."""
  with told(f'write to the output folder {path}'):
    path.mkdir(parents=True, exist_ok=True)
  return path


@contextlib.contextmanager
def locked(folder: pathlib.Path, *, patience: float = 0.0) -> Iterator[None]:
  """Makes a folder, unless it exists, and keeps other programs out meanwhile.

  The lock is this process's alone and ends with it. UserError if another
  program has it, still after `patience` seconds, or the folder cannot be
  written.
  """
  make_folder(folder)
  with told(f'write to the output folder {folder}'):
    file = open(folder / _LOCK_FILE, 'ab')
    deadline = time.monotonic() + patience
    while not _lock(file):
      if time.monotonic() >= deadline:
        raise application.UserError(
            f'another program is writing to {folder}; wait until it has ended'
            ' or choose another --output_dir.'
        )
      time.sleep(_SECONDS_BETWEEN_TRIES)
  with file:
    yield


def _lock(file: BinaryIO) -> bool:
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def check_kind(folder: pathlib.Path, kind: str, files: Iterable[str]) -> None:
  """UserError if a folder has one of the files, which another kind has."""
  for name in files:
    if (folder / name).exists():
      raise application.UserError(
          f'{folder} holds {kind} ({name}); choose another --output_dir.'
      )


def replace_file(path: pathlib.Path, content: Union[str, bytes]) -> None:
  """Writes a file, as a whole or not at all: then it raises UserError."""
  if isinstance(content, str):
    content = content.encode()
  unfinished = path.with_suffix('.unfinished')
  try:
    with open(unfinished, 'wb') as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  except OSError as error:
    # On a full disk, room for what tells of it.
    with contextlib.suppress(OSError):
      unfinished.unlink()
    raise application.UserError(
        f'cannot write {path}: {error.strerror}.'
    ) from error


def remove_file(path: pathlib.Path) -> None:
  """Removes a file if it is there; UserError if it cannot be."""
  with told(f'remove {path}'):
    path.unlink(missing_ok=True)


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes names and values into a file as `replace_file` does."""
  replace_file(path, json.dumps(dict(content), indent=2) + '\n')


def read_file(path: pathlib.Path) -> bytes:
  """A file's content; OSError, also for a pipe or device, which may not end."""
  if path.exists() and not path.is_file():
    raise OSError(errno.EINVAL, 'It is no file')
  return path.read_bytes()


def read_json(path: pathlib.Path) -> Optional[Dict[str, Any]]:
  """What `write_json` left in a file; None for none, UserError for another."""
  try:
    content = json.loads(read_file(path).decode('utf-8'))
    if not isinstance(content, dict):
      raise ValueError('it holds no settings')
  except FileNotFoundError:
    return None
  except (OSError, RecursionError, ValueError) as error:
    raise unreadable(path, application.describe_error(error)) from error
  return content


def unreadable(path: pathlib.Path, what: str) -> application.UserError:
  """The error of a file that is not as it was written."""
  return application.UserError(
      f'cannot read {path}: {what}; restore it or choose another --output_dir.'
  )


def describe_difference(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Optional[str]:
  """The first setting in which two differ, as in 'rounds=30, not 20'."""
  for name in {**new, **old}:
    if name not in old or name not in new or old[name] != new[name]:
      return f'{name}={old.get(name)!r}, not {new.get(name)!r}'
  return None


@contextlib.contextmanager
def told(task: str) -> Iterator[None]:
  """Makes an OSError in a task a UserError."""
  try:
    yield
  except OSError as error:
    raise application.UserError(f'cannot {task}: {error.strerror}.') from error
