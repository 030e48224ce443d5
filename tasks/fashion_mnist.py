"""Fashion-MNIST: 70,000 images of clothes in ten classes.

Grey images of 28 x 28 pixels, 60,000 for training and 10,000 for testing, with
the classes T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker,
bag and ankle boot (Xiao et al., "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", 2017; MIT licence). The clients share
the training images; the server's hold-out comes out of the test images, and the
rest of those is the test set. With the default options, federated averaging
without attackers classifies about 82 % of the test images correctly with the
multilayer perceptron.

The images are taken from the first of these places that has them:

1.  The four IDX files of the data set, such as `train-images-idx3-ubyte.gz`,
    compressed or not, in the data folder.
2.  The same files in `/usr/share/datasets/fashion-mnist`, where Debian's
    package `dataset-fashion-mnist` puts them.
3.  `tensorflow-datasets`, which downloads and converts the data set once. It
    has the images in another order, so a seed does not give the same clients.
"""

import collections
from typing import List, Optional, Tuple
import urllib.parse

import numpy as np

from tasks import array_client_data
from tasks import data_dir as data_dir_lib
from tasks import download
from tasks import idx
from tasks import image_models
from tasks import partition as partition_lib
from tasks import pixels
from tasks import task

_NUM_CLASSES = 10
_IMAGE_SHAPE = (28, 28, 1)
_MIN_CLIENT_EXAMPLES = 10
_DEBIAN_FOLDER = '/usr/share/datasets/fashion-mnist'
# The images and the labels of the training data and of the test data.
_FILE_NAMES = (
    ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
)

_MODELS = {'mlp': image_models.mlp, 'cnn': image_models.cnn}

# Images, uint8 of shape [n, 28, 28, 1], and labels, int64 of shape [n].
_Examples = Tuple[np.ndarray, np.ndarray]


