"""Tests for femnist, on a small file in the real format."""

import collections
import os
import shutil
import urllib.error

import numpy as np
import pytest
import tensorflow as tf

from tasks import femnist
from tests.tasks import client_arrays
from tests.tasks import hosted_file

_FILE_NAME = 'emnist_all.sqlite'
_SMALL = {'model': 'mlp', 'cohort_size': 2, 'holdout_size': 3}


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('emnist')
  hosted_file.write_emnist(folder / _FILE_NAME)
  return os.fspath(folder)


def _load(folder, **options):
  return femnist.load(data_dir=folder, **{**_SMALL, **options})


def _copy(folder, tmp_path):
  """Copies the file to where it may be damaged."""
  return shutil.copy(os.path.join(folder, _FILE_NAME), os.fspath(tmp_path))


def _writers(x):
  """Who wrote the images, from their first pixel."""
  return set(np.rint(100 * (1 - x[:, 0, 0, 0])).astype(int).tolist())


@pytest.mark.parametrize('classes, num_writers', [(62, 4), (10, 3)])
def test_every_writer_is_a_client(folder, classes, num_writers):
  task = _load(folder, classes=classes)
  assert (task.name, task.num_classes) == ('femnist', classes)
  ids = task.client_data.client_ids
  assert ids == [f'writer_{index}' for index in range(num_writers)]
  for index, client_id in enumerate(ids):
    x, y = client_arrays.of_client(task.client_data, client_id)
    assert _writers(x) == {index}
    assert y.size == hosted_file.IMAGES_PER_CLIENT['train']
    assert y.max() < classes


def test_examples_have_ink_of_value_one(folder):
  task = _load(folder)
  assert task.client_data.element_type_structure == collections.OrderedDict(
      x=tf.TensorSpec([28, 28, 1], tf.float32), y=tf.TensorSpec([], tf.int64)
  )
  x, y = client_arrays.of_client(task.client_data, 'writer_1')
  assert y.dtype == np.int64
  for images in (x, task.holdout['x'], task.test['x']):
    assert not images[:, -1].any()
    assert 0.0 <= images.min() < images.max() <= 1.0
    # In the file the first pixel of every writer is next to 0.
    assert images[:, 0, 0].min() > 0.9
  np.testing.assert_allclose(x[:, 0, 1, 0], 1 - np.arange(6) / 100, rtol=1e-6)


def test_clients_holdout_and_test_set_are_disjoint(folder):
  task = _load(folder)
  clients = np.concatenate(
      [x for x, _ in client_arrays.of_all(task.client_data)]
  )
  sets = [
      client_arrays.images(x)
      for x in (clients, task.holdout['x'], task.test['x'])
  ]
  assert [len(images) for images in sets] == [24, 3, 13]
  assert len(set.union(*sets)) == 40


def test_subset_of_writers(folder):
  task = _load(folder, num_clients=2)
  ids = task.client_data.client_ids
  assert len(ids) == 2 and ids == sorted(ids)
  writers = {int(client_id[-1]) for client_id in ids}
  pooled = np.concatenate([task.holdout['x'], task.test['x']])
  assert len(pooled) == 8
  assert _writers(pooled) == writers


def test_max_client_examples(folder):
  capped = _load(folder, max_client_examples=4)
  numbers = []
  for client_id in capped.client_data.client_ids:
    x, _ = client_arrays.of_client(capped.client_data, client_id)
    again, _ = client_arrays.of_client(capped.client_data, client_id)
    np.testing.assert_array_equal(x, again)
    assert len(client_arrays.images(x)) == 4
    numbers.append(np.rint(100 * (1 - x[:, 0, 1, 0])).tolist())
    assert numbers[-1] == sorted(numbers[-1])
  # Not the head of the file for every seed.
  other = _load(folder, max_client_examples=4, seed=1).client_data
  x, _ = client_arrays.of_client(other, 'writer_0')
  assert np.rint(100 * (1 - x[:, 0, 1, 0])).tolist() != numbers[0]
  free = _load(folder, max_client_examples=100).client_data
  assert client_arrays.of_client(free, 'writer_0')[1].size == 6


