"""Tests for output_folder."""

import concurrent.futures
import os
import pathlib

import pytest

from binaries import application
from binaries import output_folder


def test_make_folder_makes_the_folders_above(tmp_path):
  path = tmp_path / 'a' / 'b'
  assert output_folder.make_folder(path) == path
  assert os.listdir(path) == []
  (path / 'kept').touch()
  output_folder.make_folder(path)
  assert os.listdir(path) == ['kept']


@pytest.mark.parametrize('below', ['', 'below'])
def test_file_in_place_of_a_folder_is_a_user_error(tmp_path, below):
  file = tmp_path / 'file'
  file.write_text('kept')
  for function in (output_folder.make_folder, _lock):
    with pytest.raises(application.UserError, match='cannot write to the outp'):
      function(file / below)
  assert file.read_text() == 'kept'


def test_folder_that_cannot_be_written_is_a_user_error():
  with pytest.raises(application.UserError, match='folder /proc/self: .+'):
    _lock(pathlib.Path('/proc/self'))


def _lock(folder, **options):
  with output_folder.locked(folder, **options):
    pass


def test_folder_is_locked_until_it_is_left(tmp_path):
  folder = tmp_path / 'new'
  with pytest.raises(KeyError):
    with output_folder.locked(folder):
      with pytest.raises(application.UserError, match=f'writing to {folder};'):
        _lock(folder)
      raise KeyError
  _lock(folder)


def test_lock_is_waited_for(tmp_path):
  with concurrent.futures.ThreadPoolExecutor() as executor:
    with output_folder.locked(tmp_path):
      waiting = executor.submit(_lock, tmp_path, patience=60.0)
      assert not waiting.done()
    assert waiting.result() is None


def test_json_is_replaced(tmp_path):
  path = tmp_path / 'a.json'
  assert output_folder.read_json(path) is None
  for content in ({'rounds': 3, 'alpha': 0.1, 'data_dir': None}, {'rounds': 4}):
    output_folder.write_json(path, content)
    assert output_folder.read_json(path) == content
  assert os.listdir(tmp_path) == ['a.json']


@pytest.mark.parametrize('content', ['', '[1]', '\xff', '[' * 100_000])
def test_spoilt_json_is_a_user_error(tmp_path, content):
  (tmp_path / 'a.json').write_text(content, encoding='latin-1')
  with pytest.raises(application.UserError, match='choose another --out'):
    output_folder.read_json(tmp_path / 'a.json')


def test_file_that_cannot_be_written_is_a_user_error(tmp_path):
  path = tmp_path / 'a.json'
  output_folder.write_json(path, {'a': 1})
  with pytest.raises(application.UserError, match='cannot write .*/b/a.json: '):
    output_folder.write_json(tmp_path / 'b' / 'a.json', {'a': 2})
  (tmp_path / 'a.unfinished').mkdir()
  with pytest.raises(application.UserError, match='cannot write .*/a.json: '):
    output_folder.write_json(path, {'a': 2})
  assert output_folder.read_json(path) == {'a': 1}


@pytest.mark.parametrize(
    'new, difference',
    [
        ({'rounds': 30, 'alpha': 0.5}, None),
        ({'rounds': 20, 'alpha': 0.5}, 'rounds=30, not 20'),
        ({'rounds': 30, 'alpha': 0.5, 'model': 1}, 'model=None, not 1'),
        ({'rounds': 30}, 'alpha=0.5, not None'),
    ],
)
def test_difference(new, difference):
  old = {'rounds': 30, 'alpha': 0.5}
  assert output_folder.describe_difference(old, new) == difference
