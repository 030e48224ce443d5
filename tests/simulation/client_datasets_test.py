"""Tests for the clients' training datasets."""

import collections
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import label_map
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib

_SIZES = {'a': 7, 'b': 4, 'c': 12}
_BATCH_SPEC = collections.OrderedDict(
    x=tf.TensorSpec([None, 1], tf.float32), y=tf.TensorSpec([None], tf.int64)
)


def _examples(client_id):
  """Examples whose x are all different."""
  start = 100 * (1 + sorted(_SIZES).index(client_id))
  x = np.arange(start, start + _SIZES[client_id], dtype=np.float32)
  return collections.OrderedDict(x=x[:, np.newaxis], y=np.int64(x) % 5)


def _client_data():
  return tff.simulation.datasets.TestClientData(
      {client_id: _examples(client_id) for client_id in _SIZES}
  )


def _datasets(client_data=None, **options):
  settings = dict(num_classes=5, batch_size=5, client_epochs=2, seed=3)
  return client_datasets.ClientDatasets(
      client_data or _client_data(), **{**settings, **options}
  )


def _cohort(**attacker_index):
  return cohort_lib.Cohort(
      tuple(attacker_index), tuple(attacker_index.values())
  )


def _columns(dataset):
  """x and y of all batches."""
  batches = list(dataset.as_numpy_iterator())
  return (
      np.concatenate([batch['x'] for batch in batches]).reshape([-1]),
      np.concatenate([batch['y'] for batch in batches]),
  )


def _order(datasets, client_id='c', round_num=1):
  (client,) = datasets.for_cohort(_cohort(**{client_id: -1}), round_num)
  return _columns(client['dataset'])[0].tolist()


class _RecordingPoisoning(attack.DataPoisoning):
  """Adds 1000 to x and keeps the indices and seeds it is given."""

  def __init__(self):
    self.indices, self.seeds = [], []

  def poison(self, dataset, *, num_classes, attacker_index, seed):
    self.indices.append(attacker_index)
    self.seeds.append(seed)
    return dataset.map(
        lambda e: collections.OrderedDict(x=e['x'] + 1000, y=e['y'])
    )


def test_clients_come_in_the_order_of_the_cohort():
  data = _datasets().for_cohort(_cohort(b=0, c=-1, a=1), 1)
  assert [list(client) for client in data] == [
      ['attacker_index', 'dataset']
  ] * 3
  assert [type(client['attacker_index']) for client in data] == [np.int32] * 3
  assert [client['attacker_index'] for client in data] == [0, -1, 1]
  starts = [_columns(client['dataset'])[0].min() for client in data]
  assert starts == [200, 300, 100]


def test_each_epoch_has_each_example_once_in_another_order():
  (client,) = _datasets().for_cohort(_cohort(c=-1), 1)
  clean = _examples('c')
  x, y = _columns(client['dataset'])
  np.testing.assert_array_equal(np.int64(x) % 5, y)
  first, second = x[:12], x[12:]
  np.testing.assert_array_equal(np.sort(first), clean['x'][:, 0])
  np.testing.assert_array_equal(np.sort(second), clean['x'][:, 0])
  orders = {tuple(first), tuple(second), tuple(clean['x'][:, 0])}
  assert len(orders) == 3


def test_batches():
  (client,) = _datasets().for_cohort(_cohort(a=-1), 1)
  # 2 x 7 examples: batches reach over the end of the first epoch.
  assert [len(b['y']) for b in client['dataset']] == [5, 5, 4]
  assert client['dataset'].element_spec == _BATCH_SPEC


def test_order_depends_on_seed_client_and_round_alone():
  order = _order(_datasets(), round_num=2)
  other = _datasets()
  for round_num in (3, 1):
    other.for_cohort(_cohort(c=0, a=-1), round_num)
  tf.random.set_seed(7)
  try:
    assert _order(other, round_num=2) == order
  finally:
    # What TensorFlow starts with.
    tf.random.set_seed(None)
  assert _order(other, round_num=1) != order
  assert _order(_datasets(seed=4), round_num=2) != order


