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
  """Reads an IDX file of bytes, compressed with gzip or not.

  The first dimension, which is not 0, counts entries of `shape`: `()` for
  labels, `(28, 28)` for MNIST's images. Raises ValueError for any other file.
  """
  with open(path, 'rb') as file:
    content = file.read()
  try:
    if content.startswith(_GZIP_MAGIC):
      content = gzip.decompress(content)
    return _parse(content, shape)
  except (EOFError, ValueError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(
        f'cannot use the IDX file {path}: {error}; get it anew.'
    ) from error


def find(folder: str, name: str) -> str:
  """Returns the path of a file, with '.gz' if there is one, or ''."""
  path = os.path.join(folder, name)
  return next(filter(os.path.isfile, (path + '.gz', path)), '')


def _parse(content: bytes, shape: Tuple[int, ...]) -> np.ndarray:
  rank = len(shape) + 1
  magic = bytes([0, 0, _UNSIGNED_BYTE, rank])
  if content[:4] != magic:
    raise ValueError(
        f'its first bytes are {content[:4].hex(" ") or "missing"} instead of'
        f' {magic.hex(" ")}'
    )
  header, entries = content[4 : 4 + 4 * rank], content[4 + 4 * rank :]
  if len(header) < 4 * rank:
    raise ValueError('it ends within its header')
  count, *found = np.frombuffer(header, '>u4').tolist()
  if tuple(found) != shape or not count:
    raise ValueError(
        f'its header says shape {(count, *found)} instead of {("n", *shape)}'
    )
  expected = count * math.prod(shape)
  if len(entries) != expected:
    raise ValueError(f'it has {len(entries)} entries instead of {expected}')
  return np.frombuffer(entries, np.uint8).reshape(count, *shape)
