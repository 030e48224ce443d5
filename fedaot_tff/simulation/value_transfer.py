"""Values on their way to a worker process and back, copied as seldom as can be.

TFF's serializer builds the message of a structure out of the messages of its
parts, and with each level of nesting copies every byte of them again; for each
tensor it also opens spans of a trace. Here arrays go straight to their place in
the message. What is not an array of just the type, and what is no array at all,
is left to TFF.
"""

from typing import Any

import numpy as np
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.python.core.impl.compiler import array as array_lib
from tensorflow_federated.python.core.impl.types import dtype_utils
from tensorflow_federated.python.core.impl.types import type_serialization


def fill_message(
    message: executor_pb2.Value, value: Any, type_spec: tff.Type
) -> None:
  """Writes a value into a message, as `tff.framework.serialize_value` does.

  Args:
    message: An empty message, best inside of the one that is to be sent.
    value: A value of the type: arrays, datasets, computations, containers of
      them, and lists of clients' values.
    type_spec: Its `tff.Type`.

  Raises:
    TypeError: If value and type do not match.
  """
  if isinstance(type_spec, tff.FederatedType):
    members = [value] if type_spec.all_equal else value
    if not isinstance(members, list):
      raise TypeError(
          'Expected the values of clients to be a list, found'
          f' {type(members).__name__} for {type_spec.compact_representation()}.'
      )
    for member in members:
      fill_message(message.federated.value.add(), member, type_spec.member)
    message.federated.type.CopyFrom(
        type_serialization.serialize_type(type_spec).federated
    )
  elif isinstance(type_spec, tff.StructType):
    elements = tff.structure.from_container(value)
    if len(elements) != len(type_spec):
      raise TypeError(
          f'Expected {len(type_spec)} elements, found {len(elements)} for'
          f' {type_spec.compact_representation()}.'
      )
    # Makes an empty structure a structure, too.
    message.struct.SetInParent()
    for element, (name, element_type) in zip(
        elements, tff.structure.iter_elements(type_spec)
    ):
      slot = message.struct.element.add()
      if name:
        slot.name = name
      fill_message(slot.value, element, element_type)
  elif _is_array_of(value, type_spec):
    message.array.dtype = dtype_utils.to_proto(type_spec.dtype.type)
    message.array.shape.dim.extend(value.shape)
    message.array.content = value.tobytes()
  else:
    message.CopyFrom(tff.framework.serialize_value(value, type_spec)[0])


def _is_array_of(value: Any, type_spec: tff.Type) -> bool:
  """Whether a value is an array, not a scalar, of just the type."""
  return (
      isinstance(type_spec, tff.TensorType)
      and isinstance(value, np.ndarray)
      # TFF has another form for scalars and for strings.
      and value.ndim > 0
      and value.dtype.kind in 'biufc'
      and value.dtype.type is type_spec.dtype.type
      and array_lib.is_compatible_shape(value, type_spec.shape)
  )


def read_message(message: executor_pb2.Value, type_spec: tff.Type) -> Any:
  """Reads a value, as `tff.framework.deserialize_value` does.

  Args:
    message: The message, as it came from the worker.
    type_spec: The type of the value.

  Returns:
    The value; structures are `tff.structure.Struct`s.

  Raises:
    ValueError: If the message holds no value.
  """
  kind = message.WhichOneof('value')
  if kind == 'federated' and isinstance(type_spec, tff.FederatedType):
    values = message.federated.value
    if not type_spec.all_equal:
      return [read_message(value, type_spec.member) for value in values]
    if not values:
      raise ValueError(
          'The worker sent no value of the type'
          f' {type_spec.compact_representation()}.'
      )
    return read_message(values[0], type_spec.member)
  if kind == 'struct' and isinstance(type_spec, tff.StructType):
    return tff.structure.Struct(
        (name, read_message(element.value, element_type))
        for element, (name, element_type) in zip(
            message.struct.element, tff.structure.iter_elements(type_spec)
        )
    )
  if (
      kind == 'array'
      and isinstance(type_spec, tff.TensorType)
      and message.array.shape.dim
      and type_spec.dtype.type is not np.str_
  ):
    return array_lib.from_proto_content(message.array)
  return tff.framework.deserialize_value(message, type_spec)[0]
