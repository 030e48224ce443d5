"""Tests for the places of fashion_mnist's files."""

import gzip
import os
import tracemalloc

import numpy as np
import pytest

from tasks import fashion_mnist
from tasks import idx
from tests.tasks import contract_test
from tests.tasks import small_files

_NAMES = tuple(small_files.fashion_mnist())


@pytest.fixture(autouse=True)
def _no_debian(monkeypatch):
  monkeypatch.setattr(fashion_mnist, '_DEBIAN_FOLDER', '/no/debian')


def _idx(shape, value=0):
  return small_files.encode_idx(np.full(shape, value, np.uint8))


def _images(task):
  return {
      (image.tobytes(), label)
      for x, y in contract_test.clients(task)
      for image, label in zip(x, y)
  }


def test_labels_belong_to_the_images(load):
  task = load('fashion_mnist')
  for x, y in (
      *contract_test.clients(task),
      task.holdout.values(),
      task.test.values(),
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
  # The data folder comes first, and in it the compressed files.
  dark = {_NAMES[0]: _idx((400, 28, 28))}
  small_files.write_fashion_mnist(tmp_path, **dark)
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


_IMAGES = small_files.fashion_mnist()[_NAMES[0]]
_COMPRESSED = gzip.compress(_IMAGES, mtime=0)


@pytest.mark.parametrize(
    'index, content, reason',
    [
        (0, b'', 'first bytes are missing instead of 00 00 08 03'),
        (0, b'PK\x03\x04', '50 4b 03 04 instead of 00 00 08 03'),
        (1, _IMAGES, '00 00 08 03 instead of 00 00 08 01'),
        (0, _IMAGES[:14], 'ends within its header'),
        (0, _IMAGES[:-1], 'has 313599 entries instead of 313600'),
        (0, _IMAGES + b'\x00', 'has more than 313600 entries'),
        (0, _idx((400, 28, 27)), r'shape \(400, 28, 27\) instead of'),
        (0, _idx((0, 28, 28)), r'shape \(0, 28, 28\) instead of'),
        (1, _idx((60001,)), r'shape \(60001,\).*n from 1 to 60000;'),
        (0, _COMPRESSED[:-10], 'ended before'),
        (0, _COMPRESSED[:10] + b'\xff' * 30, 'invalid'),
        (0, _COMPRESSED[:-8] + bytes(8), 'CRC'),
        (1, _idx((399,)), f'400 images but .*{_NAMES[1]} has 399 labels'),
        (3, _idx((60,), 10), 'its labels go up to 10 instead of 9'),
    ],
)
def test_corrupt_files_raise(load, tmp_path, index, content, reason):
  small_files.write_fashion_mnist(tmp_path, '', **{_NAMES[index]: content})
  with pytest.raises(ValueError, match=reason) as error:
    load('fashion_mnist', data_dir=os.fspath(tmp_path))
  assert os.fspath(tmp_path / _NAMES[index]) in str(error.value)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('suffix', ['', '.gz'])
@pytest.mark.parametrize(
    'start, reason',
    [
        (bytes(4), 'first bytes are 00 00 00 00'),
        (_idx((1, 28, 27)), 'header says shape'),
        (_IMAGES[:4] + np.array((42000, 28, 28), '>u4').tobytes(), 'shape'),
        (_idx((1, 28, 28)), 'more than 784 entries'),
    ],
    ids=['kind', 'shape', 'count', 'size'],
)
def test_refused_file_is_not_unpacked(tmp_path, start, reason, suffix):
  path = tmp_path / ('images' + suffix)
  compress = gzip.compress if suffix else bytes
  path.write_bytes(compress(start + bytes(42000 * 28 * 28)))
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match=f'{path}: .*{reason}.*get it anew'):
      idx.read(os.fspath(path), (28, 28), maximum=400)
    assert tracemalloc.get_traced_memory()[1] < 2**20
  finally:
    tracemalloc.stop()


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
