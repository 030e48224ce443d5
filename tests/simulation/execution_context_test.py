"""Tests for execution_context."""

import gc
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2

from fedaot_tff.simulation import execution_context

# Counting to it takes many seconds, yet ends if an expected error never comes.
_LONG = 10**6

_REPOSITORY = pathlib.Path(execution_context.__file__).parents[2]

# Runs a computation, and one that does not end for `end` = 'compute'.
_PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from fedaot_tff.simulation import execution_context

end, pid_path = sys.argv[1:]
context = execution_context.set_native_execution_context()

@tff.tensorflow.computation(np.int64)
def count_to(n):
  return tf.while_loop(lambda i: i < n, lambda i: i + 1, [np.int64(0)])[0]

print('counted to', count_to(7), flush=True)
with open(pid_path, 'w') as pid_file:
  pid_file.write(f'{context.worker_pid}.')
if end == 'raise':
  raise ValueError('uncaught')
if end == 'compute':
  count_to(2**62)
"""


def _is_running(pid):
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except FileNotFoundError:
    return False
  return status.rpartition(')')[2].split()[0] not in 'ZX'


def _becomes_true(condition, timeout_seconds=5.0):
  deadline = time.monotonic() + timeout_seconds
  while time.monotonic() < deadline:
    if condition():
      return True
    time.sleep(0.02)
  return False


@pytest.fixture(name='default_context_again', scope='module', autouse=True)
def _default_context_again():
  yield
  execution_context.set_native_execution_context()


@tff.tensorflow.computation(np.int64)
def _count_to(n):
  return tf.while_loop(lambda i: i < n, lambda i: i + 1, [np.int64(0)])[0]


@tff.federated_computation
def _number_of_clients():
  return tff.federated_sum(tff.federated_value(1, tff.CLIENTS))


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def _sum_over_clients(values):
  return tff.federated_sum(values)


def _worker_flags(context):
  command = pathlib.Path(f'/proc/{context.worker_pid}/cmdline').read_text()
  return command.split('\0')[1:-1]


def test_worker_starts_with_the_first_computation():
  context = execution_context.set_native_execution_context()
  assert context.worker_pid is None
  assert _count_to(3) == 3
  pid = context.worker_pid
  assert _is_running(pid)
  assert _count_to(4) == 4
  assert context.worker_pid == pid


def test_concurrency_defaults_to_the_usable_cores(monkeypatch):
  monkeypatch.setattr(
      os, 'sched_getaffinity', lambda pid: {2, 3, 7}, raising=False
  )
  context = execution_context.set_native_execution_context()
  _count_to(1)
  assert '--max_concurrent_computation_calls=3' in _worker_flags(context)


def test_usable_cores_without_affinity(monkeypatch):
  monkeypatch.delattr(os, 'sched_getaffinity', raising=False)
  monkeypatch.setattr(os, 'cpu_count', lambda: 5)
  assert execution_context.usable_cores() == 5


def test_concurrency_is_handed_to_the_worker():
  context = execution_context.set_native_execution_context(
      max_concurrent_calls=np.int64(5)
  )
  _count_to(1)
  assert '--max_concurrent_computation_calls=5' in _worker_flags(context)


def test_default_num_clients():
  execution_context.set_native_execution_context()
  assert _number_of_clients() == 0
  execution_context.set_native_execution_context(default_num_clients=4)
  assert _number_of_clients() == 4
  assert _sum_over_clients([1, 2]) == 3


def test_number_of_executors_stays_bounded():
  context = execution_context.set_native_execution_context()
  for num_clients in [1, 2, 3, 1, 4, 5, 6, 7, 1, 3]:
    assert _sum_over_clients([2] * num_clients) == 2 * num_clients
  executors = context.executor_factory._executors
  assert list(executors) == [6, 7, 1, 3]


def test_evicted_executor_is_disposed_of():
  context = execution_context.set_native_execution_context()
  _sum_over_clients([1])
  [executor] = context.executor_factory._executors.values()
  request = executor_pb2.ComputeRequest(
      executor=executor._executor_id, value_ref=executor_pb2.ValueRef(id='9')
  )
  with pytest.raises(grpc.RpcError, match='value not found: 9'):
    executor._stub.compute(request)
  for num_clients in range(2, 6):
    _sum_over_clients([1] * num_clients)
  with pytest.raises(RuntimeError, match='No executor found'):
    executor._stub.compute(request)


def test_setting_again_ends_the_earlier_worker():
  earlier = execution_context.set_native_execution_context()
  _count_to(1)
  pid = earlier.worker_pid
  context = execution_context.set_native_execution_context()
  assert not _is_running(pid)
  assert _count_to(1) == 1
  assert earlier.worker_pid is None
  assert _is_running(context.worker_pid)


def test_created_context_is_not_the_default_and_ends_its_worker():
  default = execution_context.set_native_execution_context()
  context = execution_context.create_native_execution_context()
  assert context.invoke(_count_to, 5) == 5
  pid = context.worker_pid
  assert _is_running(pid)
  assert default.worker_pid is None
  del context
  gc.collect()
  assert _becomes_true(lambda: not _is_running(pid))


def test_shutdown_workers():
  default = execution_context.set_native_execution_context()
  context = execution_context.create_native_execution_context()
  _count_to(1)
  context.invoke(_count_to, 1)
  pids = [default.worker_pid, context.worker_pid]
  execution_context.shutdown_workers()
  assert not any(_is_running(pid) for pid in pids)
  assert _count_to(2) == 2
  assert context.invoke(_count_to, 2) == 2


def test_worker_killed_during_a_computation():
  context = execution_context.set_native_execution_context()
  _sum_over_clients([1, 2])
  pid = context.worker_pid
  killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
  killer.start()
  with pytest.raises(RuntimeError) as error:
    _count_to(_LONG)
  killer.join()
  assert str(error.value) == (
      f'The worker process {pid} was killed by SIGKILL (often a sign that '
      'memory ran short) during a computation; the next computation starts a '
      'new worker; it printed nothing.'
  )
  assert _count_to(6) == 6
  assert context.worker_pid != pid
  # The same number of clients as before: its executor died with the worker.
  assert _sum_over_clients([1, 2]) == 3


def test_computation_is_tried_once_more_after_a_crash(caplog):
  context = execution_context.set_native_execution_context()
  _sum_over_clients([1, 2])
  pid = context.worker_pid
  killer = threading.Timer(0.3, os.kill, (pid, signal.SIGSEGV))
  killer.start()
  with caplog.at_level('WARNING'):
    assert _count_to(_LONG // 2) == _LONG // 2
  killer.join()
  assert context.worker_pid != pid
  (record,) = caplog.records
  assert f'The worker process {pid} was killed by SIGSEGV' in record.message
  assert record.message.endswith('It is tried once more.')


def test_second_crash_is_raised():
  context = execution_context.set_native_execution_context()
  _count_to(1)
  ended = threading.Event()

  def kill_each_worker():
    pids = set()
    while len(pids) < 2 and not ended.wait(0.05):
      pid = context.worker_pid
      if pid is not None and pid not in pids:
        time.sleep(0.3)
        os.kill(pid, signal.SIGSEGV)
        pids.add(pid)

  killer = threading.Thread(target=kill_each_worker)
  killer.start()
  with pytest.raises(RuntimeError, match='was killed by SIGSEGV'):
    _count_to(_LONG)
  ended.set()
  killer.join()
  assert _count_to(6) == 6


def test_worker_killed_between_computations():
  context = execution_context.set_native_execution_context()
  _sum_over_clients([1, 2])
  pid = context.worker_pid
  os.kill(pid, signal.SIGKILL)
  assert _becomes_true(lambda: context.worker_pid is None)
  assert _sum_over_clients([1, 2]) == 3


def test_context_is_usable_after_an_interrupt():
  context = execution_context.set_native_execution_context()
  _count_to(1)
  pid = context.worker_pid
  interrupter = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
  interrupter.start()
  with pytest.raises(KeyboardInterrupt):
    _count_to(_LONG)
  interrupter.join()
  execution_context.shutdown_workers()
  assert not _is_running(pid)
  assert _count_to(6) == 6


def test_failing_worker_raises_and_later_works(monkeypatch):
  context = execution_context.set_native_execution_context()
  with monkeypatch.context() as patch:
    patch.setattr(execution_context, '_BINARY_PATH', '/bin/false')
    with pytest.raises(RuntimeError, match='exited with status 1'):
      _count_to(1)
    assert context.worker_pid is None
  assert _count_to(1) == 1


def test_error_of_a_computation_leaves_the_worker_alone():

  @tff.tensorflow.computation(np.int32)
  def assert_positive(x):
    with tf.control_dependencies([tf.debugging.assert_positive(x)]):
      return tf.identity(x)

  context = execution_context.set_native_execution_context()
  _count_to(1)
  pid = context.worker_pid
  with pytest.raises(grpc.RpcError, match='assertion failed'):
    assert_positive(-1)
  assert assert_positive(1) == 1
  assert context.worker_pid == pid


def test_worker_log_path(tmp_path):

  @tff.tensorflow.computation(np.int32)
  def printed(x):
    with tf.control_dependencies([tf.print('x is', x)]):
      return tf.identity(x)

  log_path = tmp_path / 'worker.log'
  execution_context.set_native_execution_context(worker_log_path=log_path)
  printed(5)
  assert _becomes_true(lambda: 'x is 5\n' in log_path.read_text())


def test_forked_child_is_refused():
  context = execution_context.set_native_execution_context()
  _count_to(1)
  child = os.fork()
  if not child:
    try:
      _count_to(1)
    except RuntimeError as error:
      context.close()
      os._exit(3 if '"spawn"' in str(error) else 4)
    os._exit(5)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
  assert _count_to(2) == 2


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        ({'max_concurrent_calls': 2.0}, TypeError, 'found 2.0 of type float'),
        ({'max_concurrent_calls': True}, TypeError, 'found True of type bool'),
        ({'max_concurrent_calls': 0}, ValueError, 'at least 1, found 0'),
        ({'max_concurrent_calls': -1}, ValueError, 'at least 1, found -1'),
        ({'default_num_clients': None}, TypeError, 'default_num_clients'),
        ({'default_num_clients': -1}, ValueError, 'at least 0, found -1'),
        ({'worker_log_path': 3}, TypeError, 'found 3 of type int'),
    ],
)
def test_wrong_arguments(arguments, error, message):
  with pytest.raises(error, match=message) as found:
    execution_context.set_native_execution_context(**arguments)
  assert '\n' not in str(found.value)


@pytest.fixture(name='pid_path')
def _pid_path(tmp_path):
  return tmp_path / 'pid'


def _read_pid(pid_path):
  """Waits for the program to write its worker's process id and returns it."""
  assert _becomes_true(
      lambda: pid_path.exists() and pid_path.read_text().endswith('.'), 60.0
  )
  return int(pid_path.read_text()[:-1])


