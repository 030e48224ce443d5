"""A function of TensorFlow that travels from process to process."""

import itertools
from typing import Any, Callable, NamedTuple

import tensorflow as tf
from tensorflow.python.eager import context as eager_context

from fedaot_tff.runtime import graph_surgery

_numbers = itertools.count()


class GraphFunction(NamedTuple):
  """A graph, serialized, with the names of what it takes and returns."""

  graph: bytes
  inputs: tuple[tuple[str, tf.TensorSpec], ...]
  outputs: tuple[str, ...]


def export(function: Any) -> tuple[GraphFunction, list[int]]:
  """A concrete function without captures, and which arguments it needs."""
  graph_def = function.graph.as_graph_def()
  _add_missing_functions(graph_def)
  names = [tensor.op.name for tensor in function.inputs]
  outputs = tuple(tensor.name for tensor in function.outputs)
  graph_def = graph_surgery.extract_subgraph(graph_def, outputs, names)
  used = {graph_surgery.node_name(output) for output in outputs}
  for node in graph_def.node:
    used.update(map(graph_surgery.node_name, node.input))
  needed = [index for index, name in enumerate(names) if name in used]
  inputs = tuple(
      (f'{names[i]}:0', tf.TensorSpec.from_tensor(function.inputs[i]))
      for i in needed
  )
  return GraphFunction(graph_def.SerializeToString(), inputs, outputs), needed


def _add_missing_functions(graph_def: tf.compat.v1.GraphDef) -> None:
  """Adds what only this process knows of the functions that a graph calls."""
  known = {f.signature.name for f in graph_def.library.function}
  context = eager_context.context()
  pending = list(graph_surgery.called_functions(graph_def))
  while pending:
    name = pending.pop()
    if name not in known and context.has_function(name):
      known.add(name)
      definition = context.get_function_def(name)
      graph_def.library.function.add().CopyFrom(definition)
      alone = tf.compat.v1.GraphDef()
      alone.library.function.add().CopyFrom(definition)
      pending.extend(graph_surgery.called_functions(alone))


def load(function: GraphFunction) -> Callable[..., list[tf.Tensor]]:
  """Makes it callable."""
  graph_def = tf.compat.v1.GraphDef.FromString(function.graph)
  # The process has functions of its own, of the same names.
  graph_surgery.rename_library_functions(
      graph_def, f'received_{next(_numbers)}_'
  )
  names, specs = zip(*function.inputs) if function.inputs else ((), ())

  def body(*arguments):
    return tf.graph_util.import_graph_def(
        graph_def,
        input_map=dict(zip(names, arguments)),
        return_elements=list(function.outputs),
        name='',
    )

  return tf.compat.v1.wrap_function(body, specs)
