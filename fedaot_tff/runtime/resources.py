"""Variables and lookup tables that live for one call of a computation.

In a computation's graph they are named nodes, whose contents TensorFlow would
share between all calls, also concurrent ones, and keep until the process ends.
"""

import functools

import tensorflow as tf

from fedaot_tff.runtime import devices

# TensorFlow's name for a resource that gets a unique name whenever it is made.
_ANONYMOUS_NAME = 'cd2c89b7-88b7-44c8-ad83-06c2a9158347'


class _Variable:
  """Makes and destroys the variable that a `VarHandleOp` node describes."""

  def __init__(self, node: tf.compat.v1.NodeDef):
    self._dtype = tf.dtypes.as_dtype(node.attr['dtype'].type)
    self._shape = tf.TensorShape(node.attr['shape'].shape)

  def create(self) -> tf.Tensor:
    """Returns the handle of a new variable on the current device."""
    device = devices.CPU if self._dtype in devices.HOST_DTYPES else None
    with tf.device(device):
      return tf.raw_ops.VarHandleOp(
          dtype=self._dtype, shape=self._shape, shared_name=_ANONYMOUS_NAME
      )

  def destroy(self, handle: tf.Tensor):
    tf.raw_ops.DestroyResourceOp(resource=handle, ignore_lookup_error=True)


class _Table:
  """Makes a lookup table, which is freed with the last use of its handle."""

  def __init__(self, create_op, node: tf.compat.v1.NodeDef):
    self._create_op = create_op
    self._attributes = {
        name: tf.dtypes.as_dtype(node.attr[name].type)
        for name in ('key_dtype', 'value_dtype')
    }
    if create_op is tf.raw_ops.AnonymousMutableHashTableOfTensors:
      self._attributes['value_shape'] = tf.TensorShape(
          node.attr['value_shape'].shape
      )

  def create(self) -> tf.Tensor:
    with tf.device(devices.CPU):
      return self._create_op(**self._attributes)

  def destroy(self, handle: tf.Tensor):
    del handle


_MAKERS = {
    'VarHandleOp': _Variable,
    **{
        f'{name}V2': functools.partial(
            _Table, getattr(tf.raw_ops, f'Anonymous{name}')
        )
        for name in (
            'HashTable', 'MutableHashTable', 'MutableHashTableOfTensors'
        )
    },
}


def _is_queue(node: tf.compat.v1.NodeDef) -> bool:
  return node.op.endswith('QueueV2')


def find_resources(graph_def: tf.compat.v1.GraphDef):
  """Finds the nodes of `graph_def` that make variables and lookup tables.

  Returns:
    A dictionary from the names of the nodes to objects with the methods
    `create()`, which returns the handle of a new resource, and
    `destroy(handle)`.

  Raises:
    NotImplementedError: If the graph shares a resource of another kind,
      except a queue, between calls.
  """
  resources = {}
  for node in graph_def.node:
    if node.op in _MAKERS:
      resources[node.name] = _MAKERS[node.op](node)
    elif 'shared_name' in node.attr and not _is_queue(node):
      raise NotImplementedError(f'not supported: {node.op}')
  for function in graph_def.library.function:
    for node in function.node_def:
      if 'shared_name' in node.attr and not _is_queue(node):
        raise NotImplementedError(
            f'not supported: {node.op} inside a function of the graph'
        )
  return resources


def has_queue(graph_def: tf.compat.v1.GraphDef) -> bool:
  """Returns whether the graph has a queue, which its function would share.

  A queue belongs to the function that makes it, so that a new function has a
  new queue.
  """
  functions = graph_def.library.function
  return any(map(_is_queue, graph_def.node)) or any(
      any(map(_is_queue, function.node_def)) for function in functions
  )
