"""The folder that a program writes its results to."""

import json
import os
import pathlib
import tempfile
from typing import Any, Dict, Mapping, Optional

from binaries import application

_SETTINGS_FILE = 'settings.json'


def make_folder(path: pathlib.Path) -> pathlib.Path:
  """Makes a folder, unless it exists, and checks that files can be made there.

  Args:
    path: The folder; the folders above it are made as well.

  Returns:
    The path.

  Raises:
    UserError: If it is no folder or cannot be written to.
  """
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      return path
  except OSError as error:
    raise application.UserError(
        f'cannot write to the output folder {path}: {error.strerror}.'
    ) from error


def read_json(path: pathlib.Path) -> Optional[Dict[str, Any]]:
  """What `write_json` left in a file, None if there is no file.

  Raises:
    UserError: If the file is something else.
  """
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


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  """Writes names and values into a file, as a whole or not at all.

  Raises:
    UserError: If the file cannot be written.
  """
  unfinished = path.with_suffix('.unfinished')
  try:
    with open(unfinished, 'w', encoding='utf-8') as file:
      json.dump(dict(content), file, indent=2)
      file.write('\n')
      file.flush()
      os.fsync(file.fileno())
    os.replace(unfinished, path)
  except OSError as error:
    raise application.UserError(
        f'cannot write {path}: {error.strerror}.'
    ) from error


def read_settings(folder: pathlib.Path) -> Optional[Dict[str, Any]]:
  """The settings that `write_settings` left in a folder, None if it did not.

  Raises:
    UserError: If the file is something else.
  """
  return read_json(folder / _SETTINGS_FILE)


def write_settings(folder: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Writes settings into a folder, as a whole or not at all.

  Raises:
    UserError: If the file cannot be written.
  """
  write_json(folder / _SETTINGS_FILE, settings)


def describe_difference(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Optional[str]:
  """Tells a setting in which two differ, as in 'rounds=30, not 20'.

  Args:
    old: The settings of a folder.
    new: The settings of the program.

  Returns:
    The first difference, None if there is none.
  """
  for name in {**new, **old}:
    if name not in old or name not in new or old[name] != new[name]:
      return f'{name}={old.get(name)!r}, not {new.get(name)!r}'
  return None
