"""The life cycle of one worker process: started, watched and never left behind.

`tff.backends.native` executes computations in a separate process, the
`worker_binary` of the TensorFlow Federated wheel, which serves them on a TCP
port. A `WorkerProcess` owns such a process:

*   It ends with the process that started it, however that one ends: a normal
    exit, an uncaught exception, SIGINT and whatever else runs the `atexit`
    handlers ends the workers by their process ids. On Linux the kernel itself
    kills the worker (`PR_SET_PDEATHSIG`, prctl(2)) when its owner is gone
    without having run any handler: SIGTERM, SIGKILL, `os._exit`, a crash. On
    other systems only the `atexit` handler is there.
*   It holds neither the terminal nor a pipe of its owner open: its output goes
    to a file, its input is empty, and it has a session of its own, so Ctrl-C
    reaches the owner alone.
*   Its port is its own for as long as it lives. gRPC servers listen with
    SO_REUSEPORT, so two workers that were given the same port would both start
    and silently share their callers; picking a free port beforehand does not
    exclude that.

This module imports neither TensorFlow nor gRPC.
"""

import atexit
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import Optional, Sequence, Set, Union

_POLL_SECONDS = 0.01
_STOP_TIMEOUT_SECONDS = 10.0
_LOG_TAIL_BYTES = 1000
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)

_ENVIRONMENT = {
    'TF_CPP_MIN_LOG_LEVEL': '2',
    # A worker starts a thread for each call of a round and detaches it. Up to
    # this many bytes of stacks glibc keeps the memory of an ended thread. With
    # its default, of five stacks, the memory of a thread that ends while it is
    # being detached can be gone before `pthread_detach` reads it: SIGSEGV.
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

  The process that constructs the object is the owner. A forked child of the
  owner may hold the object too, but neither its exit nor its `stop` ends the
  worker.
  """

  def __init__(
      self,
      binary_path: str,
      flags: Sequence[str] = (),
      *,
      log_path: Optional[Union[str, os.PathLike]] = None,
      start_timeout_seconds: float = 300.0,
  ):
    """Starts the worker and waits until it accepts connections.

    Args:
      binary_path: The program to run; it gets `--port=<port>` and `flags`, and
        must listen on that TCP port with SO_REUSEPORT, as gRPC servers do.
      flags: Further command line arguments.
      log_path: A file that the worker's standard output and standard error are
        appended to, `tf.print` lines of the computations included. Default: an
        unnamed temporary file, of which errors quote the end.
      start_timeout_seconds: How long to wait for the first connection, in
        seconds. Reading a binary of hundreds of megabytes from a busy disk for
        the first time can take a minute.

    Raises:
      RuntimeError: If the worker cannot be started, ends before it accepts
        connections, or accepts none in time.
      OSError: If `log_path` cannot be opened for writing.
    """
    self._owner_pid = os.getpid()
    self._process = None
    self._start_error = None
    self._stopped = False
    self._started = threading.Event()
    self._ended = threading.Event()
    self._log_path = log_path
    if log_path is None:
      self._log = tempfile.TemporaryFile()
    else:
      self._log = open(log_path, 'ab')
    self._reservation = _reserve_port()
    self._port = self._reservation.getsockname()[1]
    # The kernel counts the death of the thread that forked as the parent's, so
    # a thread that lives until the worker has ended does it.
    threading.Thread(
        target=self._run,
        args=([binary_path, f'--port={self.port}', *flags],),
        name='worker_process',
        daemon=True,
    ).start()
    _running.add(self)
    try:
      self._wait_until_ready(start_timeout_seconds)
    except BaseException:
      self.stop()
      _running.discard(self)
      raise

  def _run(self, command: Sequence[str]):
    """Starts the process and waits for its end; the body of the thread."""
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
      self._started.set()
      self._process.wait()
    except OSError as error:
      self._start_error = error
    self._reservation.close()
    self._ended.set()
    self._started.set()
    _running.discard(self)

  def _wait_until_ready(self, timeout_seconds: float):
    """Returns once the worker accepts a connection."""
    deadline = time.monotonic() + timeout_seconds
    self._started.wait()
    if self._start_error is not None:
      raise RuntimeError(
          f'The worker could not be started: {self._start_error}.'
      )
    while not self._accepts_connections():
      if self._ended.is_set():
        raise RuntimeError(
            'The worker could not be started: it '
            f'{self.describe_end()}{self.quote_log()}'
        )
      if time.monotonic() > deadline:
        raise RuntimeError(
            f'The worker (process {self.pid}) accepted no connection on port '
            f'{self.port} within {timeout_seconds:g} s and was stopped'
            f'{self.quote_log()}'
        )
      time.sleep(_POLL_SECONDS)

  def _accepts_connections(self) -> bool:
    try:
      socket.create_connection(('127.0.0.1', self.port), timeout=1.0).close()
      return True
    except OSError:
      return False

  @property
  def port(self) -> int:
    """The TCP port that the worker serves on."""
    return self._port

  @property
  def pid(self) -> int:
    """The worker's process id."""
    return self._process.pid

  def is_alive(self) -> bool:
    """Whether the worker has not ended."""
    return not self._ended.is_set()

  def wait(self, timeout_seconds: float) -> bool:
    """Waits for the worker's end, and returns whether it came in time."""
    return self._ended.wait(timeout_seconds)

  def is_owned(self) -> bool:
    """Whether this process started the worker, rather than inherit it."""
    return os.getpid() == self._owner_pid

  def describe_end(self) -> str:
    """Returns how an ended worker ended, as in 'was killed by SIGSEGV'."""
    if self._stopped:
      return 'was stopped'
    status = self._process.returncode
    if status >= 0:
      return f'exited with status {status}'
    try:
      name = signal.Signals(-status).name
    except ValueError:
      name = f'signal {-status}'
    memory = ''
    if -status in (signal.SIGKILL, signal.SIGABRT):
      memory = ' (often a sign that memory ran short)'
    return f'was killed by {name}{memory}'

  def has_crashed(self) -> bool:
    """Whether the worker ended by an error in its own code.

    Neither a signal from outside nor an abort, as when memory runs short, is
    one.
    """
    return not self.is_alive() and -self._process.returncode in _CRASHES

  def quote_log(self) -> str:
    """Returns how the worker's output ends, as the end of a one-line error."""
    if self._log_path is not None:
      return f'; its output is in {os.fspath(self._log_path)}.'
    # `pread` leaves the offset alone, which the worker's writes share.
    size = os.fstat(self._log.fileno()).st_size
    tail = os.pread(
        self._log.fileno(), _LOG_TAIL_BYTES, max(0, size - _LOG_TAIL_BYTES)
    )
    line = ' '.join(tail.decode(errors='replace').split())
    return f'; its output ended: {line}' if line else '; it printed nothing.'

  def stop(self):
    """Kills the worker, unless it has ended, and waits for its end.

    A worker keeps nothing that would have to be saved, so SIGKILL is the
    signal: it cannot be ignored, blocked or delayed by a running computation.
    """
    if not self.is_owned():
      return
    self._started.wait()
    if self.is_alive():
      self._stopped = True
      self._process.kill()
      self.wait(_STOP_TIMEOUT_SECONDS)


def _reserve_port() -> socket.socket:
  """Binds, without listening, a free TCP port that a gRPC server may share."""
  dual_stack = socket.has_dualstack_ipv6()
  reservation = socket.socket(
      socket.AF_INET6 if dual_stack else socket.AF_INET, socket.SOCK_STREAM
  )
  if dual_stack:
    reservation.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
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