def _command(end, pid_path):
  return [sys.executable, '-c', _PROGRAM, end, str(pid_path)]


def _environment(**variables):
  return {**os.environ, 'PYTHONPATH': str(_REPOSITORY), **variables}


@pytest.mark.slow
def test_program_in_a_pipe_returns(pid_path):
  program = _command('return', pid_path)
  ended = subprocess.run(
      f'{shlex.join(program)} 2>&1 | cat',
      shell=True,
      stdout=subprocess.PIPE,
      # The calls to the worker must not go through a proxy.
      env=_environment(http_proxy='http://127.0.0.1:9'),
      timeout=90,
      check=True,
  )
  lines = ended.stdout.decode().splitlines()
  assert lines[-1] == 'counted to 7'
  assert _becomes_true(lambda: not _is_running(_read_pid(pid_path)))


@pytest.mark.slow
def test_program_that_ignores_sigint_and_raises_returns(pid_path):
  program = _command('raise', pid_path)
  ended = subprocess.run(
      f"trap '' INT; exec {shlex.join(program)}",
      shell=True,
      stderr=subprocess.PIPE,
      env=_environment(),
      timeout=90,
      check=False,
  )
  lines = ended.stderr.decode().splitlines()
  assert lines[-1] == 'ValueError: uncaught'
  assert ended.returncode == 1
  assert _becomes_true(lambda: not _is_running(_read_pid(pid_path)))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['SIGINT', 'SIGKILL'])
