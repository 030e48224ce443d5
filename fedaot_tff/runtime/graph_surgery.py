"""Prepares TensorFlow graphs of computations for running as functions.

A computation's graph was written for a TensorFlow session of its own. As a
function it shares the process with all other computations, which asks for
three changes, made here on the serialized graph.
"""

from collections.abc import Collection, Iterable, Iterator
import re

import tensorflow as tf

from fedaot_tff.runtime import devices

_INPUT_PIPELINE = re.compile('Dataset|Iterator')


def node_name(tensor_name: str) -> str:
  """Returns the name of the node behind `node`, `node:0` or `^node`."""
  return tensor_name.lstrip('^').partition(':')[0]


def extract_subgraph(
    graph_def: tf.compat.v1.GraphDef,
    fetches: Iterable[str],
    feeds: Collection[str],
) -> tf.compat.v1.GraphDef:
  """Returns the nodes that a session would run for `fetches`, and the library.

  Nodes named in `feeds`, which values are supplied for, are left out, and so
  are control dependencies on them.
  """
  nodes = {node.name: node for node in graph_def.node}
  feeds = frozenset(feeds)
  needed = set()
  pending = [node_name(fetch) for fetch in fetches]
  while pending:
    name = pending.pop()
    if name not in needed and name not in feeds:
      needed.add(name)
      pending.extend(node_name(source) for source in nodes[name].input)
  fed_controls = {f'^{feed}' for feed in feeds}
  subgraph = tf.compat.v1.GraphDef(
      versions=graph_def.versions, library=graph_def.library
  )
  for node in graph_def.node:
    if node.name in needed:
      kept = subgraph.node.add()
      kept.CopyFrom(node)
      kept.ClearField('input')
      kept.input.extend(s for s in node.input if s not in fed_controls)
      # It may name a node that is left out.
      kept.attr.pop('_class', None)
  return subgraph


def _function_attributes(
    node: tf.compat.v1.NodeDef,
) -> Iterator[tf.compat.v1.NameAttrList]:
  for value in node.attr.values():
    pending = [value]
    while pending:
      attribute = pending.pop()
      if attribute.HasField('func'):
        references = [attribute.func]
      else:
        references = attribute.list.func
      for reference in references:
        yield reference
        pending.extend(reference.attr.values())


def _all_nodes(
    graph_def: tf.compat.v1.GraphDef,
) -> Iterator[tf.compat.v1.NodeDef]:
  yield from graph_def.node
  for function in graph_def.library.function:
    yield from function.node_def


def called_functions(graph_def: tf.compat.v1.GraphDef) -> Iterator[str]:
  """Names of operations, and those of the functions among them."""
  for node in _all_nodes(graph_def):
    yield node.op
    for reference in _function_attributes(node):
      yield reference.name


def rename_library_functions(graph_def: tf.compat.v1.GraphDef, prefix: str):
  """Puts `prefix` before the name of every library function, in place.

  Functions of all graphs share one registry in a process, and graphs of
  different computations hold different functions of the same name.
  """
  new_names = {
      f.signature.name: prefix + f.signature.name
      for f in graph_def.library.function
  }
  for node in _all_nodes(graph_def):
    node.op = new_names.get(node.op, node.op)
    for reference in _function_attributes(node):
      reference.name = new_names.get(reference.name, reference.name)
  for function in graph_def.library.function:
    function.signature.name = new_names[function.signature.name]
  for gradient in graph_def.library.gradient:
    gradient.function_name = new_names[gradient.function_name]
    gradient.gradient_func = new_names.get(
        gradient.gradient_func, gradient.gradient_func
    )


def place_input_pipelines_on_cpu(graph_def: tf.compat.v1.GraphDef):
  """Pins dataset and iterator operations to the first CPU device, in place.

  Accelerators have no kernels for datasets.
  """
  for node in _all_nodes(graph_def):
    if _INPUT_PIPELINE.search(node.op):
      node.device = devices.CPU
