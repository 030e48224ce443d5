"""Small files in the format of the data sets that TFF hosts."""

import contextlib
import sqlite3

import numpy as np
import tensorflow as tf

IMAGES_PER_CLIENT = {'train': 6, 'test': 4}


def write_emnist(path, num_writers=4, num_digit_writers=3):
  """Writes an EMNIST file in which no two images are equal.

  The first pixel of an image tells who wrote it, the second which of the
  writer's it is; the last is background. Labels are spread over all classes.

  Args:
    path: The file to write.
    num_writers: The number of writers in the splits of all characters.
    num_digit_writers: Their number in the splits of digits.
  """
  rng = np.random.default_rng(5)

  def examples(num_clients, num_classes, split):
    for client in range(num_clients):
      for index in range(IMAGES_PER_CLIENT[split]):
        pixels = rng.uniform(size=[28, 28]).astype(np.float32)
        pixels[0, 0] = client / 100
        pixels[0, 1] = (index + 10 * (split == 'test')) / 100
        pixels[-1] = 1.0
        yield f'writer_{client}', {
            'pixels': _floats(pixels),
            'label': _integers(int(rng.integers(num_classes))),
        }

  _write(
      path,
      {
          f'{kind}_{split}': list(examples(num_clients, num_classes, split))
          for kind, num_clients, num_classes in (
              ('all', num_writers, 62),
              ('digits_only', num_digit_writers, 10),
          )
          for split in ('train', 'test')
      },
  )


def write_cifar100(path, num_clients=4, num_test_clients=3):
  """Writes a CIFAR-100 file with random images of four classes.

  Args:
    path: The file to write.
    num_clients: The number of training clients.
    num_test_clients: The number of test clients.
  """
  rng = np.random.default_rng(6)

  def examples(num_clients, split):
    for client in range(num_clients):
      for _ in range(IMAGES_PER_CLIENT[split]):
        label = 30 * int(rng.integers(4))
        yield str(client), {
            'image': _integers(rng.integers(256, size=[32, 32, 3])),
            'label': _integers(label),
            'coarse_label': _integers(label // 5),
        }

  _write(
      path,
      {
          'train': list(examples(num_clients, 'train')),
          'test': list(examples(num_test_clients, 'test')),
      },
  )


def damage(path):
  """Overwrites the serialized examples, and leaves the tables as they are."""
  with contextlib.closing(sqlite3.connect(path)) as connection, connection:
    connection.execute("UPDATE examples SET serialized_example_proto = 'no'")


def _write(path, splits):
  """Writes pairs of client id and features, split by split."""
  with contextlib.closing(sqlite3.connect(path)) as connection, connection:
    connection.execute(
        'CREATE TABLE examples (split_name TEXT, client_id TEXT,'
        ' serialized_example_proto BLOB)'
    )
    connection.execute(
        'CREATE TABLE client_metadata (client_id TEXT, split_name TEXT,'
        ' num_examples INTEGER)'
    )
    for split, examples in splits.items():
      for client_id, feature in examples:
        example = tf.train.Example(features=tf.train.Features(feature=feature))
        connection.execute(
            'INSERT INTO examples VALUES (?, ?, ?)',
            (split, client_id, example.SerializeToString()),
        )
      ids = [client_id for client_id, _ in examples]
      connection.executemany(
          'INSERT INTO client_metadata VALUES (?, ?, ?)',
          [(i, split, ids.count(i)) for i in sorted(set(ids))],
      )


def _floats(values):
  return tf.train.Feature(
      float_list=tf.train.FloatList(value=np.ravel(values))
  )


def _integers(values):
  return tf.train.Feature(
      int64_list=tf.train.Int64List(value=np.ravel(values))
  )
