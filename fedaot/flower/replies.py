"""Replies of clients that nobody vouches for: what is usable of them."""

import collections
import io
import math
from typing import Any, Dict, List, NamedTuple, Sequence

from flwr.app import Array
from flwr.app import Message
from flwr.app import RecordDict
import numpy as np

# Example counts that nobody has, but that would own every average.
_MAX_COUNT = 1e15


class Reply(NamedTuple):
  """A usable reply.

  Attributes:
    node_id: The node that sent it.
    content: All of it.
    num_examples: What the client says that it trained on.
    arrays: Its model in the order of the global one; views of the message.
  """

  node_id: int
  content: RecordDict
  num_examples: float
  arrays: List[np.ndarray]


def read(
    message: Message, count_key: str, model: Dict[str, np.ndarray]
) -> Reply:
  """A message as a `Reply`.

  Args:
    message: What a node sent, or the error in its place.
    count_key: The metric that is the number of examples.
    model: The arrays by name that a reply must have; empty if none is read.

  Raises:
    ValueError: If it is not usable.
  """
  if message.has_error():
    raise ValueError(f'error {message.error.code}: {message.error.reason}')
  content = message.content
  metrics = _only('MetricRecord', content.metric_records)
  count = metrics.get(count_key)
  if not isinstance(count, (int, float)) or not 0 < count < _MAX_COUNT:
    raise ValueError(f'the metric {count_key!r} must be > 0; found {count!r}')
  arrays = []
  if model:
    record = _only('ArrayRecord', content.array_records)
    if set(record) != set(model):
      odd = sorted(set(record) ^ set(model))[:3]
      raise ValueError(f'not the arrays of the model; differing: {odd}')
    arrays = [_read_like(n, record[n], like) for n, like in model.items()]
  return Reply(message.metadata.src_node_id, content, float(count), arrays)


def read_array(array: Array) -> np.ndarray:
  """The array as a view of the message, which Flower's `numpy()` copies.

  Raises:
    ValueError: If the bytes are not those of an array.
  """
  stream = io.BytesIO(array.data)
  if array.stype != 'numpy.ndarray':
    raise ValueError(f'serialized by {array.stype!r}, not by NumPy')
  try:
    version = np.lib.format.read_magic(stream)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
  except Exception as error:  # The header is a text that Python parses.
    raise ValueError(f'no header of an array: {error}') from error
  if version != (1, 0) or any(size < 0 for size in shape):
    raise ValueError(f'version {version}, shape {shape}')
  if dtype.hasobject or not dtype.itemsize:
    raise ValueError(f'of dtype {dtype}')
  size = len(array.data) - stream.tell()
  if size != math.prod(shape) * dtype.itemsize:
    raise ValueError(f'{size} bytes are not of the shape {shape} of {dtype}')
  flat = np.ndarray(
      [size // dtype.itemsize], dtype, array.data, offset=stream.tell()
  )
  return flat.reshape(shape, order='F' if is_fortran else 'C')


def of_usual_metrics(replies: Sequence[Reply]) -> List[RecordDict]:
  """The contents whose metrics are finite and named as in most replies.

  A function that averages metrics meets neither missing names, lists of other
  lengths nor NaN, whoever sends them.
  """
  kinds = [_kind(reply.content) for reply in replies]
  usual = collections.Counter(k for k in kinds if k).most_common(1)
  return [
      r.content
      for r, kind in zip(replies, kinds)
      if usual and (kind == usual[0][0])
  ]


def _kind(content: RecordDict) -> Any:
  """The names of metrics and lengths of lists; None if one is not finite."""
  ((name, metrics),) = content.metric_records.items()
  for value in metrics.values():
    if not np.all(np.isfinite(value)):
      return None
  return name, frozenset(
      (key, len(value) if isinstance(value, list) else None)
      for key, value in metrics.items()
  )


def _only(kind: str, records: Dict[str, Any]) -> Any:
  if len(records) != 1:
    raise ValueError(f'must have one {kind}; found {len(records)}')
  return next(iter(records.values()))


def _read_like(name: str, array: Array, like: np.ndarray) -> np.ndarray:
  found = read_array(array)
  if found.shape != like.shape:
    raise ValueError(
        f'{name!r} must be of shape {like.shape}; found {found.shape}'
    )
  if not np.can_cast(found.dtype, like.dtype, 'same_kind'):
    raise ValueError(f'{name!r} must be {like.dtype}; found {found.dtype}')
  return found