def test_clients_have_orders_of_their_own():
  client_data = tff.simulation.datasets.TestClientData(
      {client_id: _examples('c') for client_id in 'ab'}
  )
  datasets = _datasets(client_data)
  assert _order(datasets, 'a') != _order(datasets, 'b')


def test_computations_see_the_same_order():
  (client,) = _datasets().for_cohort(_cohort(c=-1), 1)

  @tff.tensorflow.computation(
      tff.SequenceType(tff.types.tensorflow_to_type(_BATCH_SPEC))
  )
  def concatenate(dataset):
    return dataset.reduce(
        tf.zeros([0, 1]), lambda seen, e: tf.concat([seen, e['x']], 0)
    )

  seen = [concatenate(client['dataset'])[:, 0]]
  np.testing.assert_array_equal(seen[0], _columns(client['dataset'])[0])
  # Neither what happened in this process nor in the worker has an effect.
  seen.append(concatenate(client['dataset'])[:, 0])
  np.testing.assert_array_equal(*seen)


def test_attackers_are_poisoned():
  datasets = _datasets(data_poisoning=label_map.LabelFlip())
  # Reads the clean examples of all clients.
  datasets.mean_num_batches()
  data = datasets.for_cohort(_cohort(a=0, b=-1), 1)
  for client, client_id in zip(data, 'ab'):
    x, y = _columns(client['dataset'])
    clean = np.int64(x) % 5
    np.testing.assert_array_equal(y, 4 - clean if client_id == 'a' else clean)


def test_poisons_once_with_a_seed_of_the_attacker():
  poisoning = _RecordingPoisoning()
  datasets = _datasets(data_poisoning=poisoning)
  for round_num in (1, 2):
    for client in datasets.for_cohort(_cohort(a=0, b=1), round_num):
      assert _columns(client['dataset'])[0].min() > 1000
  assert len(poisoning.seeds) == len(set(poisoning.seeds)) == 2
  assert poisoning.indices == [0, 1]
  again = _RecordingPoisoning()
  _datasets(data_poisoning=again).for_cohort(_cohort(b=0, a=1), 5)
  assert again.seeds == poisoning.seeds[::-1]
  other = _RecordingPoisoning()
  _datasets(data_poisoning=other, seed=4).for_cohort(_cohort(a=0), 1)
  assert other.seeds[0] not in poisoning.seeds


def test_attacks_share_the_clean_examples():
  client_data = _client_data()
  with mock.patch.object(
      client_data,
      'create_tf_dataset_for_client',
      wraps=client_data.create_tf_dataset_for_client,
  ) as read:
    clean = _datasets(client_data)
    flipped = clean.poisoned_by(label_map.LabelFlip())
    moved = flipped.poisoned_by(_RecordingPoisoning())
    for datasets in flipped, moved, clean, flipped:
      (client,) = datasets.for_cohort(_cohort(a=0), 1)
      x, y = _columns(client['dataset'])
      assert (x.min() > 1000) == (datasets is moved)
      labels = np.int64(x) % 5
      expected = 4 - labels if datasets is flipped else labels
      np.testing.assert_array_equal(y, expected)
  assert read.call_count == 1


@pytest.mark.parametrize('num_kept, num_reads', [(3, 3), (2, 5), (0, 7)])
def test_keeps_clients_in_memory_within_bounds(num_kept, num_reads):
  client_data = tff.simulation.datasets.TestClientData(
      {
          client_id: collections.OrderedDict(
              x=np.full([5, 1], i, np.float32), y=np.zeros(5, np.int64)
          )
          for i, client_id in enumerate('abc')
      }
  )
  num_bytes = 5 * (4 + 8)
  with (
      mock.patch.object(
          client_datasets, '_MAX_CACHED_BYTES', num_kept * num_bytes
      ),
      mock.patch.object(
          client_data,
          'create_tf_dataset_for_client',
          wraps=client_data.create_tf_dataset_for_client,
      ) as read,
  ):
    datasets = _datasets(client_data)
    for client_id in 'abcacbc':
      assert set(_order(datasets, client_id)) == {'abc'.index(client_id)}
  assert read.call_count == num_reads


