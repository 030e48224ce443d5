"""PneumoniaMNIST: chest X-rays of children with and without pneumonia.

Grey images of 28 x 28 pixels, 4,708 for training, 524 for validation and 624
for testing; class 0 is normal, 1 is pneumonia, and three in four images show
one (Yang et al., "MedMNIST v2: A Large-Scale Lightweight Benchmark for 2D and
3D Biomedical Image Classification", Scientific Data 2023; licence CC BY 4.0).
The clients share the training images, the server's hold-out is drawn from the
validation images, and the test images are the test set.

If the data file is missing, it is downloaded once (4 MB).
"""

import collections
import os
from typing import Dict, Optional

import numpy as np

from tasks import array_client_data
from tasks import data_dir as data_dir_lib
from tasks import download
from tasks import image_models
from tasks import partition as partition_lib
from tasks import pixels
from tasks import task

_NUM_CLASSES = 2
_IMAGE_SHAPE = (28, 28, 1)
_MIN_CLIENT_EXAMPLES = 10
_FILE_NAME = 'pneumoniamnist.npz'
_URL = f'https://zenodo.org/records/10519652/files/{_FILE_NAME}'
_MD5 = '28209eda62fecd6e6a2d98b1501bb15f'
_DEFAULT_FOLDER = os.path.join('~', '.cache', 'fedaot')

_MODELS = {'mlp': image_models.mlp, 'cnn': image_models.cnn}


def load(
    *,
    seed: int = 0,
    model: str = 'cnn',
    num_clients: int = 50,
    partition: str = 'dirichlet',
    alpha: float = 0.5,
    shards_per_client: int = 2,
    holdout_size: int = 100,
    batch_size: int = 10,
    client_epochs: int = 1,
    client_learning_rate: float = 0.05,
    rounds: int = 30,
    cohort_size: int = 20,
    data_dir: Optional[str] = None,
) -> task.Task:
  """Loads the task.

  Pixels are float32 between 0 and 1, shape `[28, 28, 1]`; labels are int64. The
  hold-out is stratified. The test set is the same for every seed.

  Args:
    seed: Fixes the hold-out, the partition and the initial weights.
    model: 'mlp' (78,702 parameters) or 'cnn' (56,194 parameters).
    num_clients: The number of clients.
    partition: 'dirichlet', 'iid' or 'shards', see `tasks.partition`. With
      'dirichlet' every client has at least 10 examples.
    alpha: The concentration of the Dirichlet partition; unused by the others.
    shards_per_client: The number of shards a client in the shards partition;
      unused by the others.
    holdout_size: The number of hold-out images, below 524.
    batch_size: The default batch size of the task.
    client_epochs: The default number of local epochs of the task.
    client_learning_rate: The default learning rate of the clients.
    rounds: The default number of rounds of the task.
    cohort_size: The default number of clients in a round.
    data_dir: The folder of `pneumoniamnist.npz`, from where it is read or to
      where it is downloaded; by default that of the environment variable
      `FEDAOT_DATA_DIR`, or else `~/.cache/fedaot`.

  Returns:
    The `tasks.task.Task`.

  Raises:
    FileNotFoundError: If the data file is missing and cannot be downloaded.
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is not allowed, there are too few examples for
      the hold-out and the clients, or the data file has another checksum than
      the published one.
  """
  if model not in _MODELS:
    raise ValueError(
        f'`model` must be one of {", ".join(_MODELS)}, found {model!r}.'
    )
  arrays = _read(data_dir_lib.resolve(data_dir))
  holdout_seed, partition_seed, model_seed = (
      int(word) for word in np.random.SeedSequence(seed).generate_state(3)
  )
  x, y = _images(arrays, 'train'), _labels(arrays, 'train')
  parts = partition_lib.by_name(
      partition,
      y,
      num_clients,
      partition_seed,
      alpha=alpha,
      shards_per_client=shards_per_client,
      min_examples=_MIN_CLIENT_EXAMPLES,
  )
  validation_x, validation_y = _images(arrays, 'val'), _labels(arrays, 'val')
  holdout, _ = partition_lib.stratified_split(
      validation_y, {'holdout_size': holdout_size}, holdout_seed
  )
  return task.Task(
      name='pneumonia',
      client_data=array_client_data.ArrayClientData(x, y, parts),
      holdout=collections.OrderedDict(
          x=pixels.to_floats(validation_x[holdout]), y=validation_y[holdout]
      ),
      test=collections.OrderedDict(
          x=pixels.to_floats(_images(arrays, 'test')), y=_labels(arrays, 'test')
      ),
      model=_MODELS[model](_IMAGE_SHAPE, _NUM_CLASSES, seed=model_seed),
      num_classes=_NUM_CLASSES,
      batch_size=batch_size,
      client_epochs=client_epochs,
      client_learning_rate=client_learning_rate,
      rounds=rounds,
      cohort_size=cohort_size,
  )


def _read(folder: Optional[str]) -> Dict[str, np.ndarray]:
  """Returns the arrays in the data file, downloaded if it is missing."""
  folder = folder or os.path.expanduser(_DEFAULT_FOLDER)
  path = download.checked_file(
      os.path.join(folder, _FILE_NAME), url=_URL, md5=_MD5
  )
  # The checksum vouches for what is in the file.
  with np.load(path) as file:
    return dict(file)


def _images(arrays: Dict[str, np.ndarray], split: str) -> np.ndarray:
  """Returns the images of a split, uint8 of shape `[n, 28, 28, 1]`."""
  return arrays[f'{split}_images'][..., np.newaxis]


def _labels(arrays: Dict[str, np.ndarray], split: str) -> np.ndarray:
  """Returns the labels of a split, which the file has as `[n, 1]` bytes."""
  return arrays[f'{split}_labels'][:, 0].astype(np.int64)
