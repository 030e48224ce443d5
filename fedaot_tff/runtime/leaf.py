"""Runs the TensorFlow part of a computation as a function in this process."""

from collections.abc import Iterator, Mapping, Sequence
import functools
import itertools
from typing import Any, Callable, NamedTuple, Optional
import weakref

import tensorflow as tf
from tensorflow.python.eager import context as eager_context
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import computation_pb2

from fedaot_tff.aggregators import row_gather
from fedaot_tff.runtime import devices
from fedaot_tff.runtime import graph_surgery
from fedaot_tff.runtime import resources
from fedaot_tff.runtime import traced

_Binding = computation_pb2.TensorFlow.Binding
# Of the values of tensors by name; the results are those of the fetches.
_Function = Callable[[Mapping[str, tf.Tensor]], Sequence[tf.Tensor]]

_DATASET = tf.TensorSpec([], tf.string)
_function_numbers = itertools.count()


class _Slot(NamedTuple):
  """A tensor of the graph that is a part of the parameter or the result."""

  tensor_name: str  # Without `:0`, as in the inputs of nodes.
  is_sequence: bool


def _slots(binding: _Binding) -> list[_Slot]:
  """Returns the tensors of a binding in the order of its structure."""
  kind = binding.WhichOneof('binding')
  if kind == 'struct':
    return [slot for part in binding.struct.element for slot in _slots(part)]
  name = (
      binding.tensor.tensor_name
      if kind == 'tensor'
      else binding.sequence.variant_tensor_name
  )
  return [_Slot(name.removesuffix(':0'), kind == 'sequence')]


def _pack(binding: _Binding, flat: Iterator[tf.Tensor]) -> Any:
  if binding.WhichOneof('binding') == 'struct':
    return tuple(_pack(element, flat) for element in binding.struct.element)
  return next(flat)


def _remove_functions(names: Sequence[str]):
  context = eager_context.context()
  for name in names:
    if context.has_function(name):
      context.remove_function(name)


def _import_function(
    graph_def: tf.compat.v1.GraphDef,
    feeds: Mapping[str, tf.TensorSpec],
    fetches: Sequence[_Slot],
    operation: Optional[str] = None,
) -> _Function:
  """Makes a function that fetches tensors, or runs an operation, given feeds.

  Datasets enter and leave it serialized, as string tensors. So each call reads
  a dataset from its start, and none of them is ever on an accelerator.
  """
  targets = [operation] if operation else [f.tensor_name for f in fetches]
  graph_def = graph_surgery.extract_subgraph(
      graph_def, targets, {graph_surgery.node_name(feed) for feed in feeds}
  )
  graph_surgery.rename_library_functions(
      graph_def, f'in_process_{next(_function_numbers)}_'
  )
  graph_surgery.place_input_pipelines_on_cpu(graph_def)
  used = {source for node in graph_def.node for source in node.input}
  parameters = tuple(feed for feed in feeds if feed in used)

  def body(*arguments):
    input_map = dict(zip(parameters, arguments))
    for name, value in input_map.items():
      if feeds[name] is _DATASET:
        with tf.device(devices.CPU):
          input_map[name] = tf.raw_ops.DatasetFromGraph(graph_def=value)
    if operation:
      (done,) = tf.graph_util.import_graph_def(
          graph_def, input_map=input_map, return_elements=targets, name=''
      )
      with tf.control_dependencies([done]):
        return [tf.constant(True)]
    outputs = tf.graph_util.import_graph_def(
        graph_def,
        input_map=input_map,
        return_elements=[
            target if ':' in target else f'{target}:0' for target in targets
        ],
        name='',
    )
    for index, fetch in enumerate(fetches):
      if fetch.is_sequence:
        with tf.device(devices.CPU):
          outputs[index] = tf.raw_ops.DatasetToGraphV2(
              input_dataset=outputs[index], strip_device_assignment=True
          )
    return outputs

  @functools.lru_cache(maxsize=None)
  def wrapped():
    return tf.compat.v1.wrap_function(
        body, [feeds[name] for name in parameters]
    )

  library = graph_def.library.function

  @functools.lru_cache(maxsize=None)
  def register_library():
    for function in library:
      eager_context.context().add_function_def(function)

  def call(values):
    arguments = [values[name] for name in parameters]
    if tf.executing_eagerly():
      return wrapped()(*arguments)
    # Loops over clients are functions, which know those of the process alone.
    register_library()
    return body(*map(tf.compat.v1.get_default_graph().capture, arguments))

  # TensorFlow does not remove library functions from the process by itself.
  names = [function.signature.name for function in library]
  weakref.finalize(call, _remove_functions, names).atexit = False
  return call


