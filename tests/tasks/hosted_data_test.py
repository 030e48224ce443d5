"""Tests for hosted_data, with TFF's loader of CIFAR-100 and small files."""

import contextlib
import io
import lzma
import os
import sqlite3

import pytest
import tensorflow_federated as tff

from tasks import hosted_data
from tasks import hosted_files
from tests.tasks import small_files

_FILE_NAME = 'cifar100.sqlite'
_URL = 'https://storage.googleapis.com/tff-datasets-public/cifar100.sqlite.lzma'


@pytest.fixture(name='content', scope='module')
def _content(tmp_path_factory):
  path = tmp_path_factory.mktemp('content') / _FILE_NAME
  small_files.write_cifar100(path, num_clients=9)
  return path.read_bytes()


def _load(folder):
  return hosted_data.load(
      lambda folder: tff.simulation.datasets.cifar100.load_data(folder),
      path=os.fspath(folder / _FILE_NAME),
      url=_URL,
      splits=('train', 'test'),
      features=lambda element: element['image'],
  )


@pytest.fixture(name='train', scope='module')
def _train(content, tmp_path_factory):
  folder = tmp_path_factory.mktemp('train')
  (folder / _FILE_NAME).write_bytes(content)
  return _load(folder)[0]


def _images(examples):
  return [image.tobytes() for image in examples['x']]


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
  assert hosted_files.file_path(_URL, None) == f'/home/me/.tff/{_FILE_NAME}'
  assert hosted_files.file_path(_URL, '/mine') == f'/mine/{_FILE_NAME}'


def test_download(monkeypatch, tmp_path, content):
  addresses = _serve(monkeypatch, lzma.compress(content))
  for _ in range(2):
    train, test = _load(tmp_path / 'new')
    assert (len(train.client_ids), len(test.client_ids)) == (9, 3)
  assert addresses == [_URL]
  assert os.listdir(tmp_path / 'new') == [_FILE_NAME]
  assert (tmp_path / 'new' / _FILE_NAME).read_bytes() == content


@pytest.mark.parametrize('part', [0.5, 0.99, 0.0, None])
def test_broken_download_leaves_no_file(monkeypatch, tmp_path, content, part):
  whole = lzma.compress(content)
  received = b'<html>' if part is None else whole[: int(part * len(whole))]
  _serve(monkeypatch, received)
  with pytest.raises(FileNotFoundError, match='not be downloaded') as error:
    _load(tmp_path)
  assert not os.listdir(tmp_path)
  assert os.fspath(tmp_path / _FILE_NAME) in str(error.value)
  assert _URL in str(error.value)
  assert '\n' not in str(error.value)


def test_interrupted_download_leaves_no_file(monkeypatch, tmp_path):
  def interrupt(size):
    assert len(os.listdir(tmp_path)) == 1
    raise KeyboardInterrupt

  response = _Response()
  response.read = interrupt
  monkeypatch.setattr('urllib.request.urlopen', lambda address: response)
  with pytest.raises(KeyboardInterrupt):
    _load(tmp_path)
  assert not os.listdir(tmp_path)


def _changed_by(script):
  def change(content, tmp_path):
    path = tmp_path / 'scratch'
    path.write_bytes(content)
    with contextlib.closing(sqlite3.connect(path)) as connection:
      connection.executescript(script)
    return path.read_bytes()

  return change


def _with_a_view(name):
  return _changed_by(
      f'ALTER TABLE {name} RENAME TO rows;'
      f'CREATE VIEW {name} AS SELECT * FROM rows;'
  )


# Its rows are those of another table, which could be a view.
_WITH_A_VIRTUAL_TABLE = _changed_by(
    'ALTER TABLE client_metadata RENAME TO rows;'
    'CREATE VIRTUAL TABLE client_metadata USING'
    " fts4(client_id, split_name, num_examples, content='rows');"
)


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda content, _: content[:-1], 'it is truncated'),
        (lambda content, _: content[: 4096 * 20], 'malformed'),
        (lambda content, _: content[:50], 'malformed|not a database'),
        (lambda content, _: b'', "no ordinary table 'examples'"),
        (lambda content, _: b'<html>' * 1000, 'not a database'),
        (
            _changed_by('DROP TABLE client_metadata'),
            "no ordinary table 'client_metadata'",
        ),
        (_with_a_view('examples'), "no ordinary table 'examples'"),
        (
            _with_a_view('client_metadata'),
            "no ordinary table 'client_metadata'",
        ),
        (_WITH_A_VIRTUAL_TABLE, "no ordinary table 'client_metadata'"),
        (
            lambda content, _: content.replace(b'train', b'other'),
            "no clients in the split 'train'",
        ),
    ],
    ids=[
        'byte',
        'half',
        'header',
        'empty',
        'html',
        'table',
        'examples view',
        'clients view',
        'virtual table',
        'split',
    ],
)
def test_file_that_is_not_whole_raises(tmp_path, content, change, reason):
  path = tmp_path / _FILE_NAME
  path.write_bytes(change(content, tmp_path))
  before = path.read_bytes()
  with pytest.raises(ValueError, match=reason) as error:
    _load(tmp_path)
  assert str(error.value).startswith(f'cannot use the file {path}')
  assert _URL in str(error.value)
  assert '\n' not in str(error.value)
  assert path.read_bytes() == before


def test_choose_clients(train):
  chosen = lambda number, seed: hosted_data.choose_clients(
      train, number, seed
  ).client_ids
  assert chosen(None, 0) == chosen(9, 0) == [str(index) for index in range(9)]
  choices = [chosen(3, seed) for seed in range(10)]
  assert all(ids == sorted(set(ids)) and len(ids) == 3 for ids in choices)
  assert len(set(map(tuple, choices))) > 5
  assert set(sum(choices, [])) == set(chosen(None, 0))
  assert choices[0] == chosen(3, 0)


def test_sample(train):
  sample = lambda size, seed=0, ids=train.client_ids: hosted_data.sample(
      train, ids, size, seed, path='file'
  )
  everything = sample(None)
  order = {image: rank for rank, image in enumerate(_images(everything))}
  assert len(order) == 9 * 6
  # Labels stay with their images.
  by_image = {
      example['x'].tobytes(): example['y']
      for client_id in train.client_ids
      for example in train.create_tf_dataset_for_client(
          client_id
      ).as_numpy_iterator()
  }
  assert [by_image[image] for image in order] == everything['y'].tolist()
  # A sample is the head of a larger one.
  for size, expected in ((20, 20), (100, 54)):
    head = sample(size)
    assert [order[image] for image in _images(head)] == list(range(expected))
    assert head['y'].tolist() == everything['y'][:expected].tolist()
  other = [order[image] for image in _images(sample(20, seed=1))]
  assert len(set(other)) == 20 and other != list(range(20))
  # Of all clients, not the first ones.
  clients = list(map(list(by_image).index, order))[:20]
  assert len({index // 6 for index in clients}) > 5
  assert len(sample(None, ids=['3', '5'])['y']) == 12
