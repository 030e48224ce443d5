"""An execution context that runs computations with this process's TensorFlow.

Results agree with those of the native context but for rounding, also on CPUs.
Its worker process is another build of TensorFlow, in which some kernels, those
of exponentials and of matrix products among them, round differently. Over many
steps of training the differences grow.
"""

from collections.abc import Callable, Sequence
from concurrent import futures
import os
import threading
from typing import Any, Optional
import weakref

from tensorflow.python.eager import context as eager_context
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.executors import cardinalities_utils
from tensorflow_federated.python.core.impl.types import type_conversions

from fedaot import checks
from fedaot_tff.runtime import devices
from fedaot_tff.runtime import invocation
from fedaot_tff.runtime import process
from fedaot_tff.runtime import program
from fedaot_tff.runtime import traced
from fedaot_tff.runtime import values


class _Programs:
  """Compiles each computation once, and forgets it with the computation."""

  def __init__(self, trace: Callable[..., program.Function]):
    """`trace` may make something else of a function, given the signature."""
    self._trace = trace
    self._builder = program.ProgramBuilder()
    self._programs = {}
    self._lock = threading.Lock()

  def get(self, computation: tff.framework.ConcreteComputation):
    # TFF's computations hash and compare all of their serialized graphs.
    key = id(computation)
    with self._lock:
      if key not in self._programs:
        compiled = program.compile_to_building_block(computation)
        function = self._builder.build(compiled)
        if tff.types.contains(computation.type_signature, _is_at_clients):
          function = self._trace(function, computation.type_signature)
        self._programs[key] = function
        forget = weakref.finalize(computation, self._programs.pop, key, None)
        forget.atexit = False
      return self._programs[key]

  def clear(self):
    with self._lock:
      self._programs.clear()


def _is_at_clients(type_spec: tff.Type) -> bool:
  return (
      isinstance(type_spec, tff.FederatedType)
      and type_spec.placement is tff.CLIENTS
  )


class InProcessExecutionContext(tff.framework.SyncContext):
  """Runs computations in this process, on its GPUs if TensorFlow sees any.

  Make it before TensorFlow has run anything: afterwards neither logical devices
  nor the growth of GPU memory, which it turns on, can be configured.

  Build learning processes with
  `loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR`; what
  `tf.data.Dataset.reduce` calls runs on the CPU.
  """

  def __init__(
      self,
      *,
      client_devices: Optional[Sequence[str]] = None,
      server_device: Optional[str] = None,
      max_concurrent_clients: Optional[int] = None,
      default_num_clients: int = 0,
  ):
    """Initializes the context.

    Args:
      client_devices: The names of logical devices, such as `['GPU:0',
        'GPU:1']`. Clients run on them in turn. Default: all GPUs, or the first
        CPU device if there are none.
      server_device: The logical device for the server's work. Default: the
        first of `client_devices`. Datasets and lookup tables are always on the
        first CPU device.
      max_concurrent_clients: How many clients of a round run at once, at least
        1; no result depends on it. Default: the number of different client
        devices, or of usable cores if all of them are CPUs.
      default_num_clients: The number of clients of a computation whose
        arguments do not tell, at least 0.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If there is no device of a given name, or a number is too
        small.
    """
    self._default_num_clients = checks.check_int(
        'default_num_clients', default_num_clients, minimum=0
    )
    devices.allow_memory_growth()
    self._devices = devices.choose_devices(client_devices, server_device)
    if max_concurrent_clients is None:
      max_concurrent_clients = (
          len(set(self._devices.clients))
          if self._devices.has_accelerator
          else process.usable_cores()
      )
    self._num_threads = checks.check_int(
        'max_concurrent_clients', max_concurrent_clients, minimum=1
    )
    self._pool = (
        futures.ThreadPoolExecutor(self._num_threads, 'in_process_clients')
        if self._num_threads > 1
        else None
    )
    self._programs = _Programs(self._trace)
    self._owner_pid = os.getpid()

  def invoke(self, comp: tff.framework.ConcreteComputation, arg: Any) -> Any:
    """Executes a computation in the calling thread and those of the clients."""
    process.check_owner(self._owner_pid)
    parameter_type = comp.type_signature.parameter
    if (arg is None) != (parameter_type is None):
      raise TypeError(
          f'Expected an argument of type {parameter_type}, found {arg}.'
      )
    cardinalities = cardinalities_utils.infer_cardinalities(arg, parameter_type)
    server = self._invocation(
        cardinalities.get(tff.CLIENTS, self._default_num_clients)
    ).server
    # Whatever graph the caller is building.
    with eager_context.eager_mode():
      program = self._programs.get(comp)
      argument = None
      if arg is not None:
        argument = values.ingest(arg, parameter_type, server)
      result = program(argument, server)
      result_type = comp.type_signature.result
      return type_conversions.type_to_py_container(
          values.export(result, result_type), result_type
      )

  def _invocation(self, num_clients: int) -> invocation.Invocation:
    return invocation.Invocation(self._devices, num_clients, self._pool)

  def _trace(
      self, function: program.Function, signature: tff.FunctionType
  ) -> program.Function:
    """One function of TensorFlow, if it can be one."""
    try:
      call = traced.trace(function, signature, self._devices, self._num_threads)
    except traced.NotTraceable:
      return function

    def run(argument, server):
      return call(argument, server.invocation.num_clients)

    # The graph calls functions that are removed with it.
    run.untraced = function
    return run

  def close(self):
    """Frees compiled computations; later use compiles them again."""
    self._programs.clear()

  @property
  def client_devices(self) -> tuple[str, ...]:
    """The full names of the devices that clients run on, in turn."""
    return self._devices.clients

  @property
  def server_device(self) -> str:
    """The full name of the device that the server's work runs on."""
    return self._devices.server

  @property
  def placement(self) -> str:
    """The devices in short, as in 'clients on CPU:0, server on CPU:0'."""
    return self._devices.describe()
