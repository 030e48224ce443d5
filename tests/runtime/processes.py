"""Looking after processes that tests start."""

import os
import pathlib
import signal
import time
from typing import Callable

_REPOSITORY = pathlib.Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
  """The environment of a program that imports the checkout's packages."""
  return {**os.environ, 'PYTHONPATH': str(_REPOSITORY), **variables}


def is_running(pid: int) -> bool:
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except FileNotFoundError:
    return False
  # A zombie has ended; its new parent may be slow to say so.
  return status.rpartition(')')[2].split()[0] not in 'ZX'


def becomes_true(
    condition: Callable[[], bool], timeout_seconds: float = 5.0
) -> bool:
  deadline = time.monotonic() + timeout_seconds
  while time.monotonic() < deadline:
    if condition():
      return True
    time.sleep(0.02)
  return False


def ends(pid: int) -> bool:
  """Whether a process ends in time; kills it if it does not."""
  if becomes_true(lambda: not is_running(pid)):
    return True
  os.kill(pid, signal.SIGKILL)
  return False
