"""Tests for worker_process."""

import os
import pathlib
import re
import signal
import socket
import stat
import subprocess
import sys

import pytest

from fedaot_tff.runtime import worker_process
from tests.runtime import processes

# Stands in for TFF's binary: it listens in the same way and does nothing else.
_WORKER = """#!{python} -IS
import os, socket, sys, time
if '--exit' in sys.argv:
  sys.exit('out of\\nluck')
tunables, log_level = map(
    os.environ.get, ('GLIBC_TUNABLES', 'TF_CPP_MIN_LOG_LEVEL'))
print(tunables, log_level, *sys.argv[2:], flush=True)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(('', int(sys.argv[1].partition('=')[2])))
if '--deaf' not in sys.argv:
  listener.listen()
time.sleep(600)
"""

_OWNER = """
import os, signal, sys, time
from fedaot_tff.runtime import worker_process

binary_path, end, sys.platform = sys.argv[1:]
if end == 'return_sigint_ignored':
  signal.signal(signal.SIGINT, signal.SIG_IGN)
worker = worker_process.WorkerProcess(binary_path)
if end == 'fork':
  child = os.fork()
  if not child:
    worker.stop()
    sys.exit()
  os.waitpid(child, 0)
time.sleep(0.2)
print(worker.pid, worker.is_alive(), flush=True)
if end == 'raise':
  raise ValueError('uncaught')
if end == 'os_exit':
  os._exit(4)
if end.startswith('SIG'):
  os.kill(os.getpid(), getattr(signal, end))
  time.sleep(60)
"""


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
      env=processes.environment(),
      timeout=30,
      check=False,
  )
  pid, was_alive = owner.stdout.decode().split()
  assert processes.ends(int(pid))
  assert was_alive == 'True'
  assert owner.returncode == status, owner.stderr


def test_launcher_starts_nothing_for_a_parent_that_is_gone():
  launched = subprocess.run(
      [sys.executable, '-c', worker_process._LAUNCHER, '1', '/bin/echo', 'hi'],
      stdout=subprocess.PIPE,
      check=True,
  )
  assert launched.stdout == b''


def test_worker_has_session_port_and_flags(worker):
  assert os.getsid(worker.pid) == worker.pid
  command = pathlib.Path(f'/proc/{worker.pid}/cmdline').read_text().split('\0')
  assert command[-3:] == [f'--port={worker.port}', '--some_flag=1', '']


@pytest.mark.parametrize(
    'option', [None, socket.SO_REUSEADDR], ids=['plain', 'reuseaddr']
)
@pytest.mark.parametrize('family', [socket.AF_INET, socket.AF_INET6])
def test_port_cannot_be_given_away_before_the_worker_listens(family, option):
  with worker_process._reserve_port() as reservation:
    port = reservation.getsockname()[1]
    with socket.socket(family) as other:
      if option is not None:
        other.setsockopt(socket.SOL_SOCKET, option, 1)
      with pytest.raises(OSError, match='in use'):
        other.bind(('', port))


def test_stop_all_stops_every_worker(binary_path, worker):
  other = worker_process.WorkerProcess(binary_path)
  assert other.port != worker.port
  assert worker.is_alive() and other.is_alive()
  worker_process.stop_all()
  for stopped in (worker, other):
    assert not stopped.is_alive()
    assert not processes.is_running(stopped.pid)
    assert stopped.describe_end().startswith('was stopped; its output ended:')
    with socket.socket() as socket_on_port:
      socket_on_port.bind(('', stopped.port))
  worker.stop()


@pytest.mark.parametrize(
    'signal_number, description',
    [
        (
            signal.SIGKILL,
            'was killed by SIGKILL (often a sign that memory ran short); ',
        ),
        (signal.SIGTERM, 'was killed by SIGTERM; '),
        (
            signal.SIGRTMIN + 1,
            f'was killed by signal {signal.SIGRTMIN + 1}; ',
        ),
    ],
)
def test_end_of_worker_is_noticed(worker, signal_number, description):
  assert not worker.wait(0.0)
  os.kill(worker.pid, signal_number)
  assert worker.wait(5.0)
  assert not worker.is_alive()
  assert worker.describe_end().startswith(description)


def test_worker_that_exits_at_once(binary_path):
  with pytest.raises(RuntimeError) as error:
    worker_process.WorkerProcess(binary_path, ['--exit'])
  assert str(error.value) == (
      'The worker could not be started: it exited with status 1; its output '
      'ended: "out of luck".'
  )


def test_launcher_that_does_not_exist(binary_path, monkeypatch):
  monkeypatch.setattr(sys, 'executable', '/missing/python')
  with pytest.raises(RuntimeError, match='could not be started: .*/missing/py'):
    worker_process.WorkerProcess(binary_path)


def test_worker_that_does_not_exist(tmp_path):
  with pytest.raises(RuntimeError, match='No such file or directory') as error:
    worker_process.WorkerProcess(str(tmp_path / 'missing'))
  assert '\n' not in str(error.value)


def test_worker_that_never_listens_is_stopped(binary_path):
  with pytest.raises(RuntimeError, match=r'within 0\.5 s .*--deaf') as error:
    worker_process.WorkerProcess(
        binary_path, ['--deaf'], start_timeout_seconds=0.5
    )
  pid = int(re.search(r'process (\d+)', str(error.value)).group(1))
  assert not processes.is_running(pid)


@pytest.mark.parametrize(
    'variables, expected',
    [
        ({}, 'glibc.pthread.stack_cache_size=8589934592 2'),
        (
            {'GLIBC_TUNABLES': 'glibc.malloc.check=0',
             'TF_CPP_MIN_LOG_LEVEL': '0'},
            'glibc.malloc.check=0 0',
        ),
    ],
)
def test_environment_of_the_owner_wins(
    binary_path, monkeypatch, variables, expected
):
  for name in ('GLIBC_TUNABLES', 'TF_CPP_MIN_LOG_LEVEL'):
    monkeypatch.delenv(name, raising=False)
  for name, value in variables.items():
    monkeypatch.setenv(name, value)
  worker = worker_process.WorkerProcess(binary_path)
  worker.stop()
  assert worker.describe_end().endswith(f'ended: "{expected}".')
