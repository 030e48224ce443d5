"""Values of computations on their way in and out.

Inside, structs are tuples, tensors are tensors where they are used, and
sequences are serialized `tf.data.Dataset`s in string tensors on the CPU.
"""

from collections.abc import Iterable, Iterator, Sequence
import functools
import typing
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.python.core.impl.compiler import array
import tree

from fedaot_tff.runtime import devices
from fedaot_tff.runtime import invocation


def ingest(value: Any, type_spec: tff.Type, place: invocation.Place) -> Any:
  """Checks a value against its type and puts it where the function runs.

  What clients have goes where the clients run; a `functools.partial` is called
  to make a client's value.

  Raises:
    TypeError: If `value` is not of type `type_spec`.
    ValueError: If there are not as many values as clients, or a dataset is
      larger than 100 MB or its elements are ambiguous.
    NotImplementedError: If a tensor is given as something else than a number,
      a string, a sequence of them, a NumPy array or a tensor.
  """
  if isinstance(type_spec, tff.FederatedType):
    return _ingest_federated(value, type_spec, place)
  if isinstance(type_spec, tff.StructType):
    return _ingest_struct(value, type_spec, place)
  if isinstance(type_spec, tff.SequenceType):
    return _serialize(value, type_spec)
  if isinstance(type_spec, tff.TensorType):
    with tf.device(place.device):
      return _ingest_tensor(value, type_spec)
  raise TypeError(
      f'Cannot pass a value of type {type(value).__name__} for {type_spec}.'
  )


def _ingest_federated(value, type_spec, place):
  if type_spec.placement is not tff.CLIENTS:
    return ingest(value, type_spec.member, place)
  if type_spec.all_equal:
    return invocation.AllEqual(ingest(value, type_spec.member, place))
  if not isinstance(value, list):
    raise TypeError(
        'The values of clients must be a list, found '
        f'{type(value).__name__}, for {type_spec}.'
    )
  num_clients = place.invocation.num_clients
  if len(value) != num_clients:
    raise ValueError(
        f'Found the values of {len(value)} clients where there are '
        f'{num_clients}, for {type_spec}.'
    )
  return place.invocation.map_clients(
      lambda client_value, client: ingest(
          client_value()
          if isinstance(client_value, functools.partial)
          else client_value,
          type_spec.member,
          client,
      ),
      value,
  )


def _ingest_struct(value, type_spec, place):
  elements = tff.structure.to_elements(tff.structure.from_container(value))
  names = tff.structure.name_list_with_nones(type_spec)
  if len(elements) != len(names) or any(
      found and name and found != name
      for (found, _), name in zip(elements, names)
  ):
    found = [name for name, _ in elements]
    raise TypeError(
        f'Found a struct of {len(elements)} elements named {found} where '
        f'{len(names)} named {names} are expected.'
    )
  return tuple(
      ingest(element, element_type, place)
      for (_, element), element_type in zip(elements, type_spec)
  )


def _ingest_tensor(value: Any, type_spec: tff.TensorType) -> tf.Tensor:
  dtype = type_spec.dtype.type
  if (
      isinstance(value, tf.Tensor)
      and value.dtype == dtype
      and type_spec.shape is not None
      and tf.TensorShape(type_spec.shape).is_compatible_with(value.shape)
  ):
    return value
  if isinstance(value, (tf.Tensor, tf.Variable)):
    value = value.numpy()
  if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
    compatible = all(
        array.is_compatible_dtype(item, dtype) for item in tree.flatten(value)
    )
    if compatible:
      value = np.asarray(value, dtype)
  elif isinstance(value, typing.get_args(array.Array)):
    compatible = array.is_compatible_dtype(value, dtype)
  else:
    raise NotImplementedError(
        f'Cannot pass a value of type {type(value).__name__} for {type_spec}.'
    )
  if not compatible or not array.is_compatible_shape(value, type_spec.shape):
    found = (
        f'{value.dtype}{list(value.shape)}'
        if isinstance(value, (np.ndarray, np.generic))
        else repr(value)
    )
    raise TypeError(f'Expected a value of type {type_spec}, found {found}.')
  return tf.constant(value, tf.dtypes.as_dtype(dtype))


def export(value: Any, type_spec: tff.Type) -> Any:
  """Returns the result of a program as TFF's executors do.

  Arrays and datasets are in `tff.structure.Struct`s, and what clients have is a
  list.
  """
  if isinstance(type_spec, tff.FederatedType):
    if type_spec.placement is not tff.CLIENTS:
      return export(value, type_spec.member)
    if type_spec.all_equal:
      return export(value.value, type_spec.member)
    return [export(element, type_spec.member) for element in value]
  if isinstance(type_spec, tff.StructType):
    return tff.structure.Struct(
        (name, export(element, element_type))
        for element, (name, element_type) in zip(
            value, tff.structure.iter_elements(type_spec)
        )
    )
  if isinstance(type_spec, tff.SequenceType):
    return _deserialize(value, type_spec)
  return value.numpy()


def _serialize(value: Any, sequence_type: tff.SequenceType) -> tf.Tensor:
  proto, _ = tff.framework.serialize_value(value, sequence_type)
  with tf.device(devices.CPU):
    return tf.constant(proto.sequence.serialized_graph_def)


def _deserialize(
    sequence: tf.Tensor, sequence_type: tff.SequenceType
) -> tf.data.Dataset:
  proto = executor_pb2.Value(
      sequence=executor_pb2.Value.Sequence(
          serialized_graph_def=sequence.numpy()
      )
  )
  with tf.device(devices.CPU):
    dataset, _ = tff.framework.deserialize_value(proto, sequence_type)
  return dataset


def make_sequence(
    elements: Iterable[Any], sequence_type: tff.SequenceType
) -> tf.Tensor:
  """Returns a sequence of tensors or tuples of tensors."""
  return _serialize(
      [export(element, sequence_type.element) for element in elements],
      sequence_type,
  )


def _to_tuples(value: Any, type_spec: tff.Type) -> Any:
  if isinstance(type_spec, tff.StructType):
    elements = tff.structure.from_container(value)
    return tuple(
        _to_tuples(element, element_type)
        for element, element_type in zip(elements, type_spec)
    )
  return value


def iterate(
    sequence: tf.Tensor, sequence_type: tff.SequenceType
) -> Iterator[Any]:
  """Yields the elements, tensors or nested tuples of tensors."""
  with tf.device(devices.CPU):
    iterator = iter(_deserialize(sequence, sequence_type))
  for element in iterator:
    yield _to_tuples(element, sequence_type.element)
