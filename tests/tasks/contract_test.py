"""What holds for every task, on its data or small files of their format."""

import dataclasses
import functools
import hashlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import tasks


@dataclasses.dataclass(frozen=True)
class _Case:
  """What is expected of a task."""

  shape: tuple  # Of one example.
  sizes: tuple  # Clients, all their examples, hold-out and test examples.
  parameters: dict  # The number of parameters of every model.
  # Of each class in all sets together, if the hold-out is stratified.
  members: tuple = ()
  fixed: tuple = ()  # What does not depend on the seed.


_CIFAR_SHAPE, _MNIST_SHAPE = (32, 32, 3), (28, 28, 1)
_MLP_AND_CNN = {'mlp': 79510, 'cnn': 56714}
_CASES = {
    'femnist': _Case(
        _MNIST_SHAPE,
        (4, 24, 3, 13),
        {'cnn_dropout': 1206590, 'cnn': 60094, 'mlp': 84762},
        fixed=('clients',),
    ),
    'cifar10': _Case(
        _CIFAR_SHAPE,
        (5, 200, 10, 50),
        {'resnet20': 269722, 'resnet18': 11173962, 'cnn': 79530, 'mlp': 308310},
        members=(26,) * 10,
    ),
    'cifar100': _Case(
        _CIFAR_SHAPE,
        (4, 24, 3, 9),
        {'resnet20': 275572, 'resnet18': 11220132, 'cnn': 85380, 'mlp': 317400},
        fixed=('clients',),
    ),
    'pneumonia': _Case(
        _MNIST_SHAPE,
        (8, 200, 20, 40),
        {'cnn': 56194, 'mlp': 78702},
        members=(65, 195),
        fixed=('test',),
    ),
    'fashion_mnist': _Case(
        _MNIST_SHAPE, (8, 400, 20, 40), _MLP_AND_CNN, members=(46,) * 10
    ),
    'mnist5k': _Case(
        _MNIST_SHAPE, (50, 3900, 100, 1000), _MLP_AND_CNN, members=(500,) * 10
    ),
    'digits': _Case(
        (8, 8, 1),
        (30, 1300, 100, 397),
        {'mlp': 7510, 'cnn': 19466},
        members=(178, 182, 177, 183, 181, 182, 181, 179, 174, 180),
    ),
    'breast_cancer': _Case(
        (30,), (20, 400, 50, 119), {'mlp': 1058}, members=(212, 357)
    ),
}
_PARTITIONED = [
    name for name, spec in tasks.TASKS.items() if 'partition' in spec.defaults
]
# Those whose test set is drawn before the hold-out, or given.
_OWN_TEST_SET = ['pneumonia', 'mnist5k', 'digits', 'breast_cancer']


@pytest.fixture(name='loaded', scope='module')
def _loaded(load):
  """As `load`, but each task once."""
  return functools.cache(load)


def client(task, index):
  """The `(x, y)` arrays of one client."""
  dataset = task.client_data.create_tf_dataset_for_client(
      task.client_data.client_ids[index]
  )
  batch = dataset.batch(10**6).get_single_element()
  return batch['x'].numpy(), batch['y'].numpy()


def clients(task):
  """The arrays of every client."""
  return [client(task, i) for i in range(len(task.client_data.client_ids))]


def _arrays(task):
  return {
      'clients': [array for xy in clients(task) for array in xy],
      'holdout': list(task.holdout.values()),
      'test': list(task.test.values()),
      'weights': list(task.model.initial_weights[0]),
  }


def _same(a, b):
  return len(a) == len(b) and all(map(np.array_equal, a, b))


def test_every_task_and_model_has_a_case():
  assert {name: set(case.parameters) for name, case in _CASES.items()} == {
      name: set(spec.models) for name, spec in tasks.TASKS.items()
  }


