"""Client data over index slices of arrays that all clients share."""

import collections
from typing import List, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import pixels


class ArrayClientData(tff.simulation.datasets.ClientData):
  """Clients that each hold some examples of one labelled data set.

  The arrays are kept as they are, without a copy; only the examples of the
  client that is asked for are copied and converted. So 50,000 CIFAR images of
  `uint8` take 150 MB however many clients there are.

  Examples are `OrderedDict(x=float32 tensor, y=int64 scalar)` in the order of
  the client's indices. Client ids are `client_0`, `client_1` and so on, with as
  many digits as the last one needs, so that they are sorted.

  `serializable_dataset_fn` and `dataset_computation` put both arrays into the
  graph, as `tff.simulation.datasets.TestClientData` does; for large data use
  `create_tf_dataset_for_client`, which does not.
  """

  def __init__(
      self, x: np.ndarray, y: np.ndarray, parts: Sequence[np.ndarray]
  ):
    """Initializes `ArrayClientData`.

    Args:
      x: The features of all examples, shape `[num_examples, ...]`: float32, or
        uint8 for pixels from 0 to 255 that become float32 from 0 to 1.
      y: Their integer labels, shape `[num_examples]`.
      parts: For every client the indices of its examples, a vector of integers
        that is not empty, as the functions of `tasks.partition` return them.

    Raises:
      TypeError: If an array is of the wrong kind.
      ValueError: If the arrays do not fit one another, there is no client, a
        client has no examples, or an index is out of range.
    """
    if x.dtype not in (np.uint8, np.float32):
      raise TypeError(f'`x` must be uint8 or float32, found {x.dtype}.')
    if not np.issubdtype(y.dtype, np.integer):
      raise TypeError(f'`y` must be integers, found an array of {y.dtype}.')
    if y.ndim != 1 or len(x) != y.size:
      raise ValueError(
          '`y` must be a vector with one label an example, found shape'
          f' {y.shape} for {len(x)} examples.'
      )
    parts = [np.asarray(part) for part in parts]
    if not parts:
      raise ValueError('`parts` must not be empty; give at least one client.')
    for index, part in enumerate(parts):
      _check_part(index, part, y.size)
    self._x = x
    self._y = y
    digits = len(str(len(parts) - 1))
    self._parts = collections.OrderedDict(
        (f'client_{index:0{digits}d}', part)
        for index, part in enumerate(parts)
    )
    self._element_type_structure = collections.OrderedDict(
        x=tf.TensorSpec(x.shape[1:], tf.float32), y=tf.TensorSpec([], tf.int64)
    )

  @property
  def client_ids(self) -> List[str]:
    return list(self._parts)

  @property
  def element_type_structure(self):
    return self._element_type_structure

  @property
  def serializable_dataset_fn(self):
    return self._create_dataset

  def create_tf_dataset_for_client(self, client_id: str) -> tf.data.Dataset:
    """Returns the examples of one client.

    Args:
      client_id: One of `client_ids`.

    Returns:
      A `tf.data.Dataset` of the client's unbatched examples.

    Raises:
      ValueError: If there is no such client.
    """
    if client_id not in self._parts:
      raise ValueError(f'there is no client {client_id!r}; see `client_ids`.')
    part = self._parts[client_id]
    x = self._x[part]
    if x.dtype == np.uint8:
      x = pixels.to_floats(x)
    return tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(x=x, y=self._y[part].astype(np.int64))
    )

  def _create_dataset(self, client_id: tf.Tensor) -> tf.data.Dataset:
    """As `create_tf_dataset_for_client`, for an id known in the graph only."""
    sizes = [part.size for part in self._parts.values()]
    is_client = tf.equal(client_id, list(self._parts))
    known = tf.debugging.Assert(
        tf.reduce_any(is_client), ['there is no client', client_id]
    )
    with tf.control_dependencies([known]):
      position = tf.argmax(tf.cast(is_client, tf.int32))
    indices = tf.RaggedTensor.from_row_lengths(
        np.concatenate(list(self._parts.values())), sizes, validate=False
    )
    x = tf.gather(self._x, indices[position])
    if self._x.dtype == np.uint8:
      x = pixels.to_float_tensor(x)
    y = tf.cast(tf.gather(self._y, indices[position]), tf.int64)
    return tf.data.Dataset.from_tensor_slices(collections.OrderedDict(x=x, y=y))


def _check_part(index: int, part: np.ndarray, num_examples: int) -> None:
  """Raises unless `part` is a non-empty vector of example indices."""
  if part.ndim != 1 or not part.size:
    raise ValueError(
        f'`parts[{index}]` must be a vector that is not empty, found shape'
        f' {part.shape}.'
    )
  if not np.issubdtype(part.dtype, np.integer):
    raise TypeError(
        f'`parts[{index}]` must be integers, found an array of {part.dtype}.'
    )
  if part.min() < 0 or part.max() >= num_examples:
    raise ValueError(
        f'`parts[{index}]` must be between 0 and {num_examples - 1}, found'
        f' indices from {part.min()} to {part.max()}.'
    )
