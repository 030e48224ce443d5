"""Values become the messages that TFF makes of them, and come back."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2

from fedaot_tff.simulation import value_transfer

_MODEL = collections.OrderedDict(
    weights=(
        np.arange(6, dtype=np.float32).reshape([2, 3]),
        np.float64(0.5),
        [np.zeros([0, 4], np.int64), np.array([True, False])],
    ),
    empty=(),
    name='model',
    names=np.array(['a', 'bc'], np.object_),
    half=np.array([1, 2], np.float16),
)
_MODEL_TYPE = tff.to_type(
    collections.OrderedDict(
        weights=(
            tff.TensorType(np.float32, [2, None]),
            np.float64,
            [tff.TensorType(np.int64, [None, 4]), tff.TensorType(np.bool_, [2])],
        ),
        empty=(),
        name=np.str_,
        names=tff.TensorType(np.str_, [2]),
        half=tff.TensorType(np.float16, [2]),
    )
)
_VALUES = [
    (np.float32(2.5), tff.TensorType(np.float32)),
    (3, tff.TensorType(np.int32)),
    ([1.0, 2.0], tff.TensorType(np.float32, [2])),
    (np.arange(20_000, dtype=np.float32), tff.TensorType(np.float32, [20_000])),
    (_MODEL, _MODEL_TYPE),
    (_MODEL, tff.FederatedType(_MODEL_TYPE, tff.SERVER)),
    ([_MODEL, _MODEL], tff.FederatedType(_MODEL_TYPE, tff.CLIENTS)),
    ([], tff.FederatedType(np.float32, tff.CLIENTS)),
    (7, tff.FederatedType(np.int32, tff.CLIENTS, all_equal=True)),
]


def _message(value, type_spec):
  message = executor_pb2.Value()
  value_transfer.fill_message(message, value, type_spec)
  return message


@pytest.mark.parametrize('value, type_spec', _VALUES)
def test_message_is_that_of_tff(value, type_spec):
  expected, _ = tff.framework.serialize_value(value, type_spec)
  assert _message(value, type_spec) == expected


@pytest.mark.parametrize('value, type_spec', _VALUES)
def test_value_comes_back_as_by_tff(value, type_spec):
  message, _ = tff.framework.serialize_value(value, type_spec)
  if isinstance(value, list) and not value:
    assert value_transfer.read_message(message, type_spec) == []
    return
  expected, _ = tff.framework.deserialize_value(message, type_spec)
  found = value_transfer.read_message(message, type_spec)
  if not isinstance(expected, list):
    expected, found = [expected], [found]
  for expected_one, found_one in zip(expected, found):
    _assert_same(found_one, expected_one)


def _assert_same(found, expected):
  assert type(found) is type(expected)
  if isinstance(expected, tff.structure.Struct):
    assert dir(found) == dir(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
      _assert_same(one, other)
  else:
    np.testing.assert_array_equal(found, expected)
    assert np.asarray(found).dtype == np.asarray(expected).dtype


def test_dataset_is_left_to_tff():
  type_spec = tff.FederatedType(tff.SequenceType(np.int64), tff.CLIENTS)
  message = _message([tf.data.Dataset.range(3)], type_spec)
  (dataset,) = value_transfer.read_message(message, type_spec)
  assert list(dataset.as_numpy_iterator()) == [0, 1, 2]


@pytest.mark.parametrize(
    'value, type_spec, found',
    [
        (3.0, tff.FederatedType(np.float32, tff.CLIENTS), 'found float'),
        ((1, 2), tff.to_type((np.int32,)), 'Expected 1 elements, found 2'),
        (np.zeros([3], np.float32), tff.TensorType(np.float32, [2]), 'shape'),
        (np.zeros([2]), tff.TensorType(np.float32, [2]), 'dtype'),
    ],
)
def test_mismatch_is_told(value, type_spec, found):
  with pytest.raises(TypeError, match=found):
    _message(value, type_spec)


def test_no_value_is_told():
  type_spec = tff.FederatedType(np.float32, tff.SERVER)
  message = executor_pb2.Value()
  message.federated.SetInParent()
  with pytest.raises(ValueError, match='sent no value of the type float32@SER'):
    value_transfer.read_message(message, type_spec)
