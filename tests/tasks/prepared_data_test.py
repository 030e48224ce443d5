"""Tests for prepared_data, on cifar10."""

import os
import shutil
import urllib.error

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.tasks import contract_test
from tests.tasks import small_files


def _raise(error):
  raise error


def _by_image(x, y):
  return dict(zip((image.tobytes() for image in x), y.tolist()))


def test_every_image_has_its_label(load, tmp_path):
  splits = small_files.write_cifar10(tmp_path)
  task = load('cifar10')
  held = map(np.concatenate, zip(*contract_test.clients(task)))
  server = {**_by_image(**task.holdout), **_by_image(**task.test)}
  for found, split in ((_by_image(*held), 'train'), (server, 'test')):
    images, labels = splits[split]
    floats = images.astype(np.float32) / np.float32(255)
    assert found == _by_image(floats, labels)


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
def test_missing_data_raise(load, monkeypatch, tmp_path, target, error):
  small_files.serve_cifar10(monkeypatch, tmp_path)
  monkeypatch.setattr(target, lambda *_, **__: _raise(error))
  monkeypatch.setenv('FEDAOT_DATA_DIR', os.fspath(tmp_path))
  with pytest.raises(FileNotFoundError, match='no way') as caught:
    load('cifar10', data_dir=None)
  message = str(caught.value)
  folder = os.path.join(tmp_path, 'cifar10', '3.0.2')
  for part in (folder, 'cifar-10-binary.tar.gz', 'tfds build cifar10'):
    assert part in message
  assert '\n' not in message
  assert not os.path.exists(folder)


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
def test_broken_data_raise(load, folders, tmp_path, change):
  shutil.copytree(folders['cifar10'] / 'cifar10', tmp_path / 'cifar10')
  folder = tmp_path / 'cifar10' / '3.0.2'
  change(folder)
  with pytest.raises(ValueError, match='cifar10 cannot use') as error:
    load('cifar10', data_dir=os.fspath(tmp_path))
  assert os.fspath(folder) in str(error.value)
  assert '\n' not in str(error.value)
