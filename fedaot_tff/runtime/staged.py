"""A round as functions: in each stage one of the server and one of clients.

The function of the clients is of a block of them. What they have stays where
it runs; the server gets tables of rows and sums, one of each a block. Tensors
that a later function needs go by numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.runtime import blocks
from fedaot_tff.runtime import devices as devices_lib
from fedaot_tff.runtime import graph_function
from fedaot_tff.runtime import traced

_ServerFunction = Callable[..., Sequence[tf.Tensor]]
_ON_CPU = devices_lib.Devices((devices_lib.CPU,), devices_lib.CPU)


class Stage(NamedTuple):
  """A stage, the server's part first.

  Attributes:
    run: Of the tensors of `inputs`; returns those of `outputs`.
    inputs: Numbers.
    outputs: Numbers.
    block: What clients do; None for nothing.
    received: The numbers of their tables and then of their sums.
  """

  run: _ServerFunction
  inputs: tuple[int, ...]
  outputs: tuple[int, ...]
  block: Optional[blocks.BlockStage]
  received: tuple[int, ...]


class Round(NamedTuple):
  """The stages, and the flat result of the tensors of `inputs`.

  The tensors of the argument have the numbers from 0 on.
  """

  stages: list[Stage]
  result: _ServerFunction
  inputs: tuple[int, ...]


class _Noted:
  """What there is to do in a computation, in the graph of one function."""

  def __init__(self, here: traced.TracedInvocation, result: Any, tensors: Any):
    self.here = here
    self.result = result
    self.stages = here.stages(result)
    # By number: those of the argument, then `Later`s.
    self.tensors = [*tensors, *(r for step in here.steps for r in step.results)]
    self._numbers = {
        tensor: number
        for number, tensor in enumerate(self.tensors)
        if isinstance(tensor, traced.Later)
    }

  def numbers(self, laters: Iterable[traced.Later]) -> tuple[int, ...]:
    return tuple(self._numbers[later] for later in laters)

  def contents(self, numbers: Iterable[int]) -> list[tf.Tensor]:
    return [self.tensors[number].content for number in numbers]

  def at_server(self, stage: int) -> list[traced.Step]:
    return [step for step in self.stages[stage].server if not step.stacks]

  def tables(self, stage: int) -> list[traced.Step]:
    """The steps that make tables of what clients have after their loop."""
    if stage + 1 == len(self.stages):
      return []
    return [step for step in self.stages[stage + 1].server if step.stacks]

  def sums(self, stage: int) -> list[traced.Step]:
    return [step for step in self.stages[stage].clients if step.merge]

  def of_block(self, stage: int) -> list[traced.Step]:
    return [*self.stages[stage].clients, *self.tables(stage)]

  def results(self, steps: Iterable[traced.Step]) -> tuple[int, ...]:
    return self.numbers(later for step in steps for later in step.results)

  def needs(self, steps: Sequence[traced.Step]) -> tuple[int, ...]:
    """What the steps need that others make."""
    needs = {
        later: None
        for step in steps
        for later in traced.find_later(step.argument, step.start)
    }
    for step in steps:
      for later in step.results:
        needs.pop(later, None)
    return self.numbers(needs)


_Body = Callable[[_Noted, Sequence[tf.Tensor]], list[tf.Tensor]]


class _Tracer:
  """Traces functions of a computation, which is noted anew in each."""

  def __init__(
      self,
      function: Callable[..., Any],
      signature: tff.FunctionType,
      devices: devices_lib.Devices,
  ):
    self._function = function
    self._signature = signature
    self._devices = devices
    self._slots = list(traced.slots(signature.parameter))
    # The server's part of the argument.
    self._arguments = tuple(
        number for number, slot in enumerate(self._slots) if not slot.is_rows
    )
    noted = []
    # To see what there is to do.
    self._trace(_ON_CPU, (), lambda found, _: noted.append(found) or [])
    (self._noted,) = noted

  def round(self) -> Round:
    noted = self._noted
    stages = [self._stage(index) for index in range(len(noted.stages))]
    given = noted.numbers(dict.fromkeys(traced.find_later(noted.result)))
    result, inputs = self._trace_server(
        given,
        lambda noted, _: traced.flatten(
            traced.replace_later(noted.result, traced.content_of)
        ),
    )
    return Round(stages, result, inputs)

  def _stage(self, index: int) -> Stage:
    noted = self._noted
    steps = noted.at_server(index)
    needed = set(noted.numbers(traced.find_later(noted.result)))
    needed.update(noted.needs(noted.of_block(index)))
    for later in range(index + 1, len(noted.stages)):
      needed.update(noted.needs(noted.at_server(later)))
      needed.update(noted.needs(noted.of_block(later)))
    outputs = tuple(n for n in noted.results(steps) if n in needed)

    def body(noted, _):
      noted.here.run_at_server(noted.at_server(index))
      return noted.contents(outputs)

    run, inputs = self._trace_server(noted.needs(steps), body)
    if not noted.of_block(index):
      return Stage(run, inputs, outputs, None, ())
    received = noted.results([*noted.tables(index), *noted.sums(index)])
    return Stage(run, inputs, outputs, self._block_stage(index), received)

  def _block_stage(self, index: int) -> blocks.BlockStage:
    noted = self._noted
    of_block, tables = noted.of_block(index), noted.tables(index)
    needed_later = frozenset(
        number
        for later in range(index + 1, len(noted.stages))
        for number in noted.needs(noted.of_block(later))
        if self._is_rows(number)
    )
    kept = tuple(n for n in noted.results(of_block) if n in needed_later)
    given = noted.needs(of_block)
    sums = noted.results(noted.sums(index))

    def body(noted, _):
      tables = noted.tables(index)
      for_tables = traced.find_later(*(step.argument for step in tables))
      noted.here.run_loop(
          noted.stages[index].clients,
          {*for_tables, *(noted.tensors[number] for number in kept)},
      )
      noted.here.run_at_server(tables)
      return noted.contents([*kept, *noted.results(tables), *sums])

    def merge(noted, tensors):
      tensors = tensors[-2 * len(sums) :]
      first, second = iter(tensors[: len(sums)]), iter(tensors[len(sums) :])
      merged = []
      for step in noted.sums(index):
        pair = tuple(
            traced.inside(step.result_type, flat) for flat in (first, second)
        )
        merged += traced.flatten(step.merge(pair))
      return merged

    run, used = graph_function.export(self._trace(_ON_CPU, given, body))
    candidates = (blocks.NUM_CLIENTS, *self._arguments, *given)
    inputs = tuple(candidates[i] for i in used)
    merge_function, merge_inputs = None, ()
    if sums:
      twice = self._trace(_ON_CPU, (*sums, *sums), merge)
      merge_function, used = graph_function.export(twice)
      merge_inputs = tuple(i - 1 - len(self._arguments) for i in used)
    return blocks.BlockStage(
        run,
        inputs,
        tuple(
            n
            for n in inputs
            if n != blocks.NUM_CLIENTS and not self._is_rows(n)
        ),
        kept,
        needed_later,
        len(noted.results(tables)),
        merge_function,
        merge_inputs,
    )

  def _is_rows(self, number: int) -> bool:
    tensor = self._noted.tensors[number]
    return isinstance(tensor, traced.Later) and tensor.is_rows

  def _trace_server(
      self, given: Sequence[int], body: _Body
  ) -> tuple[_ServerFunction, tuple[int, ...]]:
    """The function and its inputs; it knows nothing of single clients."""
    function = self._trace(self._devices, given, body)
    return (
        lambda *tensors: function(tf.constant(0), *tensors),
        (*self._arguments, *given),
    )

  def _trace(
      self, devices: devices_lib.Devices, given: Sequence[int], body: _Body
  ):
    """Of the number of clients, the server's argument and given tensors."""

    def run(num_clients, *flat):
      server = iter(flat)
      here = traced.TracedInvocation(devices, num_clients, 1)
      tensors = [
          traced.Later(slot.spec, 0, True) if slot.is_rows else next(server)
          for slot in self._slots
      ]
      argument = traced.inside(self._signature.parameter, iter(tensors))
      noted = _Noted(here, self._function(argument, here.server), tensors)
      rest = list(server)
      for number, tensor in zip(given, rest):
        noted.tensors[number].content = tensor
      return body(noted, rest)

    return tf.function(
        run,
        autograph=False,
        input_signature=[
            tf.TensorSpec([], tf.int32),
            *(self._slots[number].spec for number in self._arguments),
            *map(self._spec, given),
        ],
    ).get_concrete_function()

  def _spec(self, number: int) -> tf.TensorSpec:
    if self._is_rows(number):
      return tf.TensorSpec([], tf.variant)
    return self._noted.tensors[number].spec


def trace(
    function: Callable[..., Any],
    signature: tff.FunctionType,
    devices: devices_lib.Devices,
) -> Round:
  """Makes the functions; raises `traced.NotTraceable` if it cannot.

  The server's run on its device, those of the clients on the CPU of a process.
  """
  if any(slot.is_rows for slot in traced.slots(signature.result)):
    raise traced.NotTraceable('a result that stays at the clients')
  return _Tracer(function, signature, devices).round()
