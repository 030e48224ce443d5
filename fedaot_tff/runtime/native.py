"""TFF's native execution context on a worker process that is not left over.

Computations are compiled and executed as by the context that
`import tensorflow_federated` sets. What differs is the life of the worker (see
`worker_process`), that its death is told, and how many calls run at once.

The worker has no access control, and TFF's binary has no flag for one nor for
the address it listens on, which is every one of the machine's.
"""

import os
import sys
import threading
from typing import Any, Optional
import weakref

import grpc
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.runtime import process
from fedaot_tff.runtime import worker_process

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
_END_TIMEOUT_SECONDS = 5.0
# An executor keeps the TensorFlow sessions of its computations in the worker's
# memory. Training and evaluation need two at a time.
_MAX_EXECUTORS = 4


class _WorkerExecutorFactory(tff.framework.ExecutorFactory):
  """Makes executors on a worker process, which it starts when it has none.

  There is one executor for each number of clients; the least recently used ones
  are disposed of. TFF's own factory forgets them instead, so the worker's
  memory grows with every new number of clients.
  """

  def __init__(self, max_concurrent_calls: int, default_num_clients: int):
    self._flags = [f'--max_concurrent_computation_calls={max_concurrent_calls}']
    self._default_num_clients = default_num_clients
    self._worker = None
    self._stub = None
    self._executors = {}

  @property
  def worker_pid(self) -> Optional[int]:
    return self._worker.pid if self._has_worker() else None

  def _has_worker(self) -> bool:
    return self._worker is not None and self._worker.is_alive()

  def create_executor(
      self, cardinalities: tff.framework.CardinalitiesType
  ) -> tff.framework.RemoteExecutor:
    if not self._has_worker():
      self.close()
      # In the context's thread, which lives as long as the context.
      self._worker = worker_process.WorkerProcess(_BINARY_PATH, self._flags)
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
    error = sys.exc_info()[1]
    num_clients = cardinalities.get(tff.CLIENTS, self._default_num_clients)
    executor = self._executors.pop(num_clients, None)
    if executor is not None:
      executor.close()
    if not isinstance(error, grpc.RpcError):
      return
    is_retryable = isinstance(error, tff.framework.RetryableError)
    # The connection ends a moment before the process is seen to.
    if self._worker.wait(_END_TIMEOUT_SECONDS if is_retryable else 0.0):
      raise RuntimeError(
          f'The worker process {self._worker.pid} '
          f'{self._worker.describe_end()} '
          'The next computation starts a new one.'
      ) from error
    if is_retryable:
      raise RuntimeError(
          f'The worker process {self._worker.pid} failed with '
          f'{error.code().name}: {error.details()}'
      ) from error

  def close(self):
    """Ends the worker, if there is one."""
    if self._worker is not None and self._worker.is_owned():
      self._worker.stop()
      for executor in self._executors.values():
        executor.close()
      self._executors.clear()
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
        clients of a round compete for the cores and hold their memory at once:
        a round of ten clients that train a convolutional network was up to ten
        times slower for it, and at times never ended. In a container with a CPU
        quota below its number of cores, give the quota.
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
