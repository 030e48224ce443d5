"""Computations without datasets or resources as one TensorFlow function.

The operators only note what is to be done. Then each loop over the clients does
all that can be done in it: a round in which nothing clients do waits for what
the server makes of other clients' results has a single loop.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import itertools
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.core.protobuf import rewriter_config_pb2
from tensorflow.python.eager import context as eager_context
from tensorflow.python.ops import list_ops
import tensorflow_federated as tff

from fedaot_tff.runtime import devices as devices_lib
from fedaot_tff.runtime import invocation


class NotTraceable(Exception):
  """Something of a computation has to run outside of the function."""


@dataclasses.dataclass(eq=False)
class Later:
  """A tensor that there will be; one a client with `is_rows`.

  Attributes:
    spec: Of the tensor.
    loop: The first loop over the clients that can use it. That makes it, too,
      if it `is_rows`.
    content: The tensor, or a list of TensorFlow of one a client, once made.
  """

  spec: tf.TensorSpec
  loop: int
  is_rows: bool
  content: Optional[tf.Tensor] = None


class Step(NamedTuple):
  """Something noted: of the server, of each client, or an accumulation.

  Attributes:
    run: A function of the argument, and for an accumulation before it of the
      accumulator.
    argument: Nested tuples of tensors, `Later`s and `AllEqual`s.
    results: The flat result.
    loop: Where clients do it; None for the server.
    result_type: Of the result.
    start: The zero of an accumulation, else None.
    merge: Makes one accumulator of two, else None.
    stacks: Whether it makes tables of the clients' rows.
  """

  run: Callable[..., Any]
  argument: Any
  results: list[Later]
  loop: Optional[int]
  result_type: tff.Type
  start: Any = None
  merge: Optional[Callable[[Any], Any]] = None
  stacks: bool = False


class Stage(NamedTuple):
  """What the server does and then, in one loop, the clients."""

  server: list[Step]
  clients: list[Step]


def flatten(value: Any) -> list[Any]:
  """What nested tuples and `AllEqual`s hold."""
  if isinstance(value, invocation.AllEqual):
    value = value.value
  if isinstance(value, tuple):
    return [part for element in value for part in flatten(element)]
  return [value]


def find_later(*values: Any) -> list[Later]:
  return [part for part in flatten(values) if isinstance(part, Later)]


def replace_later(value: Any, tensor_of: Callable[[Later], Any]) -> Any:
  """Nested tuples of tensors alone."""
  if isinstance(value, invocation.AllEqual):
    value = value.value
  if isinstance(value, tuple):
    return tuple(replace_later(element, tensor_of) for element in value)
  return tensor_of(value) if isinstance(value, Later) else value


def content_of(later: Later) -> tf.Tensor:
  return later.content


def specs_of(type_spec: tff.Type) -> list[tf.TensorSpec]:
  """The tensors of an unplaced type, in order."""
  if isinstance(type_spec, tff.StructType):
    return [spec for part in type_spec for spec in specs_of(part)]
  if isinstance(type_spec, tff.TensorType):
    return [tf.TensorSpec(type_spec.shape, type_spec.dtype.type)]
  raise NotTraceable(f'{type_spec} is no structure of tensors')


class TracedInvocation:
  """An `invocation.Invocation` in a TensorFlow function, for one device.

  What clients have is an `AllEqual`, or nested tuples of them and `Later`s.
  """

  def __init__(
      self,
      devices: devices_lib.Devices,
      num_clients: tf.Tensor,
      max_concurrent_clients: int,
  ):
    self._client = invocation.Place(devices.clients[0], self)
    self._num_clients = num_clients
    self._max_concurrent_clients = max_concurrent_clients
    self.steps = []  # In an order in which they can be done.
    self.server = invocation.Place(devices.server, self)

  def client(self, index: int) -> invocation.Place:
    del index
    return self._client

  def client_value(self, values: invocation.AllEqual, index: int) -> Any:
    del index
    return values.value

  def zip_clients(self, values: Any) -> Any:
    return values

  def apply(self, function, argument, result_type, place):
    """Notes that a function is called on one value."""
    return self._note(
        lambda value: function(value, place),
        argument,
        self._first_loop(argument),
        result_type,
    )

  def map_clients(self, function, values, result_type):
    loop = self._first_loop(values)
    return self._note(
        lambda value: function(value, self._client),
        values,
        loop,
        result_type,
        loop=loop,
    )

  def accumulate(self, function, zero, values, accumulator_type, merge):
    loop = self._first_loop((zero, values))
    return self._note(
        lambda accumulator, value: function((accumulator, value), self.server),
        values,
        loop + 1,
        accumulator_type,
        loop=loop,
        start=zero,
        merge=lambda pair: merge(pair, self.server),
    )

  def stack(self, values, result_type):
    """The clients' values as rows of tables."""

    def run(value):
      return tuple(
          list_ops.tensor_list_stack(
              rows, spec.dtype, element_shape=spec.shape[1:]
          )
          if rows.dtype == tf.variant
          else tf.repeat(rows[None], self._num_clients, axis=0)
          for rows, spec in zip(flatten(value), specs_of(result_type))
      )

    loop = self._first_loop(values) + 1
    return self._note(run, values, loop, result_type, stacks=True)

  def _first_loop(self, values):
    return max((later.loop for later in find_later(values)), default=0)

  def _note(self, run, argument, available, result_type, **options):
    is_rows = 'loop' in options and 'start' not in options
    results = [Later(s, available, is_rows) for s in specs_of(result_type)]
    options.setdefault('loop', None)
    self.steps.append(
        Step(run, argument, results, result_type=result_type, **options)
    )
    return invocation.pack(result_type, iter(results))

  def stages(self, result: Any) -> list[Stage]:
    """What has been noted and the result needs."""
    needed, steps = set(find_later(result)), []
    for step in reversed(self.steps):
      if not needed.isdisjoint(step.results):
        steps.insert(0, step)
        needed.update(find_later(step.argument, step.start))
    last = max((later.loop for later in needed), default=0)
    return [
        Stage(
            [s for s in steps if s.loop is None and s.results[0].loop == loop],
            [s for s in steps if s.loop == loop],
        )
        for loop in range(last + 1)
    ]

  def finish(self, result: Any) -> list[tf.Tensor]:
    """Does what has been noted and the result needs; returns it, flat."""
    stages = self.stages(result)
    for number, stage in enumerate(stages):
      self.run_at_server(stage.server)
      self.run_loop(stage.clients, needed_after(stages[number:], result))
    return flatten(replace_later(result, content_of))

  def run_at_server(self, steps: Sequence[Step]) -> None:
    """Does what the server does."""
    for step in steps:
      with tf.device(self.server.device):
        made = step.run(replace_later(step.argument, content_of))
      for later, tensor in zip(step.results, flatten(made)):
        later.content = tensor

  def run_loop(self, steps: Sequence[Step], needed: set[Later]) -> None:
    """Does for each client what all of these steps ask for.

    Of the rows, it keeps those that are needed.
    """
    if not steps:
      return
    kept = [
        later
        for step in steps
        for later in step.results
        if later.is_rows and later in needed
    ]
    sums = [step for step in steps if step.start is not None]

    def body(index, lists, accumulators):
      made = {}

      def tensor_of(later):
        if later not in made:
          made[later] = (
              list_ops.tensor_list_get_item(
                  later.content, index, later.spec.dtype, later.spec.shape
              )
              if later.is_rows
              else later.content
          )
        return made[later]

      accumulators = list(accumulators)
      for step in steps:
        argument = replace_later(step.argument, tensor_of)
        if step.start is None:
          made.update(zip(step.results, flatten(step.run(argument))))
        else:
          which = sums.index(step)
          accumulators[which] = step.run(accumulators[which], argument)
      lists = [
          list_ops.tensor_list_set_item(rows, index, made[later])
          for rows, later in zip(lists, kept)
      ]
      return index + 1, lists, accumulators

    with tf.device(self._client.device):
      lists = [
          list_ops.tensor_list_reserve(
              later.spec.shape, self._num_clients, later.spec.dtype
          )
          for later in kept
      ]
      starts = [replace_later(step.start, content_of) for step in sums]
      scalar = tf.TensorShape([])
      shapes = [
          invocation.pack(
              step.result_type, iter(l.spec.shape for l in step.results)
          )
          for step in sums
      ]
      _, lists, ends = tf.while_loop(
          lambda index, *_: index < self._num_clients,
          body,
          (tf.constant(0), lists, starts),
          shape_invariants=(scalar, [scalar] * len(lists), shapes),
          parallel_iterations=self._max_concurrent_clients,
      )
    for later, rows in zip(kept, lists):
      later.content = rows
    for step, end in zip(sums, ends):
      for later, tensor in zip(step.results, flatten(end)):
        later.content = tensor