def test_program_ended_during_a_computation_leaves_no_worker(pid_path, name):
  number = getattr(signal, name)
  with subprocess.Popen(
      _command('compute', pid_path),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      env=_environment(),
  ) as program:
    try:
      pid = _read_pid(pid_path)
      time.sleep(0.5)
      assert program.poll() is None
      assert _is_running(pid)
      program.send_signal(number)
      assert program.wait(timeout=10) == -number
    finally:
      program.kill()
  assert _becomes_true(lambda: not _is_running(pid))


def _make_adder(number):
  @tff.tensorflow.computation(np.int32)
  def add(x):
    return x + number

  return add


def test_a_computation_is_sent_to_the_worker_once(monkeypatch):
  sent = []
  create_value = execution_context._WorkerStub.create_value

  def create_and_count(self, request):
    sent.append(request.value.WhichOneof('value') == 'computation')
    return create_value(self, request)

  monkeypatch.setattr(
      execution_context._WorkerStub, 'create_value', create_and_count
  )
  adders = [
      _make_adder(number)
      for number in range(execution_context._MAX_COMPUTATIONS + 1)
  ]
  context = execution_context.create_native_execution_context()
  try:
    with tff.framework.get_context_stack().install(context):
      assert [adders[0](x) for x in (1, 2, 3)] == [1, 2, 3]
      assert sum(sent) == 1
      # As many others make it forgotten.
      assert [add(10) for add in adders[1:]] == list(range(11, 11 + 8))
      assert adders[0](5) == 5
      assert sum(sent) == 1 + 8 + 1
      # A new worker knows nothing.
      context.close()
      assert adders[0](6) == 6
      assert sum(sent) == 1 + 8 + 2
  finally:
    context.close()


