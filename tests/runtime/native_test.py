"""The native execution context and its worker process."""

import gc
import os
import pathlib
import shlex
import signal
import socket
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

from fedaot_tff.runtime import native
from fedaot_tff.runtime import process
from tests.runtime import processes

# Counting to it takes many seconds, yet ends if an expected error never comes.
_LONG = 10**6

# Runs a computation, and one that does not end for `end` = 'compute'.
_PROGRAM = """
import sys
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
import fedaot_tff

end, pid_path = sys.argv[1:]
context = fedaot_tff.set_native_execution_context()

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


@tff.tensorflow.computation(np.int64)
def _count_to(n):
  return tf.while_loop(lambda i: i < n, lambda i: i + 1, [np.int64(0)])[0]


@tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
def _sum_over_clients(values):
  return tff.federated_sum(values)


@pytest.fixture(name='context')
def _context():
  context = native.NativeExecutionContext()
  with tff.framework.get_context_stack().install(context):
    yield context
  context.close()


def test_worker_lives_from_the_first_computation_to_the_context_s_end():
  context = native.NativeExecutionContext()
  assert context.worker_pid is None
  assert context.invoke(_count_to, 3) == 3
  pid = context.worker_pid
  assert processes.is_running(pid)
  assert context.invoke(_count_to, 4) == 4
  assert context.worker_pid == pid
  context.close()
  assert not processes.is_running(pid)
  assert context.invoke(_count_to, 5) == 5
  pid = context.worker_pid
  del context
  gc.collect()
  assert processes.ends(pid)


def test_flags_of_the_worker():
  for options, number in (
      ({}, process.usable_cores()),
      ({'max_concurrent_calls': np.int64(5)}, 5),
  ):
    context = native.NativeExecutionContext(**options)
    context.invoke(_count_to, 1)
    pid = context.worker_pid
    assert os.getsid(pid) == pid
    command = pathlib.Path(f'/proc/{pid}/cmdline').read_text().split('\0')
    assert command[1:-1] == [
        f'--port={context.executor_factory._worker.port}',
        f'--max_concurrent_computation_calls={number}',
    ]
    context.close()


def test_usable_cores(monkeypatch):
  monkeypatch.setattr(
      os, 'sched_getaffinity', lambda pid: {2, 3, 7}, raising=False
  )
  assert process.usable_cores() == 3
  monkeypatch.delattr(os, 'sched_getaffinity')
  monkeypatch.setattr(os, 'cpu_count', lambda: 4)
  assert process.usable_cores() == 4


def test_least_recently_used_executors_are_disposed_of(context):
  _sum_over_clients([1, 2])
  executors = context.executor_factory._executors
  first = executors[2]
  request = executor_pb2.ComputeRequest(
      executor=first._executor_id, value_ref=executor_pb2.ValueRef(id='9')
  )
  with pytest.raises(grpc.RpcError, match='value not found: 9'):
    first._stub.compute(request)
  for num_clients in [1, 3, 1, 4, 5, 6, 7, 1, 3]:
    assert _sum_over_clients([2] * num_clients) == 2 * num_clients
  assert list(executors) == [6, 7, 1, 3]
  with pytest.raises(tff.framework.RetryableError):
    first._stub.compute(request)


def test_worker_killed_during_a_computation(context):
  _sum_over_clients([1, 2])
  pid = context.worker_pid
  killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
  killer.start()
  with pytest.raises(RuntimeError) as error:
    _count_to(_LONG)
  killer.join()
  assert str(error.value) == (
      f'The worker process {pid} was killed by SIGKILL (often a sign that '
      'memory ran short); it printed nothing. The next computation starts a '
      'new one.'
  )
  assert _count_to(6) == 6
  assert context.worker_pid != pid
  # The same number of clients as before: its executor died with the worker.
  assert _sum_over_clients([1, 2]) == 3


def test_worker_killed_between_computations(context):
  _sum_over_clients([1, 2])
  os.kill(context.worker_pid, signal.SIGKILL)
  assert processes.becomes_true(lambda: context.worker_pid is None)
  assert _sum_over_clients([1, 2]) == 3


def test_context_is_usable_after_an_interrupt(context):
  _count_to(1)
  pid = context.worker_pid
  interrupter = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
  interrupter.start()
  with pytest.raises(KeyboardInterrupt):
    _count_to(_LONG)
  interrupter.join()
  context.close()
  assert not processes.is_running(pid)
  assert _count_to(6) == 6


# What stands in for TFF's binary, and what is said of its end.
_BAD_WORKERS = {
    'exits': (
        "sys.exit('out of\\nluck')",
        'The worker could not be started: it exited with status 1; its output'
        ' ended: "out of luck".',
    ),
    'deaf': (
        "print('deaf', flush=True); time.sleep(600)",
        r'within 3 s and was stopped; its output ended: "deaf"\.',
    ),
    'environment': (
        'print(os.getenv("GLIBC_TUNABLES"), os.getenv("TF_CPP_MIN_LOG_LEVEL"))',
        '"glibc.pthread.stack_cache_size=8589934592 1"',
    ),
}


@pytest.mark.parametrize(
    'code, message', _BAD_WORKERS.values(), ids=list(_BAD_WORKERS)
)
def test_failing_worker_raises_and_later_works(
    context, monkeypatch, tmp_path, code, message
):
  path = tmp_path / 'worker'
  path.write_text(f'#!{sys.executable} -IS\nimport os, sys, time\n{code}\n')
  path.chmod(0o700)
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '1')  # The owner's wins.
  with monkeypatch.context() as patch:
    patch.setattr(native, '_BINARY_PATH', str(path))
    if 'deaf' in code:
      patch.setattr(native, '_START_TIMEOUT_SECONDS', 3.0)
    with pytest.raises(RuntimeError, match=message):
      _count_to(1)
    assert context.worker_pid is None
    for missing in (
        (native, '_BINARY_PATH', str(tmp_path / 'missing')),
        (sys, 'executable', '/missing/python'),
    ):
      patch.setattr(*missing)
      with pytest.raises(RuntimeError, match='not be started: .*No such file'):
        _count_to(1)
  assert _count_to(1) == 1


def test_launcher_starts_nothing_for_a_parent_that_is_gone():
  launched = subprocess.run(
      [sys.executable, '-c', native._LAUNCHER, '1', '/bin/echo', 'hi'],
      stdout=subprocess.PIPE,
      check=True,
  )
  assert launched.stdout == b''


@pytest.mark.parametrize('family', [socket.AF_INET, socket.AF_INET6])
def test_port_is_the_workers_alone(context, family):
  _count_to(1)
  with socket.socket(family) as other:
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with pytest.raises(OSError, match='in use'):
      other.bind(('', context.executor_factory._worker.port))


def test_error_of_a_computation_leaves_the_worker_alone(context):

  @tff.tensorflow.computation(np.int32)
  def assert_positive(x):
    with tf.control_dependencies([tf.debugging.assert_positive(x)]):
      return tf.identity(x)

  _count_to(1)
  pid = context.worker_pid
  with pytest.raises(grpc.RpcError, match='assertion failed'):
    assert_positive(-1)
  assert assert_positive(1) == 1
  assert context.worker_pid == pid


def test_what_tff_would_retry_for_ever_is_raised(context, monkeypatch):
  monkeypatch.setattr(native, '_END_TIMEOUT_SECONDS', 0.1)
  _sum_over_clients([1, 2])
  (executor,) = context.executor_factory._executors.values()
  executor._stub.dispose_executor(
      executor_pb2.DisposeExecutorRequest(executor=executor._executor_id)
  )
  with pytest.raises(
      RuntimeError, match='^The worker .* with FAILED_PRECONDITION: .* No exec'
  ):
    _sum_over_clients([1, 2])
  assert _sum_over_clients([1, 2]) == 3


# Run by itself: what earlier tests left of gRPC's threads may abort a fork.
_FORKING_PROGRAM = """
import os
import sys
import numpy as np
import tensorflow_federated as tff
import fedaot_tff

