"""Tests for idx."""

import gzip
import os

import numpy as np
import pytest

from tasks import idx

_IMAGES = np.random.default_rng(0).integers(256, size=(5, 3, 2), dtype=np.uint8)


def _idx(array):
  header = bytes([0, 0, 8, array.ndim])
  return header + np.array(array.shape, '>u4').tobytes() + array.tobytes()


def _write(tmp_path, content, name='images-idx3-ubyte.gz'):
  path = tmp_path / name
  path.write_bytes(content)
  return os.fspath(path)


@pytest.mark.parametrize('compress', [gzip.compress, bytes])
@pytest.mark.parametrize('array', [_IMAGES, _IMAGES[:, 0, 0]])
def test_reads(tmp_path, compress, array):
  path = _write(tmp_path, compress(_idx(array)))
  found = idx.read(path, array.shape[1:])
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, array)


def test_byte_order():
  # 300 is more than one byte, and read backwards it is more than the file.
  assert _idx(np.zeros(300, np.uint8))[4:8] == b'\x00\x00\x01\x2c'


def test_count_of_more_than_one_byte(tmp_path):
  path = _write(tmp_path, _idx(np.zeros(300, np.uint8)))
  assert idx.read(path, ()).shape == (300,)


_GOOD = _idx(_IMAGES)
# Without the time: it would be in the names of the tests.
_COMPRESSED = gzip.compress(_GOOD, mtime=0)


@pytest.mark.parametrize(
    'content, reason',
    [
        (b'', 'first bytes are missing instead of 00 00 08 03'),
        (b'PK\x03\x04' + _GOOD[4:], '50 4b 03 04 instead of 00 00 08 03'),
        (_idx(_IMAGES[0]), '00 00 08 02 instead of 00 00 08 03'),
        (b'\x00\x00\x0d' + _GOOD[3:], '00 00 0d 03 instead of'),
        (_GOOD[:14], 'ends within its header'),
        (_GOOD[:-1], 'has 29 entries instead of 30'),
        (_GOOD + b'\x00', 'has 31 entries instead of 30'),
        (_idx(_IMAGES.reshape(5, 2, 3)), r'shape \(5, 2, 3\) instead of'),
        (_idx(_IMAGES[:0]), r'shape \(0, 3, 2\) instead of'),
        (_COMPRESSED[:-10], 'ended before'),
        (_COMPRESSED[:10] + b'\xff' * 30, 'invalid'),
        (_COMPRESSED[:-8] + bytes(8), 'CRC'),
    ],
)
def test_corrupt_file_raises(tmp_path, content, reason):
  path = _write(tmp_path, content)
  with pytest.raises(ValueError, match=reason) as error:
    idx.read(path, (3, 2))
  assert path in str(error.value)
  assert '\n' not in str(error.value)


def test_find(tmp_path):
  assert idx.find(os.fspath(tmp_path), 'a') == ''
  plain = _write(tmp_path, b'', 'a')
  assert idx.find(os.fspath(tmp_path), 'a') == plain
  compressed = _write(tmp_path, b'', 'a.gz')
  assert idx.find(os.fspath(tmp_path), 'a') == compressed
