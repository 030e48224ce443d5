"""Computations without datasets or resources as one TensorFlow function.

The loops over the clients are in its graph, so that a round is one call.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import Any, Callable, NamedTuple

import tensorflow as tf
from tensorflow.python.ops import list_ops
import tensorflow_federated as tff

from fedaot_tff.runtime import devices as devices_lib
from fedaot_tff.runtime import invocation


class NotTraceable(Exception):
  """Something of a computation has to run outside of the function."""


@dataclasses.dataclass(frozen=True)
class _Rows:
  """One tensor a client, in a list of TensorFlow."""

  handle: tf.Tensor
  spec: tf.TensorSpec


def specs_of(type_spec: tff.Type) -> list[tf.TensorSpec]:
  """The tensors of an unplaced type, in order; NotTraceable for sequences."""
  if isinstance(type_spec, tff.StructType):
    return [spec for part in type_spec for spec in specs_of(part)]
  if isinstance(type_spec, tff.TensorType):
    return [tf.TensorSpec(type_spec.shape, type_spec.dtype.type)]
  raise NotTraceable(str(type_spec))


def _pack(type_spec: tff.Type, flat: Iterator[Any]) -> Any:
  if isinstance(type_spec, tff.StructType):
    return tuple(_pack(part, flat) for part in type_spec)
  return next(flat)


class TracedInvocation:
  """An `invocation.Invocation` inside of a TensorFlow function.

  What clients have is an `AllEqual`, or nested tuples of `_Rows` and
  `AllEqual`s.
  """

  def __init__(
      self,
      device: str,
      server_device: str,
      num_clients: tf.Tensor,
      max_concurrent_clients: int,
  ):
    self._client = invocation.Place(device, self)
    self._max_concurrent_clients = max_concurrent_clients
    self.num_clients = num_clients
    self.server = invocation.Place(server_device, self)

  def client(self, index: Any) -> invocation.Place:
    del index  # There is one device.
    return self._client

  def client_value(self, values: Any, index: Any) -> Any:
    if isinstance(values, invocation.AllEqual):
      return values.value
    if isinstance(values, _Rows):
      return list_ops.tensor_list_get_item(
          values.handle, index, values.spec.dtype, values.spec.shape
      )
    return tuple(self.client_value(element, index) for element in values)

  def zip_clients(self, values: Any) -> Any:
    return values

  def map_clients(
      self, function: Callable[..., Any], values: Any, result_type: tff.Type
  ) -> Any:
    specs = specs_of(result_type)

    def body(index, *handles):
      result = function(self.client_value(values, index), self._client)
      items = tf.nest.flatten(result)
      return index + 1, *(
          list_ops.tensor_list_set_item(handle, index, item)
          for handle, item in zip(handles, items)
      )

    with tf.device(self._client.device):
      handles = [
          list_ops.tensor_list_reserve(
              spec.shape, self.num_clients, spec.dtype
          )
          for spec in specs
      ]
      _, *handles = tf.while_loop(
          lambda index, *_: index < self.num_clients,
          body,
          (tf.constant(0), *handles),
          parallel_iterations=self._max_concurrent_clients,
      )
    return _pack(result_type, map(_Rows, handles, specs))

  def accumulate(
      self,
      function: Callable[..., Any],
      accumulator: Any,
      values: Any,
      accumulator_type: tff.Type,
  ) -> Any:
    shapes = [spec.shape for spec in specs_of(accumulator_type)]

    def body(index, *flat):
      before = _pack(accumulator_type, iter(flat))
      value = self.client_value(values, index)
      after = function((before, value), self.server)
      return index + 1, *tf.nest.flatten(after)

    with tf.device(self.server.device):
      start = tf.constant(0)
      _, *flat = tf.while_loop(
          lambda index, *_: index < self.num_clients,
          body,
          (start, *tf.nest.flatten(accumulator)),
          shape_invariants=(start.shape, *shapes),
          parallel_iterations=1,
      )
    return _pack(accumulator_type, iter(flat))


def trace(
    function: Callable[..., Any],
    signature: tff.FunctionType,
    devices: devices_lib.Devices,
    max_concurrent_clients: int,
) -> Callable[[Any, int], Any]:
  """Makes one function of an argument and a number of clients.

  Argument and result are as `values.ingest` gives and `values.export` takes
  them. Raises NotTraceable if it cannot be one.
  """
  if len(set(devices.clients)) > 1:
    raise NotTraceable('clients run on several devices')
  device = devices.clients[0]
  parameters = list(_slots(signature.parameter))
  is_rows = []

  def body(num_clients, *flat):
    here = TracedInvocation(
        device, devices.server, num_clients, max_concurrent_clients
    )
    argument = _inside(
        signature.parameter,
        (
            _Rows(tensor, slot.spec) if slot.is_rows else tensor
            for tensor, slot in zip(flat, parameters)
        ),
    )
    result = _flatten(function(argument, here.server))
    is_rows[:] = [isinstance(value, _Rows) for value in result]
    return [v.handle if isinstance(v, _Rows) else v for v in result]

  traced = tf.function(
      body,
      autograph=False,
      input_signature=[
          tf.TensorSpec([], tf.int32),
          *(
              tf.TensorSpec([], tf.variant) if slot.is_rows else slot.spec
              for slot in parameters
          ),
      ],
  ).get_concrete_function()
  results = list(_slots(signature.result))

  def call(argument, num_clients):
    with tf.device(device):
      flat = list(_from_outside(argument, signature.parameter))
    outputs = traced(tf.constant(num_clients), *flat)
    flat = (
        _items(output, slot.spec, num_clients)
        if has_rows
        else [output] * num_clients
        if slot.is_rows
        else output
        for output, slot, has_rows in zip(outputs, results, is_rows)
    )
    return _outside(signature.result, flat, num_clients)

  return call


class _Slot(NamedTuple):
  """A tensor of a value; `is_rows` if each client has its own."""

  spec: tf.TensorSpec
  is_rows: bool = False


def _is_rows(type_spec: tff.FederatedType) -> bool:
  return type_spec.placement is tff.CLIENTS and not type_spec.all_equal


def _slots(type_spec: tff.Type) -> Iterator[_Slot]:
  if isinstance(type_spec, tff.FederatedType):
    for spec in specs_of(type_spec.member):
      yield _Slot(spec, _is_rows(type_spec))
  elif isinstance(type_spec, tff.StructType):
    for part in type_spec:
      yield from _slots(part)
  else:
    yield from map(_Slot, specs_of(type_spec))


def _inside(type_spec: tff.Type, flat: Iterator[Any]) -> Any:
  """The value of a type in the function."""
  if isinstance(type_spec, tff.FederatedType):
    value = _pack(type_spec.member, flat)
    if type_spec.placement is tff.CLIENTS and type_spec.all_equal:
      return invocation.AllEqual(value)
    return value
  if isinstance(type_spec, tff.StructType):
    return tuple(_inside(part, flat) for part in type_spec)
  return next(flat)


def _flatten(value: Any) -> list[Any]:
  """The `_Rows` and tensors of a value in the function."""
  if isinstance(value, invocation.AllEqual):
    value = value.value
  if isinstance(value, tuple):
    return [part for element in value for part in _flatten(element)]
  return [value]


def _from_outside(value: Any, type_spec: tff.Type) -> Iterator[tf.Tensor]:
  """The arguments of the function for an ingested value."""
  if isinstance(type_spec, tff.FederatedType) and _is_rows(type_spec):
    columns = zip(*map(tf.nest.flatten, value))
    for spec, items in itertools.zip_longest(
        specs_of(type_spec.member), columns, fillvalue=()
    ):
      yield _make_list(items, spec)
  elif isinstance(value, invocation.AllEqual):
    yield from tf.nest.flatten(value.value)
  elif isinstance(type_spec, tff.StructType):
    for element, part in zip(value, type_spec):
      yield from _from_outside(element, part)
  else:
    yield from tf.nest.flatten(value)


def _outside(type_spec: tff.Type, flat: Iterator[Any], num_clients: int) -> Any:
  """The value of a type for `values.export`."""
  if isinstance(type_spec, tff.FederatedType):
    value = _pack(type_spec.member, flat)
    if type_spec.placement is not tff.CLIENTS:
      return value
    if type_spec.all_equal:
      return invocation.AllEqual(value)

    def value_of(value, index):
      if isinstance(value, tuple):
        return tuple(value_of(element, index) for element in value)
      return value[index]

    return [value_of(value, index) for index in range(num_clients)]
  if isinstance(type_spec, tff.StructType):
    return tuple(_outside(part, flat, num_clients) for part in type_spec)
  return next(flat)


def _make_list(items: Sequence[tf.Tensor], spec: tf.TensorSpec) -> tf.Tensor:
  handle = list_ops.tensor_list_reserve(spec.shape, len(items), spec.dtype)
  for index, item in enumerate(items):
    handle = list_ops.tensor_list_set_item(handle, index, item)
  return handle


def _items(
    handle: tf.Tensor, spec: tf.TensorSpec, num_clients: int
) -> list[tf.Tensor]:
  return [
      list_ops.tensor_list_get_item(handle, index, spec.dtype, spec.shape)
      for index in range(num_clients)
  ]
