"""The in-process execution context."""

import gc
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.runtime import devices
from fedaot_tff.runtime import execution_context
from fedaot_tff.runtime import in_process
from fedaot_tff.runtime import invocation
from fedaot_tff.runtime import leaf
from fedaot_tff.runtime import native
from tests import small_problem
from tests.runtime import both_contexts


@tff.tensorflow.computation(np.int32)
def _add_one(x):
  return x + 1


@tff.tensorflow.computation(np.int32)
def _at(index):
  return tf.gather(tf.range(3), index)


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def _at_each(indices):
  return tff.federated_map(_at, indices)


@tff.tensorflow.computation(np.int32, np.int32)
def _add(x, y):
  return x + y


@tff.federated_computation(*[tff.FederatedType(np.int32, tff.CLIENTS)] * 2)
def _add_at_each(x, y):
  return tff.federated_map(_add, (x, y))


@pytest.fixture(name='default_context_again')
def _default_context_again():
  default = tff.framework.get_context_stack().current
  yield
  tff.framework.set_default_context(default)


def test_the_default_context_is_replaced(default_context_again):
  for set_context, kind in (
      (
          execution_context.set_native_execution_context,
          native.NativeExecutionContext,
      ),
      (
          execution_context.set_in_process_execution_context,
          in_process.InProcessExecutionContext,
      ),
  ) * 2:
    context = set_context()
    assert isinstance(context, kind)
    assert tff.framework.get_context_stack().current is context
    assert _add_one(1) == 2


def test_the_earlier_default_context_is_closed(default_context_again):
  earlier = execution_context.set_native_execution_context()
  _add_one(1)
  assert earlier.worker_pid is not None
  execution_context.set_in_process_execution_context()
  assert earlier.worker_pid is None


def test_a_computation_is_compiled_once_until_the_context_is_closed(
    monkeypatch,
):
  made = []
  make = leaf.Leaf.__init__

  def counted(self, *args):
    made.append(self)
    make(self, *args)

  monkeypatch.setattr(leaf.Leaf, '__init__', counted)
  context = in_process.InProcessExecutionContext()

  @tff.federated_computation(np.int32)
  def add_two(x):
    return _add_one(_add_one(x))

  for _ in range(3):
    assert both_contexts.run_in(context, add_two, 1) == 3
  assert len(made) == 1
  made.clear()
  context.close()
  gc.collect()
  assert both_contexts.run_in(context, add_two, 1) == 3
  assert len(made) == 1


def test_a_compiled_computation_is_forgotten_with_the_computation():
  context = in_process.InProcessExecutionContext()
  programs = context._programs._programs

  def run():
    computation = tff.tensorflow.computation(lambda x: x * 2, np.int32)
    both_contexts.run_in(context, computation, 1)
    assert len(programs) == 1

  run()
  gc.collect()
  assert not programs


@pytest.mark.parametrize('max_concurrent_clients', [1, 3])
def test_clients_run_at_once_up_to_the_limit(max_concurrent_clients):
  lock = threading.Lock()
  running, most = [], []

  def observe(x, _):
    with lock:
      running.append(x)
      most.append(len(running))
    time.sleep(0.05)
    with lock:
      running.remove(x)
    return x

  context = in_process.InProcessExecutionContext(
      max_concurrent_clients=max_concurrent_clients
  )
  started = invocation.Invocation(
      devices.choose_devices(None, None), 6, context._pool
  )
  assert started.map_clients(observe, list(range(6))) == list(range(6))
  assert max(most) == max_concurrent_clients


@pytest.mark.parametrize('max_concurrent_clients', [2, 5])
def test_results_do_not_depend_on_the_number_of_threads(max_concurrent_clients):
  process = tff.learning.algorithms.build_weighted_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
  )
  one, several = (
      both_contexts.run_in(
          both_contexts.in_process(max_concurrent_clients=number),
          small_problem.run,
          process,
          2,
      )[-1].state.global_model_weights.trainable
      for number in (1, max_concurrent_clients)
  )
  small_problem.assert_bit_identical(several, one)


def test_an_error_names_the_computation_and_the_device():
  with pytest.raises(tf.errors.InvalidArgumentError) as error:
    both_contexts.run_in(both_contexts.in_process(), _at, 7)
  assert 'TensorFlow computation (int32 -> int32) on ' in str(error.value)
  assert 'CPU:0' in str(error.value)


def test_an_error_of_one_client_is_raised_and_the_next_call_works():
  context = both_contexts.in_process(max_concurrent_clients=2)
  with pytest.raises(tf.errors.InvalidArgumentError):
    both_contexts.run_in(context, _at_each, [0, 1, 9, 2, 1])
  assert both_contexts.run_in(context, _at_each, [2, 1]) == [2, 1]


@pytest.mark.parametrize(
    'make',
    [native.NativeExecutionContext, in_process.InProcessExecutionContext],
)
def test_threads_with_many_numbers_of_clients_share_a_context(make):
  # Natively, calls of two arguments take turns; those of one would not.
  context = make()
  results = {}

  def run(number):
    results[number] = [
        both_contexts.run_in(context, _add_at_each, [2] * number, [1] * number)
        for _ in range(5)
    ]

  threads = [threading.Thread(target=run, args=(i,)) for i in range(1, 7)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  context.close()
  assert results == {number: [[3] * number] * 5 for number in range(1, 7)}


def test_a_graph_that_the_caller_builds_is_left_alone():
  with tf.Graph().as_default() as graph:
    assert both_contexts.run_in(both_contexts.in_process(), _add_one, 1) == 2
  assert not graph.get_operations()


def test_a_result_does_not_change_with_the_argument():
  identity = tff.tensorflow.computation(
      lambda x: tf.identity(x), tff.TensorType(np.float32, [1000])
  )
  argument = np.zeros([1000], np.float32)
  result = both_contexts.run_in(both_contexts.in_process(), identity, argument)
  argument[:] = 1
  assert not np.any(result)


_NATIVE = native.NativeExecutionContext
_IN_PROCESS = in_process.InProcessExecutionContext


@pytest.mark.parametrize(
    'make, options, error, message',
    [
        (_NATIVE, {'max_concurrent_calls': 2.0}, TypeError, 'found 2.0 of'),
        (_NATIVE, {'max_concurrent_calls': 0}, ValueError, '>= 1; found 0'),
        (_NATIVE, {'default_num_clients': None}, TypeError, 'found None'),
        (_NATIVE, {'default_num_clients': -1}, ValueError, '>= 0; found -1'),
        (_IN_PROCESS, {'max_concurrent_clients': 0}, ValueError, 'found 0'),
        (_IN_PROCESS, {'max_concurrent_clients': 1.5}, TypeError, 'found 1.5'),
        (_IN_PROCESS, {'default_num_clients': -1}, ValueError, 'found -1'),
    ],
)
def test_wrong_options_are_refused(make, options, error, message):
  (name,) = options
  with pytest.raises(error, match=f'{name} must .*{message}'):
    make(**options)