def _feed_specs(
    graph_def: tf.compat.v1.GraphDef, slots: Sequence[_Slot]
) -> dict[str, tf.TensorSpec]:
  nodes = {node.name: node for node in graph_def.node}
  specs = {}
  for name, is_sequence in slots:
    if is_sequence:
      specs[name] = _DATASET
    else:
      attributes = nodes[graph_surgery.node_name(name)].attr
      specs[name] = tf.TensorSpec(
          tf.TensorShape(attributes['shape'].shape), attributes['dtype'].type
      )
  return specs


class Leaf:
  """A `tff.tensorflow.computation` as a function of this process.

  As in a session of its own, its variables and tables are new in each call and
  initialized before anything else runs.
  """

  def __init__(
      self, proto: computation_pb2.TensorFlow, type_signature: tff.FunctionType
  ):
    """Imports a computation's graph; its type is for messages.

    Raises:
      NotImplementedError: If the graph has resources that cannot be made anew
        for each call.
    """
    self._type_signature = type_signature
    self._result_binding = proto.result
    graph_def = tf.compat.v1.GraphDef.FromString(proto.graph_def.value)
    parameter_slots = (
        _slots(proto.parameter) if proto.HasField('parameter') else []
    )
    self._parameter_names = [slot.tensor_name for slot in parameter_slots]
    self._resources = resources.find_resources(graph_def)
    result_slots = _slots(proto.result)
    self._result_names = [slot.tensor_name for slot in result_slots]
    # What is passed through is not fetched: it stays as it is, where it is.
    fetches = []
    for slot in result_slots:
      if slot.tensor_name not in self._parameter_names and slot not in fetches:
        fetches.append(slot)
    self._fetched_names = [slot.tensor_name for slot in fetches]
    feeds = _feed_specs(graph_def, parameter_slots)
    handles = {name: tf.TensorSpec([], tf.resource) for name in self._resources}
    # See `row_gather`.
    self.stacks_rows = any(
        node.name == row_gather.STACKS_ROWS for node in graph_def.node
    )
    self._is_pure = not (
        self._resources
        or proto.initialize_op
        or resources.has_queue(graph_def)
        or any(slot.is_sequence for slot in parameter_slots + result_slots)
    )
    self._make_run = None
    self._initialize = None
    if fetches:
      self._make_run = functools.partial(
          _import_function, graph_def, {**feeds, **handles}, fetches
      )
      if not resources.has_queue(graph_def):
        # One function for all calls.
        self._make_run = functools.lru_cache(maxsize=None)(self._make_run)
      if proto.initialize_op:
        self._initialize = _import_function(
            graph_def, handles, [], proto.initialize_op
        )

  def __call__(self, argument: Any, device: str) -> Any:
    """Runs the computation on the device of this name.

    Argument and result are tensors or nested tuples of tensors, with datasets
    as serialized graphs. If TensorFlow fails, the message of its error names
    the computation.
    """
    flat = [] if argument is None else tf.nest.flatten(argument)
    values = dict(zip(self._parameter_names, flat))
    if not tf.executing_eagerly():
      values.update(self._trace(values, device))
    elif self._make_run is not None:
      try:
        values.update(self._fetch(values, device))
      except tf.errors.OpError as error:
        raise type(error)(
            error.node_def,
            error.op,
            f'{error.message}\nRaised by the TensorFlow computation '
            f'{self._type_signature.compact_representation()} on {device}.',
        ) from error
    results = iter([values[name] for name in self._result_names])
    return _pack(self._result_binding, results)

  def _trace(
      self, values: Mapping[str, tf.Tensor], device: str
  ) -> Iterator[tuple[str, tf.Tensor]]:
    if not self._is_pure:
      raise traced.NotTraceable('variables, tables, queues or datasets')
    outputs = []
    if self._fetched_names:
      with tf.device(device):
        outputs = self._make_run()(values)
    return zip(self._fetched_names, outputs)

  def _fetch(
      self, values: Mapping[str, tf.Tensor], device: str
  ) -> Iterator[tuple[str, tf.Tensor]]:
    feeds = {
        name: devices.to_device(value, device) for name, value in values.items()
    }
    handles = {}
    with tf.device(device):
      try:
        for name, make in self._resources.items():
          handles[name] = make()
        if self._initialize is not None:
          self._initialize(handles)
        outputs = self._make_run()({**feeds, **handles})
      finally:
        for handle in handles.values():
          resources.destroy(handle)
    return zip(self._fetched_names, outputs)
