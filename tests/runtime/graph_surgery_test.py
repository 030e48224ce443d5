"""Preparing graphs of computations."""

import tensorflow as tf

from fedaot_tff.runtime import graph_surgery


def _names(graph_def):
  return {node.name for node in graph_def.node}


def _graph():
  """y = x + v; z does not need them."""
  graph = tf.Graph()
  with graph.as_default():
    x = tf.compat.v1.placeholder(tf.float32, [], name='x')
    v = tf.compat.v1.placeholder(tf.float32, [], name='v')

    with tf.control_dependencies([x]), tf.compat.v1.colocate_with(v.op):
      total = tf.add(x, v, name='total')
    tf.identity(total, name='y')
    tf.constant(1.0, name='z')
  return graph.as_graph_def()


def test_keeps_what_is_needed():
  assert _names(graph_surgery.extract_subgraph(_graph(), ['z:0'], [])) == {'z'}
  subgraph = graph_surgery.extract_subgraph(_graph(), ['y'], [])
  assert {'x', 'v', 'total', 'y'} <= _names(subgraph)
  assert 'z' not in _names(subgraph)


def test_leaves_out_what_is_fed():
  subgraph = graph_surgery.extract_subgraph(_graph(), ['y'], ['x', 'v'])
  assert {'x', 'v'}.isdisjoint(_names(subgraph))
  (total,) = [node for node in subgraph.node if node.name == 'total']
  assert list(total.input) == ['x', 'v']
  assert '_class' not in total.attr


def test_input_pipelines_are_placed_on_the_cpu_inside_functions_too():
  with tf.Graph().as_default() as graph:
    dataset = tf.data.Dataset.range(3)

    @tf.function
    def first():
      return next(iter(dataset)) + 1

    first()
  graph_def = graph.as_graph_def()
  graph_surgery.place_input_pipelines_on_cpu(graph_def)
  placed = {node.op: node.device for node in graph_def.node}
  for function in graph_def.library.function:
    placed.update((node.op, node.device) for node in function.node_def)
  assert placed['RangeDataset'] == '/device:CPU:0'
  assert placed['IteratorGetNext'] == '/device:CPU:0'
  assert placed['AddV2'] == ''
