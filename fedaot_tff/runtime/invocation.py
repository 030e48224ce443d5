"""One invocation of a computation: its clients, devices and threads."""

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.runtime import devices as devices_lib


def pack(type_spec: tff.Type, flat: Iterator[Any]) -> Any:
  """Nested tuples as the structs of an unplaced type, of flat parts."""
  if isinstance(type_spec, tff.StructType):
    return tuple(pack(part, flat) for part in type_spec)
  return next(flat)


class AllEqual:
  """A value that all clients share, copied to each of their devices once."""

  def __init__(self, value: Any):
    self._value = value
    self._copies = {}

  @property
  def value(self) -> Any:
    return self._value

  def on_device(self, device: str) -> Any:
    if device not in self._copies:
      self._copies[device] = devices_lib.to_device(self._value, device)
    return self._copies[device]


class Place(NamedTuple):
  """Where a function runs: a device within an invocation."""

  device: str
  invocation: 'Invocation'


class Invocation:
  """Runs the work of its clients and server."""

  def __init__(
      self,
      devices: devices_lib.Devices,
      num_clients: int,
      pool: Optional[futures.Executor],
  ):
    """Without a pool, clients run one after the other in the calling thread."""
    self._devices = devices
    self._pool = pool
    self.num_clients = num_clients
    self.server = Place(devices.server, self)

  def client(self, index: int) -> Place:
    clients = self._devices.clients
    return Place(clients[index % len(clients)], self)

  def client_value(self, values: Any, index: int) -> Any:
    """Returns the value of one client, on its device if all share it."""
    if isinstance(values, AllEqual):
      return values.on_device(self.client(index).device)
    return values[index]

  def apply(
      self,
      function: Callable[[Any, Place], Any],
      argument: Any,
      result_type: tff.Type,
      place: Place,
  ) -> Any:
    """Returns `function(argument, place)`."""
    del result_type  # Needed where it is traced.
    return function(argument, place)

  def map_clients(
      self,
      function: Callable[[Any, Place], Any],
      values: Any,
      result_type: Optional[tff.Type] = None,
  ):
    """Returns `function(value, place)` of each client, in their order.

    Clients run side by side. Of their values there is a list, or an `AllEqual`.
    """
    del result_type  # Needed where it is traced.

    def run(index):
      return function(self.client_value(values, index), self.client(index))

    if self._pool is None or self.num_clients < 2:
      return [run(index) for index in range(self.num_clients)]
    calls = [self._pool.submit(run, index) for index in range(self.num_clients)]
    try:
      return [call.result() for call in calls]
    finally:
      for call in calls:
        call.cancel()
      futures.wait(calls)

  def accumulate(
      self,
      function: Callable[[Any, Place], Any],
      accumulator: Any,
      values: Any,
      accumulator_type: tff.Type,
      merge: Callable[[Any, Place], Any],
  ) -> Any:
    """Accumulates the clients' values, one after the other in their order."""
    del accumulator_type, merge  # Needed where it is traced.
    for index in range(self.num_clients):
      value = self.client_value(values, index)
      accumulator = function((accumulator, value), self.server)
    return accumulator

  def stack(self, values: Any, result_type: tff.Type) -> Any:
    """The clients' values as rows of tables at the server."""
    rows = [
        tf.nest.flatten(self.client_value(values, index))
        for index in range(self.num_clients)
    ]
    specs = tf.nest.flatten(tff.types.type_to_tf_tensor_specs(result_type))
    with tf.device(self.server.device):
      tables = [tf.stack(column) for column in zip(*rows)] or [
          tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in specs
      ]
    return pack(result_type, iter(tables))

  def zip_clients(self, values: Any) -> Any:
    """Nested tuples of clients' values as the values of nested tuples."""

    def value_of(values, index):
      if isinstance(values, tuple):
        return tuple(value_of(element, index) for element in values)
      return self.client_value(values, index)

    return [value_of(values, index) for index in range(self.num_clients)]
