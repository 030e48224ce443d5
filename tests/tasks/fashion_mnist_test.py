"""Tests for fashion_mnist, with small files of the real format."""

import gzip
import os
import urllib.error

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tasks import fashion_mnist
from tests.tasks import client_arrays
from tests.tasks import task_checks

_NAMES = (
    'train-images-idx3-ubyte',
    'train-labels-idx1-ubyte',
    't10k-images-idx3-ubyte',
    't10k-labels-idx1-ubyte',
)
_SIZES = {'train': 400, 't10k': 60}
_SMALL = {'num_clients': 8, 'cohort_size': 2, 'holdout_size': 20}


def _idx(array):
  header = bytes([0, 0, 8, array.ndim])
  return header + np.array(array.shape, '>u4').tobytes() + array.tobytes()


def _contents():
  """The four files: a class is a bright row, all else is noise."""
  rng = np.random.default_rng(0)
  contents = {}
  for half, size in _SIZES.items():
    labels = rng.permutation(np.arange(size) % 10).astype(np.uint8)
    images = rng.integers(100, size=(size, 28, 28), dtype=np.uint8)
    images[np.arange(size), 2 * labels + 4] += 155
    contents[f'{half}-images-idx3-ubyte'] = _idx(images)
    contents[f'{half}-labels-idx1-ubyte'] = _idx(labels)
  return contents


def _write(folder, suffix='.gz', **changes):
  compress = gzip.compress if suffix else bytes
  for name, content in {**_contents(), **changes}.items():
    (folder / (name + suffix)).write_bytes(compress(content))
  return os.fspath(folder)


@pytest.fixture(autouse=True)
def _no_other_places(monkeypatch, tmp_path_factory):
  """Neither the machine's data nor its network decides about a test."""

  def offline(*args, **kwargs):
    raise urllib.error.URLError('no network')

  empty = os.fspath(tmp_path_factory.mktemp('empty'))
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', empty)
  monkeypatch.setattr('urllib.request.urlopen', offline)
  monkeypatch.delenv('FEDAOT_DATA_DIR', raising=False)


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  return _write(tmp_path_factory.mktemp('data'))


def _load(folder, **options):
  return fashion_mnist.load(data_dir=folder, **{**_SMALL, **options})


def test_splits(folder):
  task = _load(folder)
  assert task.name == 'fashion_mnist'
  assert task.num_classes == 10
  assert np.bincount(task.holdout['y']).tolist() == [2] * 10
  assert np.bincount(task.test['y']).tolist() == [4] * 10
  assert np.bincount(task_checks.labels(task)).tolist() == [40] * 10
  sizes = [y.size for _, y in client_arrays.of_all(task.client_data)]
  assert len(sizes) == 8
  assert min(sizes) >= 10
  task_checks.check_disjoint(task)


