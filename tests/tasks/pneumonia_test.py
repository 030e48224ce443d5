"""Tests for pneumonia, with a small file of the real format."""

import hashlib
import http.server
import os
import threading

import numpy as np
import pytest
import tensorflow as tf

from tasks import pneumonia
from tests.tasks import client_arrays
from tests.tasks import task_checks

_SIZES = {'train': 200, 'val': 60, 'test': 40}
_SMALL = {'num_clients': 8, 'cohort_size': 2, 'holdout_size': 20}
_FILE_NAME = 'pneumoniamnist.npz'


@pytest.fixture(name='path', scope='module')
def _path(tmp_path_factory):
  """One image in four is normal, and the ones with pneumonia are brighter."""
  rng = np.random.default_rng(0)
  arrays = {}
  for split, size in _SIZES.items():
    labels = rng.permutation(np.arange(size) % 4 > 0).astype(np.uint8)
    images = rng.integers(100, size=(size, 28, 28), dtype=np.uint8)
    arrays[f'{split}_images'] = images + 155 * labels[:, None, None]
    arrays[f'{split}_labels'] = labels[:, None]
  path = tmp_path_factory.mktemp('data') / _FILE_NAME
  np.savez_compressed(path, **arrays)
  return os.fspath(path)


@pytest.fixture(autouse=True)
def _checksum(monkeypatch, path):
  with open(path, 'rb') as file:
    found = hashlib.md5(file.read()).hexdigest()
  monkeypatch.setattr(pneumonia, '_MD5', found)
  monkeypatch.setattr(pneumonia, '_URL', f'http://127.0.0.1:9/{_FILE_NAME}')
  monkeypatch.setenv('no_proxy', '*')
  monkeypatch.delenv('FEDAOT_DATA_DIR', raising=False)


def _load(path, **options):
  folder = None if path is None else os.path.dirname(path)
  return pneumonia.load(data_dir=folder, **{**_SMALL, **options})


def test_splits(path):
  task = _load(path)
  assert task.name == 'pneumonia'
  assert task.num_classes == 2
  assert np.bincount(task.holdout['y']).tolist() == [5, 15]
  assert np.bincount(task.test['y']).tolist() == [10, 30]
  assert np.bincount(task_checks.labels(task)).tolist() == [50, 150]
  sizes = [y.size for _, y in client_arrays.of_all(task.client_data)]
  assert len(sizes) == 8
  assert min(sizes) >= 10
  task_checks.check_disjoint(task)


def test_examples_come_from_their_splits(path):
  task = _load(path)
  assert task.client_data.element_type_structure == {
      'x': tf.TensorSpec([28, 28, 1], tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }
  clients = client_arrays.of_all(task.client_data)
  parts = {
      'train': [np.concatenate(arrays) for arrays in zip(*clients)],
      'val': task.holdout.values(),
      'test': task.test.values(),
  }
  with np.load(path) as file:
    for split, (x, y) in parts.items():
      originals = (file[f'{split}_images'] / np.float32(255))[..., None]
      assert client_arrays.images(x) <= client_arrays.images(originals)
      np.testing.assert_array_equal(x.mean(axis=(1, 2, 3)) > 0.5, y == 1)


def test_seeds(path):
  task_checks.check_seeds(
      lambda seed: _load(path, seed=seed), fixed=('test',)
  )


@pytest.mark.parametrize(
    'model, num_parameters', [('mlp', 78702), ('cnn', 56194)]
)
def test_trains(path, model, num_parameters):
  task = _load(path, model=model)
  assert client_arrays.num_parameters(task) == num_parameters
  client_arrays.check_one_round(task, batch_size=10)


def test_other_partitions(path):
  shards = _load(path, partition='shards', num_clients=4, shards_per_client=1)
  classes = [
      np.unique(y).tolist()
      for _, y in client_arrays.of_all(shards.client_data)
  ]
  assert sorted(classes) == [[0], [1], [1], [1]]
  iid = _load(path, partition='iid')
  assert {y.size for _, y in client_arrays.of_all(iid.client_data)} == {25}


def test_training_defaults(path):
  task = _load(path)
  assert (task.batch_size, task.client_epochs) == (10, 1)
  assert (task.client_learning_rate, task.rounds) == (0.05, 30)


def test_wrong_options_raise(path):
  with pytest.raises(ValueError, match="`model`.*found 'rnn'"):
    _load(path, model='rnn')
  with pytest.raises(ValueError, match="`partition`.*found 'rnn'"):
    _load(path, partition='rnn')
  with pytest.raises(ValueError, match='between 1 and 59, found 60'):
    _load(path, holdout_size=60)


def test_folder_of_the_environment(path, monkeypatch):
  monkeypatch.setenv('FEDAOT_DATA_DIR', os.path.dirname(path))
  assert task_checks.labels(_load(None)).size == 200


def test_downloads_a_missing_file_once(path, tmp_path, monkeypatch):
  handler = lambda *args: http.server.SimpleHTTPRequestHandler(
      *args, directory=os.path.dirname(path)
  )
  monkeypatch.setenv('HOME', os.fspath(tmp_path))
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    url = f'http://127.0.0.1:{server.server_port}/{_FILE_NAME}'
    monkeypatch.setattr(pneumonia, '_URL', url)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
      assert task_checks.labels(_load(None)).size == 200
    finally:
      server.shutdown()
      thread.join()
  # The server is gone, and the file is in the default folder.
  assert task_checks.labels(_load(None)).size == 200
  assert os.listdir(tmp_path / '.cache' / 'fedaot') == [_FILE_NAME]


def test_missing_file_offline_raises(tmp_path):
  path = os.fspath(tmp_path / _FILE_NAME)
  with pytest.raises(FileNotFoundError) as error:
    _load(path)
  message = str(error.value)
  for part in (path, pneumonia._URL, 'refused', 'by hand'):
    assert part in message
  assert '\n' not in message


def test_other_file_is_refused(tmp_path):
  path = tmp_path / _FILE_NAME
  path.write_bytes(b'truncated')
  with pytest.raises(ValueError) as error:
    _load(os.fspath(path))
  message = str(error.value)
  assert os.fspath(path) in message
  assert f'instead of {pneumonia._MD5}' in message
  assert '\n' not in message
  assert path.read_bytes() == b'truncated'
