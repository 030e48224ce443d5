"""Colour images of 100 classes on 500 clients: federated CIFAR-100.

The 50,000 training images of CIFAR-100 are spread over 500 clients with 100
images each, as TensorFlow Federated hosts them: a client draws coarse and then
fine classes from Dirichlet distributions of its own (the Pachinko allocation of
Reddi et al., "Adaptive Federated Optimization", ICLR 2021). The 10,000 test
images give the hold-out and the test set.

The file, `cifar100.sqlite`, is downloaded if it is missing. Clients are read
from it when they are sampled.
"""

import collections
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import cifar_models
from tasks import hosted_data
from tasks import partition as partition_lib
from tasks import pixels
from tasks import task

_URL = 'https://storage.googleapis.com/tff-datasets-public/cifar100.sqlite.lzma'
_NUM_CLASSES = 100
# Of the training images, in [0, 1].
_MEAN = (0.5071, 0.4865, 0.4409)
_STDDEV = (0.2673, 0.2564, 0.2762)


def load(
    *,
    seed: int = 0,
    model: str = 'resnet20',
    num_clients: Optional[int] = None,
    holdout_size: int = 100,
    batch_size: int = 20,
    client_epochs: int = 1,
    client_learning_rate: float = 0.1,
    rounds: int = 200,
    cohort_size: int = 20,
    data_dir: Optional[str] = None,
) -> task.Task:
  """Loads the task.

  Pixels are float32 between 0 and 1, shape `[32, 32, 3]`; labels are int64, the
  fine classes. The hold-out is a stratified draw from the test images, one a
  class by default; the test set is the rest of them.

  Args:
    seed: Fixes the choice of clients, the hold-out and the initial weights.
    model: 'resnet20' (275,572 parameters), 'resnet18' (11,220,132), 'cnn'
      (85,380) or 'mlp' (317,400), see `tasks.cifar_models`.
    num_clients: The number of clients, chosen at random; all by default.
    holdout_size: The number of hold-out images.
    batch_size: The default batch size of the task.
    client_epochs: The default number of local epochs of the task.
    client_learning_rate: The default learning rate of the clients.
    rounds: The default number of rounds of the task.
    cohort_size: The default number of clients in a round.
    data_dir: The folder of `cifar100.sqlite`; by default that of the
      environment variable `FEDAOT_DATA_DIR`, or `~/.tff`.

  Returns:
    The `tasks.task.Task`.

  Raises:
    FileNotFoundError: If the data file is missing and cannot be downloaded.
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is not allowed, there are too few test images for
      the hold-out, or the data file is not what it should be.
  """
  client_seed, holdout_seed, model_seed = (
      int(word) for word in np.random.SeedSequence(seed).generate_state(3)
  )
  functional_model = cifar_models.by_name(
      model, _NUM_CLASSES, mean=_MEAN, stddev=_STDDEV, seed=model_seed
  )
  path = hosted_data.file_path(_URL, data_dir)
  train, test = hosted_data.load(
      'cifar100',
      lambda folder: tff.simulation.datasets.cifar100.load_data(
          cache_dir=folder
      ),
      path=path,
      url=_URL,
      splits=('train', 'test'),
  )
  train = hosted_data.choose_clients(train, num_clients, client_seed)
  pooled = hosted_data.sample(
      test, test.client_ids, None, holdout_seed, path=path
  )
  holdout_indices, test_indices = partition_lib.stratified_split(
      pooled['label'], {'holdout_size': holdout_size}, holdout_seed
  )
  return task.Task(
      name='cifar100',
      client_data=train.preprocess(_examples),
      holdout=_arrays(pooled, holdout_indices),
      test=_arrays(pooled, test_indices),
      model=functional_model,
      num_classes=_NUM_CLASSES,
      batch_size=batch_size,
      client_epochs=client_epochs,
      client_learning_rate=client_learning_rate,
      rounds=rounds,
      cohort_size=cohort_size,
  )


def _examples(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Turns what TFF's loader yields into examples."""
  return dataset.map(
      lambda element: collections.OrderedDict(
          x=pixels.to_float_tensor(element['image']), y=element['label']
      )
  )


def _arrays(
    elements: 'collections.OrderedDict[str, np.ndarray]', indices: np.ndarray
) -> 'collections.OrderedDict[str, np.ndarray]':
  """Turns some of the loader's elements, with a leading dimension, likewise."""
  return collections.OrderedDict(
      x=pixels.to_floats(elements['image'][indices]),
      y=elements['label'][indices],
  )
