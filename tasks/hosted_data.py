"""The federated data sets that the TensorFlow Federated project hosts.

TFF's loaders in `tff.simulation.datasets` read one client at a time from a file
(see `hosted_files`). If it is missing, the loader downloads it, of several
hundred megabytes, from `url`: the file's LZMA compression.
"""

import collections
from collections.abc import Callable
import functools
import os
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from tasks import data_files
from tasks import hosted_files
from tasks import pixels

# More than any client has. TensorFlow may make room for a whole batch: one of
# 10**6 images takes seconds, and one of int64.max kills the process.
_READ_AT_ONCE = 5000

_ClientData = tff.simulation.datasets.ClientData


def load(
    loader: Callable[[str], Tuple[_ClientData, _ClientData]],
    *,
    path: str,
    url: str,
    splits: Sequence[str],
    features: Callable[[Any], tf.Tensor],
) -> Tuple[_ClientData, _ClientData]:
  """Calls a loader of TFF, downloading the file first if it is missing.

  Raises FileNotFoundError if it cannot be downloaded, and ValueError if the
  file is truncated or not what it should be.

  Args:
    loader: Takes the folder of the file (its `cache_dir`).
    path: The file, as `file_path` returns it.
    url: Where the loader gets it.
    splits: What the file must have.
    features: Takes an element of the loader to its features: float32, or uint8
      for pixels from 0 to 255.

  Returns:
    The training and the test data, examples of float32 `x` and int64 `y`.
  """
  data_files.ensure_whole(
      path,
      url=url,
      fetch=lambda received: loader(os.path.dirname(received)),
      find_problem=functools.partial(hosted_files.find_problem, splits=splits),
  )

  @tf.autograph.experimental.do_not_convert
  def example(element):
    x = features(element)
    return collections.OrderedDict(
        x=pixels.to_float_tensor(x) if x.dtype == tf.uint8 else x,
        y=tf.cast(element['label'], tf.int64),
    )

  return tuple(
      data.preprocess(lambda dataset: dataset.map(example))
      for data in loader(os.path.dirname(path))
  )


def choose_clients(
    client_data: _ClientData, num_clients: Optional[int], seed: int
) -> _ClientData:
  """Chooses clients at random, all if `num_clients` is None; sorts the ids."""
  client_ids = sorted(client_data.client_ids)
  if num_clients is not None:
    checks.check_int(
        'num_clients', num_clients, minimum=1, maximum=len(client_ids)
    )
    chosen = np.random.default_rng(seed).permutation(len(client_ids))
    client_ids = [client_ids[index] for index in sorted(chosen[:num_clients])]
  return _ClientData.from_clients_and_tf_fn(
      client_ids, client_data.serializable_dataset_fn
  )


def limit_examples(
    client_data: _ClientData, size: int, seed: int
) -> _ClientData:
  """Draws at most `size` examples of every client and keeps their order."""

  @tf.autograph.experimental.do_not_convert
  def draw(batch):
    num_elements = tf.shape(batch['y'])[0]
    tf.debugging.assert_less(num_elements, _READ_AT_ONCE)
    keys = tf.random.stateless_uniform([num_elements], [seed, 0], alg='philox')
    drawn = tf.sort(tf.argsort(keys)[:size])
    return tf.nest.map_structure(lambda t: tf.gather(t, drawn), batch)

  return client_data.preprocess(
      lambda dataset: dataset.batch(_READ_AT_ONCE).map(draw).unbatch()
  )


def sample(
    client_data: _ClientData,
    client_ids: Sequence[str],
    size: Optional[int],
    seed: int,
    *,
    path: str,
) -> 'collections.OrderedDict[str, np.ndarray]':
  """Draws examples uniformly from the data of several clients together.

  Drawn are `size` examples without replacement, all if it is None or if there
  are no more, in random order. For a given seed a smaller sample is the head of
  a larger one. Raises ValueError if the file at `path` cannot be read.
  """
  pooled = tf.data.Dataset.from_tensor_slices(list(client_ids)).flat_map(
      client_data.serializable_dataset_fn
  )
  try:
    batches = list(pooled.batch(_READ_AT_ONCE).as_numpy_iterator())
  except tf.errors.OpError as error:
    raise ValueError(
        f'the file {path} is corrupt: {data_files.one_line(error)}; delete it'
        ' to download it anew.'
    ) from error
  examples = {
      key: np.concatenate([batch[key] for batch in batches])
      for key in ('x', 'y')
  }
  keys = np.random.default_rng(seed).random(len(examples['y']))
  drawn = np.argsort(keys)[:size]
  return collections.OrderedDict(
      (key, array[drawn]) for key, array in examples.items()
  )
