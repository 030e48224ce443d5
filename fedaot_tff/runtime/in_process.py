"""An execution context that runs computations with this process's TensorFlow.

Results agree with those of the native context but for rounding, also on CPUs.
Its worker process is another build of TensorFlow, in which some kernels, those
of exponentials and of matrix products among them, round differently. Over many
steps of training the differences grow.
"""

from collections.abc import Sequence
from concurrent import futures
import threading
from typing import Any, Optional
import weakref

import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.executors import executor_base
from tensorflow_federated.python.core.impl.executors import executor_value_base

from fedaot import checks
from fedaot_tff.runtime import devices
from fedaot_tff.runtime import invocation
from fedaot_tff.runtime import process_context
from fedaot_tff.runtime import program
from fedaot_tff.runtime import values


class _Value(executor_value_base.ExecutorValue):
  """A value, or a function, in this process."""

  def __init__(self, value: Any, type_signature: tff.Type):
    self._value = value
    self._type_signature = type_signature

  @property
  def type_signature(self):
    return self._type_signature

  @property
  def reference(self):
    return self._value

  async def compute(self):
    return values.export(self._value, self._type_signature)


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
  """Executes an invocation with one number of clients."""

  def __init__(self, programs: _Programs, place: invocation.Place):
    self._programs = programs
    self._place = place

  def close(self):
    """Nothing is held between invocations."""

  async def create_value(self, value, type_spec=None):
    if isinstance(value, tff.framework.ConcreteComputation):
      return _Value(self._programs.get(value), value.type_signature)
    return _Value(values.ingest(value, type_spec, self._place), type_spec)

  async def create_call(self, comp, arg=None):
    parameter_type = comp.type_signature.parameter
    if (arg is None) != (parameter_type is None):
      found = None if arg is None else arg.type_signature
      raise TypeError(
          f'Expected an argument of type {parameter_type}, found {found}.'
      )
    argument = None if arg is None else arg.reference
    return _Value(
        comp.reference(argument, self._place), comp.type_signature.result
    )

  async def create_struct(self, elements):
    elements = list(
        tff.structure.iter_elements(tff.structure.from_container(elements))
    )
    return _Value(
        tuple(value.reference for _, value in elements),
        tff.StructType([
            (name, value.type_signature) if name else value.type_signature
            for name, value in elements
        ]),
    )

  async def create_selection(self, source, index):
    return _Value(source.reference[index], source.type_signature[index])


class _ExecutorFactory(tff.framework.ExecutorFactory):
  """Makes executors that share compiled computations and threads."""

  def __init__(
      self,
      chosen_devices: devices.Devices,
      max_concurrent_clients: int,
      default_num_clients: int,
  ):
    self._devices = chosen_devices
    self._default_num_clients = default_num_clients
    self._max_concurrent_clients = max_concurrent_clients
    self._programs = _Programs()
    self._pool = None

  def create_executor(self, cardinalities):
    if self._pool is None and self._max_concurrent_clients > 1:
      self._pool = futures.ThreadPoolExecutor(
          self._max_concurrent_clients, thread_name_prefix='in_process_clients'
      )
    num_clients = cardinalities.get(tff.CLIENTS, self._default_num_clients)
    started = invocation.Invocation(self._devices, num_clients, self._pool)
    return _Executor(self._programs, started.server)

  def clean_up_executor(self, cardinalities):
    """Nothing is held between invocations."""

  def close(self):
    self._programs.clear()
    if self._pool is not None:
      self._pool.shutdown()
      self._pool = None


class InProcessExecutionContext(process_context.ProcessContext):
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
    checks.check_int('default_num_clients', default_num_clients, minimum=0)
    devices.allow_memory_growth()
    self._devices = devices.choose_devices(client_devices, server_device)
    if max_concurrent_clients is None:
      max_concurrent_clients = (
          len(set(self._devices.clients))
          if self._devices.has_accelerator
          else process_context.usable_cores()
      )
    super().__init__(
        _ExecutorFactory(
            self._devices,
            checks.check_int(
                'max_concurrent_clients', max_concurrent_clients, minimum=1
            ),
            default_num_clients,
        ),
        transform_args=tff.tensorflow.transform_args,
    )

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
