"""Reading of IDX files, the format of MNIST and of data sets like it.

Two zero bytes, one with the type of the entries (8 for bytes), one with the
number of dimensions, every dimension as a big-endian 32-bit integer, then the
entries, the last dimension fastest (LeCun et al., "The MNIST database").
"""

import gzip
import math
import os
from typing import BinaryIO, Tuple
import zlib

import numpy as np

_UNSIGNED_BYTE = 8
_GZIP_MAGIC = b'\x1f\x8b'


def read(path: str, shape: Tuple[int, ...], *, maximum: int) -> np.ndarray:
  """Reads an IDX file of bytes, compressed with gzip or not.

  The first dimension, from 1 to `maximum`, counts entries of `shape`: `()` for
  labels, `(28, 28)` for MNIST's images. Raises ValueError for any other file,
  of which no more is unpacked than a file with this many entries holds.
  """
  with open(path, 'rb') as file:
    opener = gzip.open if file.read(2) == _GZIP_MAGIC else open
  try:
    with opener(path, 'rb') as stream:
      return _parse(stream, shape, maximum)
  except (EOFError, ValueError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(
        f'cannot use the IDX file {path}: {error}; get it anew.'
    ) from error


def find(folder: str, name: str) -> str:
  """Returns the path of a file, with '.gz' if there is one, or ''."""
  path = os.path.join(folder, name)
  return next(filter(os.path.isfile, (path + '.gz', path)), '')


def _parse(
    stream: BinaryIO, shape: Tuple[int, ...], maximum: int
) -> np.ndarray:
  rank = len(shape) + 1
  magic, found_magic = bytes([0, 0, _UNSIGNED_BYTE, rank]), stream.read(4)
  if found_magic != magic:
    raise ValueError(
        f'its first bytes are {found_magic.hex(" ") or "missing"} instead of'
        f' {magic.hex(" ")}'
    )
  header = stream.read(4 * rank)
  if len(header) < 4 * rank:
    raise ValueError('it ends within its header')
  count, *found = np.frombuffer(header, '>u4').tolist()
  if tuple(found) != shape or not 1 <= count <= maximum:
    raise ValueError(
        f'its header says shape {(count, *found)} instead of {("n", *shape)},'
        f' n from 1 to {maximum}'
    )
  expected = count * math.prod(shape)
  # The byte too many tells that the file ends here, where gzip compares its
  # checksum, without unpacking what else there may be.
  entries = stream.read(expected + 1)
  if len(entries) > expected:
    raise ValueError(f'it has more than {expected} entries')
  if len(entries) < expected:
    raise ValueError(f'it has {len(entries)} entries instead of {expected}')
  return np.frombuffer(entries, np.uint8).reshape(count, *shape)
