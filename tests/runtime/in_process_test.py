"""The in-process execution context."""

import gc
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.runtime import execution_context
from fedaot_tff.runtime import leaf
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


@pytest.fixture(name='default_context_again')
def _default_context_again():
  default = tff.framework.get_context_stack().current
  yield
  tff.framework.set_default_context(default)


def _count_leaves(monkeypatch):
  made = []
  make = leaf.Leaf.__init__

  def counted(self, *args):
    made.append(self)
    make(self, *args)

  monkeypatch.setattr(leaf.Leaf, '__init__', counted)
  return made


def test_the_default_context_is_replaced(default_context_again):
  first = execution_context.set_in_process_execution_context()
  assert tff.framework.get_context_stack().current is first
  assert _add_one(1) == 2
  second = execution_context.set_in_process_execution_context()
  assert tff.framework.get_context_stack().current is second
  assert _add_one(1) == 2


def test_a_computation_is_compiled_once(monkeypatch):
  made = _count_leaves(monkeypatch)
  context = in_process.InProcessExecutionContext()

  @tff.federated_computation(np.int32)
  def add_two(x):
    return _add_one(_add_one(x))

  for _ in range(3):
    assert both_contexts.run_in(context, add_two, 1) == 3
  assert len(made) == 1


def test_a_compiled_computation_is_forgotten_with_the_computation():
  context = in_process.InProcessExecutionContext()
  programs = context.executor_factory._programs._programs

  def run():
    computation = tff.tensorflow.computation(lambda x: x * 2, np.int32)
    both_contexts.run_in(context, computation, 1)
    assert len(programs) == 1

  run()
  gc.collect()
  assert not programs


def test_it_works_again_after_close():
  context = in_process.InProcessExecutionContext(
      max_concurrent_clients=2
  )
  for _ in range(2):
    assert both_contexts.run_in(context, _at_each, [0, 1]) == [0, 1]
    context.close()


@pytest.mark.parametrize('max_concurrent_clients', [1, 3])
def test_clients_run_at_once_up_to_the_limit(max_concurrent_clients):
  lock = threading.Lock()
  running, most = [], []

  def observe(x):
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
  executor = context.executor_factory.create_executor({tff.CLIENTS: 6})
  result = executor._place.runtime.map_clients(
      lambda x, _: observe(x), list(range(6))
  )
  assert result == list(range(6))
  assert max(most) == max_concurrent_clients


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


def test_calls_of_several_threads():
  context = both_contexts.in_process()
  results = {}

  def run(index):
    results[index] = both_contexts.run_in(context, _add_one, index)

  threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert results == {i: i + 1 for i in range(8)}


def test_kept_tensors_are_checked_when_they_are_passed_on():
  context = both_contexts.in_process(keep_on_device=True)
  result = both_contexts.run_in(context, _add_one, 1)
  assert isinstance(result, tf.Tensor)
  assert both_contexts.run_in(context, _add_one, result) == 3
  with pytest.raises(TypeError, match='float32'):
    both_contexts.run_in(context, _add_one, tf.constant(1.0))
  with pytest.raises(TypeError, match='int32'):
    both_contexts.run_in(context, _add_one, tf.constant([1]))


def test_a_result_does_not_change_with_the_argument():
  identity = tff.tensorflow.computation(
      lambda x: tf.identity(x), tff.TensorType(np.float32, [1000])
  )
  for context in (
      both_contexts.in_process(),
      both_contexts.in_process(keep_on_device=True),
  ):
    argument = np.zeros([1000], np.float32)
    result = both_contexts.run_in(context, identity, argument)
    argument[:] = 1
    assert not np.any(result)


@pytest.mark.parametrize(
    'options, error, message',
    [
        ({'max_concurrent_clients': 0}, ValueError, 'at least 1, found 0'),
        ({'max_concurrent_clients': 1.5}, TypeError, 'found 1.5'),
        ({'default_num_clients': -1}, ValueError, 'at least 0, found -1'),
        ({'keep_on_device': 1}, TypeError, 'must be a bool, found 1'),
    ],
)
def test_wrong_options_are_refused(options, error, message):
  with pytest.raises(error, match=message):
    in_process.InProcessExecutionContext(**options)
