"""Tests for cifar10, on a small data set in the real format."""

import collections
import os
import shutil
import urllib.error

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tasks import cifar10
from tests.tasks import cifar10_files
from tests.tasks import client_arrays

_SMALL = {
    'model': 'mlp',
    'num_clients': 5,
    'cohort_size': 2,
    'holdout_size': 10,
}


@pytest.fixture(name='prepared', scope='module')
def _prepared(tmp_path_factory):
  """The folder that TensorFlow Datasets has prepared, and what is in it."""
  folder = tmp_path_factory.mktemp('cifar10')
  splits = cifar10_files.write_binary(folder)
  with pytest.MonkeyPatch.context() as monkeypatch:
    cifar10_files.serve(monkeypatch, folder)
    cifar10.load(data_dir=os.fspath(folder / 'tfds'), **_SMALL)
  return os.fspath(folder / 'tfds'), splits


def _load(folder, **options):
  return cifar10.load(data_dir=folder, **{**_SMALL, **options})


def _by_image(x, y):
  return dict(zip((image.tobytes() for image in x), y.tolist()))


def _expected(splits, split):
  images, labels = splits[split]
  return _by_image(images.astype(np.float32) / np.float32(255), labels)


def test_every_image_is_used_once_with_its_label(prepared):
  folder, splits = prepared
  task = _load(folder)
  assert (task.name, task.num_classes) == ('cifar10', 10)
  assert task.client_data.element_type_structure == collections.OrderedDict(
      x=tf.TensorSpec([32, 32, 3], tf.float32), y=tf.TensorSpec([], tf.int64)
  )
  clients = client_arrays.of_all(task.client_data)
  assert [len(clients), sum(y.size for _, y in clients)] == [5, 200]
  assert min(y.size for _, y in clients) >= 10
  merged = {}
  for x, y in clients:
    merged.update(_by_image(x, y))
  assert merged == _expected(splits, 'train')
  holdout, test = _by_image(**task.holdout), _by_image(**task.test)
  assert (len(holdout), len(test)) == (10, 50)
  assert {**holdout, **test} == _expected(splits, 'test')
  assert np.bincount(task.holdout['y']).tolist() == [1] * 10


def test_partition_options(prepared):
  folder, _ = prepared
  iid = _load(folder, partition='iid')
  assert {y.size for _, y in client_arrays.of_all(iid.client_data)} == {40}
  shards = _load(folder, partition='shards', shards_per_client=1)
  for _, y in client_arrays.of_all(shards.client_data):
    assert np.unique(y).size == 2
  skewed, even = (_load(folder, alpha=alpha) for alpha in (0.05, 100.0))
  classes = lambda task: np.mean(
      [np.unique(y).size for _, y in client_arrays.of_all(task.client_data)]
  )
  assert classes(skewed) < 6 < 9 < classes(even)


def test_the_seed_fixes_everything(prepared):
  folder, _ = prepared
  first, again, other = (_load(folder, seed=seed) for seed in (0, 0, 1))
  arrays = lambda task: [
      task.holdout['x'],
      task.test['x'],
      client_arrays.of_client(task.client_data, 'client_0')[0],
      task.model.initial_weights[0][0],
  ]
  for a, b, c in zip(*map(arrays, (first, again, other))):
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    'model', ['cnn', pytest.param('resnet20', marks=pytest.mark.slow)]
)
def test_one_round(prepared, model):
  folder, _ = prepared
  task = _load(folder, model=model, num_clients=20, partition='iid')
  client_arrays.check_one_round(task, batch_size=5)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model': 'vgg'}, "`model`.*resnet20, .*'vgg'"),
        ({'partition': 'natural'}, "`partition`.*'natural'"),
        ({'num_clients': 21}, '21 clients.*at most 20'),
        ({'holdout_size': 60}, '`holdout_size`'),
        ({'cohort_size': 6}, '`cohort_size` is 6'),
    ],
)
def test_wrong_options_raise(prepared, options, message):
  folder, _ = prepared
  with pytest.raises(ValueError, match=message) as error:
    _load(folder, **options)
  assert '\n' not in str(error.value)


def _raise(error):
  raise error


@pytest.mark.parametrize(
    'target, error',
    [
        ('urllib.request.urlopen', urllib.error.URLError('no\nway')),
        ('urllib.request.urlopen', TimeoutError('no\nway')),
        (
            'tensorflow_datasets.download.DownloadManager.download_and_extract',
            tfds.download.DownloadError('no\nway'),
        ),
    ],
    ids=['unreachable', 'silent', 'refused'],
)
def test_missing_data_raise(monkeypatch, tmp_path, target, error):
  cifar10_files.serve(monkeypatch, tmp_path)
  monkeypatch.setattr(target, lambda *_, **__: _raise(error))
  monkeypatch.setenv('FEDAOT_DATA_DIR', os.fspath(tmp_path))
  with pytest.raises(FileNotFoundError, match='no way') as caught:
    cifar10.load()
  message = str(caught.value)
  assert os.path.join(tmp_path, 'cifar10', '3.0.2') in message
  assert 'cifar-10-binary.tar.gz' in message
  assert 'tfds build cifar10' in message
  assert '\n' not in message
  assert not os.path.exists(os.path.join(tmp_path, 'cifar10', '3.0.2'))


def test_a_server_without_head_requests_is_tried(monkeypatch, tmp_path):
  cifar10_files.write_binary(tmp_path, num_train=50, num_test=20)
  cifar10_files.serve(monkeypatch, tmp_path)
  refusal = urllib.error.HTTPError('url', 405, 'not allowed', {}, None)
  monkeypatch.setattr(
      'urllib.request.urlopen', lambda *_, **__: _raise(refusal)
  )
  task = _load(os.fspath(tmp_path / 'tfds'))
  assert task.test['y'].size == 10


def _truncate(name):
  def change(folder):
    (path,) = folder.glob(f'*{name}*')
    path.write_bytes(path.read_bytes()[:-1000])

  return change


@pytest.mark.parametrize(
    'change',
    [
        _truncate('train.tfrecord'),
        _truncate('test.tfrecord'),
        lambda folder: next(folder.glob('*test.tfrecord*')).unlink(),
        lambda folder: (folder / 'dataset_info.json').write_text('{"na'),
    ],
    ids=['train', 'test', 'no_test', 'info'],
)
def test_broken_data_raise(prepared, tmp_path, change):
  source, _ = prepared
  shutil.copytree(source, tmp_path / 'copy')
  folder = tmp_path / 'copy' / 'cifar10' / '3.0.2'
  change(folder)
  with pytest.raises(ValueError, match='cifar10 cannot use') as error:
    _load(os.fspath(tmp_path / 'copy'))
  message = str(error.value)
  assert os.fspath(folder) in message
  assert '\n' not in message
