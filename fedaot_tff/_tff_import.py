"""Checks that TensorFlow Federated is there, without importing it."""

import importlib.metadata
import importlib.util
import sys

TFF_VERSION = '0.87.0'
_INSTALL_COMMAND = f'pip install --no-deps tensorflow-federated=={TFF_VERSION}'


def check_tff_installed() -> None:
  """Checks that the TensorFlow Federated this package is built on is installed.

  Neither TensorFlow nor TensorFlow Federated is imported, so the check takes
  milliseconds. A TensorFlow Federated without distribution metadata (one built
  from source) passes whatever its version.

  Raises:
    ImportError: If TensorFlow Federated is missing or has another version than
      `TFF_VERSION`. The message names the command that installs it.
  """
  for name in ('tensorflow', 'tensorflow_federated'):
    if not _is_there(name):
      raise ImportError(
          f'fedaot_tff needs TensorFlow Federated {TFF_VERSION}, but'
          f' {_describe_missing(name)}'
      )
  try:
    version = importlib.metadata.version('tensorflow-federated')
  except importlib.metadata.PackageNotFoundError:
    return
  if version != TFF_VERSION:
    raise ImportError(
        f'fedaot_tff needs TensorFlow Federated {TFF_VERSION}, but found'
        f' {version}; replace it with: {_INSTALL_COMMAND}'
    )


def _is_there(name: str) -> bool:
  try:
    return importlib.util.find_spec(name) is not None
  except ImportError:
    return False


def _describe_missing(name: str) -> str:
  major, minor, *_ = sys.version_info
  if (major, minor) >= (3, 12):
    return (
        f'that is for Python 3.9 to 3.11 and this is {major}.{minor}; fedaot'
        ' and fedaot.flower run on it'
    )
  return (
      f"{name} is not installed; install it with: pip install '.[tff]' &&"
      f' {_INSTALL_COMMAND}'
  )
