"""Handwritten characters by writer: federated EMNIST.

The images are those of the Extended MNIST data set, grouped by the person who
wrote them, as the LEAF benchmark proposed and TensorFlow Federated hosts them:
3,400 writers with 671,585 training and 77,483 test images of 62 classes (digits
and letters), or 3,383 writers with 341,873 and 40,832 images of digits. A
writer is a client, so the partition is the natural one.

The file, `emnist_all.sqlite`, is downloaded if it is missing. Clients are read
from it when they are sampled.
"""

import collections
from typing import Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import hosted_data
from tasks import image_models
from tasks import task

_URL = (
    'https://storage.googleapis.com/tff-datasets-public/emnist_all.sqlite.lzma'
)
_IMAGE_SHAPE = (28, 28, 1)
_SPLITS = {
    10: ('digits_only_train', 'digits_only_test'),
    62: ('all_train', 'all_test'),
}
_MODELS = {
    'cnn_dropout': image_models.cnn_dropout,
    'cnn': image_models.cnn,
    'mlp': image_models.mlp,
}


def load(
    *,
    seed: int = 0,
    model: str = 'cnn_dropout',
    classes: int = 62,
    num_clients: Optional[int] = None,
    max_client_examples: Optional[int] = None,
    max_test_examples: int = 10000,
    holdout_size: int = 100,
    batch_size: int = 20,
    client_epochs: int = 1,
    client_learning_rate: float = 0.1,
    rounds: int = 200,
    cohort_size: int = 20,
    data_dir: Optional[str] = None,
) -> task.Task:
  """Loads the task.

  Pixels are float32 between 0 (background) and 1 (ink), shape `[28, 28, 1]`;
  labels are int64: 0 to 9 for the digits, then the capital and the small
  letters. The test set and the hold-out are drawn uniformly from the test
  images of the chosen writers together; for a given seed and choice of writers
  the hold-out is the same whatever `max_test_examples`.

  Args:
    seed: Fixes the choice of writers, the splits and the initial weights.
    model: 'cnn_dropout' (1,206,590 parameters, or 1,199,882 for digits), 'cnn'
      (60,094 or 56,714) or 'mlp' (84,762 or 79,510).
    classes: 62 for digits and letters, 10 for digits only.
    num_clients: The number of writers, chosen at random; all by default.
    max_client_examples: The most training images of a writer, chosen at random
      among the writer's; all by default.
    max_test_examples: The most test images.
    holdout_size: The number of hold-out images.
    batch_size: The default batch size of the task.
    client_epochs: The default number of local epochs of the task.
    client_learning_rate: The default learning rate of the clients.
    rounds: The default number of rounds of the task.
    cohort_size: The default number of clients in a round.
    data_dir: The folder of `emnist_all.sqlite`; by default that of the
      environment variable `FEDAOT_DATA_DIR`, or `~/.tff`.

  Returns:
    The `tasks.task.Task`.

  Raises:
    FileNotFoundError: If the data file is missing and cannot be downloaded.
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is not allowed, there are too few test images for
      the hold-out, or the data file is not what it should be.
  """
  for name, value, known in (
      ('model', model, _MODELS),
      ('classes', classes, _SPLITS),
  ):
    if value not in known:
      raise ValueError(
          f'`{name}` must be one of {", ".join(map(str, known))}, found'
          f' {value!r}.'
      )
  for name, value in (
      ('max_client_examples', max_client_examples),
      ('max_test_examples', max_test_examples),
      ('holdout_size', holdout_size),
  ):
    if value is not None and value < 1:
      raise ValueError(f'`{name}` must be at least 1, found {value}.')
  path = hosted_data.file_path(_URL, data_dir)
  train, test = hosted_data.load(
      'femnist',
      lambda folder: tff.simulation.datasets.emnist.load_data(
          only_digits=classes == 10, cache_dir=folder
      ),
      path=path,
      url=_URL,
      splits=_SPLITS[classes],
  )
  client_seed, cap_seed, test_seed, model_seed = (
      int(word) for word in np.random.SeedSequence(seed).generate_state(4)
  )
  train = hosted_data.choose_clients(train, num_clients, client_seed)
  pooled = hosted_data.sample(
      test.preprocess(_examples),
      train.client_ids,
      holdout_size + max_test_examples,
      test_seed,
      path=path,
  )
  if len(pooled['y']) <= holdout_size:
    raise ValueError(
        f'`holdout_size` must be below {len(pooled["y"])}, the number of test'
        f' images of the chosen writers, found {holdout_size}.'
    )
  client_data = train.preprocess(_examples)
  if max_client_examples is not None:
    client_data = client_data.preprocess(
        lambda dataset: _draw(dataset, max_client_examples, cap_seed)
    )
  return task.Task(
      name='femnist',
      client_data=client_data,
      holdout=_slice(pooled, slice(holdout_size)),
      test=_slice(pooled, slice(holdout_size, None)),
      model=_MODELS[model](_IMAGE_SHAPE, classes, seed=model_seed),
      num_classes=classes,
      batch_size=batch_size,
      client_epochs=client_epochs,
      client_learning_rate=client_learning_rate,
      rounds=rounds,
      cohort_size=cohort_size,
  )


def _examples(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Turns what TFF's loader yields into examples with ink of value 1."""
  return dataset.map(
      lambda element: collections.OrderedDict(
          x=1.0 - element['pixels'][..., tf.newaxis],
          y=tf.cast(element['label'], tf.int64),
      )
  )


def _draw(dataset: tf.data.Dataset, size: int, seed: int) -> tf.data.Dataset:
  """Draws at most `size` elements without replacement and keeps their order."""

  def draw(batch):
    num_elements = tf.shape(batch['y'])[0]
    keys = tf.random.stateless_uniform([num_elements], [seed, 0], alg='philox')
    drawn = tf.sort(tf.argsort(keys)[:size])
    return tf.nest.map_structure(lambda t: tf.gather(t, drawn), batch)

  return dataset.batch(tf.int64.max).map(draw).unbatch()


def _slice(
    examples: 'collections.OrderedDict[str, np.ndarray]', index: slice
) -> 'collections.OrderedDict[str, np.ndarray]':
  """Returns a copy of some of the examples."""
  return collections.OrderedDict(
      (key, array[index].copy()) for key, array in examples.items()
  )
