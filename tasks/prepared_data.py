"""Data sets that TensorFlow Datasets downloads and converts once."""

import contextlib
import os
import pathlib
from typing import Optional, Tuple

import numpy as np

from tasks import data_files

_DEFAULT_DIR = '~/tensorflow_datasets'


def read(
    name: str, data_dir: Optional[str], url: str
) -> Tuple[Tuple[np.ndarray, np.ndarray], ...]:
  """Reads images, uint8, and labels, int64, of the training and the test data.

  `data_dir` is None for the default of TensorFlow Datasets (`TFDS_DATA_DIR`, or
  `~/tensorflow_datasets`), and a file of the data set is downloaded from `url`.
  Raises FileNotFoundError if the data are missing and cannot be downloaded,
  ValueError if they are broken.
  """
  # It is slow to import.
  import tensorflow_datasets as tfds  # pylint: disable=g-import-not-at-top

  folder = data_dir or 'of TensorFlow Datasets'
  broken = (
      f'{name} cannot use the data in the folder {{}}: {{}}; delete its {name}'
      ' data to prepare them anew.'
  )
  with _described(ValueError, broken, folder):
    builder = tfds.builder(name, data_dir=data_dir)
  if not builder.is_prepared():
    with _obtained(name, url, builder.data_dir):
      data_files.check_server(url)
      builder.download_and_prepare(
          download_config=tfds.download.DownloadConfig(try_download_gcs=False)
      )
  with _described(ValueError, broken, builder.data_dir):
    return tuple(
        (half['image'], half['label'])
        for half in tfds.as_numpy(
            builder.as_dataset(split=['train', 'test'], batch_size=-1)
        )
    )


def check(name: str, data_dir: Optional[str], url: str) -> None:
  """Raises as `read` does if no data are there and no server answers.

  TensorFlow Datasets, which imports TensorFlow, is not asked.
  """
  root = data_dir or os.environ.get('TFDS_DATA_DIR') or _DEFAULT_DIR
  folder = pathlib.Path(root).expanduser() / name
  if not any(folder.glob('*/dataset_info.json')):
    with _obtained(name, url, folder):
      data_files.check_server(url)


def _obtained(name, url, folder):
  missing = (
      f'{name} needs the folder {{}}, which does not exist and could not be'
      f' made from {url} ({{}}); make it where there is a network with `tfds'
      f' build {name}` and copy it there.'
  )
  return _described(FileNotFoundError, missing, folder)


@contextlib.contextmanager
def _described(kind: type, message: str, folder: str):
  """Raises what goes wrong as `kind`, its reason and the folder filled in."""
  try:
    yield
  # Connections, disks and broken files make errors of many kinds.
  except Exception as error:  # pylint: disable=broad-exception-caught
    reason = data_files.one_line(error)
    raise kind(message.format(folder, reason)) from error
