"""Execution contexts: a worker process that is never left over, or in-process.

`tff.backends.native.set_sync_local_cpp_execution_context`, which
`import tensorflow_federated` calls by itself, leaves its worker process behind
at exit and runs any number of clients at once. `set_native_execution_context`
replaces it:

```
from fedaot_tff.simulation import execution_context

execution_context.set_native_execution_context()
```

Computations are compiled and executed as by TFF's own context. What differs is
the life of the worker process (see `worker_process`), how its failures are
told and survived, and how many calls run at once.

`set_in_process_execution_context` runs computations with this process's own
TensorFlow instead, and so on its GPUs; see `in_process`.

The worker has no access control and TFF's binary has no flag for one: while it
runs, it serves everybody who reaches the machine on the worker's port.
"""

import collections
from collections.abc import Sequence
import numbers
import os
import weakref
from typing import Any, Callable, Optional, Union

from absl import logging
import grpc
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.python.core.impl.executors import remote_executor

from fedaot_tff.simulation import value_transfer
from fedaot_tff.simulation import worker_process
from fedaot_tff.simulation.in_process import devices as in_process_devices
from fedaot_tff.simulation.in_process import execution_context as in_process

_Path = Union[str, os.PathLike]

_BINARY_PATH = os.path.join(
    os.path.dirname(tff.__file__), 'data', 'worker_binary'
)
_MAX_MESSAGE_BYTES = 2 * 1000 * 1000 * 1000
_CHANNEL_OPTIONS = (
    ('grpc.max_message_length', _MAX_MESSAGE_BYTES),
    ('grpc.max_receive_message_length', _MAX_MESSAGE_BYTES),
    ('grpc.max_send_message_length', _MAX_MESSAGE_BYTES),
    # An `http_proxy` in the environment must not stand between the two.
    ('grpc.enable_http_proxy', 0),
)
_END_TIMEOUT_SECONDS = 5.0
# An executor keeps the values and TensorFlow sessions of its computations in
# the worker's memory. Training and evaluation need two at a time.
_MAX_EXECUTORS = 4
# Those that an executor holds: a round, an evaluation and what goes on around
# them, each of which may contain data.
_MAX_COMPUTATIONS = 8


class _WorkerCrashError(RuntimeError):
  """The worker ended by an error in its own code."""


class _WorkerStub(tff.framework.RemoteExecutorGrpcStub):
  """A stub whose calls to a dead worker raise, rather than be retried.

  TFF retries a call that fails with UNAVAILABLE or FAILED_PRECONDITION for
  ever. With a worker of one's own neither passes with time: it has died, or
  the executor that the call names is gone.
  """

  def __init__(
      self, channel: grpc.Channel, worker: worker_process.WorkerProcess
  ):
    super().__init__(channel)
    self._worker = worker

  def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
    """Returns `method(request)`, or raises an error that is not retried."""
    try:
      return method(request)
    except grpc.RpcError as error:
      retryable = isinstance(error, tff.framework.RetryableError)
      # The connection ends a moment before the process is seen to.
      if self._worker.wait(_END_TIMEOUT_SECONDS if retryable else 0.0):
        kind = (
            _WorkerCrashError if self._worker.has_crashed() else RuntimeError
        )
        raise kind(
            f'The worker process {self._worker.pid} '
            f'{self._worker.describe_end()} during a computation; the next '
            f'computation starts a new worker{self._worker.quote_log()}'
        ) from error
      if retryable:
        raise RuntimeError(
            f'The worker process {self._worker.pid} failed with '
            f'{error.code().name}: {error.details()}'
        ) from error
      raise

  def get_executor(self, request):
    return self._call(super().get_executor, request)

  def create_value(self, request):
    return self._call(super().create_value, request)

  def create_struct(self, request):
    return self._call(super().create_struct, request)

  def create_call(self, request):
    return self._call(super().create_call, request)

  def create_selection(self, request):
    return self._call(super().create_selection, request)

  def compute(self, request):
    return self._call(super().compute, request)

  # A dead worker holds nothing to dispose of, and these run in finalizers and
  # while another error is handled.

  def dispose(self, request):
    if not self._worker.is_alive():
      return executor_pb2.DisposeResponse()
    return self._call(super().dispose, request)

  def dispose_executor(self, request):
    if not self._worker.is_alive():
      return executor_pb2.DisposeExecutorResponse()
    return self._call(super().dispose_executor, request)


