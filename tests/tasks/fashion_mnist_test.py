"""Tests for the places of fashion_mnist's files."""

import os

import numpy as np
import pytest

from tasks import fashion_mnist
from tests.tasks import contract_test
from tests.tasks import small_files

_NAMES = tuple(small_files.fashion_mnist())


@pytest.fixture(autouse=True)
def _no_debian(monkeypatch):
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', '/no/debian')


def _images(task):
  return {
      (image.tobytes(), label)
      for x, y in contract_test.clients(task)
      for image, label in zip(x, y)
  }


def test_labels_belong_to_the_images(load):
  task = load('fashion_mnist')
  for x, y in (
      *contract_test.clients(task), task.holdout.values(), task.test.values()
  ):
    # Each image has the bright row of its label, and 155 / 255 is 0.61.
    rows = x.mean(axis=(2, 3))
    np.testing.assert_array_equal((rows.argmax(axis=1) - 4) // 2, y)
    np.testing.assert_allclose(rows.max(axis=1), 0.8, atol=0.1)


def test_max_examples(load):
  sampled = load('fashion_mnist', max_examples=200)
  y = np.concatenate([y for _, y in contract_test.clients(sampled)])
  assert np.bincount(y).tolist() == [20] * 10
  everything = _images(load('fashion_mnist', max_examples=400))
  assert len(everything) == 400 and _images(sampled) < everything
  with pytest.raises(ValueError, match='70 examples.*at most 7 clients'):
    load('fashion_mnist', max_examples=70)


def test_every_place_is_searched(load, folders, tmp_path, monkeypatch):
  def read(data_dir):
    task = load('fashion_mnist', data_dir=data_dir)
    return [y.tolist() for _, y in contract_test.clients(task)]

  folder = os.fspath(folders['fashion_mnist'])
  expected = read(folder)
  small_files.write_fashion_mnist(tmp_path, suffix='')
  assert read(os.fspath(tmp_path)) == expected
  monkeypatch.setenv('FEDAOT_DATA_DIR', folder)
  assert read(None) == expected
  monkeypatch.delenv('FEDAOT_DATA_DIR')
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', folder)
  assert read(None) == expected
  # Three of the four files are not enough.
  (tmp_path / _NAMES[3]).unlink()
  assert read(os.fspath(tmp_path)) == expected
  # The data folder comes first.
  dark = small_files.encode_idx(np.zeros((400, 28, 28), np.uint8))
  small_files.write_fashion_mnist(tmp_path, **{_NAMES[0]: dark})
  task = load('fashion_mnist', data_dir=os.fspath(tmp_path))
  assert not contract_test.client(task, 0)[0].any()


def test_missing_files_raise(load, tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    load('fashion_mnist', data_dir=os.fspath(tmp_path))
  message = str(error.value)
  for part in (
      *_NAMES,
      f'{tmp_path} or /no/debian',
      'apt-get install dataset-fashion-mnist',
      'no network',
  ):
    assert part in message
  assert '\n' not in message


@pytest.mark.parametrize(
    'changes, reason',
    [
        ({_NAMES[0]: b'\x00\x00\x08'}, f'{_NAMES[0]}.gz: its first bytes'),
        (
            {_NAMES[1]: small_files.encode_idx(np.zeros(399, np.uint8))},
            f'has 400 images but .*{_NAMES[1]}.gz has 399 labels',
        ),
        (
            {_NAMES[3]: small_files.encode_idx(np.full(60, 10, np.uint8))},
            f'{_NAMES[3]}.gz: its labels go up to 10 instead of 9',
        ),
    ],
    ids=['magic', 'counts', 'labels'],
)
def test_corrupt_files_raise(load, tmp_path, changes, reason):
  small_files.write_fashion_mnist(tmp_path, **changes)
  with pytest.raises(ValueError, match=reason) as error:
    load('fashion_mnist', data_dir=os.fspath(tmp_path))
  assert os.fspath(tmp_path) in str(error.value)
  assert '\n' not in str(error.value)


def test_tensorflow_datasets(load, tmp_path, monkeypatch):
  """Its own preparation of the files, but for the download itself."""
  plain = tmp_path / 'plain'
  plain.mkdir()
  small_files.write_fashion_mnist(plain, suffix='')
  monkeypatch.setattr(
      'tensorflow_datasets.download.DownloadManager.download_and_extract',
      lambda _, urls: {
          key: plain / url.rsplit('/', 1)[1].replace('.gz', '')
          for key, url in urls.items()
      },
  )
  from tensorflow_datasets.image_classification import mnist

  monkeypatch.setattr(
      mnist, '_TRAIN_EXAMPLES', small_files.FASHION_MNIST_SIZES['train']
  )
  monkeypatch.setattr(
      mnist, '_TEST_EXAMPLES', small_files.FASHION_MNIST_SIZES['t10k']
  )
  # It asks for a file that the data set is downloaded from, and only once.
  checked = []
  monkeypatch.setattr('tasks.data_files.check_server', checked.append)
  prepared = os.fspath(tmp_path / 'prepared')
  for _ in range(2):
    task = load('fashion_mnist', data_dir=prepared)
    assert _images(task) == _images(load('fashion_mnist'))
    assert len(task.holdout['y']) + len(task.test['y']) == 60
  assert checked == [mnist.FashionMNIST.URL + _NAMES[3] + '.gz']