def needed_after(stages: Sequence[Stage], result: Any) -> set[Later]:
  """What is asked for after the clients' part of the first of these stages."""
  needed = set(find_later(result))
  for stage in stages[1:]:
    for step in (*stage.server, *stage.clients):
      needed.update(find_later(step.argument, step.start))
  return needed


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
  parameters = list(slots(signature.parameter))
  are_rows = []

  def body(num_clients, *flat):
    here = TracedInvocation(devices, num_clients, max_concurrent_clients)
    flat = iter(
        Later(slot.spec, 0, True, tensor) if slot.is_rows else tensor
        for tensor, slot in zip(flat, parameters)
    )
    argument = inside(signature.parameter, flat)
    result = function(argument, here.server)
    are_rows[:] = [
        isinstance(part, Later) and part.is_rows for part in flatten(result)
    ]
    return here.finish(result)

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
  results = list(slots(signature.result))

  def call(argument, num_clients):
    with tf.device(devices.clients[0]):
      flat = list(_from_outside(argument, signature.parameter))
    with optimized_once():
      outputs = traced(tf.constant(num_clients), *flat)

    def to_outside(output, slot, has_rows):
      if not slot.is_rows:
        return output
      if not has_rows:
        return [output] * num_clients
      return [
          list_ops.tensor_list_get_item(
              output, index, slot.spec.dtype, slot.spec.shape
          )
          for index in range(num_clients)
      ]

    flat = map(to_outside, outputs, results, are_rows)
    return outside(signature.result, flat, num_clients)

  return call


