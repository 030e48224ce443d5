"""An execution context that runs computations in this process."""

from concurrent import futures
import threading
from typing import Any
import weakref

import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.executors import executor_base
from tensorflow_federated.python.core.impl.executors import executor_value_base

from fedaot_tff.simulation.in_process import devices
from fedaot_tff.simulation.in_process import program
from fedaot_tff.simulation.in_process import runtime
from fedaot_tff.simulation.in_process import values


class _Value(executor_value_base.ExecutorValue):
  """A value, or a function, in this process."""

  def __init__(self, value: Any, type_signature: tff.Type, convert: Any):
    self._value = value
    self._type_signature = type_signature
    self._convert = convert

  @property
  def type_signature(self):
    return self._type_signature

  @property
  def reference(self):
    return self._value

  async def compute(self):
    return values.export(self._value, self._type_signature, self._convert)


class _Programs:
  """Compiles each computation once, and forgets it with the computation."""

  def __init__(self):
    self._builder = program.ProgramBuilder()
    self._programs = {}
    self._lock = threading.Lock()

  def get(self, computation: tff.framework.ConcreteComputation):
    # TFF's computations hash and compare all of their serialized graphs.
    key = id(computation)
    with self._lock:
      if key not in self._programs:
        compiled = program.compile_to_building_block(computation)
        self._programs[key] = self._builder.build(compiled)
        forget = weakref.finalize(computation, self._programs.pop, key, None)
        forget.atexit = False
      return self._programs[key]

  def clear(self):
    with self._lock:
      self._programs.clear()


class _Executor(executor_base.Executor):
  """Executes the invocations of one number of clients."""

  def __init__(self, programs, place: runtime.Place, convert):
    self._programs = programs
    self._place = place
    self._convert = convert

  def _make(self, value: Any, type_signature: tff.Type) -> _Value:
    return _Value(value, type_signature, self._convert)

  def close(self):
    """Nothing is held between invocations."""

  async def create_value(self, value, type_spec=None):
    if isinstance(value, tff.framework.ConcreteComputation):
      return self._make(self._programs.get(value), value.type_signature)
    return self._make(values.ingest(value, type_spec, self._place), type_spec)

  async def create_call(self, comp, arg=None):
    parameter_type = comp.type_signature.parameter
    if (arg is None) != (parameter_type is None):
      found = None if arg is None else arg.type_signature
      raise TypeError(
          f'Expected an argument of type {parameter_type}, found {found}.'
      )
    argument = None if arg is None else arg.reference
    return self._make(
        comp.reference(argument, self._place), comp.type_signature.result
    )

  async def create_struct(self, elements):
    elements = list(
        tff.structure.iter_elements(tff.structure.from_container(elements))
    )
    return self._make(
        tuple(value.reference for _, value in elements),
        tff.StructType([
            (name, value.type_signature) if name else value.type_signature
            for name, value in elements
        ]),
    )

  async def create_selection(self, source, index):
    return self._make(source.reference[index], source.type_signature[index])


class _ExecutorFactory(tff.framework.ExecutorFactory):
  """Makes executors that share compiled computations and threads."""

  def __init__(
      self,
      chosen_devices: devices.Devices,
      max_concurrent_clients: int,
      default_num_clients: int,
      keep_on_device: bool,
  ):
    self._devices = chosen_devices
    self._default_num_clients = default_num_clients
    self._convert = (lambda t: t) if keep_on_device else (lambda t: t.numpy())
    self._max_concurrent_clients = max_concurrent_clients
    self._programs = _Programs()
    self._pool = None

  def create_executor(self, cardinalities):
    if self._pool is None and self._max_concurrent_clients > 1:
      self._pool = futures.ThreadPoolExecutor(
          self._max_concurrent_clients, thread_name_prefix='in_process_clients'
      )
    num_clients = cardinalities.get(tff.CLIENTS, self._default_num_clients)
    place = runtime.Runtime(self._devices, num_clients, self._pool).server
    return _Executor(self._programs, place, self._convert)

  def clean_up_executor(self, cardinalities):
    """Nothing is held between invocations."""

  def close(self):
    self._programs.clear()
    if self._pool is not None:
      self._pool.shutdown()
      self._pool = None


class InProcessExecutionContext(tff.framework.SyncExecutionContext):
  """Runs computations with this process's TensorFlow.

  Made by `fedaot_tff.simulation.execution_context`.
  """

  def __init__(
      self,
      chosen_devices: devices.Devices,
      *,
      max_concurrent_clients: int,
      default_num_clients: int,
      keep_on_device: bool,
  ):
    """Initializes the context.

    Args:
      chosen_devices: The devices to run on.
      max_concurrent_clients: The number of clients that run at once.
      default_num_clients: The number of clients of a computation whose
        arguments do not tell.
      keep_on_device: Whether results are tensors where they were computed,
        rather than NumPy arrays.
    """
    factory = _ExecutorFactory(
        chosen_devices,
        max_concurrent_clients,
        default_num_clients,
        keep_on_device,
    )
    transform_args = None if keep_on_device else tff.tensorflow.transform_args
    super().__init__(factory, transform_args=transform_args)
    self._devices = chosen_devices

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

  def close(self):
    """Frees compiled computations and threads; later use makes them again."""
    self.executor_factory.close()
