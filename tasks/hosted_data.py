"""The federated data sets that the TensorFlow Federated project hosts.

Each is one SQLite file with an example a row, which TFF's loaders in
`tff.simulation.datasets` read one client at a time. If the file is missing, the
loader downloads it, of several hundred megabytes; this module sees to it that a
broken download never becomes the file that later runs read.
"""

import collections
from collections.abc import Callable
import contextlib
import os
import pathlib
import sqlite3
import tempfile
from typing import Any, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import data_dir as data_dir_lib

_DEFAULT_DIR = '~/.tff'
_POOLED_BATCH = 5000

_ClientData = tff.simulation.datasets.ClientData


def file_path(url: str, data_dir: Optional[str]) -> str:
  """Returns where a loader looks for its file.

  Args:
    url: What the loader downloads: the LZMA compression of the file.
    data_dir: The folder of the file; `None` for that of the environment
      variable `FEDAOT_DATA_DIR` or else `~/.tff`.

  Returns:
    The path of the file, whether or not it exists.
  """
  folder = data_dir_lib.resolve(data_dir) or os.path.expanduser(_DEFAULT_DIR)
  return os.path.join(folder, os.path.basename(url)[: -len('.lzma')])


def load(
    task_name: str,
    loader: Callable[[str], Tuple[_ClientData, _ClientData]],
    *,
    path: str,
    url: str,
    splits: Sequence[str],
) -> Tuple[_ClientData, _ClientData]:
  """Calls a loader of TFF, and says in one line what is wrong if it fails.

  Args:
    task_name: The name of the task, for messages.
    loader: Takes the folder of the file (its `cache_dir`) and returns training
      and test data.
    path: The path of the file.
    url: What the loader downloads if there is no file.
    splits: The names of the splits that the file must have.

  Returns:
    The training data and the test data. No client is read.

  Raises:
    FileNotFoundError: If the file is missing and cannot be downloaded.
    ValueError: If the file is truncated or not what it should be.
  """
  if not os.path.exists(path):
    _download(task_name, loader, path, url, splits)
  problem = _problem(path, splits)
  if problem:
    raise ValueError(
        f'{task_name} cannot use the file {path}: {problem}; delete it to'
        f' download it anew from {url}.'
    )
  return loader(os.path.dirname(path))


def choose_clients(
    client_data: _ClientData, num_clients: Optional[int], seed: int
) -> _ClientData:
  """Returns client data of some clients, which are drawn at random.

  Args:
    client_data: The data of all clients.
    num_clients: How many to choose; all if `None`.
    seed: A non-negative integer that fixes the choice.

  Returns:
    Client data with sorted ids. No client is read.

  Raises:
    ValueError: If there are fewer clients, or `num_clients` is below 1.
  """
  client_ids = sorted(client_data.client_ids)
  if num_clients is not None:
    if not 1 <= num_clients <= len(client_ids):
      raise ValueError(
          f'`num_clients` must be between 1 and {len(client_ids)}, found'
          f' {num_clients}.'
      )
    chosen = np.random.default_rng(seed).permutation(len(client_ids))
    client_ids = [client_ids[index] for index in sorted(chosen[:num_clients])]
  return _ClientData.from_clients_and_tf_fn(
      client_ids, client_data.serializable_dataset_fn
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

  The clients are read one after the other; what is in memory at a time is the
  sample and 5,000 examples.

  Args:
    client_data: Holds the clients.
    client_ids: Whose data are pooled.
    size: The number of examples to draw without replacement; all if `None` or
      if there are no more.
    seed: A non-negative integer that fixes the sample.
    path: The file that is read, for messages.

  Returns:
    The examples in random order with a leading example dimension. For a given
    seed a smaller sample is the head of a larger one.

  Raises:
    ValueError: If the examples cannot be read.
  """
  rng = np.random.default_rng(seed)
  pooled = tf.data.Dataset.from_tensor_slices(list(client_ids)).flat_map(
      client_data.serializable_dataset_fn
  )
  keys = np.zeros(0)
  kept = tf.nest.map_structure(
      lambda spec: np.zeros([0] + spec.shape, spec.dtype.as_numpy_dtype),
      client_data.element_type_structure,
  )
  try:
    for batch in pooled.batch(_POOLED_BATCH).as_numpy_iterator():
      num_new = len(tf.nest.flatten(batch)[0])
      keys = np.concatenate([keys, rng.random(num_new)])
      # The sample is what has the smallest of all keys seen so far.
      order = np.argsort(keys)[:size]
      keys = keys[order]
      kept = tf.nest.map_structure(
          lambda old, new: np.concatenate([old, new])[order], kept, batch
      )
  except tf.errors.OpError as error:
    raise ValueError(
        f'the file {path} is corrupt: {_one_line(error)}; delete it to download'
        ' it anew.'
    ) from error
  return kept


def _download(
    task_name: str,
    loader: Callable[[str], Any],
    path: str,
    url: str,
    splits: Sequence[str],
) -> None:
  """Lets the loader download the file, which gets its name when it is whole."""
  folder, file_name = os.path.split(path)
  try:
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=file_name + '.part-', dir=folder
    ) as temporary:
      loader(temporary)
      received = os.path.join(temporary, file_name)
      problem = _problem(received, splits)
      if problem:
        raise OSError(f'what came is not whole: {problem}')
      os.replace(received, path)
  except Exception as error:  # pylint: disable=broad-exception-caught
    # Connections, compressed data and databases break in many ways.
    raise FileNotFoundError(
        f'{task_name} needs the file {path}, which does not exist and could not'
        f' be downloaded ({_one_line(error)}); get {url}, decompress it with'
        ' `xz --decompress` and put it there.'
    ) from error


def _problem(path: str, splits: Sequence[str]) -> str:
  """Returns what is wrong with a file, as far as can be told at a glance.

  Args:
    path: An existing file.
    splits: The splits it must have.

  Returns:
    The problem in one line, or an empty string.
  """
  uri = pathlib.Path(os.path.abspath(path)).as_uri() + '?mode=ro'
  try:
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
      connection.execute(
          'SELECT split_name, client_id, serialized_example_proto FROM examples'
          ' LIMIT 1'
      ).fetchall()
      for split in splits:
        if not connection.execute(
            'SELECT client_id FROM client_metadata WHERE split_name = ?'
            ' LIMIT 1',
            (split,),
        ).fetchall():
          return f'it has no clients in the split {split!r}'
      (page_size,) = connection.execute('PRAGMA page_size').fetchone()
      # Of a truncated file SQLite overlooks that the last page is not whole.
      if os.path.getsize(path) % page_size:
        return 'it is truncated'
  except sqlite3.Error as error:
    return _one_line(error)
  return ''


def _one_line(error: Exception) -> str:
  """Returns the message of an error without its line breaks."""
  return ' '.join(str(error).split()) or type(error).__name__