def test_examples(folder):
  task = _load(folder)
  assert task.client_data.element_type_structure == {
      'x': tf.TensorSpec([28, 28, 1], tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }
  client = client_arrays.of_client(task.client_data, 'client_0')
  for x, y in (client, task.holdout.values(), task.test.values()):
    # Each image has the bright row of its label, and 155 / 255 is 0.61.
    rows = x.mean(axis=(2, 3))
    np.testing.assert_array_equal((rows.argmax(axis=1) - 4) // 2, y)
    np.testing.assert_allclose(rows.max(axis=1), 0.8, atol=0.1)
    assert 0.0 <= x.min() < 0.01 and 0.98 < x.max() <= 1.0


def test_seeds(folder):
  task_checks.check_seeds(lambda seed: _load(folder, seed=seed))


def test_partition_options(folder):
  shards = _load(folder, partition='shards', num_clients=10)
  for _, y in client_arrays.of_all(shards.client_data):
    # A shard of 20 lies within one class of 40.
    assert np.unique(y).size <= 2
  iid = _load(folder, partition='iid')
  assert {y.size for _, y in client_arrays.of_all(iid.client_data)} == {50}


def test_max_examples(folder):
  task = _load(folder, max_examples=200)
  assert np.bincount(task_checks.labels(task)).tolist() == [20] * 10
  assert task_checks.labels(_load(folder, max_examples=60000)).size == 400
  with pytest.raises(ValueError, match='70 examples.*at most 7 clients'):
    _load(folder, max_examples=70)
  with pytest.raises(ValueError, match='`max_examples` must be at least 1'):
    _load(folder, max_examples=0)


@pytest.mark.parametrize(
    'model, num_parameters', [('mlp', 79510), ('cnn', 56714)]
)
def test_trains(folder, model, num_parameters):
  task = _load(folder, model=model)
  assert client_arrays.num_parameters(task) == num_parameters
  client_arrays.check_one_round(task, batch_size=20)


def test_training_defaults(folder):
  task = fashion_mnist.load(
      data_dir=folder, num_clients=25, holdout_size=20, alpha=1.0
  )
  assert (task.batch_size, task.client_epochs) == (20, 1)
  assert (task.client_learning_rate, task.rounds) == (0.1, 40)
  assert task.cohort_size == 20


def test_wrong_options_raise(folder):
  with pytest.raises(ValueError, match="`model`.*found 'rnn'"):
    _load(folder, model='rnn')
  with pytest.raises(ValueError, match="`partition`.*found 'rnn'"):
    _load(folder, partition='rnn')
  with pytest.raises(ValueError, match='between 1 and 59, found 60'):
    _load(folder, holdout_size=60)


def _clients_labels(task):
  return [y.tolist() for _, y in client_arrays.of_all(task.client_data)]


def test_every_place_is_searched(tmp_path, monkeypatch, folder):
  expected = _clients_labels(_load(folder))
  plain = tmp_path / 'plain'
  plain.mkdir()
  _write(plain, suffix='')
  assert _clients_labels(_load(os.fspath(plain))) == expected
  monkeypatch.setenv('FEDAOT_DATA_DIR', folder)
  assert _clients_labels(_load(None)) == expected
  monkeypatch.delenv('FEDAOT_DATA_DIR')
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', folder)
  assert _clients_labels(_load(None)) == expected
  # Three of the four files are not enough.
  (plain / _NAMES[3]).unlink()
  assert _clients_labels(_load(os.fspath(plain))) == expected


def test_data_folder_comes_first(tmp_path, monkeypatch, folder):
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', folder)
  dark = _idx(np.zeros((400, 28, 28), np.uint8))
  _write(tmp_path, **{_NAMES[0]: dark})
  task = _load(os.fspath(tmp_path))
  x, _ = client_arrays.of_client(task.client_data, 'client_0')
  assert not x.any()


def test_missing_files_raise(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    _load(os.fspath(tmp_path))
  message = str(error.value)
  for part in (*_NAMES, os.fspath(tmp_path), fashion_mnist._DEBIAN_FOLDER):
    assert part in message
  assert 'apt-get install dataset-fashion-mnist' in message
  assert 'no network' in message
  assert '\n' not in message


@pytest.mark.parametrize(
    'changes, reason',
    [
        ({_NAMES[0]: b'\x00\x00\x08'}, f'{_NAMES[0]}.gz: its first bytes'),
        (
            {_NAMES[2]: _contents()[_NAMES[2]][:-1]},
            f'{_NAMES[2]}.gz: it has 47039 entries instead of 47040',
        ),
        (
            {_NAMES[1]: _idx(np.zeros(399, np.uint8))},
            f'has 400 images but .*{_NAMES[1]}.gz has 399 labels',
        ),
        (
            {_NAMES[3]: _idx(np.full(60, 10, np.uint8))},
            f'{_NAMES[3]}.gz: its labels go up to 10 instead of 9',
        ),
        (
            {_NAMES[0]: _idx(np.zeros((400, 28, 27), np.uint8))},
            r'shape \(400, 28, 27\)',
        ),
    ],
    ids=['magic', 'truncated', 'counts', 'labels', 'shape'],
)
def test_corrupt_files_raise(tmp_path, changes, reason):
  with pytest.raises(ValueError, match=reason) as error:
    _load(_write(tmp_path, **changes))
  assert os.fspath(tmp_path) in str(error.value)
  assert '\n' not in str(error.value)


def test_tensorflow_datasets(tmp_path, monkeypatch, folder):
  """Its own preparation of the files, but for the download itself."""
  plain = tmp_path / 'plain'
  plain.mkdir()
  _write(plain, suffix='')

  def extracted(manager, urls):
    del manager
    paths = {
        key: plain / url.rsplit('/', 1)[1].replace('.gz', '')
        for key, url in urls.items()
    }
    assert sorted(path.name for path in paths.values()) == sorted(_NAMES)
    return paths

  monkeypatch.setattr(
      tfds.download.DownloadManager, 'download_and_extract', extracted
  )
  from tensorflow_datasets.image_classification import mnist
  monkeypatch.setattr(mnist, '_TRAIN_EXAMPLES', _SIZES['train'])
  monkeypatch.setattr(mnist, '_TEST_EXAMPLES', _SIZES['t10k'])
  probed = []
  monkeypatch.setattr('tasks.download.probe', probed.append)
  prepared = os.fspath(tmp_path / 'prepared')
  task = _load(prepared, partition='iid')
  (url,) = probed
  assert url.endswith('/t10k-labels-idx1-ubyte.gz')
  original = _load(folder, partition='iid')
  images = lambda task: {
      (image.tobytes(), label)
      for x, y in client_arrays.of_all(task.client_data)
      for image, label in zip(x, y)
  }
  assert images(task) == images(original)
  assert len(task.holdout['y']) + len(task.test['y']) == 60
  # The second time it is there already.
  monkeypatch.delattr('tasks.download.probe')
  assert images(_load(prepared, partition='iid')) == images(original)
