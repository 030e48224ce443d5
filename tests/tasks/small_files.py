"""Small files in the real formats of the data sets that are downloaded.

In all of them no two images are equal.
"""

import contextlib
import gzip
import hashlib
import os
import sqlite3

import numpy as np
import tensorflow as tf

# Whose images the files hold, and how many of each client.
FASHION_MNIST_SIZES = {'train': 400, 't10k': 60}
IMAGES_PER_CLIENT = {'train': 6, 'test': 4}


def encode_idx(array):
  """The bytes of an IDX file of bytes."""
  header = bytes([0, 0, 8, array.ndim])
  return header + np.array(array.shape, '>u4').tobytes() + array.tobytes()


def fashion_mnist():
  """The four files by name: a class is a bright row, all else is noise."""
  rng = np.random.default_rng(0)
  contents = {}
  for half, size in FASHION_MNIST_SIZES.items():
    labels = rng.permutation(np.arange(size) % 10).astype(np.uint8)
    images = rng.integers(100, size=(size, 28, 28), dtype=np.uint8)
    images[np.arange(size), 2 * labels + 4] += 155
    contents[f'{half}-images-idx3-ubyte'] = encode_idx(images)
    contents[f'{half}-labels-idx1-ubyte'] = encode_idx(labels)
  return contents


def write_fashion_mnist(folder, suffix='.gz', **changes):
  """Writes the four files, some of them with other contents."""
  compress = gzip.compress if suffix else bytes
  for name, content in {**fashion_mnist(), **changes}.items():
    (folder / (name + suffix)).write_bytes(compress(content))


def write_pneumonia(folder):
  """Writes a file in which images with pneumonia are the brighter ones.

  Returns:
    Its MD5 checksum.
  """
  rng = np.random.default_rng(0)
  arrays = {}
  for split, size in (('train', 200), ('val', 60), ('test', 40)):
    labels = rng.permutation(np.arange(size) % 4 > 0).astype(np.uint8)
    images = rng.integers(100, size=(size, 28, 28), dtype=np.uint8)
    arrays[f'{split}_images'] = images + 155 * labels[:, None, None]
    arrays[f'{split}_labels'] = labels[:, None]
  path = folder / 'pneumoniamnist.npz'
  np.savez_compressed(path, **arrays)
  return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar10(folder):
  """Writes what the archive of CIFAR-10 holds, 200 + 60 images.

  Returns:
    The images (uint8, `[n, 32, 32, 3]`) and labels of both splits.
  """
  rng = np.random.default_rng(8)
  batches = folder / 'cifar-10-batches-bin'
  batches.mkdir()
  (batches / 'batches.meta.txt').write_text(
      ''.join(f'class {label}\n' for label in range(10))
  )
  splits = {}
  for split, size, names in (
      ('train', 200, [f'data_batch_{index}.bin' for index in range(1, 6)]),
      ('test', 60, ['test_batch.bin']),
  ):
    images = rng.integers(256, size=[size, 32, 32, 3], dtype=np.uint8)
    labels = np.arange(size) % 10
    splits[split] = images, labels
    records = np.concatenate(
        [
            labels[:, np.newaxis].astype(np.uint8),
            images.transpose(0, 3, 1, 2).reshape(size, -1),
        ],
        axis=1,
    )
    for name, part in zip(names, np.split(records, len(names))):
      part.tofile(batches / name)
  return splits


def serve_cifar10(monkeypatch, folder):
  """Lets TensorFlow Datasets find this folder where it would download one."""
  monkeypatch.setattr(
      'tensorflow_datasets.core.utils.gcs_utils._is_gcs_disabled', True
  )
  monkeypatch.setattr(
      'urllib.request.urlopen', lambda *_, **__: open(os.devnull)
  )
  monkeypatch.setattr(
      'tensorflow_datasets.download.DownloadManager.download_and_extract',
      lambda self, url: os.fspath(folder),
  )


def write_emnist(path):
  """Writes an EMNIST file: four writers, three of them in the digits' splits.

  The first pixel of an image tells who wrote it, the second which of the
  writer's it is; the last row is background. Labels are of all classes.
  """
  rng = np.random.default_rng(5)

  def features(split, client, index):
    pixels = rng.uniform(size=[28, 28]).astype(np.float32)
    pixels[0, 0] = client / 100
    pixels[0, 1] = (index + 10 * split.endswith('test')) / 100
    pixels[-1] = 1.0
    values = tf.train.FloatList(value=np.ravel(pixels))
    num_classes = 62 if split.startswith('all') else 10
    return {
        'pixels': tf.train.Feature(float_list=values),
        'label': _integers(rng.integers(num_classes)),
    }

  num_clients = {'all_train': 4, 'all_test': 4}
  num_clients.update(digits_only_train=3, digits_only_test=3)
  _write_sqlite(path, num_clients, 'writer_', features)


def write_cifar100(path, num_clients=4):
  """Writes a CIFAR-100 file with random images of four classes.

  Its test split has three clients.
  """
  rng = np.random.default_rng(6)

  def features(*_):
    label = 30 * rng.integers(4)
    return {
        'image': _integers(rng.integers(256, size=[32, 32, 3])),
        'label': _integers(label),
        'coarse_label': _integers(label // 5),
    }

  _write_sqlite(path, {'train': num_clients, 'test': 3}, '', features)


def damage_sqlite(path):
  """Overwrites the serialized examples, and leaves the tables as they are."""
  with contextlib.closing(sqlite3.connect(path)) as connection, connection:
    connection.execute("UPDATE examples SET serialized_example_proto = 'no'")


def _write_sqlite(path, num_clients, prefix, features):
  """Writes every client's examples, split by split."""
  with contextlib.closing(sqlite3.connect(path)) as connection, connection:
    connection.execute(
        'CREATE TABLE examples (split_name TEXT, client_id TEXT,'
        ' serialized_example_proto BLOB)'
    )
    connection.execute(
        'CREATE TABLE client_metadata (client_id TEXT, split_name TEXT,'
        ' num_examples INTEGER)'
    )
    for split, clients in num_clients.items():
      size = IMAGES_PER_CLIENT['test' if split.endswith('test') else 'train']
      for client in range(clients):
        for index in range(size):
          feature = tf.train.Features(feature=features(split, client, index))
          example = tf.train.Example(features=feature).SerializeToString()
          connection.execute(
              'INSERT INTO examples VALUES (?, ?, ?)',
              (split, f'{prefix}{client}', example),
          )
        connection.execute(
            'INSERT INTO client_metadata VALUES (?, ?, ?)',
            (f'{prefix}{client}', split, size),
        )


def _integers(values):
  return tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(values)))
