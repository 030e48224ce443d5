"""What an execution context asks of the process that it runs in."""

import os


def usable_cores() -> int:
  """The number of CPU cores that this process may run on.

  A CPU quota of a container is not taken into account.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def check_owner(owner_pid: int):
  """Raises RuntimeError in a forked child of the process with this id.

  The threads that execute computations do not exist in the child.
  """
  if os.getpid() != owner_pid:
    raise RuntimeError(
        f'This execution context belongs to process {owner_pid} and does not '
        f'work in its forked child {os.getpid()}; start the child with the '
        'multiprocessing start method "spawn".'
    )
