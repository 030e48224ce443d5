"""The folder that a program writes its results to."""

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
import pathlib
import tempfile
from typing import Any, Dict, Mapping, Optional

from binaries import application

_SETTINGS_FILE = 'settings.json'
_LOCK_FILE = '.lock'


def make_folder(path: pathlib.Path) -> pathlib.Path:
  """Makes a folder, unless it exists, and those above it; returns the path.

  Raises:
    UserError: If it is no folder or no file can be made in it.
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      return path
  except OSError as error:
    raise application.UserError(
        f'cannot write to the output folder {path}: {error.strerror}.'
    ) from error


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """Makes a folder, unless it exists, and keeps other programs out meanwhile.

  The lock is this process's alone and ends with it.

  Raises:
    UserError: If another program has locked it or it cannot be written.
  """
  make_folder(folder)
  try:
    file = open(folder / _LOCK_FILE, 'ab')
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    raise application.UserError(
        f'another program is writing to {folder}; wait until it has ended or'
        ' choose another --output_dir.'
    ) from error
  except OSError as error:
    raise application.UserError(
        f'cannot lock {folder}: {error.strerror}.'
    ) from error
  with file:
    yield


def replace_file(path: pathlib.Path, text: str) -> None:
  """Writes a file, as a whole or not at all: then it raises UserError."""
  unfinished = path.with_suffix('.unfinished')
  try:
    with open(unfinished, 'w', encoding='utf-8', newline='') as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  except OSError as error:
    raise application.UserError(
        f'cannot write {path}: {error.strerror}.'
    ) from error


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes names and values into a file as `replace_file` does."""
  replace_file(path, json.dumps(dict(content), indent=2) + '\n')


def read_json(path: pathlib.Path) -> Optional[Dict[str, Any]]:
  """What `write_json` left in a file; None for none, UserError for another."""
  try:
    content = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
  except (OSError, ValueError) as error:
    raise application.UserError(
        f'cannot read {path}: {error}; choose another --output_dir.'
    ) from error
  if not isinstance(content, dict):
    raise application.UserError(
        f'{path} holds no settings; choose another --output_dir.'
    )
  return content


def read_settings(folder: pathlib.Path) -> Optional[Dict[str, Any]]:
  """`read_json` of the settings that `write_settings` left in a folder."""
  return read_json(folder / _SETTINGS_FILE)


def write_settings(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Writes settings into a folder as `write_json` does."""
  write_json(folder / _SETTINGS_FILE, settings)


def describe_difference(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Optional[str]:
  """The first setting in which two differ, as in 'rounds=30, not 20'."""
  for name in {**new, **old}:
    if name not in old or name not in new or old[name] != new[name]:
      return f'{name}={old.get(name)!r}, not {new.get(name)!r}'
  return None
