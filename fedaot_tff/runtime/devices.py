"""Which devices clients' and the server's work runs on."""

from collections.abc import Sequence
import dataclasses
import os
from typing import Any, Optional

from absl import logging
import tensorflow as tf

CPU = '/device:CPU:0'

# Accelerators keep values of these types in the host's memory.
HOST_DTYPES = frozenset([tf.int32, tf.string])


@dataclasses.dataclass(frozen=True)
class Devices:
  """The full names of the devices that work runs on.

  Attributes:
    clients: Client `i` runs on `clients[i % len(clients)]`.
    server: Where the server's work runs.
  """

  clients: tuple[str, ...]
  server: str

  @property
  def has_accelerator(self) -> bool:
    """Whether any client runs on something else than a CPU."""
    return any('/device:CPU:' not in device for device in self.clients)

  def describe(self) -> str:
    """'clients on GPU:0 (NVIDIA A100-SXM4-40GB), server on CPU:0'.

    Followed by CUDA_VISIBLE_DEVICES if it says which GPU is the first.
    """
    clients = ' and '.join(map(_describe_device, dict.fromkeys(self.clients)))
    description = f'clients on {clients}, server on '
    description += _describe_device(self.server)
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None and tf.config.list_physical_devices('GPU'):
      description += f' (CUDA_VISIBLE_DEVICES={visible})'
    return description


def _describe_device(name: str) -> str:
  """Returns 'CPU:0', or 'GPU:0 (model)', for a full name."""
  spec = tf.DeviceSpec.from_string(name)
  short = f'{spec.device_type}:{spec.device_index}'
  gpus = tf.config.list_physical_devices('GPU')
  if spec.device_type != 'GPU' or len(gpus) <= spec.device_index:
    return short
  details = tf.config.experimental.get_device_details(gpus[spec.device_index])
  return f'{short} ({details.get("device_name", "unknown model")})'


def _full_name(argument: str, name: Any) -> str:
  """Returns the full name of a logical device, given as 'GPU:0' or in full."""
  if not isinstance(name, str):
    raise TypeError(
        f'`{argument}` must name devices with strings, such as "GPU:0", found '
        f'{name!r} of type {type(name).__name__}.'
    )
  known = {
      device.name.rpartition('/device:')[2]: device.name
      for device in tf.config.list_logical_devices()
  }
  short = name.rpartition('/device:')[2].upper()
  if short not in known:
    raise ValueError(
        f'`{argument}` names {name!r}, which is none of the devices '
        f'{", ".join(known)}.'
    )
  return f'/job:localhost/replica:0/task:0{known[short]}'


def choose_devices(
    client_devices: Optional[Sequence[str]], server_device: Optional[str]
) -> Devices:
  """Checks the names of devices and fills in `InProcessExecutionContext`'s.

  TensorFlow can no longer be configured afterwards.
  """
  if client_devices is None:
    gpus = tf.config.list_logical_devices('GPU')
    client_devices = [gpu.name for gpu in gpus] or [CPU]
  if isinstance(client_devices, str) or not isinstance(
      client_devices, Sequence
  ):
    raise TypeError(
        '`client_devices` must be a list of names of devices, found '
        f'{client_devices!r} of type {type(client_devices).__name__}.'
    )
  if not client_devices:
    raise ValueError(
        '`client_devices` is empty; name at least one device or leave it out.'
    )
  clients = tuple(_full_name('client_devices', name) for name in client_devices)
  if server_device is None:
    return Devices(clients, clients[0])
  return Devices(clients, _full_name('server_device', server_device))


def allow_memory_growth():
  """Keeps TensorFlow from taking all of the GPUs' memory at once.

  Too late if TensorFlow has used a GPU before, of which the log then tells.
  """
  for gpu in tf.config.list_physical_devices('GPU'):
    try:
      tf.config.experimental.set_memory_growth(gpu, True)
    except (RuntimeError, ValueError) as error:
      logging.warning('No memory growth on %s: %s', gpu.name, error)


def to_device(value: Any, device: str) -> Any:
  """Returns `value`, a tensor or nested tuples of tensors, on `device`."""
  if isinstance(value, tuple):
    return tuple(to_device(element, device) for element in value)
  if value.device == device or value.dtype in HOST_DTYPES:
    return value
  with tf.device(device):
    return tf.identity(value)