def load(
    *,
    seed: int = 0,
    model: str = 'mlp',
    num_clients: int = 100,
    partition: str = 'dirichlet',
    alpha: float = 0.5,
    shards_per_client: int = 2,
    max_examples: Optional[int] = None,
    holdout_size: int = 100,
    batch_size: int = 20,
    client_epochs: int = 1,
    client_learning_rate: float = 0.1,
    rounds: int = 40,
    cohort_size: int = 20,
    data_dir: Optional[str] = None,
) -> task.Task:
  """Loads the task.

  Pixels are float32 between 0 (background) and 1, shape `[28, 28, 1]`; labels
  are int64. The hold-out is stratified.

  Args:
    seed: Fixes the splits, the partition and the initial weights.
    model: 'mlp' (79,510 parameters) or 'cnn' (56,714 parameters).
    num_clients: The number of clients.
    partition: 'dirichlet', 'iid' or 'shards', see `tasks.partition`. With
      'dirichlet' every client has at least 10 examples.
    alpha: The concentration of the Dirichlet partition; unused by the others.
    shards_per_client: The number of shards a client in the shards partition;
      unused by the others.
    max_examples: If there are more training images than this, a stratified
      sample of so many is used; by default all are.
    holdout_size: The number of hold-out images, taken from the test images.
    batch_size: The default batch size of the task.
    client_epochs: The default number of local epochs of the task.
    client_learning_rate: The default learning rate of the clients.
    rounds: The default number of rounds of the task.
    cohort_size: The default number of clients in a round.
    data_dir: The folder that holds the IDX files; by default that of the
      environment variable `FEDAOT_DATA_DIR`. `tensorflow-datasets` writes to
      it, or without one to its own default folder.

  Returns:
    The `tasks.task.Task`.

  Raises:
    FileNotFoundError: If the data is in none of the places.
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is not allowed, there are too few examples for
      the hold-out and the clients, or a data file is not what it should be.
  """
  if model not in _MODELS:
    raise ValueError(
        f'`model` must be one of {", ".join(_MODELS)}, found {model!r}.'
    )
  (x, y), (test_x, test_y) = _read(data_dir_lib.resolve(data_dir))
  sample_seed, holdout_seed, partition_seed, model_seed = (
      int(word) for word in np.random.SeedSequence(seed).generate_state(4)
  )
  if max_examples is None or max_examples >= y.size:
    train = np.arange(y.size)
  else:
    train, _ = partition_lib.stratified_split(
        y, {'max_examples': max_examples}, sample_seed
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
  holdout, test = (
      collections.OrderedDict(x=pixels.to_floats(test_x[part]), y=test_y[part])
      for part in partition_lib.stratified_split(
          test_y, {'holdout_size': holdout_size}, holdout_seed
      )
  )
  return task.Task(
      name='fashion_mnist',
      client_data=array_client_data.ArrayClientData(
          x, y, [train[part] for part in parts]
      ),
      holdout=holdout,
      test=test,
      model=_MODELS[model](_IMAGE_SHAPE, _NUM_CLASSES, seed=model_seed),
      num_classes=_NUM_CLASSES,
      batch_size=batch_size,
      client_epochs=client_epochs,
      client_learning_rate=client_learning_rate,
      rounds=rounds,
      cohort_size=cohort_size,
  )


def _read(folder: Optional[str]) -> Tuple[_Examples, ...]:
  """Returns the training and the test data from the first place that has it."""
  folders = [folder] if folder else []
  folders.append(_DEBIAN_FOLDER)
  for candidate in folders:
    paths = [
        tuple(idx.find(candidate, name) for name in names)
        for names in _FILE_NAMES
    ]
    if all(path for pair in paths for path in pair):
      return tuple(_read_idx(*pair) for pair in paths)
  try:
    return _read_tensorflow_datasets(folder)
  # What tensorflow-datasets and the libraries below it raise has no common
  # class but this.
  except Exception as error:  # pylint: disable=broad-exception-caught
    raise FileNotFoundError(_missing(folders, error)) from error


def _missing(folders: List[str], error: Exception) -> str:
  """Returns the message about data that was not found, in one line."""
  names = ', '.join(name for names in _FILE_NAMES for name in names)
  reason = ' '.join(f'{type(error).__name__}: {error}'.split())
  return (
      f'fashion_mnist needs the files {names}, each with or without .gz, but'
      f' not all are in {" or ".join(folders)}, and tensorflow-datasets has no'
      f' copy and cannot get one ({reason}); get them with `apt-get install'
      ' dataset-fashion-mnist`, put them into the data folder, or try again'
      ' with a network connection.'
  )


def _read_idx(images_path: str, labels_path: str) -> _Examples:
  """Reads one half of the data set from its two files."""
  images = idx.read(images_path, _IMAGE_SHAPE[:-1])
  labels = idx.read(labels_path, ())
  if len(images) != labels.size:
    raise ValueError(
        f'{images_path} has {len(images)} images but {labels_path} has'
        f' {labels.size} labels; get both anew.'
    )
  if labels.max() >= _NUM_CLASSES:
    raise ValueError(
        f'cannot use the IDX file {labels_path}: its labels go up to'
        f' {labels.max()} instead of {_NUM_CLASSES - 1}; get it anew.'
    )
  return images[..., np.newaxis], labels.astype(np.int64)


def _read_tensorflow_datasets(folder: Optional[str]) -> Tuple[_Examples, ...]:
  """Reads the data set as tensorflow-datasets keeps it, or downloads it."""
  # It is slow to import and seldom needed.
  import tensorflow_datasets as tfds  # pylint: disable=g-import-not-at-top

  builder = tfds.builder('fashion_mnist', data_dir=folder)
  if not builder.is_prepared():
    download.probe(urllib.parse.urljoin(builder.URL, _FILE_NAMES[1][1] + '.gz'))
    builder.download_and_prepare()
  halves = tfds.as_numpy(
      builder.as_dataset(split=['train', 'test'], batch_size=-1)
  )
  return tuple((half['image'], half['label']) for half in halves)
