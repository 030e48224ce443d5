"""Tests for femnist and cifar100, whose clients are those of a file."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

import tasks
from tests.tasks import contract_test
from tests.tasks import small_files

_FILE_NAMES = {'femnist': 'emnist_all.sqlite', 'cifar100': 'cifar100.sqlite'}


def _writers(x):
  """Who wrote the images, from their first pixel."""
  return set(np.rint(100 * (1 - x[:, 0, 0, 0])).astype(int).tolist())


def _numbers(x):
  """Which of the writer's images these are, from their second pixel."""
  return np.rint(100 * (1 - x[:, 0, 1, 0])).astype(int).tolist()


def _images(x):
  return {image.tobytes() for image in x}


@pytest.mark.parametrize('classes, num_writers', [(62, 4), (10, 3)])
def test_every_writer_is_a_client_of_femnist(load, classes, num_writers):
  task = load('femnist', model='mlp', classes=classes)
  assert task.num_classes == classes
  assert task.model.initial_weights[0][-1].shape == (classes,)
  assert task.client_data.client_ids == [
      f'writer_{index}' for index in range(num_writers)
  ]
  for index, (x, y) in enumerate(contract_test.clients(task)):
    assert _writers(x) == {index}
    assert _numbers(x) == list(range(6))
    assert y.max() < classes
    # In the file, ink is 0 and background 1.
    assert not x[:, -1].any() and x[:, 0, 0].min() > 0.9


def test_every_client_of_cifar100_has_its_images(load):
  task = load('cifar100', model='cnn')
  assert task.client_data.client_ids == ['0', '1', '2', '3']
  # Read with the same generator that wrote the file.
  rng = np.random.default_rng(6)
  for x, y in contract_test.clients(task):
    for image, label in zip(x, y):
      assert label == 30 * rng.integers(4)
      expected = rng.integers(256, size=[32, 32, 3]) / 255
      np.testing.assert_allclose(image, expected, rtol=1e-6)


def test_a_subset_of_clients(load):
  for name in _FILE_NAMES:
    full = load(name, model='cnn')
    subset = load(name, model='cnn', num_clients=2)
    ids = subset.client_data.client_ids
    assert len(ids) == 2 and set(ids) < set(full.client_data.client_ids)
    if name == 'cifar100':
      np.testing.assert_array_equal(full.holdout['x'], subset.holdout['x'])
      np.testing.assert_array_equal(full.test['x'], subset.test['x'])
    else:
      pooled = np.concatenate([subset.holdout['x'], subset.test['x']])
      assert len(pooled) == 8
      assert _writers(pooled) == {int(client_id[-1]) for client_id in ids}
    with pytest.raises(ValueError, match='num_clients.*<= 4; found 5'):
      load(name, num_clients=5)


def test_max_client_examples(load):
  capped = load('femnist', model='mlp', max_client_examples=4)
  numbers = []
  for index, client_id in enumerate(capped.client_data.client_ids):
    x, _ = contract_test.client(capped, index)
    # As a client's training reads them.
    dataset = capped.client_data.create_tf_dataset_for_client(client_id)
    again = np.concatenate([batch['x'] for batch in dataset.batch(3)])
    np.testing.assert_array_equal(x, again)
    assert len(_images(x)) == 4
    numbers.append(_numbers(x))
    assert numbers[-1] == sorted(numbers[-1])
  # Not the head of the file for every seed.
  other = load('femnist', model='mlp', max_client_examples=4, seed=1)
  assert _numbers(contract_test.client(other, 0)[0]) != numbers[0]
  free = load('femnist', model='mlp', max_client_examples=100)
  assert len(contract_test.client(free, 0)[1]) == 6


def test_max_test_examples_leaves_the_holdout(load):
  full, capped = load('femnist'), load('femnist', max_test_examples=5)
  np.testing.assert_array_equal(full.holdout['x'], capped.holdout['x'])
  assert len(capped.test['y']) == 5
  assert _images(capped.test['x']) < _images(full.test['x'])


def test_test_examples_are_left(load):
  assert load('femnist', model='mlp', holdout_size=15).test['y'].size == 1
  with pytest.raises(ValueError, match='holdout_size must.*15; found 16'):
    load('femnist', holdout_size=16)


@pytest.mark.parametrize('name', _FILE_NAMES)
def test_damaged_examples_raise(load, folders, tmp_path, name):
  copy = shutil.copy(folders[name] / _FILE_NAMES[name], tmp_path)
  options = {'model': 'mlp', 'data_dir': os.fspath(tmp_path)}
  task = load(name, **options)
  small_files.damage_sqlite(copy)
  # A client is read only when asked.
  client_id = task.client_data.client_ids[0]
  dataset = task.client_data.create_tf_dataset_for_client(client_id)
  with pytest.raises(tf.errors.InvalidArgumentError):
    next(iter(dataset))
  with pytest.raises(ValueError, match=f'{copy} is corrupt') as error:
    load(name, **options)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', _FILE_NAMES)
def test_missing_file_raises(monkeypatch, tmp_path, name):
  monkeypatch.setenv('FEDAOT_DATA_DIR', os.fspath(tmp_path / 'new'))
  url = f'tff-datasets-public/{_FILE_NAMES[name]}.lzma .*no network'
  with pytest.raises(FileNotFoundError, match=url) as error:
    tasks.load_task(name)
  assert os.fspath(tmp_path / 'new' / _FILE_NAMES[name]) in str(error.value)
  assert '\n' not in str(error.value)