def test_max_test_examples_leaves_the_holdout(folder):
  full, capped = _load(folder), _load(folder, max_test_examples=5)
  np.testing.assert_array_equal(full.holdout['x'], capped.holdout['x'])
  assert len(capped.test['y']) == 5
  assert client_arrays.images(capped.test['x']) < client_arrays.images(
      full.test['x']
  )


def test_the_seed_fixes_everything(folder):
  first, again, other = (_load(folder, seed=seed) for seed in (0, 0, 1))
  for field in ('holdout', 'test'):
    for key in ('x', 'y'):
      arrays = [getattr(task, field)[key] for task in (first, again, other)]
      np.testing.assert_array_equal(arrays[0], arrays[1])
      assert not np.array_equal(arrays[0], arrays[2])
  kernels = [task.model.initial_weights[0][0] for task in (first, again, other)]
  np.testing.assert_array_equal(kernels[0], kernels[1])
  assert not np.array_equal(kernels[0], kernels[2])


def test_a_client_is_read_only_when_asked(folder, tmp_path):
  """Loading reads the test split; training images are looked up later."""
  copy = _copy(folder, tmp_path)
  task = _load(os.fspath(tmp_path))
  hosted_file.damage(copy)
  dataset = task.client_data.create_tf_dataset_for_client('writer_0')
  with pytest.raises(tf.errors.InvalidArgumentError):
    next(iter(dataset))


@pytest.mark.parametrize(
    'model, classes, expected',
    [
        ('cnn_dropout', 62, 1206590),
        ('cnn_dropout', 10, 1199882),
        ('cnn', 62, 60094),
        ('cnn', 10, 56714),
        ('mlp', 62, 84762),
        ('mlp', 10, 79510),
    ],
)
def test_models(folder, model, classes, expected):
  task = _load(folder, model=model, classes=classes)
  assert client_arrays.num_parameters(task) == expected


def test_one_round(folder):
  client_arrays.check_one_round(_load(folder, model='cnn_dropout'))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model': 'resnet'}, "`model`.*cnn_dropout, cnn, mlp.*'resnet'"),
        ({'classes': 26}, '`classes` must be one of 10, 62, found 26'),
        ({'num_clients': 5}, '`num_clients`.*between 1 and 4, found 5'),
        ({'num_clients': 0}, '`num_clients`.*between 1 and 4, found 0'),
        ({'max_client_examples': 0}, '`max_client_examples`.*found 0'),
        ({'max_test_examples': 0}, '`max_test_examples`.*found 0'),
        ({'holdout_size': 0}, '`holdout_size`.*found 0'),
        ({'holdout_size': 16}, '`holdout_size` must be below 16.*found 16'),
        ({'cohort_size': 5}, '`cohort_size` is 5'),
    ],
)
def test_wrong_options_raise(folder, options, message):
  with pytest.raises(ValueError, match=message) as error:
    _load(folder, **options)
  assert '\n' not in str(error.value)


def test_missing_file_raises(monkeypatch, tmp_path):
  def urlopen(*args, **kwargs):
    raise urllib.error.URLError('no\nnetwork')

  monkeypatch.setattr('urllib.request.urlopen', urlopen)
  monkeypatch.setenv('FEDAOT_DATA_DIR', os.fspath(tmp_path / 'new'))
  with pytest.raises(FileNotFoundError) as error:
    femnist.load()
  message = str(error.value)
  assert os.fspath(tmp_path / 'new' / _FILE_NAME) in message
  assert 'tff-datasets-public/emnist_all.sqlite.lzma' in message
  assert 'no network' in message
  assert '\n' not in message


def test_damaged_examples_raise(folder, tmp_path):
  copy = _copy(folder, tmp_path)
  hosted_file.damage(copy)
  with pytest.raises(ValueError, match='is corrupt') as error:
    _load(os.fspath(tmp_path))
  assert copy in str(error.value)
  assert '\n' not in str(error.value)
