"""What `nvidia-smi` and CUDA_VISIBLE_DEVICES say about the GPUs.

This module imports neither TensorFlow nor NumPy.
"""

import os
import shutil
import signal
import subprocess
import time
from typing import Callable, List, Optional

_PROGRAM = 'nvidia-smi'
# How soon a cancelled call ends.
_STEP_SECONDS = 0.1


def is_installed() -> bool:
  """Whether there is a `nvidia-smi` to ask."""
  return shutil.which(_PROGRAM) is not None


def listed_devices() -> Optional[List[str]]:
  """The indices or UUIDs in CUDA_VISIBLE_DEVICES; None if it is not set."""
  listed = os.environ.get('CUDA_VISIBLE_DEVICES')
  if listed is None:
    return None
  return [name.strip() for name in listed.split(',') if name.strip()]


def query(
    *fields: str,
    timeout_seconds: float,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> List[List[str]]:
  """Asks `nvidia-smi` about all GPUs of the machine.

  Args:
    *fields: What to ask, in the words of `nvidia-smi --help-query-gpu`.
    timeout_seconds: When to give up and kill `nvidia-smi`.
    is_cancelled: Asked several times a second whether to give up before.

  Returns:
    The values of the fields, without units, for each GPU by index. No GPU if
    `nvidia-smi` is missing, fails, gives up or answers something else.
  """
  deadline = time.monotonic() + timeout_seconds
  try:
    process = subprocess.Popen(
        [
            _PROGRAM,
            f'--query-gpu={",".join(fields)}',
            '--format=csv,noheader,nounits',
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding='utf-8',
        errors='replace',
        start_new_session=True,
    )
  except OSError:
    return []
  with process:
    try:
      while True:
        try:
          output, _ = process.communicate(timeout=_STEP_SECONDS)
          break
        except subprocess.TimeoutExpired:
          if is_cancelled() or time.monotonic() >= deadline:
            return []
    finally:
      # Not reaped yet, so that the group is still its own. A script in place of
      # the program may have children.
      if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
  if process.returncode:
    return []
  rows = [
      [value.strip() for value in line.split(',')]
      for line in output.splitlines()
  ]
  return [row for row in rows if len(row) == len(fields)]
