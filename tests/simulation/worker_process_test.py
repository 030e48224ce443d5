"""Tests for worker_process."""

import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from fedaot_tff.simulation import worker_process

_REPOSITORY = pathlib.Path(worker_process.__file__).parents[2]

# Stands in for TFF's binary: it listens in the same way and does nothing else.
_WORKER = """#!{python} -IS
import os, socket, sys, time
if '--exit' in sys.argv:
  sys.exit('out of\\nluck')
log_level = os.environ['TF_CPP_MIN_LOG_LEVEL']
print('log level', log_level, *sys.argv[2:], flush=True)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(('', int(sys.argv[1].partition('=')[2])))
if '--deaf' not in sys.argv:
  listener.listen()
time.sleep(600)
"""

# The worker is started by a thread that ends at once, as happens to the threads
# of execution contexts.
_OWNER = """
import os, signal, sys, threading, time
from fedaot_tff.simulation import worker_process

binary_path, end, sys.platform = sys.argv[1:]
if end == 'return_sigint_ignored':
  signal.signal(signal.SIGINT, signal.SIG_IGN)
workers = []
thread = threading.Thread(
    target=lambda: workers.append(worker_process.WorkerProcess(binary_path)))
thread.start()
thread.join()
if end == 'fork':
  child = os.fork()
  if not child:
    workers[0].stop()
    sys.exit()
  os.waitpid(child, 0)
time.sleep(0.2)
print(workers[0].pid, workers[0].is_alive(), flush=True)
if end == 'raise':
  raise ValueError('uncaught')
if end == 'os_exit':
  os._exit(4)
if end.startswith('SIG'):
  os.kill(os.getpid(), getattr(signal, end))
  time.sleep(60)
"""


def _is_running(pid):
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except FileNotFoundError:
    return False
  # A zombie has ended; its new parent may be slow to say so.
  return status.rpartition(')')[2].split()[0] not in 'ZX'


def _ends(pid, timeout_seconds=5.0):
  """Returns whether a process ends in time; kills it if it does not."""
  deadline = time.monotonic() + timeout_seconds
  while time.monotonic() < deadline:
    if not _is_running(pid):
      return True
    time.sleep(0.02)
  os.kill(pid, signal.SIGKILL)
  return False


@pytest.fixture(name='binary_path')
def _binary_path(tmp_path):
  path = tmp_path / 'worker'
  path.write_text(_WORKER.format(python=sys.executable))
  path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return str(path)


@pytest.fixture(name='worker')
def _worker(binary_path):
  worker = worker_process.WorkerProcess(binary_path, ['--some_flag=1'])
  yield worker
  worker.stop()


@pytest.mark.parametrize(
    'end, platform, status',
    [
        ('return', 'linux', 0),
        ('return_sigint_ignored', 'linux', 0),
        ('fork', 'linux', 0),
        ('raise', 'linux', 1),
        ('os_exit', 'linux', 4),
        ('SIGINT', 'linux', -signal.SIGINT),
        ('SIGTERM', 'linux', -signal.SIGTERM),
        ('SIGHUP', 'linux', -signal.SIGHUP),
        ('SIGKILL', 'linux', -signal.SIGKILL),
        # What does not need the kernel's help.
        ('return', 'other', 0),
        ('fork', 'other', 0),
        ('raise', 'other', 1),
        ('SIGINT', 'other', -signal.SIGINT),
    ],
)
def test_worker_ends_with_its_owner(binary_path, end, platform, status):
  # `run` reads the pipe until everybody who could write to it has closed it.
  owner = subprocess.run(
      [sys.executable, '-c', _OWNER, binary_path, end, platform],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      env={**os.environ, 'PYTHONPATH': str(_REPOSITORY)},
      timeout=30,
      check=False,
  )
  pid, was_alive = owner.stdout.decode().split()
  assert _ends(int(pid))
  assert was_alive == 'True'
  assert owner.returncode == status, owner.stderr


def test_launcher_starts_nothing_for_a_parent_that_is_gone():
  launched = subprocess.run(
      [sys.executable, '-c', worker_process._LAUNCHER, '1', '/bin/echo', 'hi'],
      stdout=subprocess.PIPE,
      check=True,
  )
  assert launched.stdout == b''


def test_worker_has_session_of_its_own(worker):
  assert os.getsid(worker.pid) == worker.pid


def test_worker_gets_port_and_flags(worker):
  command = pathlib.Path(f'/proc/{worker.pid}/cmdline').read_text().split('\0')
  assert command[-3:] == [f'--port={worker.port}', '--some_flag=1', '']


