"""Connects a program to Ray: to a cluster, or to one of its own.

The one of its own cannot be reached from other machines, nor by other accounts
of this one, and ends with the program, however that comes about.
"""

from collections.abc import Iterator
import contextlib
import os
import re
import secrets
import socket
import subprocess
import tempfile
from typing import Any, Optional

from binaries import application
from binaries import gpus

_ENVIRONMENT = {
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0',  # Or it warns.
    'RAY_worker_niceness': '0',
    'RAY_enable_worker_prestart': '0',
}
# Little goes through it. It is no less in Ray.
_OBJECT_STORE_BYTES = 75 * 2**20
_TIMEOUT_SECONDS = 10.0


@contextlib.contextmanager
def connected(address: Optional[str]) -> Iterator[Any]:
  """The package `ray`, connected to the cluster at HOST:PORT; or UserError.

  Without an address, a cluster of this process alone is started.
  """
  own = {}
  with contextlib.ExitStack() as stack:
    if address is None:
      token = {'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': secrets.token_hex()}
      own = dict(
          address='local',
          num_cpus=len(os.sched_getaffinity(0)),
          num_gpus=len(gpus.visible_gpus()),
          object_store_memory=_OBJECT_STORE_BYTES,
          include_dashboard=False,
          _node_ip_address='127.0.0.1',
          _temp_dir=stack.enter_context(_temporary_folder()),
      )
    else:
      _check_address(address)
      token, own = {}, {'address': address}
    # Ray reads it when it is imported.
    os.environ.update({**_ENVIRONMENT, **os.environ, **token})
    ray = _import_ray()
    try:
      ray.init(**own, log_to_driver=False, logging_level='ERROR')
    except Exception as error:
      what = 'start Ray' if address is None else f'join Ray at {address}'
      raise application.UserError(
          f'cannot {what}: {application.describe_error(error)}'
      ) from error
    stack.callback(ray.shutdown)
    yield ray


def _import_ray() -> Any:
  try:
    import ray  # pylint: disable=g-import-not-at-top
  except ModuleNotFoundError as error:
    raise application.UserError(
        f'{error}; more than one worker needs Ray, which requirements.txt'
        ' lists for Python 3.10 and later.'
    ) from error
  return ray


def _check_address(address: str) -> None:
  """UserError unless something listens there, for which Ray waits long."""
  match = re.fullmatch(r'(\S+):(\d+)', address)
  if not match:
    raise application.UserError(
        f'--ray_address={address}: it must be HOST:PORT, as `ray start --head`'
        ' prints it.'
    )
  try:
    host, port = match.groups()
    socket.create_connection((host, int(port)), _TIMEOUT_SECONDS).close()
  except (OSError, OverflowError) as error:
    raise application.UserError(
        f'no Ray cluster answers at {address}: {error}.'
    ) from error


@contextlib.contextmanager
def _temporary_folder() -> Iterator[str]:
  """A folder that is removed when this process ends, even by SIGKILL."""
  folder = tempfile.mkdtemp(prefix='fedaot-ray-')
  with subprocess.Popen(
      ['sh', '-c', 'read line; sleep 1; rm -rf -- "$0"', folder],
      stdin=subprocess.PIPE,
      # Ctrl-C is not for it.
      start_new_session=True,
  ):
    yield folder