@pytest.mark.parametrize('client_epochs, expected', [(1, 2), (2, 3), (3, 5)])
def test_mean_num_batches(client_epochs, expected):
  # 7, 4, 12 examples in batches of 5: 2, 1, 3; 3, 2, 5; 5, 3, 8 batches.
  datasets = _datasets(client_epochs=client_epochs)
  found = datasets.mean_num_batches()
  assert found == expected
  assert type(found) is int
  (client,) = datasets.for_cohort(_cohort(b=-1), 1)
  assert len(list(client['dataset'])) == (1, 2, 3)[client_epochs - 1]


def test_mean_num_batches_looks_at_some_clients_only():
  client_data = tff.simulation.datasets.TestClientData(
      {
          f'{i}': collections.OrderedDict(
              x=np.zeros([5, 1]), y=np.zeros(5, int)
          )
          for i in range(12)
      }
  )
  with (
      mock.patch.object(client_datasets, '_MAX_COUNTED_CLIENTS', 4),
      mock.patch.object(
          client_data,
          'create_tf_dataset_for_client',
          wraps=client_data.create_tf_dataset_for_client,
      ) as read,
  ):
    first = _datasets(client_data).mean_num_batches()
    second = _datasets(client_data).mean_num_batches()
  assert first == second == 2
  chosen = [call.args[0] for call in read.call_args_list]
  assert len(set(chosen[:4])) == 4
  assert chosen[:4] == chosen[4:]


def test_rejects_clients_without_data():
  client_data = tff.simulation.datasets.ClientData.from_clients_and_tf_fn(
      ['a'],
      lambda client_id: tf.data.Dataset.from_tensor_slices(_examples('a')).take(
          0
      ),
  )
  with pytest.raises(ValueError, match="Client 'a' has no examples"):
    _datasets(client_data).for_cohort(_cohort(a=-1), 1)
  with pytest.raises(ValueError, match="client_data has no client 'z'"):
    _datasets().for_cohort(_cohort(z=-1), 1)


@pytest.mark.parametrize(
    'poisoning', [None, label_map.LabelFlip()], ids=['honest', 'attacker']
)
def test_rejects_examples_of_another_kind(poisoning):
  client_data = _client_data().preprocess(lambda dataset: dataset.batch(2))
  datasets = _datasets(client_data, data_poisoning=poisoning)
  with pytest.raises(ValueError, match=r'must be unbatched.*unbatch\(\)'):
    datasets.for_cohort(_cohort(a=0), 1)


def test_rejects_attacks_that_change_the_type():
  class Casting(attack.DataPoisoning):

    def poison(self, dataset, **_):
      return dataset.map(
          lambda e: collections.OrderedDict(x=e['x'], y=e['x'][0])
      )

  datasets = _datasets(data_poisoning=Casting())
  with pytest.raises(ValueError, match='Casting must keep the type') as error:
    datasets.for_cohort(_cohort(a=0), 1)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'options, kind, message',
    [
        (dict(batch_size=0), ValueError, 'batch_size must be >= 1; found 0'),
        (dict(client_epochs=1.5), TypeError, 'client_epochs must be an int'),
        (dict(num_classes=True), TypeError, 'num_classes must be an int'),
        (dict(seed=-1), ValueError, 'seed must be >= 0 .*found -1'),
        (dict(data_poisoning='x'), TypeError, 'or NoneType; found str'),
        (dict(client_data={'a': 1}), TypeError, 'ClientData; found dict'),
    ],
)
def test_rejects_other_arguments(options, kind, message):
  with pytest.raises(kind, match=message):
    _datasets(**options)


def test_arrays_are_in_the_order_of_the_datasets():
  cohort = _cohort(b=0, c=-1, a=1)
  datasets = _datasets(data_poisoning=_RecordingPoisoning())
  for round_num in (1, 2):
    for client, arrays in zip(
        datasets.for_cohort(cohort, round_num),
        datasets.arrays_for_cohort(cohort, round_num),
    ):
      assert arrays['attacker_index'] == client['attacker_index']
      x, y, order = map(np.asarray, arrays['dataset'].values())
      expected_x, expected_y = _columns(client['dataset'])
      np.testing.assert_array_equal(x[order].reshape([-1]), expected_x)
      np.testing.assert_array_equal(y[order], expected_y)
