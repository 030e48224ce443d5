"""Variables, tables and iterators are new in each call and freed after it."""

import gc
import pathlib
import resource

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context as eager_context
import tensorflow_federated as tff

from tests.runtime import both_contexts

_CALLS = 200
# Elements of a variable, and the bytes lost if each call leaves one behind.
_SIZE = 1 << 18
_LEAK_BYTES = _CALLS * 4 * _SIZE


@tff.tensorflow.computation(np.float32)
def _count(x):
  variable = tf.Variable(10.0, name='shared')
  integer = tf.Variable(1, name='shared')
  with tf.control_dependencies([integer.assign_add(1)]):
    return variable.assign_add(x), integer.read_value()


@tff.tensorflow.computation(np.str_)
def _look_up(key):
  table = tf.lookup.StaticHashTable(
      tf.lookup.KeyValueTensorInitializer(['a', 'b'], [1, 2]), -1
  )
  return table.lookup(key)


def _in_process(function, *args):
  return both_contexts.run_in(both_contexts.in_process(), function, *args)


def test_variables_start_anew_in_each_call():
  for _ in range(2):
    assert both_contexts.assert_runs_alike(_count, np.float32(1)) == (11.0, 2)


def test_variables_of_the_same_name_do_not_clash_between_clients():
  @tff.tensorflow.computation(np.float32)
  def count_long(x):
    variable = tf.Variable(0.0, name='shared')

    @tf.function
    def repeat():
      for _ in tf.range(500):
        variable.assign_add(x)
      return variable.read_value()

    return repeat()

  @tff.federated_computation(tff.FederatedType(np.float32, tff.CLIENTS))
  def each(x):
    return tff.federated_map(count_long, x)

  context = both_contexts.in_process(max_concurrent_clients=4)
  values = [np.float32(i) for i in range(12)]
  results = both_contexts.run_in(context, each, values)
  assert results == [500.0 * x for x in values]


def test_variables_are_initialized_before_anything_else():
  @tff.tensorflow.computation
  def read():
    variable = tf.Variable(tf.random.stateless_uniform([50, 50], [1, 2]))
    with tf.control_dependencies(None):
      return tf.raw_ops.ReadVariableOp(
          resource=variable.handle, dtype=tf.float32
      )

  assert both_contexts.assert_runs_alike(read).shape == (50, 50)


def test_tables():
  for key, value in (('a', 1), ('b', 2), ('c', -1)):
    assert both_contexts.assert_runs_alike(_look_up, key) == value


def test_a_mutable_table_starts_empty_in_each_call():
  @tff.tensorflow.computation(np.int64)
  def insert(key):
    table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, -1)
    with tf.control_dependencies([table.insert(key, key)]):
      return table.size()

  for key in (1, 2):
    assert both_contexts.assert_runs_alike(insert, np.int64(key)) == 1


def test_iterators_and_stateful_functions():
  @tff.tensorflow.computation(tff.SequenceType(np.int64))
  def total(dataset):
    variable = tf.Variable(np.int64(0))

    @tf.function
    def add_all():
      for x in iter(dataset):
        variable.assign_add(x)
      return variable.read_value()

    return add_all()

  for _ in range(2):
    dataset = tf.data.Dataset.range(5)
    assert both_contexts.assert_runs_alike(total, dataset) == 10


def test_library_functions_of_the_same_name_do_not_clash():
  def make(factor):
    @tf.function
    def scale(x):
      return factor * x

    @tff.tensorflow.computation(np.float32)
    def apply(x):
      return scale(x)

    return apply

  double, triple = make(2.0), make(3.0)

  @tff.federated_computation(np.float32)
  def both(x):
    return double(x), triple(x)

  assert both_contexts.assert_runs_alike(both, np.float32(1)) == (2.0, 3.0)


def test_a_queue_is_empty_at_the_start_of_each_call():
  @tff.tensorflow.computation(np.int32)
  def enqueue(x):
    queue = tf.queue.FIFOQueue(9, [tf.int32], shapes=[[]])
    with tf.control_dependencies([queue.enqueue(x)]):
      return queue.size()

  for x in range(2):
    assert _in_process(enqueue, x) == 1


def test_an_unsupported_resource_is_named():
  @tff.tensorflow.computation
  def barrier_size():
    barrier = tf.raw_ops.Barrier(component_types=[tf.int32])
    return tf.raw_ops.BarrierReadySize(handle=barrier)

  with pytest.raises(NotImplementedError, match='^not supported: Barrier$'):
    _in_process(barrier_size)


def _memory_bytes():
  resident_pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return resident_pages * resource.getpagesize()


def _growth(function):
  """Bytes and library functions that `_CALLS` calls leave behind."""

  def repeat(times):
    for _ in range(times):
      function()
    gc.collect()
    names = eager_context.context().list_function_names()
    return _memory_bytes(), frozenset(names)

  before, after = repeat(30), repeat(_CALLS)
  # What earlier tests left may be freed meanwhile; it must not hide a leak.
  return after[0] - before[0], len(after[1] - before[1])


def test_calls_leave_nothing_behind():
  @tff.tensorflow.computation(tff.SequenceType(np.int64), np.str_)
  def work(dataset, key):
    variable = tf.Variable(tf.zeros([_SIZE]))
    count = dataset.reduce(np.int64(0), lambda a, b: a + b)
    return (
        tf.reduce_sum(variable.assign_add(tf.ones([_SIZE]))),
        count,
        dataset.map(lambda x: x + 1),
        tf.fill([4], key),
    )

  def run():
    result = _in_process(work, tf.data.Dataset.range(4), 'a')
    assert result[:2] == (_SIZE, 6)

  num_bytes, num_functions = _growth(run)
  assert num_functions == 0
  assert num_bytes < _LEAK_BYTES / 2


def test_failing_calls_leave_nothing_behind():
  @tff.tensorflow.computation(np.int32)
  def fail(index):
    variable = tf.Variable(tf.zeros([_SIZE]))
    return tf.gather(variable.assign_add(tf.ones([_SIZE])), index)

  def run():
    try:
      _in_process(fail, _SIZE)
    except tf.errors.InvalidArgumentError:
      return
    raise AssertionError('the computation does not fail')

  num_bytes, num_functions = _growth(run)
  assert num_functions == 0
  assert num_bytes < _LEAK_BYTES / 2


def test_functions_are_freed_with_their_computation():
  def make_and_run(offset):
    @tf.function
    def shift(x):
      return x + offset

    @tff.tensorflow.computation(np.float32)
    def apply(x):
      return shift(x)

    _in_process(apply, np.float32(1))

  make_and_run(0.0)
  gc.collect()
  before = len(eager_context.context().list_function_names())
  for offset in range(1, 6):
    make_and_run(float(offset))
  gc.collect()
  assert len(eager_context.context().list_function_names()) == before