class _WorkerExecutor(tff.framework.RemoteExecutor):
  """A proxy of an executor on the worker; see `value_transfer`.

  The last few computations stay on the worker, so that one is sent once, not in
  every round: what it captures, such as a hold-out, is part of it.
  """

  def __init__(self, stub: tff.framework.RemoteExecutorStub):
    super().__init__(stub)
    self._computations = collections.OrderedDict()

  def close(self):
    self._computations.clear()
    super().close()

  async def create_value(self, value, type_spec=None):
    if isinstance(value, tff.framework.ConcreteComputation):
      # Each holds its computation, whose id is therefore nobody else's.
      key = id(value)
      if key not in self._computations:
        self._computations[key] = (
            value, await super().create_value(value, type_spec)
        )
      self._computations.move_to_end(key)
      if len(self._computations) > _MAX_COMPUTATIONS:
        self._computations.popitem(last=False)
      return self._computations[key][1]
    if type_spec is None or isinstance(type_spec, tff.FunctionType):
      return await super().create_value(value, type_spec)
    request = executor_pb2.CreateValueRequest(executor=self._executor_id)
    value_transfer.fill_message(request.value, value, type_spec)
    response = self._stub.create_value(request)
    return remote_executor.RemoteValue(response.value_ref, type_spec, self)

  async def _compute(self, value_ref, type_spec):
    request = executor_pb2.ComputeRequest(
        executor=self._executor_id, value_ref=value_ref
    )
    response = self._stub.compute(request)
    return value_transfer.read_message(response.value, type_spec)


class _WorkerExecutorFactory(tff.framework.ExecutorFactory):
  """Makes executors on a worker process, which it starts when it has none.

  There is one executor for each number of clients; the least recently used
  ones are disposed of. TFF's `ResourceManagingExecutorFactory` forgets them
  instead, so the worker's memory grows with every new number of clients.
  """

  def __init__(
      self,
      max_concurrent_calls: int,
      default_num_clients: int,
      worker_log_path: Optional[_Path],
  ):
    self._max_concurrent_calls = max_concurrent_calls
    self._default_num_clients = default_num_clients
    self._worker_log_path = worker_log_path
    self._worker = None
    self._channel = None
    self._stub = None
    self._executors = collections.OrderedDict()

  @property
  def worker_pid(self) -> Optional[int]:
    return self._worker.pid if self._has_worker() else None

  def _has_worker(self) -> bool:
    return self._worker is not None and self._worker.is_alive()

  def _num_clients(
      self, cardinalities: tff.framework.CardinalitiesType
  ) -> int:
    return cardinalities.get(tff.CLIENTS, self._default_num_clients)

  def create_executor(
      self, cardinalities: tff.framework.CardinalitiesType
  ) -> tff.framework.RemoteExecutor:
    if not self._has_worker():
      self._start_worker()
    num_clients = self._num_clients(cardinalities)
    if num_clients not in self._executors:
      executor = _WorkerExecutor(self._stub)
      executor.set_cardinalities({tff.CLIENTS: num_clients})
      self._executors[num_clients] = executor
    self._executors.move_to_end(num_clients)
    if len(self._executors) > _MAX_EXECUTORS:
      self._executors.popitem(last=False)[1].close()
    return self._executors[num_clients]

  def clean_up_executor(self, cardinalities: tff.framework.CardinalitiesType):
    executor = self._executors.pop(self._num_clients(cardinalities), None)
    if executor is not None:
      executor.close()

  def _start_worker(self):
    """Starts a worker; executors on an earlier one are forgotten."""
    self.close()
    self._executors.clear()
    self._worker = worker_process.WorkerProcess(
        _BINARY_PATH,
        [f'--max_concurrent_computation_calls={self._max_concurrent_calls}'],
        log_path=self._worker_log_path,
    )
    self._channel = grpc.insecure_channel(
        f'127.0.0.1:{self._worker.port}', _CHANNEL_OPTIONS
    )
    self._stub = _WorkerStub(self._channel, self._worker)

  def close(self):
    """Ends the worker, if there is one."""
    if self._worker is not None and self._worker.is_owned():
      self._worker.stop()
      self._channel.close()


