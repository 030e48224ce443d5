"""Colour images of 10 classes on simulated clients: CIFAR-10.

The 50,000 training images are spread over the clients; the 10,000 test images
give the hold-out and the test set. TensorFlow Datasets prepares them in its own
folder, after a download if that was not done before.
"""

import collections
from typing import Optional, Tuple
import urllib.error
import urllib.request

import numpy as np
import tensorflow_datasets as tfds

from tasks import array_client_data
from tasks import cifar_models
from tasks import data_dir as data_dir_lib
from tasks import partition as partition_lib
from tasks import pixels
from tasks import task

_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
_TIMEOUT_SECONDS = 30.0
_NUM_CLASSES = 10
_MIN_CLIENT_EXAMPLES = 10
# Of the training images, in [0, 1].
_MEAN = (0.4914, 0.4822, 0.4465)
_STDDEV = (0.2470, 0.2435, 0.2616)


def load(
    *,
    seed: int = 0,
    model: str = 'resnet20',
    num_clients: int = 100,
    partition: str = 'dirichlet',
    alpha: float = 0.5,
    shards_per_client: int = 2,
    holdout_size: int = 100,
    batch_size: int = 32,
    client_epochs: int = 1,
    client_learning_rate: float = 0.1,
    rounds: int = 200,
    cohort_size: int = 20,
    data_dir: Optional[str] = None,
) -> task.Task:
  """Loads the task.

  Pixels are float32 between 0 and 1, shape `[32, 32, 3]`; labels are int64. The
  hold-out is a stratified draw from the test images, ten a class by default;
  the test set is the rest of them.

  Args:
    seed: Fixes the hold-out, the partition and the initial weights.
    model: 'resnet20' (269,722 parameters), 'resnet18' (11,173,962), 'cnn'
      (79,530) or 'mlp' (308,310), see `tasks.cifar_models`.
    num_clients: The number of clients.
    partition: 'dirichlet', 'iid' or 'shards', see `tasks.partition`. With
      'dirichlet' every client has at least 10 examples.
    alpha: The concentration of the Dirichlet partition; unused by the others.
    shards_per_client: The number of shards a client in the shards partition;
      unused by the others.
    holdout_size: The number of hold-out images.
    batch_size: The default batch size of the task.
    client_epochs: The default number of local epochs of the task.
    client_learning_rate: The default learning rate of the clients.
    rounds: The default number of rounds of the task.
    cohort_size: The default number of clients in a round.
    data_dir: The `data_dir` of TensorFlow Datasets; by default the folder that
      the environment variable `FEDAOT_DATA_DIR` names, or else the default of
      TensorFlow Datasets (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`).

  Returns:
    The `tasks.task.Task`.

  Raises:
    FileNotFoundError: If the data are missing and cannot be downloaded.
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is not allowed, there are too few examples for
      the hold-out and the clients, or the data are not what they should be.
  """
  holdout_seed, partition_seed, model_seed = (
      int(word) for word in np.random.SeedSequence(seed).generate_state(3)
  )
  functional_model = cifar_models.by_name(
      model, _NUM_CLASSES, mean=_MEAN, stddev=_STDDEV, seed=model_seed
  )
  train, test = _read(data_dir_lib.resolve(data_dir))
  parts = partition_lib.by_name(
      partition,
      train['label'],
      num_clients,
      partition_seed,
      alpha=alpha,
      shards_per_client=shards_per_client,
      min_examples=_MIN_CLIENT_EXAMPLES,
  )
  holdout_indices, test_indices = partition_lib.stratified_split(
      test['label'], {'holdout_size': holdout_size}, holdout_seed
  )
  return task.Task(
      name='cifar10',
      client_data=array_client_data.ArrayClientData(
          train['image'], train['label'], parts
      ),
      holdout=_arrays(test, holdout_indices),
      test=_arrays(test, test_indices),
      model=functional_model,
      num_classes=_NUM_CLASSES,
      batch_size=batch_size,
      client_epochs=client_epochs,
      client_learning_rate=client_learning_rate,
      rounds=rounds,
      cohort_size=cohort_size,
  )


def _read(data_dir: Optional[str]) -> Tuple[dict, dict]:
  """Returns the training and the test images (uint8) and labels (int64)."""
  # Broken files make TensorFlow Datasets raise errors of many kinds.
  try:
    builder = tfds.builder('cifar10', data_dir=data_dir)
  except Exception as error:  # pylint: disable=broad-exception-caught
    raise ValueError(_unusable(data_dir, error)) from error
  if not builder.is_prepared():
    _prepare(builder)
  try:
    return tuple(
        tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        for split in ('train', 'test')
    )
  except Exception as error:  # pylint: disable=broad-exception-caught
    raise ValueError(_unusable(builder.data_dir, error)) from error


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
  """Downloads the data set and writes it to the folder of the builder."""
  try:
    _check_network()
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
  except Exception as error:  # pylint: disable=broad-exception-caught
    # A connection, a checksum, the disk: this fails in many ways.
    raise FileNotFoundError(
        f'cifar10 needs the folder {builder.data_dir}, which does not exist and'
        f' could not be made from {_URL} ({_one_line(error)}); make it where'
        ' there is a network with `tfds build cifar10` and copy it there.'
    ) from error


def _check_network() -> None:
  """Raises at once if the server of the data set cannot be reached.

  TensorFlow Datasets would try for minutes.
  """
  request = urllib.request.Request(_URL, method='HEAD')
  try:
    urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS).close()
  except urllib.error.HTTPError:
    pass  # The server answered; whether it has the file will show.


def _unusable(folder: Optional[str], error: Exception) -> str:
  """Returns the message about unusable data, in one line."""
  return (
      'cifar10 cannot use the data in the folder'
      f' {folder or "of TensorFlow Datasets"}: {_one_line(error)}; delete its'
      ' cifar10 data to prepare them anew.'
  )


def _one_line(error: Exception) -> str:
  """Returns the message of an error without its line breaks."""
  return ' '.join(str(error).split()) or type(error).__name__


def _arrays(
    elements: dict, indices: np.ndarray
) -> 'collections.OrderedDict[str, np.ndarray]':
  """Returns some examples as a task has them."""
  return collections.OrderedDict(
      x=pixels.to_floats(elements['image'][indices]),
      y=elements['label'][indices],
  )