@contextlib.contextmanager
def optimized_once() -> Iterator[None]:
  """A second pass over a round's graph takes longer than it saves."""
  context = eager_context.context()
  before = context.function_call_options
  config = config_pb2.ConfigProto()
  config.MergeFrom(context.config)
  config.allow_soft_placement = True
  config.graph_options.rewrite_options.meta_optimizer_iterations = (
      rewriter_config_pb2.RewriterConfig.ONE
  )
  context.function_call_options = eager_context.FunctionCallOptions(
      config_proto=config
  )
  try:
    yield
  finally:
    context.function_call_options = before


class _Slot(NamedTuple):
  """A tensor of a value; `is_rows` if each client has its own."""

  spec: tf.TensorSpec
  is_rows: bool = False


def differs_by_client(type_spec: tff.FederatedType) -> bool:
  return type_spec.placement is tff.CLIENTS and not type_spec.all_equal


def slots(type_spec: tff.Type) -> Iterator[_Slot]:
  if isinstance(type_spec, tff.FederatedType):
    for spec in specs_of(type_spec.member):
      yield _Slot(spec, differs_by_client(type_spec))
  elif isinstance(type_spec, tff.StructType):
    for part in type_spec:
      yield from slots(part)
  else:
    yield from map(_Slot, specs_of(type_spec))


def inside(type_spec: tff.Type, flat: Iterator[Any]) -> Any:
  """The value of a type in the function."""
  if isinstance(type_spec, tff.FederatedType):
    value = invocation.pack(type_spec.member, flat)
    if type_spec.placement is tff.CLIENTS and type_spec.all_equal:
      return invocation.AllEqual(value)
    return value
  if isinstance(type_spec, tff.StructType):
    return tuple(inside(part, flat) for part in type_spec)
  return next(flat)


def _from_outside(value: Any, type_spec: tff.Type) -> Iterator[tf.Tensor]:
  """The arguments of the function for an ingested value."""
  if isinstance(type_spec, tff.FederatedType) and differs_by_client(type_spec):
    columns = zip(*map(flatten, value))
    for spec, items in itertools.zip_longest(
        specs_of(type_spec.member), columns, fillvalue=()
    ):
      rows = list_ops.tensor_list_reserve(spec.shape, len(items), spec.dtype)
      for index, item in enumerate(items):
        rows = list_ops.tensor_list_set_item(rows, index, item)
      yield rows
  elif isinstance(type_spec, tff.StructType):
    for element, part in zip(value, type_spec):
      yield from _from_outside(element, part)
  else:
    yield from flatten(value)


def outside(type_spec: tff.Type, flat: Iterator[Any], num_clients: int) -> Any:
  """The value of a type for `values.export`."""
  if isinstance(type_spec, tff.FederatedType):
    value = invocation.pack(type_spec.member, flat)
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
    return tuple(outside(part, flat, num_clients) for part in type_spec)
  return next(flat)