class NativeExecutionContext(tff.framework.SyncExecutionContext):
  """TFF's synchronous native context on a worker process of its own.

  The worker starts with the first computation, again with the first one after
  its end, and ends with the context or the process. Made by
  `create_native_execution_context`.
  """

  def __init__(self, factory: _WorkerExecutorFactory):
    super().__init__(
        factory,
        tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )
    self._owner_pid = os.getpid()
    self._finalizer = weakref.finalize(self, factory.close)
    self._finalizer.atexit = False

  @property
  def worker_pid(self) -> Optional[int]:
    """The worker's process id, or None while there is no worker."""
    return self.executor_factory.worker_pid

  def invoke(self, comp: tff.Computation, arg: Any) -> Any:
    """Executes a computation.

    A computation during which the worker crashes is executed once more, by a
    new worker: a long training does not end with a rare error of TFF's binary.
    It has no effects that could happen twice, but random numbers without a seed
    are drawn anew. A worker that is killed, as when memory runs short, is not
    given another try.

    Args:
      comp: The computation.
      arg: Its argument, packed, or None.

    Returns:
      The result.

    Raises:
      RuntimeError: If the worker cannot be started, is killed during the
        computation, crashes twice, or fails with a status that TFF would retry
        for ever; or if the context came into this process by fork.
    """
    if os.getpid() != self._owner_pid:
      # The thread that executes computations does not exist in the child.
      raise RuntimeError(
          f'This execution context belongs to process {self._owner_pid} and '
          f'does not work in its forked child {os.getpid()}; start the child '
          'with the multiprocessing start method "spawn".'
      )
    try:
      return super().invoke(comp, arg)
    except _WorkerCrashError as error:
      logging.warning('%s It is tried once more.', error)
      return super().invoke(comp, arg)

  def close(self):
    """Ends the worker, if there is one; a later computation starts another."""
    self.executor_factory.close()


def usable_cores() -> int:
  """Returns the number of CPU cores that this process may run on.

  A CPU quota of a container is not taken into account.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _check_int(name: str, value: Any, minimum: int) -> int:
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise TypeError(
        f'`{name}` must be an integer, found {value!r} of type '
        f'{type(value).__name__}.'
    )
  if value < minimum:
    raise ValueError(f'`{name}` must be at least {minimum}, found {value}.')
  return int(value)


def create_native_execution_context(
    *,
    max_concurrent_calls: Optional[int] = None,
    default_num_clients: int = 0,
    worker_log_path: Optional[_Path] = None,
) -> NativeExecutionContext:
  """Creates a native execution context without making it the default.

  See `set_native_execution_context` for the arguments and the errors.
  """
  if max_concurrent_calls is None:
    max_concurrent_calls = usable_cores()
  if worker_log_path is not None and not isinstance(
      worker_log_path, (str, os.PathLike)
  ):
    raise TypeError(
        '`worker_log_path` must be a path or None, found '
        f'{worker_log_path!r} of type {type(worker_log_path).__name__}.'
    )
  return NativeExecutionContext(
      _WorkerExecutorFactory(
          _check_int('max_concurrent_calls', max_concurrent_calls, 1),
          _check_int('default_num_clients', default_num_clients, 0),
          worker_log_path,
      )
  )


def create_in_process_execution_context(
    *,
    client_devices: Optional[Sequence[str]] = None,
    server_device: Optional[str] = None,
    max_concurrent_clients: Optional[int] = None,
    default_num_clients: int = 0,
    keep_on_device: bool = False,
) -> in_process.InProcessExecutionContext:
  """Creates an in-process execution context without making it the default.

  See `set_in_process_execution_context` for the arguments and the errors.
  """
  default_num_clients = _check_int(
      'default_num_clients', default_num_clients, 0
  )
  if max_concurrent_clients is not None:
    max_concurrent_clients = _check_int(
        'max_concurrent_clients', max_concurrent_clients, 1
    )
  if not isinstance(keep_on_device, bool):
    raise TypeError(
        f'`keep_on_device` must be a bool, found {keep_on_device!r} of type '
        f'{type(keep_on_device).__name__}.'
    )
  in_process_devices.allow_memory_growth()
  devices = in_process_devices.choose_devices(client_devices, server_device)
  if max_concurrent_clients is None:
    max_concurrent_clients = (
        len(set(devices.clients))
        if devices.has_accelerator
        else usable_cores()
    )
  return in_process.InProcessExecutionContext(
      devices,
      max_concurrent_clients=max_concurrent_clients,
      default_num_clients=default_num_clients,
      keep_on_device=keep_on_device,
  )


_default_context: Union[
    NativeExecutionContext, in_process.InProcessExecutionContext, None
] = None


def _set_default_context(context):
  """Makes `context` TFF's default and closes the one set before."""
  global _default_context
  if _default_context is not None:
    _default_context.close()
  tff.framework.set_default_context(context)
  _default_context = context


