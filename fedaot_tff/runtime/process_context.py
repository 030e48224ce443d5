"""What the two execution contexts have in common."""

import os
import threading
from typing import Any
import weakref

import tensorflow_federated as tff


def usable_cores() -> int:
  """The number of CPU cores that this process may run on.

  A CPU quota of a container is not taken into account.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


class ProcessContext(tff.framework.SyncExecutionContext):
  """A synchronous execution context for the process that makes it.

  Calls of several threads are executed one after the other. TFF's default
  context is each thread's own: in a thread of yours, install the context with
  `tff.framework.get_context_stack().install(context)`.
  """

  def __init__(self, factory: tff.framework.ExecutorFactory, *args, **options):
    super().__init__(factory, *args, **options)
    self._owner_pid = os.getpid()
    self._lock = threading.Lock()
    weakref.finalize(self, factory.close).atexit = False

  def invoke(self, comp: tff.Computation, arg: Any) -> Any:
    """Executes a computation; RuntimeError in a forked child."""
    if os.getpid() != self._owner_pid:
      # The thread that executes computations does not exist in the child.
      raise RuntimeError(
          f'This execution context belongs to process {self._owner_pid} and '
          f'does not work in its forked child {os.getpid()}; start the child '
          'with the multiprocessing start method "spawn".'
      )
    with self._lock:
      return super().invoke(comp, arg)

  def close(self):
    """Frees what the context holds; a later computation makes it again."""
    self.executor_factory.close()
