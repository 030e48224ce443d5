"""Turns computations into functions of this process."""

import functools
import hashlib
from typing import Any, Callable, NamedTuple
import weakref

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2
from tensorflow_federated.python.core.impl.compiler import tree_analysis

from fedaot_tff.runtime import intrinsics
from fedaot_tff.runtime import invocation
from fedaot_tff.runtime import leaf

Function = Callable[[Any, invocation.Place], Any]


class _Code(NamedTuple):
  """A building block to run.

  Attributes:
    run: Returns the value, given a dictionary from the names in scope to their
      values, and a place.
    names: The names that it takes from the scope.
  """

  run: Callable[[dict[str, Any], invocation.Place], Any]
  names: frozenset[str]


def compile_to_building_block(
    computation: tff.framework.ConcreteComputation,
) -> tff.framework.ComputationBuildingBlock:
  """Returns a computation as a block of calls of TensorFlow and intrinsics.

  As for TFF's native runtime, but for secure sums, which become sums in the
  clear that check their bounds, as in TFF's test backend.
  """
  # A call-dominant form is flat. What replaces the secure sums would make some
  # computations deeper than a protocol buffer may be.
  block = tff.framework.to_call_dominant(computation.to_building_block())
  if tree_analysis.contains(block, _is_secure):
    # It takes and returns serialized computations, which is slow.
    computation = tff.backends.test.replace_secure_intrinsics_with_bodies(
        tff.framework.ConcreteComputation.from_building_block(block)
    )
    block = computation.to_building_block()
  block, _ = tff.tensorflow.replace_intrinsics_with_bodies(block)
  return tff.framework.to_call_dominant(block)


def _is_secure(block: tff.framework.ComputationBuildingBlock) -> bool:
  return isinstance(block, tff.framework.Intrinsic) and block.uri.startswith(
      'federated_secure'
  )


class ProgramBuilder:
  """Makes functions of building blocks.

  Equal TensorFlow computations are imported once, for as long as a function
  that uses them exists.
  """

  def __init__(self):
    self._leaves = weakref.WeakValueDictionary()
    self._builders = {
        tff.framework.Block: self._block,
        tff.framework.Call: self._call,
        tff.framework.CompiledComputation: self._compiled,
        tff.framework.Intrinsic: self._intrinsic,
        tff.framework.Lambda: self._lambda,
        tff.framework.Literal: self._literal,
        tff.framework.Reference: self._reference,
        tff.framework.Selection: self._selection,
        tff.framework.Struct: self._struct,
    }

  def build(
      self, building_block: tff.framework.ComputationBuildingBlock
  ) -> Function:
    """Returns the function of a building block without unbound references.

    The function's argument is None if it has no parameter.

    Raises:
      NotImplementedError: If the block contains what cannot be run here.
    """
    code = self._code(building_block)

    def function(argument, place):
      return code.run({}, place)(argument, place)

    return function

  def _code(self, block: tff.framework.ComputationBuildingBlock) -> _Code:
    if type(block) not in self._builders:
      raise NotImplementedError(f'not supported: {type(block).__name__}')
    return self._builders[type(block)](block)

  def _block(self, block: tff.framework.Block) -> _Code:
    steps = [(name, self._code(value)) for name, value in block.locals]
    result = self._code(block.result)
    names = result.names
    # What is used for the last time by a step is dropped after it, so that
    # large values do not stay until the end of a round.
    plan = []
    used_later = result.names
    for name, code in reversed(steps):
      names = (names - {name}) | code.names
      plan.append((name, code, (code.names | {name}) - used_later))
      used_later |= code.names
    plan.reverse()

    def run(scope, place):
      scope = dict(scope)
      for name, code, dead in plan:
        scope[name] = code.run(scope, place)
        for dead_name in dead:
          del scope[dead_name]
      return result.run(scope, place)

    return _Code(run, names)

  def _call(self, block: tff.framework.Call) -> _Code:
    function = self._code(block.function)
    if block.argument is None:
      return _Code(
          lambda scope, place: function.run(scope, place)(None, place),
          function.names,
      )
    argument = self._code(block.argument)

    def run(scope, place):
      return function.run(scope, place)(argument.run(scope, place), place)

    return _Code(run, function.names | argument.names)

  def _compiled(self, block: tff.framework.CompiledComputation) -> _Code:
    kind = block.proto.WhichOneof('computation')
    if kind != 'tensorflow':
      raise NotImplementedError(f'not supported: {kind}')
    function = self._leaf(block.proto.tensorflow, block.type_signature)

    def call(argument, place):
      return function(argument, place.device)

    call.stacks_rows = function.stacks_rows
    return _Code(lambda scope, place: call, frozenset())

  def _leaf(
      self,
      proto: computation_pb2.TensorFlow,
      type_signature: tff.FunctionType,
  ) -> leaf.Leaf:
    key = hashlib.sha256(proto.SerializeToString(deterministic=True)).digest()
    found = self._leaves.get(key)
    if found is None:
      found = leaf.Leaf(proto, type_signature)
      self._leaves[key] = found
    return found

  def _intrinsic(self, block: tff.framework.Intrinsic) -> _Code:
    function = intrinsics.get_intrinsic(block.uri, block.type_signature)
    return _Code(lambda scope, place: function, frozenset())

  def _lambda(self, block: tff.framework.Lambda) -> _Code:
    body = self._code(block.result)
    parameter = block.parameter_name
    names = body.names - {parameter}

    def call(argument, place, captured):
      scope = dict(captured)
      if parameter is not None:
        scope[parameter] = argument
      return body.run(scope, place)

    def run(scope, place):
      del place
      return functools.partial(
          call, captured={name: scope[name] for name in names}
      )

    return _Code(run, names)

  def _literal(self, block: tff.framework.Literal) -> _Code:
    type_spec = block.type_signature

    def run(scope, place):
      del scope
      with tf.device(place.device):
        return tf.constant(block.value, type_spec.dtype, type_spec.shape)

    return _Code(run, frozenset())

  def _reference(self, block: tff.framework.Reference) -> _Code:
    name = block.name
    return _Code(lambda scope, place: scope[name], frozenset([name]))

  def _selection(self, block: tff.framework.Selection) -> _Code:
    source = self._code(block.source)
    index = block.as_index()
    return _Code(
        lambda scope, place: source.run(scope, place)[index], source.names
    )

  def _struct(self, block: tff.framework.Struct) -> _Code:
    elements = [self._code(element) for element in block]
    return _Code(
        lambda scope, place: tuple(e.run(scope, place) for e in elements),
        frozenset().union(*(element.names for element in elements)),
    )
