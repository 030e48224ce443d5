"""Reading of IDX files, the format of MNIST and of data sets like it.

Two zero bytes, one with the type of the entries (8 for bytes), one with the
number of dimensions, every dimension as a big-endian 32-bit integer, then the
entries, the last dimension fastest (LeCun et al., "The MNIST database").
"""

import gzip
import math
import os
from typing import Tuple
import zlib

import numpy as np

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b'\x1f\x8b'


def read(path: str, shape: Tuple[int, ...]) -> np.ndarray:
  """Reads an IDX file of bytes.

  Args:
    path: The file, compressed with gzip or not, whatever its name.
    shape: The shape that one entry of the first dimension must have: `()` for
      labels, `(28, 28)` for MNIST's images.

  Returns:
    A uint8 array of shape `(count,) + shape`, with at least one entry.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If the file is not what it should be.
  """
  try:
    content = _content(path)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(_corrupt(path, str(error))) from error
  rank = len(shape) + 1
  magic = bytes([0, 0, _UNSIGNED_BYTE, rank])
  if content[:4] != magic:
    raise ValueError(
        _corrupt(
            path,
            f'its first bytes are {content[:4].hex(" ") or "missing"} instead'
            f' of {magic.hex(" ")}',
        )
    )
  header = content[4 : 4 + 4 * rank]
  if len(header) < 4 * rank:
    raise ValueError(_corrupt(path, 'it ends within its header'))
  count, *found = np.frombuffer(header, '>u4').tolist()
  if tuple(found) != shape or not count:
    raise ValueError(
        _corrupt(
            path,
            f'its header says shape {(count, *found)} instead of'
            f' {("n", *shape)}',
        )
    )
  entries = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
  expected = count * math.prod(shape)
  if entries.size != expected:
    raise ValueError(
        _corrupt(path, f'it has {entries.size} entries instead of {expected}')
    )
  return entries.reshape((count,) + shape)


def find(folder: str, name: str) -> str:
  """Returns the path of an IDX file, or '' if it is not there.

  Args:
    folder: The folder to look in.
    name: The name of the file without '.gz'; the file with it is preferred.
  """
  for path in (os.path.join(folder, name + '.gz'), os.path.join(folder, name)):
    if os.path.isfile(path):
      return path
  return ''


def _content(path: str) -> bytes:
  """Returns what the file holds, uncompressed."""
  with open(path, 'rb') as file:
    compressed = file.read(2) == _GZIP_MAGIC
  with (gzip.open if compressed else open)(path, 'rb') as file:
    return file.read()


def _corrupt(path: str, reason: str) -> str:
  """Returns the message about an unusable file, in one line."""
  return f'cannot use the IDX file {path}: {reason}; get it anew.'
