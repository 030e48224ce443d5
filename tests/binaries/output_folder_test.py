"""Tests for output_folder."""

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


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='needs /proc')
def test_folder_that_cannot_be_written_is_a_user_error():
  with pytest.raises(application.UserError, match='/proc/self: .+'):
    output_folder.make_folder(pathlib.Path('/proc/self'))


def _lock(folder):
  with output_folder.locked(folder):
    pass


def test_folder_is_locked_until_it_is_left(tmp_path):
  folder = tmp_path / 'new'
  with pytest.raises(KeyError):
    with output_folder.locked(folder):
      with pytest.raises(application.UserError, match=f'writing to {folder};'):
        _lock(folder)
      raise KeyError
  _lock(folder)


def test_json_round_trip(tmp_path):
  settings = {'rounds': 3, 'alpha': 0.1, 'data_dir': None, 'task': 'a'}
  assert output_folder.read_settings(tmp_path) is None
  output_folder.write_settings(tmp_path, settings)
  assert output_folder.read_settings(tmp_path) == settings
  output_folder.write_settings(tmp_path, {'rounds': 4})
  assert output_folder.read_settings(tmp_path) == {'rounds': 4}
  assert os.listdir(tmp_path) == ['settings.json']


@pytest.mark.parametrize('content', ['', '{', '[1]', '\xff'])
def test_spoilt_settings_are_a_user_error(tmp_path, content):
  (tmp_path / 'settings.json').write_text(content, encoding='latin-1')
  with pytest.raises(application.UserError, match='choose another --out'):
    output_folder.read_settings(tmp_path)


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
        (
            {'rounds': 30, 'alpha': 0.5, 'model': 'cnn'},
            "model=None, not 'cnn'",
        ),
        ({'rounds': 30}, 'alpha=0.5, not None'),
    ],
)
def test_difference(new, difference):
  old = {'rounds': 30, 'alpha': 0.5}
  assert output_folder.describe_difference(old, new) == difference
