"""TFF's native execution context on a worker process that is not left over.

Computations are compiled and executed as by the context that
`import tensorflow_federated` sets. What differs is that the worker ends with
its owner, however that one ends, where TFF leaves it behind, holding the
terminal or a pipe open; that its death is told; and how many calls run at once.

The worker has no access control, and TFF's binary has no flag for one nor for
the address it listens on, which is every one of the machine's.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Optional
import weakref

import grpc
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.runtime import process

_BINARY_PATH = os.path.join(
    os.path.dirname(tff.__file__), 'data', 'worker_binary'
)
_MAX_MESSAGE_BYTES = 2 * 1000 * 1000 * 1000
_CHANNEL_OPTIONS = (
    ('grpc.max_receive_message_length', _MAX_MESSAGE_BYTES),
    ('grpc.max_send_message_length', _MAX_MESSAGE_BYTES),
    # An `http_proxy` in the environment must not stand between the two.
    ('grpc.enable_http_proxy', 0),
)
# Reading the binary from a busy disk for the first time can take a minute.
_START_TIMEOUT_SECONDS = 300.0
_END_TIMEOUT_SECONDS = 5.0
_LOG_TAIL_BYTES = 1000
# An executor keeps the TensorFlow sessions of its computations in the worker's
# memory. Training and evaluation need two at a time.
_MAX_EXECUTORS = 4

_ENVIRONMENT = {
    'TF_CPP_MIN_LOG_LEVEL': '2',
    # Up to this many bytes of stacks glibc keeps the memory of ended threads.
    # With its default, of five stacks, the memory of a worker's thread that
    # ends while it is being detached can be gone before `pthread_detach` reads
    # it: SIGSEGV.
    'GLIBC_TUNABLES': f'glibc.pthread.stack_cache_size={2**33}',
}

# Has the kernel kill the worker at its parent's death. It runs in a bare
# interpreter of its own, because Python code between fork and exec
# (`preexec_fn`) can deadlock in a process with threads. The comparison of the
# parent's id notices a death before prctl.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(
    PR_SET_PDEATHSIG, *(ctypes.c_ulong(x) for x in (signal.SIGKILL, 0, 0, 0)))
if os.getppid() == int(sys.argv[1]):
  os.execv(sys.argv[2], sys.argv[2:])
"""


class _Worker:
  """A worker that accepts connections.

  The thread that makes it must live as long: the kernel takes its death for the
  parent's. RuntimeError if the worker does not start.
  """

  def __init__(self, max_concurrent_calls: int):
    self._log = tempfile.TemporaryFile()
    # gRPC servers listen with SO_REUSEPORT: two workers that were given the
    # same port would silently share their callers. Port 0 never yields one that
    # another socket is bound to.
    self._reservation = socket.socket()
    self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    self._reservation.bind(('', 0))
    self.port = self._reservation.getsockname()[1]
    try:
      # Neither the terminal nor a pipe of the owner is held open, and Ctrl-C
      # reaches the owner alone.
      self._process = subprocess.Popen(
          [
              *(sys.executable, '-I', '-S', '-c', _LAUNCHER),
              *(str(os.getpid()), _BINARY_PATH, f'--port={self.port}'),
              f'--max_concurrent_computation_calls={max_concurrent_calls}',
          ],
          stdin=subprocess.DEVNULL,
          stdout=self._log,
          stderr=self._log,
          env={**_ENVIRONMENT, **os.environ},
          start_new_session=True,
      )
    except OSError as error:
      raise RuntimeError(
          f'The worker could not be started: {error}.'
      ) from error
    self.pid = self._process.pid
    try:
      self._wait_until_ready()
    except BaseException:
      self.stop()
      raise

  def _wait_until_ready(self):
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while True:
      try:
        return socket.create_connection(('127.0.0.1', self.port), 1.0).close()
      except OSError:
        if self.has_ended(0.01):
          raise RuntimeError(
              f'The worker could not be started: it {self.describe_end()}'
          ) from None
        if time.monotonic() > deadline:
          raise RuntimeError(
              f'The worker (process {self.pid}) accepted no connection on port'
              f' {self.port} within {_START_TIMEOUT_SECONDS:g} s and was'
              f' stopped{self._quote_log()}'
          ) from None

  def has_ended(self, timeout_seconds: float = 0.0) -> bool:
    """Whether the worker has ended or ends in time."""
    try:
      self._process.wait(timeout_seconds)
      return True
    except subprocess.TimeoutExpired:
      return False

  def describe_end(self) -> str:
    """How an ended worker ended, as in 'was killed by SIGSEGV; ...'."""
    status = self._process.returncode
    if status >= 0:
      end = f'exited with status {status}'
    else:
      end = f'was killed by {signal.Signals(-status).name}'
    if -status in (signal.SIGKILL, signal.SIGABRT):
      end += ' (often a sign that memory ran short)'
    return end + self._quote_log()

  def _quote_log(self) -> str:
    """How the worker's output ends, as the end of a one-line error."""
    # `pread` leaves the offset alone, which the worker's writes share.
    log = self._log.fileno()
    start = max(0, os.fstat(log).st_size - _LOG_TAIL_BYTES)
    tail = os.pread(log, _LOG_TAIL_BYTES, start)
    line = ' '.join(tail.decode(errors='replace').split())
    return f'; its output ended: "{line}".' if line else '; it printed nothing.'

  def stop(self):
    """Kills the worker, which has nothing to save."""
    self._process.kill()
    self._process.wait()
    self._reservation.close()


