"""Tests for cifar100, on a small file in the real format."""

import collections
import os
import shutil
import urllib.error

import numpy as np
import pytest
import tensorflow as tf

from tasks import cifar100
from tests.tasks import client_arrays
from tests.tasks import hosted_file

_FILE_NAME = 'cifar100.sqlite'
_SMALL = {'model': 'cnn', 'cohort_size': 2, 'holdout_size': 3}


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('cifar100')
  hosted_file.write_cifar100(folder / _FILE_NAME)
  return os.fspath(folder)


def _load(folder, **options):
  return cifar100.load(data_dir=folder, **{**_SMALL, **options})


def test_clients_are_those_of_the_file(folder):
  task = _load(folder)
  assert (task.name, task.num_classes) == ('cifar100', 100)
  assert task.client_data.client_ids == ['0', '1', '2', '3']
  assert task.client_data.element_type_structure == collections.OrderedDict(
      x=tf.TensorSpec([32, 32, 3], tf.float32), y=tf.TensorSpec([], tf.int64)
  )
  # Read with the same generator that wrote the file.
  rng = np.random.default_rng(6)
  for x, y in client_arrays.of_all(task.client_data):
    for image, label in zip(x, y):
      assert label == 30 * rng.integers(4)
      expected = rng.integers(256, size=[32, 32, 3]) / 255
      np.testing.assert_allclose(image, expected, rtol=1e-6)


def test_clients_holdout_and_test_set_are_disjoint(folder):
  task = _load(folder)
  clients = np.concatenate(
      [x for x, _ in client_arrays.of_all(task.client_data)]
  )
  sets = [
      client_arrays.images(x)
      for x in (clients, task.holdout['x'], task.test['x'])
  ]
  assert [len(images) for images in sets] == [24, 3, 9]
  assert len(set.union(*sets)) == 36
  for x in (task.holdout['x'], task.test['x']):
    assert 0.0 <= x.min() < 0.01 < 0.99 < x.max() <= 1.0


def test_subset_of_clients_leaves_the_holdout(folder):
  full, subset = _load(folder), _load(folder, num_clients=2)
  assert set(subset.client_data.client_ids) < set(full.client_data.client_ids)
  assert len(subset.client_data.client_ids) == 2
  np.testing.assert_array_equal(full.holdout['x'], subset.holdout['x'])
  np.testing.assert_array_equal(full.test['x'], subset.test['x'])


def test_the_seed_fixes_everything(folder):
  first, again, other = (_load(folder, seed=seed) for seed in (0, 0, 1))
  arrays = lambda task: [
      task.holdout['x'],
      task.test['x'],
      task.model.initial_weights[0][0],
  ]
  for a, b, c in zip(*map(arrays, (first, again, other))):
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_client_is_read_only_when_asked(folder, tmp_path):
  copy = shutil.copy(os.path.join(folder, _FILE_NAME), os.fspath(tmp_path))
  task = _load(os.fspath(tmp_path))
  hosted_file.damage(copy)
  dataset = task.client_data.create_tf_dataset_for_client('0')
  with pytest.raises(tf.errors.InvalidArgumentError):
    next(iter(dataset))


def test_one_round(folder):
  client_arrays.check_one_round(_load(folder))


@pytest.mark.parametrize(
    'options, message',
    [
        ({'model': 'resnet'}, "`model`.*resnet20, .*'resnet'"),
        ({'num_clients': 5}, '`num_clients`.*between 1 and 4, found 5'),
        ({'holdout_size': 0}, '`holdout_size`.*found 0'),
        ({'holdout_size': 12}, '`holdout_size`'),
    ],
)
def test_wrong_options_raise(folder, options, message):
  with pytest.raises(ValueError, match=message) as error:
    _load(folder, **options)
  assert '\n' not in str(error.value)


def test_missing_file_raises(monkeypatch, tmp_path):
  def urlopen(*args, **kwargs):
    raise urllib.error.URLError('no network')

  monkeypatch.setattr('urllib.request.urlopen', urlopen)
  with pytest.raises(FileNotFoundError) as error:
    cifar100.load(data_dir=os.fspath(tmp_path))
  message = str(error.value)
  assert os.fspath(tmp_path / _FILE_NAME) in message
  assert 'tff-datasets-public/cifar100.sqlite.lzma' in message
  assert '\n' not in message


def test_damaged_examples_raise(folder, tmp_path):
  copy = shutil.copy(os.path.join(folder, _FILE_NAME), os.fspath(tmp_path))
  hosted_file.damage(copy)
  with pytest.raises(ValueError, match='is corrupt') as error:
    _load(os.fspath(tmp_path))
  assert copy in str(error.value)
  assert '\n' not in str(error.value)