@pytest.mark.parametrize('name', _CASES)
def test_examples(loaded, name):
  task, case = loaded(name), _CASES[name]
  assert task.name == name
  assert dict(task.client_data.element_type_structure) == {
      'x': tf.TensorSpec(case.shape, tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }
  held = clients(task)
  sets = [
      [np.concatenate(arrays) for arrays in zip(*held)],
      list(task.holdout.values()),
      list(task.test.values()),
  ]
  assert (len(held), *(y.size for _, y in sets)) == case.sizes
  for x, y in sets:
    assert 0 <= y.min() <= y.max() < task.num_classes
    if len(case.shape) == 3:
      assert 0.0 <= x.min() < 0.02 and 0.9 < x.max() <= 1.0
  if case.members:
    counts = [np.bincount(y) for _, y in sets]
    assert tuple(sum(counts)) == case.members
    share = counts[1].sum() / sum(case.members)
    expected = share * np.array(case.members)
    np.testing.assert_allclose(counts[1], expected, atol=1)
  # No example is in two sets, or twice in one.
  distinct = {example.tobytes() for x, _ in sets for example in x}
  assert len(distinct) == sum(len(x) for x, _ in sets)


@pytest.mark.parametrize('name', _CASES)
def test_the_seed_fixes_everything(load, name):
  first, again, other = (_arrays(load(name, seed=seed)) for seed in (3, 3, 4))
  for part, values in first.items():
    assert _same(values, again[part]), part
    assert _same(values, other[part]) == (part in _CASES[name].fixed), part


@pytest.mark.parametrize(
    'name, expected',
    [
        ('mnist5k', 'b07ba050d2f994e2'),
        ('digits', 'ea4647b520b25fef'),
        ('breast_cancer', 'a122b1a4c4806d96'),
    ],
)
def test_a_seed_means_the_same_as_ever(name, expected):
  """Published results are of these very bits."""
  digest = hashlib.sha256()
  for arrays in _arrays(tasks.load_task(name)).values():
    for array in arrays:
      digest.update(np.ascontiguousarray(array).tobytes())
  assert digest.hexdigest()[:16] == expected


@pytest.mark.parametrize(
    'name, model',
    [(name, m) for name, case in _CASES.items() for m in case.parameters],
)
def test_models(loaded, name, model):
  options = {'model': model} if 'model' in tasks.TASKS[name].defaults else {}
  task, case = loaded(name, **options), _CASES[name]
  trainable, non_trainable = task.model.initial_weights
  assert non_trainable == ()
  assert sum(weight.size for weight in trainable) == case.parameters[model]
  assert task.model.input_spec == {
      'x': tf.TensorSpec((None, *case.shape), tf.float32),
      'y': tf.TensorSpec([None], tf.int64),
  }


@pytest.mark.parametrize('name', _PARTITIONED)
def test_partitions(loaded, name):
  dirichlet = [y.size for _, y in clients(loaded(name))]
  assert min(dirichlet) >= (5 if name == 'breast_cancer' else 10)
  iid = [y.size for _, y in clients(loaded(name, partition='iid'))]
  assert max(iid) - min(iid) <= 1 < max(dirichlet) - min(dirichlet)
  shards = clients(loaded(name, partition='shards', shards_per_client=1))
  assert np.mean([np.unique(y).size for _, y in shards]) < 2.5
  skewed, even = (clients(loaded(name, alpha=alpha)) for alpha in (0.05, 100.0))
  classes = lambda held: np.mean([np.unique(y).size for _, y in held])
  assert classes(skewed) + 0.1 < classes(even)


@pytest.mark.parametrize('name', _OWN_TEST_SET)
def test_test_set_is_the_same_for_other_options(loaded, name):
  task = loaded(name)
  other = loaded(name, partition='iid', num_clients=20, holdout_size=25)
  assert other.holdout['y'].size == 25
  np.testing.assert_array_equal(other.test['y'], task.test['y'])
  if name != 'breast_cancer':  # Whose features are scaled by the clients'.
    np.testing.assert_array_equal(other.test['x'], task.test['x'])


@pytest.mark.parametrize('name', _CASES)
def test_every_part_of_the_test_set_is_a_sample_of_it(loaded, name):
  y = loaded(name).test['y']
  changes = np.count_nonzero(np.diff(y))
  # In random order, neighbours differ as often as any two examples.
  expected = (len(y) - 1) * (1 - np.sum((np.bincount(y) / len(y)) ** 2))
  assert changes > 0.6 * expected


@pytest.mark.parametrize('name', _CASES)
def test_too_few_examples_raise(load, name):
  with pytest.raises(ValueError, match='size.? must be.*found 9000') as e:
    load(name, holdout_size=9000)
  assert '\n' not in str(e.value)
  if name in _PARTITIONED:
    with pytest.raises(ValueError, match='5000 clients.*; use at most') as e:
      load(name, num_clients=5000)
    assert '\n' not in str(e.value)


def test_options_go_to_the_task(load):
  options = dict(batch_size=7, client_epochs=3, client_learning_rate=0.5)
  options.update(rounds=9, cohort_size=8)
  task = load('digits', num_clients=101, **options)
  assert {name: getattr(task, name) for name in options} == options
  # The ids are sorted beyond one digit.
  ids = [f'client_{index:03d}' for index in range(101)]
  assert task.client_data.client_ids == ids


@pytest.mark.parametrize('name', ['mnist5k', 'digits'])
def test_labels_belong_to_the_images(loaded, name):
  """A mean image a class, from the clients, classifies the test images."""
  task = loaded(name)
  x, y = map(np.concatenate, zip(*clients(task)))
  means = np.stack([x[y == label].mean(axis=0).ravel() for label in range(10)])
  test = task.test['x'].reshape(len(task.test['x']), 1, -1)
  found = np.linalg.norm(test - means, axis=-1).argmin(axis=-1)
  assert np.mean(found == task.test['y']) > 0.7


@pytest.mark.parametrize(
    'name, options',
    [
        ('femnist', {}),
        ('cifar10', {'model': 'cnn'}),
        pytest.param('cifar10', {}, marks=pytest.mark.slow),
        ('mnist5k', {}),
        ('digits', {'model': 'cnn'}),
        ('breast_cancer', {}),
    ],
)
def test_trains_in_a_stock_learning_process(loaded, name, options):
  task = loaded(name, **options)
  sgd = tff.learning.optimizers.build_sgdm
  process = tff.learning.algorithms.build_weighted_fed_avg(
      task.model,
      client_optimizer_fn=sgd(0.1),
      server_optimizer_fn=sgd(1.0),
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )
  data = [
      task.client_data.create_tf_dataset_for_client(i).batch(5)
      for i in task.client_data.client_ids[:2]
  ]
  state, metrics = process.next(process.initialize(), data)
  # Twice the same: what is random in the model depends on the data alone.
  again, _ = process.next(process.initialize(), data)
  weights = [process.get_model_weights(s).trainable for s in (state, again)]
  for initial, new, same in zip(task.model.initial_weights[0], *weights):
    assert np.isfinite(new).all()
    assert np.any(initial != new)
    np.testing.assert_array_equal(new, same)
  num_examples = sum(client(task, index)[1].size for index in range(2))
  metrics = metrics['client_work']['train']
  assert metrics['num_examples'] == num_examples
  # It learns the data of two clients, beginning at once.
  _, after = process.next(state, data)
  assert after['client_work']['train']['loss'] < metrics['loss']