class _WorkerExecutorFactory(tff.framework.ExecutorFactory):
  """Makes executors on a worker process, which it starts when it has none.

  There is one executor for each number of clients; the least recently used ones
  are disposed of. TFF's own factory forgets them instead, so the worker's
  memory grows with every new number of clients.
  """

  def __init__(self, max_concurrent_calls: int, default_num_clients: int):
    self._max_concurrent_calls = max_concurrent_calls
    self._default_num_clients = default_num_clients
    self._owner_pid = os.getpid()
    self._worker = None
    self._stub = None
    self._executors = {}

  @property
  def worker_pid(self) -> Optional[int]:
    has_worker = self._worker is not None and not self._worker.has_ended()
    return self._worker.pid if has_worker else None

  def create_executor(
      self, cardinalities: tff.framework.CardinalitiesType
  ) -> tff.framework.RemoteExecutor:
    if self.worker_pid is None:
      self.close()
      # In the context's thread, which lives as long as the context.
      self._worker = _Worker(self._max_concurrent_calls)
      self._stub = tff.framework.RemoteExecutorGrpcStub(
          grpc.insecure_channel(
              f'127.0.0.1:{self._worker.port}', _CHANNEL_OPTIONS
          )
      )
    num_clients = cardinalities.get(tff.CLIENTS, self._default_num_clients)
    executor = self._executors.pop(num_clients, None)
    if executor is None:
      executor = tff.framework.RemoteExecutor(self._stub)
      executor.set_cardinalities({tff.CLIENTS: num_clients})
    self._executors[num_clients] = executor
    if len(self._executors) > _MAX_EXECUTORS:
      self._executors.pop(next(iter(self._executors))).close()
    return executor

  def clean_up_executor(self, cardinalities: tff.framework.CardinalitiesType):
    """Runs while the error of a failed call is handled, and may replace it.

    TFF retries a call that fails with UNAVAILABLE or FAILED_PRECONDITION for
    ever. With a worker of one's own neither passes with time.
    """
    error, worker = sys.exc_info()[1], self._worker
    num_clients = cardinalities.get(tff.CLIENTS, self._default_num_clients)
    executor = self._executors.pop(num_clients, None)
    if executor is not None:
      executor.close()
    if worker is None or not isinstance(error, grpc.RpcError):
      return
    is_retryable = isinstance(error, tff.framework.RetryableError)
    # The connection ends a moment before the process is seen to.
    if worker.has_ended(_END_TIMEOUT_SECONDS if is_retryable else 0.0):
      raise RuntimeError(
          f'The worker process {worker.pid} {worker.describe_end()} '
          'The next computation starts a new one.'
      ) from error
    if is_retryable:
      raise RuntimeError(
          f'The worker process {worker.pid} failed with '
          f'{error.code().name}: {error.details()}'
      ) from error

  def close(self):
    """Ends the worker, if there is one and it is no forked child that asks."""
    if self._worker is not None and os.getpid() == self._owner_pid:
      self._worker.stop()
      # A call that was interrupted may go on in a thread of TFF's.
      executors, self._executors = self._executors, {}
      for executor in executors.values():
        executor.close()
      # The thread that watches the channel fails if it is closed.
      self._stub = None
      self._worker = None


class NativeExecutionContext(tff.framework.SyncExecutionContext):
  """TFF's synchronous native context on a worker process of its own.

  The worker starts with the first computation, again with the first one after
  its end, and ends with the context or the process. Calls of several threads
  are executed one after the other.
  """

  def __init__(
      self,
      *,
      max_concurrent_calls: Optional[int] = None,
      default_num_clients: int = 0,
  ):
    """Initializes the context.

    Args:
      max_concurrent_calls: How many calls of one computation the worker runs at
        once, that is, how many clients train at once; at least 1. Default: the
        number of usable cores. TFF's own default is no limit, with which all
        clients of a round compete for the cores and hold their memory at once.
        In a container with a CPU quota below its number of cores, give the
        quota.
      default_num_clients: The number of clients of a computation whose
        arguments do not tell, at least 0.
    """
    if max_concurrent_calls is None:
      max_concurrent_calls = process.usable_cores()
    super().__init__(
        _WorkerExecutorFactory(
            checks.check_int(
                'max_concurrent_calls', max_concurrent_calls, minimum=1
            ),
            checks.check_int(
                'default_num_clients', default_num_clients, minimum=0
            ),
        ),
        tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )
    self._owner_pid = os.getpid()
    self._lock = threading.Lock()
    weakref.finalize(self, self.executor_factory.close).atexit = False

  def invoke(self, comp: tff.Computation, arg: Any) -> Any:
    """Executes a computation; RuntimeError if the worker fails."""
    process.check_owner(self._owner_pid)
    # No thread disposes of an executor that another one uses.
    with self._lock:
      return super().invoke(comp, arg)

  def close(self):
    """Ends the worker, if there is one; a later computation starts another."""
    self.executor_factory.close()

  @property
  def placement(self) -> str:
    """Where computations run and what that means, in words."""
    return (
        'on the CPU in a worker process without access control: until it ends,'
        " whoever reaches this machine's ports, any local account among them,"
        ' can read and write files as you through it'
    )

  @property
  def worker_pid(self) -> Optional[int]:
    """The worker's process id, or None while there is no worker."""
    return self.executor_factory.worker_pid
