"""Tests for array_client_data."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tasks import array_client_data

_X = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2) * 10
_Y = np.arange(6, dtype=np.uint8)
_PARTS = [np.array([5, 0]), np.array([1]), np.array([2, 4, 3])]


def _arrays(dataset):
  batch = dataset.batch(100).get_single_element()
  return batch['x'].numpy(), batch['y'].numpy()


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_every_client_has_its_examples_in_order(dtype):
  data = array_client_data.ArrayClientData(_X.astype(dtype), _Y, _PARTS)
  scale = 255 if dtype == np.uint8 else 1
  assert data.client_ids == ['client_0', 'client_1', 'client_2']
  for client_id, part in zip(data.client_ids, _PARTS):
    dataset = data.create_tf_dataset_for_client(client_id)
    assert dataset.element_spec == data.element_type_structure
    x, y = _arrays(dataset)
    np.testing.assert_array_equal(x, _X[part].astype(np.float32) / scale)
    np.testing.assert_array_equal(y, part)


def test_element_type():
  data = array_client_data.ArrayClientData(_X, _Y, _PARTS)
  assert list(data.element_type_structure) == ['x', 'y']
  assert data.element_type_structure == {
      'x': tf.TensorSpec([2, 2], tf.float32),
      'y': tf.TensorSpec([], tf.int64),
  }


def test_client_ids_are_sorted_beyond_one_digit():
  parts = [[index % 6] for index in range(11)]
  data = array_client_data.ArrayClientData(_X, _Y, parts)
  assert data.client_ids == sorted(data.client_ids)
  assert (data.client_ids[0], data.client_ids[-1]) == ('client_00', 'client_10')


def test_arrays_are_shared_and_read_when_asked():
  x = _X.copy()
  data = array_client_data.ArrayClientData(x, _Y, _PARTS)
  x[1] = 255
  read, _ = _arrays(data.create_tf_dataset_for_client('client_1'))
  np.testing.assert_array_equal(read, np.ones([1, 2, 2]))


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_dataset_computation(dtype):
  """What runs on another process is the same as what is made here."""
  data = array_client_data.ArrayClientData(_X.astype(dtype), _Y, _PARTS)
  for client_id in data.client_ids:
    there = _arrays(data.dataset_computation(client_id))
    here = _arrays(data.create_tf_dataset_for_client(client_id))
    for a, b in zip(there, here):
      np.testing.assert_array_equal(a, b)
      assert a.dtype == b.dtype


def test_all_clients_and_preprocessing():
  data = array_client_data.ArrayClientData(_X, _Y, _PARTS)
  odd = data.preprocess(lambda d: d.filter(lambda e: e['y'] % 2 == 1))
  labels = lambda d: [int(example['y']) for example in d]
  assert labels(odd.create_tf_dataset_for_client('client_2')) == [3]
  everything = labels(data.create_tf_dataset_from_all_clients(seed=0))
  assert sorted(everything) == list(range(6))


def test_unknown_client_raises():
  data = array_client_data.ArrayClientData(_X, _Y, _PARTS)
  with pytest.raises(ValueError, match="no client 'client_3'"):
    data.create_tf_dataset_for_client('client_3')
  with pytest.raises(tf.errors.InvalidArgumentError, match='no client'):
    data.serializable_dataset_fn(tf.constant('client_3'))
  assert isinstance(data, tff.simulation.datasets.ClientData)


@pytest.mark.parametrize(
    'kind, message, arguments',
    [
        (TypeError, '`x`.*found int64', (_X.astype(int), _Y, _PARTS)),
        (TypeError, '`y`.*found.*float64', (_X, _Y / 2, _PARTS)),
        (ValueError, r'`y`.*\(5,\) for 6', (_X, _Y[:5], _PARTS)),
        (ValueError, r'`y`.*\(6, 1\)', (_X, _Y[:, None], _PARTS)),
        (ValueError, '`parts` must not be empty', (_X, _Y, [])),
        (ValueError, r'`parts\[1\]`.*\(0,\)', (_X, _Y, [[0], []])),
        (ValueError, r'`parts\[0\]`.*\(1, 1\)', (_X, _Y, [[[0]]])),
        (TypeError, r'`parts\[0\]`.*float64', (_X, _Y, [[0.0]])),
        (ValueError, r'`parts\[0\]`.*0 and 5.*2 to 6', (_X, _Y, [[2, 6]])),
        (ValueError, r'`parts\[0\]`.*from -1', (_X, _Y, [[-1]])),
    ],
)
def test_wrong_arguments_raise(kind, message, arguments):
  with pytest.raises(kind, match=message) as error:
    array_client_data.ArrayClientData(*arguments)
  assert '\n' not in str(error.value)
