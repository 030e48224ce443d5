"""Variables and lookup tables that live for one call of a computation.

In a computation's graph they are named nodes, whose contents TensorFlow would
share between all calls, also concurrent ones, and keep until the process ends.
"""

from collections.abc import Callable
import functools

import tensorflow as tf

from fedaot_tff.runtime import devices

# TensorFlow's name for a resource that gets a unique name whenever it is made.
_ANONYMOUS_NAME = 'cd2c89b7-88b7-44c8-ad83-06c2a9158347'
_TABLES = ('HashTable', 'MutableHashTable', 'MutableHashTableOfTensors')


def _variable_maker(node: tf.compat.v1.NodeDef) -> Callable[[], tf.Tensor]:
  dtype = tf.dtypes.as_dtype(node.attr['dtype'].type)
  shape = tf.TensorShape(node.attr['shape'].shape)

  def make():
    with tf.device(devices.CPU if dtype in devices.HOST_DTYPES else None):
      return tf.raw_ops.VarHandleOp(
          dtype=dtype, shape=shape, shared_name=_ANONYMOUS_NAME
      )

  return make


def _table_maker(
    name: str, node: tf.compat.v1.NodeDef
) -> Callable[[], tf.Tensor]:
  attributes = {
      key: tf.dtypes.as_dtype(node.attr[key].type)
      for key in ('key_dtype', 'value_dtype')
  }
  if name == 'MutableHashTableOfTensors':
    attributes['value_shape'] = tf.TensorShape(node.attr['value_shape'].shape)

  def make():
    with tf.device(devices.CPU):
      return getattr(tf.raw_ops, f'Anonymous{name}')(**attributes)

  return make


_MAKERS = {
    'VarHandleOp': _variable_maker,
    **{f'{name}V2': functools.partial(_table_maker, name) for name in _TABLES},
}


def _is_queue(node: tf.compat.v1.NodeDef) -> bool:
  return node.op.endswith('QueueV2')


def find_resources(
    graph_def: tf.compat.v1.GraphDef,
) -> dict[str, Callable[[], tf.Tensor]]:
  """Finds the nodes of a graph that make variables and lookup tables.

  Returns functions of the nodes' names that make a new resource on the current
  device and return its handle, which `destroy` takes. NotImplementedError if
  the graph shares a resource of another kind, except a queue, between calls.
  """
  makers = {}
  for node in graph_def.node:
    if node.op in _MAKERS:
      makers[node.name] = _MAKERS[node.op](node)
    elif 'shared_name' in node.attr and not _is_queue(node):
      raise NotImplementedError(f'not supported: {node.op}')
  for function in graph_def.library.function:
    for node in function.node_def:
      if 'shared_name' in node.attr and not _is_queue(node):
        raise NotImplementedError(
            f'not supported: {node.op} inside a function of the graph'
        )
  return makers


def destroy(handle: tf.Tensor):
  """Frees a variable; a table is freed with the last use of its handle."""
  tf.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True)


def has_queue(graph_def: tf.compat.v1.GraphDef) -> bool:
  """Returns whether the graph has a queue, which its function would share.

  A queue belongs to the function that makes it, so that a new function has a
  new queue.
  """
  return any(
      any(map(_is_queue, nodes))
      for nodes in (
          graph_def.node,
          *(f.node_def for f in graph_def.library.function),
      )
  )
