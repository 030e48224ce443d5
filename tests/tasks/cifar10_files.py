"""A small CIFAR-10, prepared by TensorFlow Datasets from its binary format."""

import os

import numpy as np
import tensorflow_datasets as tfds

NUM_CLASSES = 10


def write_binary(folder, num_train=200, num_test=60):
  """Writes what the archive of CIFAR-10 holds, with random images.

  Labels go from 0 to 9 in turn.

  Args:
    folder: The folder to write to.
    num_train: The number of training images, a multiple of 5.
    num_test: The number of test images.

  Returns:
    The images (uint8, `[n, 32, 32, 3]`) and labels of both splits.
  """
  rng = np.random.default_rng(8)
  batches = folder / 'cifar-10-batches-bin'
  batches.mkdir()
  (batches / 'batches.meta.txt').write_text(
      ''.join(f'class {label}\n' for label in range(NUM_CLASSES))
  )
  splits = {}
  for split, size in (('train', num_train), ('test', num_test)):
    images = rng.integers(256, size=[size, 32, 32, 3], dtype=np.uint8)
    labels = np.arange(size) % NUM_CLASSES
    splits[split] = images, labels
    records = np.concatenate(
        [
            labels[:, np.newaxis].astype(np.uint8),
            images.transpose(0, 3, 1, 2).reshape(size, -1),
        ],
        axis=1,
    )
    if split == 'test':
      records.tofile(batches / 'test_batch.bin')
    else:
      for index, part in enumerate(np.split(records, 5), start=1):
        part.tofile(batches / f'data_batch_{index}.bin')
  return splits


def serve(monkeypatch, folder):
  """Lets TensorFlow Datasets find this folder where it would download one.

  Args:
    monkeypatch: A `pytest.MonkeyPatch`.
    folder: What `write_binary` has filled.
  """
  forbid_network(monkeypatch)
  monkeypatch.setattr(
      'urllib.request.urlopen', lambda *_, **__: open(os.devnull)
  )
  monkeypatch.setattr(
      tfds.download.DownloadManager,
      'download_and_extract',
      lambda self, url: os.fspath(folder),
  )


def forbid_network(monkeypatch):
  """Keeps TensorFlow Datasets from looking for what is in its bucket."""
  monkeypatch.setattr(
      'tensorflow_datasets.core.utils.gcs_utils._is_gcs_disabled', True
  )
