"""Connects this process to Ray, or starts Ray on this machine alone."""

from collections.abc import Iterator
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from typing import Any, Optional

from fedaot_tff.runtime import process

_CONNECT_TIMEOUT_SECONDS = 10.0
# Removes a folder when its standard input ends, as it does with the process
# that holds the other end, however that comes about. Ray's own processes end
# with that one, too, but may write until they do.
_REMOVE_FOLDER = (
    'cat >/dev/null; for _ in 1 2 3 4 5 6 7 8; do sleep 1; rm -rf -- "$0"; done'
)
# What starts processes that a single machine has no use for: the autoscaler,
# one that passes logs on, and the dashboard's server. They take 2 seconds of
# CPU time.
_NEEDLESS = ('start_monitor', 'start_log_monitor', 'start_api_server')
_ENVIRONMENT = {
    # It would send statistics to its makers, gather more of them for a
    # dashboard, and have its actors give way to other processes.
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_enable_metrics_collection': '0',
    'RAY_worker_niceness': '0',
    # Processes are started when there is something for them to do.
    'RAY_enable_worker_prestart': '0',
    # Half a minute after its start it would report that there is no collector.
    'RAY_BACKEND_LOG_LEVEL': 'fatal',
    # Else it warns that some day it will leave GPUs visible.
    'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0',
}


def import_ray() -> Any:
  """Returns the module, quiet unless the environment says otherwise.

  ImportError if it is not installed.
  """
  for name, value in _ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  try:
    import ray  # pylint: disable=g-import-not-at-top
  except ImportError as error:
    raise ImportError(
        'Ray is not installed; with Python 3.10 or 3.11, install it with: pip'
        " install 'ray==2.52.1'"
    ) from error
  return ray


def connect(address: Optional[str] = None, **local_options: Any) -> Any:
  """Returns the module `ray`, connected.

  Connects to the cluster at an address, `host:port`, by default that of the
  environment variable RAY_ADDRESS, and to none twice. Without one it starts
  Ray for this process: on the loopback interface, for those who have a token
  unless Ray was imported before; no dashboard, no telemetry, and nothing is
  left of it when the process has ended. It must then be the main thread that
  calls. `ray.init` is given the local options then.

  Raises:
    ConnectionError: If nothing answers at the address, or Ray refuses.
    ImportError: If Ray is not installed.
    ValueError: If the address is none.
  """
  address = address or os.environ.get('RAY_ADDRESS')
  if address is None and 'ray' not in sys.modules:
    # Read when Ray is imported. Else any local account could run what it
    # likes here.
    os.environ['RAY_AUTH_MODE'] = 'token'
    os.environ['RAY_AUTH_TOKEN'] = secrets.token_hex()
  ray = import_ray()
  if ray.is_initialized():
    return ray
  options = dict(log_to_driver=False, logging_level='error')
  if address is not None:
    _check_reachable(address)
    try:
      with _silent_stderr():
        ray.init(address=address, **options)
    except Exception as error:  # pylint: disable=broad-exception-caught
      raise ConnectionError(
          f'Cannot join the Ray cluster at {address}: this machine must be one'
          ' of it, with its token (RAY_AUTH_TOKEN) and versions of Ray and'
          f' Python; {error!r}'
      ) from error
    return ray
  from ray._private import node  # pylint: disable=g-import-not-at-top

  folder = tempfile.mkdtemp(prefix='ray_')
  # In a session of its own, out of reach of Ctrl-C.
  subprocess.Popen(
      ['sh', '-c', _REMOVE_FOLDER, folder],
      stdin=subprocess.PIPE,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      start_new_session=True,
  )
  for name in _NEEDLESS:
    setattr(node.Node, name, lambda *args, **kwargs: None)
  with _silent_stderr():
    ray.init(
        'local',
        include_dashboard=False,
        _node_ip_address='127.0.0.1',
        _temp_dir=folder,
        **{'num_cpus': process.usable_cores(), **local_options},
        **options,
    )
  return ray


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
  """For a line in which Ray says that it has been told to be quiet."""
  kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


def _check_reachable(address: str) -> None:
  """Ray itself would try for a minute and then end the process."""
  host, _, port = address.rpartition(':')
  if not host or not port.isdigit():
    raise ValueError(
        f'The address of a Ray cluster must be host:port, found {address!r}.'
    )
  try:
    socket.create_connection(
        (host, int(port)), _CONNECT_TIMEOUT_SECONDS
    ).close()
  except (OSError, OverflowError) as error:
    raise ConnectionError(
        f'No Ray cluster answers at {address} ({error}); start one with: ray'
        f' start --head --port={port}'
    ) from error
