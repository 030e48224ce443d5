"""Checks that TensorFlow Federated is there, without importing it."""

import importlib.metadata
import importlib.util

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
  try:
    found = importlib.util.find_spec('tensorflow_federated') is not None
  except ImportError:
    found = False
  if not found:
    raise ImportError(
        'fedaot_tff needs TensorFlow Federated, which is not installed; install'
        f' it with: {_INSTALL_COMMAND}'
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
