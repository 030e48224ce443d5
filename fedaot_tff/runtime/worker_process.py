"""The life cycle of one worker process: started, watched and never left behind.

TFF's native context executes computations in a separate process, the
`worker_binary` of its wheel, which serves them on a TCP port. TFF leaves it
behind at exit, holding the terminal or a pipe open. A `WorkerProcess` ends with
its owner, however that one ends: whatever runs `atexit` handlers ends it by its
process id, and on Linux the kernel itself kills it (`PR_SET_PDEATHSIG`,
prctl(2)) after SIGTERM, SIGKILL, `os._exit` and crashes.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Sequence, Set

_POLL_SECONDS = 0.01
_STOP_TIMEOUT_SECONDS = 10.0
_LOG_TAIL_BYTES = 1000

_ENVIRONMENT = {
    'TF_CPP_MIN_LOG_LEVEL': '2',
    # Up to this many bytes of stacks glibc keeps the memory of ended threads.
    # With its default, of five stacks, the memory of a worker's thread that
    # ends while it is being detached can be gone before `pthread_detach` reads
    # it: SIGSEGV.
    'GLIBC_TUNABLES': f'glibc.pthread.stack_cache_size={2**33}',
}

# Runs between fork and the worker in a bare interpreter of its own, because
# Python code between fork and exec (`preexec_fn`) can deadlock in a process
# with threads, and TensorFlow starts many. The signal fires only for deaths
# after prctl; the comparison of the parent's id notices an earlier one.
_LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(
    PR_SET_PDEATHSIG, *(ctypes.c_ulong(x) for x in (signal.SIGKILL, 0, 0, 0)))
if os.getppid() == int(sys.argv[1]):
  os.execv(sys.argv[2], sys.argv[2:])
"""

_running: Set['WorkerProcess'] = set()


class WorkerProcess:
  """A running worker that serves on a local TCP port and ends with its owner.

  The process that constructs the object is the owner, and the thread that does
  must live as long: the kernel takes its death for the parent's. A forked child
  of the owner may hold the object too, but does not end the worker.
  """

  def __init__(
      self,
      binary_path: str,
      flags: Sequence[str] = (),
      *,
      start_timeout_seconds: float = 300.0,
  ):
    """Starts the worker and waits until it accepts connections.

    Args:
      binary_path: The program to run; it gets `--port=<port>` and `flags`, and
        must listen on that TCP port with SO_REUSEPORT, as gRPC servers do.
      flags: Further command line arguments.
      start_timeout_seconds: How long to wait for the first connection. Reading
        hundreds of megabytes from a busy disk for the first time can take a
        minute.

    Raises:
      RuntimeError: If the worker cannot be started, ends before it accepts
        connections, or accepts none in time.
    """
    self._owner_pid = os.getpid()
    self._stopped = False
    # Neither the terminal nor a pipe of the owner is held open, and Ctrl-C
    # reaches the owner alone.
    self._log = tempfile.TemporaryFile()
    self._reservation = _reserve_port()
    self.port = self._reservation.getsockname()[1]
    command = [binary_path, f'--port={self.port}', *flags]
    if sys.platform == 'linux':
      launcher = [sys.executable, '-I', '-S', '-c', _LAUNCHER]
      command = [*launcher, str(self._owner_pid), *command]
    try:
      self._process = subprocess.Popen(
          command,
          stdin=subprocess.DEVNULL,
          stdout=self._log,
          stderr=self._log,
          env={**_ENVIRONMENT, **os.environ},
          start_new_session=True,
      )
    except OSError as error:
      raise RuntimeError(
          f'The worker could not be started: {error}.'
      ) from error
    _running.add(self)
    try:
      self._wait_until_ready(start_timeout_seconds)
    except BaseException:
      self.stop()
      raise

  def _wait_until_ready(self, timeout_seconds: float):
    """Returns once the worker accepts a connection."""
    deadline = time.monotonic() + timeout_seconds
    while not self._accepts_connections():
      if not self.is_alive():
        raise RuntimeError(
            f'The worker could not be started: it {self.describe_end()}'
        )
      if time.monotonic() > deadline:
        raise RuntimeError(
            f'The worker (process {self.pid}) accepted no connection on port '
            f'{self.port} within {timeout_seconds:g} s and was stopped'
            f'{self._quote_log()}'
        )
      time.sleep(_POLL_SECONDS)

  def _accepts_connections(self) -> bool:
    try:
      socket.create_connection(('127.0.0.1', self.port), timeout=1.0).close()
      return True
    except OSError:
      return False

  @property
  def pid(self) -> int:
    """The worker's process id."""
    return self._process.pid

  def is_owned(self) -> bool:
    """Whether this process started the worker, rather than inherit it."""
    return os.getpid() == self._owner_pid

  def is_alive(self) -> bool:
    """Whether the worker has not ended."""
    return self._process.poll() is None

  def wait(self, timeout_seconds: float) -> bool:
    """Waits for the worker's end, and returns whether it came in time."""
    try:
      self._process.wait(timeout_seconds)
      return True
    except subprocess.TimeoutExpired:
      return False

  def describe_end(self) -> str:
    """How an ended worker ended, as in 'was stopped; it printed nothing.'."""
    status = self._process.returncode
    if self._stopped:
      end = 'was stopped'
    elif status >= 0:
      end = f'exited with status {status}'
    else:
      end = f'was killed by {_signal_name(-status)}'
    if -status in (signal.SIGKILL, signal.SIGABRT) and not self._stopped:
      end += ' (often a sign that memory ran short)'
    return end + self._quote_log()

  def _quote_log(self) -> str:
    """How the worker's output ends, as the end of a one-line error."""
    # `pread` leaves the offset alone, which the worker's writes share.
    log = self._log.fileno()
    start = max(0, os.fstat(log).st_size - _LOG_TAIL_BYTES)
    tail = os.pread(log, _LOG_TAIL_BYTES, start)
    line = ' '.join(tail.decode(errors='replace').split())
    return f'; its output ended: "{line}".' if line else '; it printed nothing.'

  def stop(self):
    """Kills the worker, unless it has ended, and waits for its end.

    A worker keeps nothing that would have to be saved, so SIGKILL is the
    signal: it cannot be ignored, blocked or delayed by a running computation.
    """
    if not self.is_owned():
      return
    if self.is_alive():
      self._stopped = True
      self._process.kill()
      self.wait(_STOP_TIMEOUT_SECONDS)
    self._reservation.close()
    _running.discard(self)


def _signal_name(number: int) -> str:
  try:
    return signal.Signals(number).name
  except ValueError:
    return f'signal {number}'


def _reserve_port() -> socket.socket:
  """Binds, without listening, a free TCP port that a gRPC server may share.

  gRPC servers listen with SO_REUSEPORT, so two workers that were given the same
  port would both start and silently share their callers.
  """
  reservation = socket.socket()
  reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
  # Port 0 never yields a port that another socket is bound to, whatever that
  # socket's options are.
  reservation.bind(('', 0))
  return reservation


def stop_all():
  """Stops every worker that this process owns; runs at exit by itself."""
  for worker in list(_running):
    worker.stop()


atexit.register(stop_all)
