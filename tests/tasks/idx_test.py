"""Tests for idx."""

import gzip
import os

import numpy as np
import pytest

from tasks import idx
from tests.tasks import small_files

_IMAGES = np.random.default_rng(0).integers(256, size=(5, 3, 2), dtype=np.uint8)
_GOOD = small_files.encode_idx(_IMAGES)
# Without the time: it would be in the names of the tests.
_COMPRESSED = gzip.compress(_GOOD, mtime=0)


@pytest.mark.parametrize('compress', [gzip.compress, bytes])
@pytest.mark.parametrize(
    'array', [_IMAGES, _IMAGES[:, 0, 0], np.arange(300).astype(np.uint8)]
)
def test_reads(tmp_path, compress, array):
  path = tmp_path / 'images-idx3-ubyte.gz'
  path.write_bytes(compress(small_files.encode_idx(array)))
  found = idx.read(os.fspath(path), array.shape[1:])
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    'content, reason',
    [
        (b'', 'first bytes are missing instead of 00 00 08 03'),
        (b'PK\x03\x04' + _GOOD[4:], '50 4b 03 04 instead of 00 00 08 03'),
        (
            small_files.encode_idx(_IMAGES[0]),
            '00 00 08 02 instead of 00 00 08 03',
        ),
        (_GOOD[:14], 'ends within its header'),
        (_GOOD[:-1], 'has 29 entries instead of 30'),
        (_GOOD + b'\x00', 'has 31 entries instead of 30'),
        (
            small_files.encode_idx(_IMAGES.reshape(5, 2, 3)),
            r'shape \(5, 2, 3\) instead of',
        ),
        (small_files.encode_idx(_IMAGES[:0]), r'shape \(0, 3, 2\) instead of'),
        (_COMPRESSED[:-10], 'ended before'),
        (_COMPRESSED[:10] + b'\xff' * 30, 'invalid'),
        (_COMPRESSED[:-8] + bytes(8), 'CRC'),
    ],
)
def test_corrupt_file_raises(tmp_path, content, reason):
  path = tmp_path / 'images'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=reason) as error:
    idx.read(os.fspath(path), (3, 2))
  assert os.fspath(path) in str(error.value)
  assert '\n' not in str(error.value)


def test_find_prefers_the_compressed_file(tmp_path):
  assert idx.find(os.fspath(tmp_path), 'a') == ''
  for name in ('a', 'a.gz'):
    (tmp_path / name).touch()
    assert idx.find(os.fspath(tmp_path), 'a') == os.fspath(tmp_path / name)
