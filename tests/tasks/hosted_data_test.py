"""Tests for hosted_data, with TFF's loader of CIFAR-100 and small files."""

import io
import lzma
import os
import sqlite3

import numpy as np
import pytest
import tensorflow_federated as tff

from tasks import hosted_data
from tests.tasks import hosted_file

_FILE_NAME = 'cifar100.sqlite'
_URL = 'https://storage.googleapis.com/tff-datasets-public/cifar100.sqlite.lzma'


@pytest.fixture(name='content', scope='module')
def _content(tmp_path_factory):
  path = tmp_path_factory.mktemp('content') / _FILE_NAME
  hosted_file.write_cifar100(path, num_clients=9)
  return path.read_bytes()


def _load(folder):
  return hosted_data.load(
      'mine',
      lambda folder: tff.simulation.datasets.cifar100.load_data(folder),
      path=os.fspath(folder / _FILE_NAME),
      url=_URL,
      splits=('train', 'test'),
  )


def _pixels(elements):
  return [image.tobytes() for image in elements['image']]


class _Response(io.BytesIO):
  """An HTTP response as TFF's downloader uses it."""

  headers = {}


def _serve(monkeypatch, compressed):
  """Lets TFF's downloader receive these bytes, and records the addresses."""
  addresses = []

  def urlopen(address):
    addresses.append(address)
    return _Response(compressed)

  monkeypatch.setattr('urllib.request.urlopen', urlopen)
  return addresses


def test_file_path(monkeypatch):
  monkeypatch.setenv('HOME', '/home/me')
  monkeypatch.delenv('FEDAOT_DATA_DIR', raising=False)
  assert hosted_data.file_path(_URL, None) == f'/home/me/.tff/{_FILE_NAME}'
  monkeypatch.setenv('FEDAOT_DATA_DIR', '/env')
  assert hosted_data.file_path(_URL, None) == f'/env/{_FILE_NAME}'
  assert hosted_data.file_path(_URL, '/mine') == f'/mine/{_FILE_NAME}'


def test_download(monkeypatch, tmp_path, content):
  addresses = _serve(monkeypatch, lzma.compress(content))
  for _ in range(2):
    train, test = _load(tmp_path / 'new')
    assert (len(train.client_ids), len(test.client_ids)) == (9, 3)
  assert addresses == [_URL]
  assert os.listdir(tmp_path / 'new') == [_FILE_NAME]
  assert (tmp_path / 'new' / _FILE_NAME).read_bytes() == content


@pytest.mark.parametrize('part', [0.5, 0.99, 0.0])
def test_broken_download_leaves_no_file(monkeypatch, tmp_path, content, part):
  whole = lzma.compress(content)
  _serve(monkeypatch, whole[: int(part * len(whole))])
  with pytest.raises(FileNotFoundError, match='not be downloaded') as error:
    _load(tmp_path)
  assert not os.listdir(tmp_path)
  message = str(error.value)
  assert os.fspath(tmp_path / _FILE_NAME) in message
  assert _URL in message
  assert '\n' not in message


def test_interrupted_download_leaves_no_file(monkeypatch, tmp_path):
  def urlopen(address):
    assert address == _URL
    # Now the file is open for writing.
    response = _Response()
    response.read = lambda size: (_ for _ in ()).throw(KeyboardInterrupt)
    return response

  monkeypatch.setattr('urllib.request.urlopen', urlopen)
  with pytest.raises(KeyboardInterrupt):
    _load(tmp_path)
  assert not os.listdir(tmp_path)


def test_what_is_not_lzma_raises(monkeypatch, tmp_path):
  _serve(monkeypatch, b'<html>sign in</html>')
  with pytest.raises(FileNotFoundError, match='could not be downloaded'):
    _load(tmp_path)
  assert not os.listdir(tmp_path)


def _without_table(content, tmp_path, table):
  path = tmp_path / 'scratch'
  path.write_bytes(content)
  with sqlite3.connect(path) as connection:
    connection.execute(f'DROP TABLE {table}')
  return path.read_bytes()


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda content, _: content[:-1], 'it is truncated'),
        (lambda content, _: content[: 4096 * 20], 'malformed'),
        (lambda content, _: content[:50], 'malformed|not a database'),
        (lambda content, _: b'', 'no such table: examples'),
        (lambda content, _: b'<html>' * 1000, 'not a database'),
        (
            lambda content, tmp_path: _without_table(
                content, tmp_path, 'client_metadata'
            ),
            'no such table: client_metadata',
        ),
        (
            lambda content, _: content.replace(b'train', b'other'),
            "no clients in the split 'train'",
        ),
    ],
    ids=['byte', 'half', 'header', 'empty', 'html', 'table', 'split'],
)
def test_file_that_is_not_whole_raises(tmp_path, content, change, reason):
  path = tmp_path / _FILE_NAME
  path.write_bytes(change(content, tmp_path))
  before = path.read_bytes()
  with pytest.raises(ValueError, match=reason) as error:
    _load(tmp_path)
  message = str(error.value)
  assert message.startswith(f'mine cannot use the file {path}')
  assert _URL in message
  assert '\n' not in message
  assert path.read_bytes() == before


def test_choose_clients(tmp_path, content):
  (tmp_path / _FILE_NAME).write_bytes(content)
  train, _ = _load(tmp_path)
  chosen = lambda number, seed: hosted_data.choose_clients(
      train, number, seed
  ).client_ids
  assert chosen(None, 0) == chosen(9, 0) == [str(index) for index in range(9)]
  choices = [chosen(3, seed) for seed in range(10)]
  assert all(ids == sorted(set(ids)) and len(ids) == 3 for ids in choices)
  assert len(set(map(tuple, choices))) > 5
  assert set(sum(choices, [])) == set(chosen(None, 0))
  assert choices[0] == chosen(3, 0)


def test_sample(monkeypatch, tmp_path, content):
  monkeypatch.setattr(hosted_data, '_POOLED_BATCH', 5)
  (tmp_path / _FILE_NAME).write_bytes(content)
  train, _ = _load(tmp_path)
  sample = lambda size, seed=0, ids=train.client_ids: hosted_data.sample(
      train, ids, size, seed, path='file'
  )
  everything = sample(None)
  assert everything['image'].dtype == np.uint8
  assert len(set(_pixels(everything))) == 9 * 6
  order = {image: rank for rank, image in enumerate(_pixels(everything))}
  # Labels stay with their images.
  by_image = dict(zip(_pixels(everything), everything['label']))
  assert all(
      by_image[image] == label
      for image, label in zip(_pixels(sample(20)), sample(20)['label'])
  )
  assert [order[image] for image in _pixels(sample(20))] == list(range(20))
  assert _pixels(sample(100)) == _pixels(everything)
  other = [order[image] for image in _pixels(sample(20, seed=1))]
  assert len(set(other)) == 20 and other != list(range(20))
  assert len(sample(None, ids=['3', '5'])['label']) == 12


def test_sample_is_uniform(tmp_path, content):
  (tmp_path / _FILE_NAME).write_bytes(content)
  train, _ = _load(tmp_path)
  ids = train.client_ids[:2]
  first = set(
      _pixels(hosted_data.sample(train, ids[:1], None, 0, path='file'))
  )
  from_first = [
      sum(
          image in first
          for image in _pixels(
              hosted_data.sample(train, ids, 6, seed, path='file')
          )
      )
      for seed in range(8)
  ]
  assert 2.0 < np.mean(from_first) < 4.0
