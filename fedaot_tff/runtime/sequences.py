"""Sequences as serialized `tf.data.Dataset`s in string tensors."""

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2

from fedaot_tff.runtime import devices


def serialize(value: Any, sequence_type: tff.SequenceType) -> tf.Tensor:
  """Serializes a `tf.data.Dataset`, or a list of NumPy arrays or structures.

  Raises:
    TypeError: If `value` is not of type `sequence_type`.
    ValueError: If it is larger than 100 MB or its elements are ambiguous.
  """
  proto, _ = tff.framework.serialize_value(value, sequence_type)
  with tf.device(devices.CPU):
    return tf.constant(proto.sequence.serialized_graph_def)


def serialize_elements(
    elements: Iterable[Any], sequence_type: tff.SequenceType
) -> tf.Tensor:
  """Serializes the elements of a sequence, tensors or tuples of tensors."""
  return serialize(
      [_to_numpy(element, sequence_type.element) for element in elements],
      sequence_type,
  )


def _to_numpy(value: Any, type_spec: tff.Type) -> Any:
  if isinstance(type_spec, tff.StructType):
    return tff.structure.Struct(
        (name, _to_numpy(element, element_type))
        for element, (name, element_type) in zip(
            value, tff.structure.iter_elements(type_spec)
        )
    )
  return value.numpy()


def deserialize(
    sequence: tf.Tensor, sequence_type: tff.SequenceType
) -> tf.data.Dataset:
  """Returns the dataset; its structures are `sequence_type`'s."""
  proto = executor_pb2.Value(
      sequence=executor_pb2.Value.Sequence(
          serialized_graph_def=sequence.numpy()
      )
  )
  with tf.device(devices.CPU):
    dataset, _ = tff.framework.deserialize_value(proto, sequence_type)
  return dataset


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
    iterator = iter(deserialize(sequence, sequence_type))
  for element in iterator:
    yield _to_tuples(element, sequence_type.element)