def set_native_execution_context(
    *,
    max_concurrent_calls: Optional[int] = None,
    default_num_clients: int = 0,
    worker_log_path: Optional[_Path] = None,
) -> NativeExecutionContext:
  """Makes a native execution context TFF's default and returns it.

  The worker process of the context that an earlier call set is ended. The new
  one starts with the first computation.

  Args:
    max_concurrent_calls: How many calls of one computation the worker runs at
      once, that is, how many clients train at once; at least 1. Default: the
      number of usable cores. TFF's own default is no limit, with which all
      clients of a round compete for the cores and hold their memory at once: a
      round of ten clients that train a convolutional network was up to ten
      times slower for it, and at times never ended. In a container with a CPU
      quota below its number of cores, give the quota.
    default_num_clients: The number of clients of a computation whose arguments
      do not tell, at least 0.
    worker_log_path: A file that the worker's output is appended to, the lines
      of `tf.print` in computations included. Default: it is not kept, except
      that errors quote its end.

  Returns:
    The context. Its `worker_pid` is the id of the worker process.

  Raises:
    TypeError: If an argument is of the wrong kind.
    ValueError: If a number is too small.
  """
  context = create_native_execution_context(
      max_concurrent_calls=max_concurrent_calls,
      default_num_clients=default_num_clients,
      worker_log_path=worker_log_path,
  )
  _set_default_context(context)
  return context


def set_in_process_execution_context(
    *,
    client_devices: Optional[Sequence[str]] = None,
    server_device: Optional[str] = None,
    max_concurrent_clients: Optional[int] = None,
    default_num_clients: int = 0,
    keep_on_device: bool = False,
) -> in_process.InProcessExecutionContext:
  """Makes an in-process execution context TFF's default and returns it.

  It runs computations with this process's own TensorFlow, on its GPUs if it
  sees any; the worker process of the native context is built without GPU
  support. Call it before TensorFlow has run anything: afterwards neither
  logical devices nor the growth of GPU memory, which it turns on, can be
  configured.

  Learning processes must be built with
  `loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR`;
  what `tf.data.Dataset.reduce` calls runs on the CPU.

  The context that an earlier call here set is closed.

  Args:
    client_devices: The names of logical devices, such as `['GPU:0', 'GPU:1']`.
      Clients run on them in turn. Default: all GPUs, or the first CPU device
      if there are none.
    server_device: The logical device for the server's work. Default: the first
      of `client_devices`. Datasets and lookup tables are always on the first
      CPU device.
    max_concurrent_clients: How many clients of a round run at once, at least 1.
      Default: the number of different client devices, or of usable cores if
      all of them are CPUs.
    default_num_clients: The number of clients of a computation whose arguments
      do not tell, at least 0.
    keep_on_device: Whether results are `tf.Tensor`s on the device that computed
      them, rather than NumPy arrays. They can be passed to the next
      computation as they are, so that a server's state stays on the device
      between rounds.

  Returns:
    The context.

  Raises:
    TypeError: If an argument is of the wrong kind.
    ValueError: If there is no device of a given name, or a number is too small.
  """
  context = create_in_process_execution_context(
      client_devices=client_devices,
      server_device=server_device,
      max_concurrent_clients=max_concurrent_clients,
      default_num_clients=default_num_clients,
      keep_on_device=keep_on_device,
  )
  _set_default_context(context)
  return context


def shutdown_workers():
  """Ends every worker process of this process.

  There is no need to call it before the process ends. A computation that runs
  meanwhile raises; the next one in an existing context starts a new worker.
  """
  worker_process.stop_all()