@pytest.mark.parametrize(
    'option', [None, socket.SO_REUSEADDR], ids=['plain', 'reuseaddr']
)
def test_port_is_taken_while_worker_lives(worker, option):
  with socket.socket() as other:
    if option is not None:
      other.setsockopt(socket.SOL_SOCKET, option, 1)
    with pytest.raises(OSError, match='in use'):
      other.bind(('', worker.port))


def test_port_cannot_be_given_away_before_the_worker_listens():
  with worker_process._reserve_port() as reservation:
    port = reservation.getsockname()[1]
    with socket.socket() as other:
      with pytest.raises(OSError, match='in use'):
        other.bind(('127.0.0.1', port))
    with socket.socket() as shared:
      shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
      shared.bind(('', port))


def test_stop(worker):
  pid, port = worker.pid, worker.port
  assert worker.is_alive()
  worker.stop()
  assert not worker.is_alive()
  assert not _is_running(pid)
  assert worker.describe_end() == 'was stopped'
  with socket.socket() as other:
    other.bind(('', port))
  worker.stop()


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_keeps_the_stacks_of_threads_unless_told_otherwise(
    binary_path, monkeypatch
):
  def tunables():
    worker = worker_process.WorkerProcess(binary_path)
    environment = pathlib.Path(f'/proc/{worker.pid}/environ').read_bytes()
    worker.stop()
    (found,) = [
        v for v in environment.split(b'\0') if v.startswith(b'GLIBC_TUNABLES=')
    ]
    return found.partition(b'=')[2]

  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  assert tunables() == b'glibc.pthread.stack_cache_size=8589934592'
  monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.check=0')
  assert tunables() == b'glibc.malloc.check=0'


def test_stop_all_stops_every_worker(binary_path, worker):
  other = worker_process.WorkerProcess(binary_path)
  assert other.port != worker.port
  worker_process.stop_all()
  assert not worker.is_alive()
  assert not other.is_alive()


@pytest.mark.parametrize(
    'signal_number, description',
    [
        (
            signal.SIGKILL,
            'was killed by SIGKILL (often a sign that memory ran short)',
        ),
        (signal.SIGTERM, 'was killed by SIGTERM'),
        (signal.SIGRTMIN + 1, f'was killed by signal {signal.SIGRTMIN + 1}'),
    ],
)
def test_end_of_worker_is_noticed(worker, signal_number, description):
  assert not worker.wait(0.0)
  os.kill(worker.pid, signal_number)
  assert worker.wait(5.0)
  assert not worker.is_alive()
  assert worker.describe_end() == description


def test_worker_that_exits_at_once(binary_path):
  with pytest.raises(RuntimeError) as error:
    worker_process.WorkerProcess(binary_path, ['--exit'])
  assert str(error.value) == (
      'The worker could not be started: it exited with status 1; its output '
      'ended: out of luck'
  )


def test_worker_that_does_not_exist(tmp_path):
  with pytest.raises(RuntimeError, match='No such file or directory') as error:
    worker_process.WorkerProcess(str(tmp_path / 'missing'))
  assert '\n' not in str(error.value)


def test_launcher_that_does_not_exist(binary_path, monkeypatch):
  monkeypatch.setattr(sys, 'executable', '/missing/python')
  with pytest.raises(RuntimeError, match='could not be started: .*/missing/py'):
    worker_process.WorkerProcess(binary_path)


def test_worker_that_never_listens_is_stopped(binary_path):
  with pytest.raises(RuntimeError, match=r'within 0\.5 s .*--deaf') as error:
    worker_process.WorkerProcess(
        binary_path, ['--deaf'], start_timeout_seconds=0.5
    )
  pid = int(re.search(r'process (\d+)', str(error.value)).group(1))
  assert not _is_running(pid)


def test_log_path_is_appended_to(binary_path, tmp_path):
  log_path = tmp_path / 'worker.log'
  log_path.write_text('earlier\n')
  with pytest.raises(RuntimeError, match=f'its output is in {log_path}'):
    worker_process.WorkerProcess(binary_path, ['--exit'], log_path=log_path)
  assert log_path.read_text() == 'earlier\nout of\nluck\n'


@pytest.mark.parametrize('level, expected', [(None, '2'), ('0', '0')])
def test_log_level_of_the_environment_wins(
    binary_path, monkeypatch, level, expected
):
  monkeypatch.delenv('TF_CPP_MIN_LOG_LEVEL', raising=False)
  if level is not None:
    monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', level)
  worker = worker_process.WorkerProcess(binary_path)
  assert worker.quote_log() == f'; its output ended: log level {expected}'
  worker.stop()