name = f'set_{sys.argv[1]}_execution_context'
context = getattr(fedaot_tff, name)()
double = tff.tensorflow.computation(lambda n: 2 * n, np.int64)
double(1)
child = os.fork()
if not child:
  try:
    double(1)
  except RuntimeError as error:
    if sys.argv[1] == 'native':
      context.close()
    os._exit(3 if '"spawn"' in str(error) else 4)
  os._exit(5)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), double(2))
"""


@pytest.mark.parametrize('name', ['native', 'in_process'])
def test_forked_child_is_refused(name):
  result = subprocess.run(
      [sys.executable, '-c', _FORKING_PROGRAM, name],
      env=processes.environment(),
      capture_output=True,
      text=True,
      timeout=120,
  )
  assert result.stdout.split() == ['3', '4'], result.stderr


@pytest.fixture(name='pid_path')
def _pid_path(tmp_path):
  return tmp_path / 'pid'


def _read_pid(pid_path):
  """Waits for the program to write its worker's process id and returns it."""
  assert processes.becomes_true(
      lambda: pid_path.exists() and pid_path.read_text().endswith('.'), 60.0
  )
  return int(pid_path.read_text()[:-1])


def _command(end, pid_path):
  return [sys.executable, '-c', _PROGRAM, end, str(pid_path)]


@pytest.mark.slow
@pytest.mark.parametrize(
    'end, last_line',
    [('return', 'counted to 7'), ('raise', 'ValueError: uncaught')],
)
def test_program_in_a_pipe_that_ignores_sigint_returns(
    pid_path, end, last_line
):
  program = _command(end, pid_path)
  ended = subprocess.run(
      f"trap '' INT; {shlex.join(program)} 2>&1 | cat",
      shell=True,
      stdout=subprocess.PIPE,
      # The calls to the worker must not go through a proxy.
      env=processes.environment(http_proxy='http://127.0.0.1:9'),
      timeout=90,
      check=True,
  )
  assert ended.stdout.decode().splitlines()[-1] == last_line
  assert processes.ends(_read_pid(pid_path))


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_program_ended_during_a_computation_leaves_no_worker(pid_path, number):
  with subprocess.Popen(
      _command('compute', pid_path),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      env=processes.environment(),
  ) as program:
    try:
      pid = _read_pid(pid_path)
      time.sleep(0.5)
      assert program.poll() is None
      assert processes.is_running(pid)
      program.send_signal(number)
      assert program.wait(timeout=60) == -number
    finally:
      program.kill()
  assert processes.ends(pid)