def test_structs_are_copied_as_seldom_as_federated_values(monkeypatch):
  filled = []
  fill_message = execution_context.value_transfer.fill_message

  def fill_and_note(message, value, type_spec):
    if isinstance(type_spec, tff.StructType):
      filled.append(type_spec.compact_representation())
    fill_message(message, value, type_spec)

  monkeypatch.setattr(
      execution_context.value_transfer, 'fill_message', fill_and_note
  )
  pair_type = tff.to_type((np.int32, tff.TensorType(np.int32, [2])))

  @tff.tensorflow.computation(pair_type)
  def multiply(pair):
    return pair[0] * pair[1]

  clients_type = tff.to_type((
      tff.FederatedType(np.int32, tff.CLIENTS),
      tff.FederatedType(np.int32, tff.SERVER),
  ))

  @tff.federated_computation(clients_type)
  def add(arguments):
    clients, server = arguments
    return tff.federated_sum(clients), server

  context = execution_context.create_native_execution_context()
  try:
    with tff.framework.get_context_stack().install(context):
      np.testing.assert_array_equal(
          multiply((3, np.array([1, 2], np.int32))), [3, 6]
      )
      assert tuple(add(([1, 2, 3], 4))) == (6, 4)
  finally:
    context.close()
  assert filled == [
      t.compact_representation() for t in (pair_type, clients_type)
  ]
