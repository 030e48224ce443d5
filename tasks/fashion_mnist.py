"""Fashion-MNIST: 70,000 images of clothes in ten classes.

Grey images of 28 x 28 pixels, 60,000 for training and 10,000 for testing, with
the classes T-shirt/top, trouser, pullover, dress, coat, sandal, shirt, sneaker,
bag and ankle boot (Xiao et al., "Fashion-MNIST: a Novel Image Dataset for
Benchmarking Machine Learning Algorithms", 2017; MIT licence). The clients share
the training images; the stratified hold-out comes out of the test images, and
the rest of those is the test set. With the default options, federated averaging
without attackers classifies about 82 % of the test images correctly with the
multilayer perceptron (79,510 parameters; the convolutional network has 56,714).

The images are taken from the first of these places that has them:

1.  The four IDX files of the data set, such as `train-images-idx3-ubyte.gz`,
    compressed or not, in the data folder.
2.  The same files in `/usr/share/datasets/fashion-mnist`, where Debian's
    package `dataset-fashion-mnist` puts them.
3.  `tensorflow-datasets`, which downloads and converts the data set once. It
    has the images in another order, so a seed does not give the same clients.
"""

import dataclasses
from typing import Any, Callable, List, Optional, Tuple

import numpy as np

from tasks import data_files
from tasks import idx
from tasks import partition
from tasks import prepared_data
from tasks import spec

_NUM_CLASSES = 10
# In a file, those for training.
_MAX_IMAGES = 60000
_DEBIAN_FOLDER = '/usr/share/datasets/fashion-mnist'
# The images and the labels of the training data and of the test data.
_FILE_NAMES = (
    ('train-images-idx3-ubyte', 'train-labels-idx1-ubyte'),
    ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte'),
)
_URL = (
    'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/'
    't10k-labels-idx1-ubyte.gz'
)


def _read(options, seeds):
  sample_seed = next(seeds)
  sets = spec.split_given_sets(
      *_read_halves(data_files.find_folder(options['data_dir'])),
      holdout_size=options['holdout_size'],
      seed=next(seeds),
  )
  size = options['max_examples']
  if size is None or size >= sets.train.size:
    return sets
  # The training images come first, so that these are indices of all images.
  sample, _ = partition.stratified_split(
      sets.y[sets.train], {'max_examples': size}, sample_seed
  )
  return dataclasses.replace(sets, train=sample)


def _read_halves(
    folder: Optional[str],
) -> Tuple[Tuple[np.ndarray, np.ndarray], ...]:
  """The training and the test data from the first place that has them."""
  if paths := _find_paths(folder):
    return tuple(_read_half(*pair) for pair in paths)
  return _prepared(prepared_data.read, folder)


def _find(options) -> None:
  folder = data_files.find_folder(options['data_dir'])
  if not _find_paths(folder):
    _prepared(prepared_data.check, folder)


def _folders(folder: Optional[str]) -> List[str]:
  return [*filter(None, [folder]), _DEBIAN_FOLDER]


def _find_paths(folder: Optional[str]) -> List[List[str]]:
  """The files of each half, in the first folder with all; [] if none has."""
  for candidate in _folders(folder):
    paths = [
        [idx.find(candidate, name) for name in names] for names in _FILE_NAMES
    ]
    if all(map(all, paths)):
      return paths
  return []


def _prepared(use: Callable[..., Any], folder: Optional[str]) -> Any:
  """What `use` makes of the data of TensorFlow Datasets."""
  try:
    return use('fashion_mnist', folder, _URL)
  except FileNotFoundError as error:
    names = ', '.join(name for names in _FILE_NAMES for name in names)
    raise FileNotFoundError(
        f'fashion_mnist needs the files {names}, each with or without .gz, but'
        f' not all are in {" or ".join(_folders(folder))}; get them with'
        ' `apt-get install dataset-fashion-mnist` or put them into the data'
        f' folder. Neither did TensorFlow Datasets help: {error}'
    ) from error


def _read_half(
    images_path: str, labels_path: str
) -> Tuple[np.ndarray, np.ndarray]:
  """Reads one half of the data set from its two files."""
  images = idx.read(images_path, (28, 28), maximum=_MAX_IMAGES)
  labels = idx.read(labels_path, (), maximum=_MAX_IMAGES)
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


TASK = spec.TaskSpec(
    summary='70,000 Fashion-MNIST images; from files, Debian or a download.',
    defaults=dict(
        seed=0,
        model='mlp',
        num_clients=100,
        **spec.SIMULATED_CLIENTS,
        max_examples=None,
        holdout_size=100,
        batch_size=20,
        client_epochs=1,
        client_learning_rate=0.1,
        rounds=40,
        cohort_size=20,
        data_dir=None,
    ),
    models={'mlp': {}, 'cnn': {}},
    num_classes=_NUM_CLASSES,
    read=_read,
    find=_find,
    max_examples=_MAX_IMAGES,
    max_pool=10000,
)
