"""What the operators of federated computations do.

The values of a struct are a tuple, those of clients a list with one value a
client or a `AllEqual`, and those of the server the values themselves.
Functions are called with an argument and a `Place`.
"""

import functools
from typing import Any, Callable

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.runtime import invocation
from fedaot_tff.runtime import traced
from fedaot_tff.runtime import values as values_lib

_Function = Callable[[Any, invocation.Place], Any]


def _not_traced(function: _Function) -> _Function:
  """What looks at values, or at datasets, and cannot be traced."""

  @functools.wraps(function)
  def call(*args, **kwargs):
    if not tf.executing_eagerly():
      raise traced.NotTraceable(function.__name__)
    return function(*args, **kwargs)

  return call


def _apply(argument, place, signature):
  function, value = argument
  here = place.invocation
  return here.apply(function, value, signature.result.member, here.server)


def _map(argument, place, signature):
  function, values = argument
  return place.invocation.map_clients(function, values, signature.result.member)


def _map_all_equal(argument, place, signature):
  function, values = argument
  here = place.invocation
  value = here.client_value(values, 0)
  return invocation.AllEqual(
      here.apply(function, value, signature.result.member, here.client(0))
  )


def _eval_at_clients(function, place, signature):
  return place.invocation.map_clients(
      lambda _, client: function(None, client),
      invocation.AllEqual(()),
      signature.result.member,
  )


def _eval_at_server(function, place, signature):
  here = place.invocation
  return here.apply(function, None, signature.result.member, here.server)


def _value_at_clients(value, place):
  del place
  return invocation.AllEqual(value)


def _value_at_server(value, place):
  del place
  return value


def _aggregate(argument, place, signature):
  # As TFF's runtime does it.
  values, zero, accumulate, merge, report = argument
  here, result_type = place.invocation, signature.result.member
  if getattr(accumulate, 'stacks_rows', False):
    return here.stack(values, result_type)
  accumulator = here.accumulate(
      accumulate, zero, values, signature.parameter[1], merge
  )
  return here.apply(report, accumulator, result_type, here.server)


def _is_all_equal(values) -> bool:
  if isinstance(values, tuple):
    return all(_is_all_equal(element) for element in values)
  return isinstance(values, invocation.AllEqual)


def _shared_value(values):
  if isinstance(values, tuple):
    return tuple(_shared_value(element) for element in values)
  return values.value


def _zip_at_clients(argument, place):
  if _is_all_equal(argument):
    return invocation.AllEqual(_shared_value(argument))
  return place.invocation.zip_clients(argument)


@_not_traced
def _select(argument, place, signature):
  """Sends each client the slices of a server's value that it asks for."""
  client_keys, max_key, value, select = argument
  server = place.invocation.server
  sequence_type = signature.result.member
  max_key = int(max_key)
  slices = {}

  def slice_of(key):
    key = int(key)
    if not 0 <= key < max_key:
      raise ValueError(
          'The keys of `federated_select` must be at least 0 and less than '
          f'{max_key}, found {key}.'
      )
    if key not in slices:
      slices[key] = select((value, tf.constant(key, tf.int32)), server)
    return slices[key]

  def slices_of(index):
    keys = place.invocation.client_value(client_keys, index).numpy()
    return values_lib.make_sequence(map(slice_of, keys), sequence_type)

  return [slices_of(index) for index in range(place.invocation.num_clients)]


@_not_traced
def _sequence_reduce(argument, place, signature):
  sequence, accumulator, reduce = argument
  for element in values_lib.iterate(sequence, signature.parameter[0]):
    accumulator = reduce((accumulator, element), place)
  return accumulator


_IMPLEMENTATIONS = {
    'federated_broadcast': _value_at_clients,
    'federated_value_at_clients': _value_at_clients,
    'federated_value_at_server': _value_at_server,
    'federated_zip_at_clients': _zip_at_clients,
    'federated_zip_at_server': _value_at_server,
}
# Those that ask for the type where they are called.
_TYPED_IMPLEMENTATIONS = {
    'federated_aggregate': _aggregate,
    'federated_apply': _apply,
    'federated_eval_at_clients': _eval_at_clients,
    'federated_eval_at_server': _eval_at_server,
    'federated_map': _map,
    'federated_map_all_equal': _map_all_equal,
    'federated_select': _select,
    'sequence_reduce': _sequence_reduce,
}


def get_intrinsic(uri: str, signature: tff.FunctionType) -> _Function:
  """Returns the function of an intrinsic that is called with this type.

  Raises:
    NotImplementedError: If there is none.
  """
  if uri in _TYPED_IMPLEMENTATIONS:
    return functools.partial(_TYPED_IMPLEMENTATIONS[uri], signature=signature)
  if uri not in _IMPLEMENTATIONS:
    raise NotImplementedError(f'not supported: {uri}')
  return _IMPLEMENTATIONS[uri]
