"""Flower's own programs as processes of a test: SuperLink, SuperNodes, flwr."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / 'examples' / 'flower'

# A variable by which a process and its descendants are known.
_MARK = 'FEDAOT_TEST_PROCESS'


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


class Federation:
  """A SuperLink on this machine and what belongs to it, in a folder.

  Everything that it started, with its children, is gone after the context.
  """

  def __init__(self, folder, *, simulation, certificates=None):
    self._folder = folder
    self._certificates = certificates
    self._marks = {}  # By process.
    self._run_id = None
    self.address = f'127.0.0.1:{free_port()}'
    self._environment = {
        **os.environ,
        'FLWR_HOME': str(folder / 'home'),
        'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
        'RAY_ADDRESS': 'local',  # Not one that happens to run here.
    }
    security = ['--insecure']
    connection = 'insecure = true'
    if certificates:
      security = [
          f'--ssl-ca-certfile={certificates / "ca.crt"}',
          f'--ssl-certfile={certificates / "server.pem"}',
          f'--ssl-keyfile={certificates / "server.key"}',
      ]
      connection = f'root-certificates = "{certificates / "ca.crt"}"'
    (folder / 'home').mkdir()
    (folder / 'home' / 'config.toml').write_text(
        '[superlink]\ndefault = "test"\n\n'
        f'[superlink.test]\naddress = "{self.address}"\n{connection}\n'
    )
    self.superlink = self._start(
        'flower-superlink',
        *security,
        *(['--simulation'] if simulation else []),
        f'--port={self.address.split(":")[1]}',
    )
    self._wait(self._answers, 90, 'the SuperLink answers')

  def supernode(self, partition, num_partitions):
    """Starts a SuperNode."""
    security = (
        [f'--root-certificates={self._certificates / "ca.crt"}']
        if self._certificates
        else ['--insecure']
    )
    return self._start(
        'flower-supernode',
        *security,
        f'--superlink={self.address}',
        f'--port={free_port()}',
        '--node-config',
        f'partition-id={partition} num-partitions={num_partitions}',
    )

  def run(self, app, num_supernodes=None, **run_config):
    """Starts a run of an app. Names have underscores for dashes."""
    copy = self._folder / 'app'  # flwr rewrites pyproject.toml.
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(app, copy)
    run_config['result'] = str(self._folder / 'result.json')
    overrides = ' '.join(
        f'{name.replace("_", "-")}={json.dumps(value)}'
        for name, value in run_config.items()
    )
    options = ['--run-config', overrides]
    if num_supernodes:
      options += ['--federation-config', f'num-supernodes={num_supernodes}']
    found = self._flwr('run', str(copy), 'test', *options, '--format=json')
    self._run_id = str(json.loads(found)['run-id'])

  def wait_for(self, name, seconds, end='}'):
    """Waits for a file of the app with an end; its content."""
    path = self._folder / name
    self._wait(
        lambda: path.exists() and path.read_text().endswith(end),
        seconds,
        f'the run writes {name}',
    )
    return path.read_text()

  def result(self, seconds):
    """Waits for what the app writes at its end, by round."""
    found = json.loads(self.wait_for('result.json', seconds))
    return {int(round_num): value for round_num, value in found.items()}

  def kill(self, process):
    """Kills a process and all that it started, which has its environment."""
    mark = f'{_MARK}={self._marks[process]}'.encode()
    for folder in pathlib.Path('/proc').glob('[0-9]*'):
      with contextlib.suppress(OSError):
        if mark in (folder / 'environ').read_bytes().split(b'\0'):
          os.kill(int(folder.name), signal.SIGKILL)
    process.wait()

  def logs(self):
    """What the processes said."""
    return '\n'.join(
        f'--- {path.name}\n{path.read_text()[-20000:]}'
        for path in sorted(self._folder.glob('*.log'))
    )

  def __enter__(self):
    return self

  def __exit__(self, kind, *unused):
    if kind and self._run_id:
      print(self._flwr('log', self._run_id, 'test', '--show'))
    for process in reversed(self._marks):
      self.kill(process)
    if kind:
      print(self.logs())

  def _start(self, program, *arguments):
    mark = f'{self._folder}/{len(self._marks)}-{program}'
    with open(f'{mark}.log', 'wb') as output:
      process = subprocess.Popen(
          [program, *arguments],
          env={**self._environment, _MARK: mark},
          cwd=self._folder,
          stdin=subprocess.DEVNULL,
          stdout=output,
          stderr=subprocess.STDOUT,
      )
    self._marks[process] = mark
    return process

  def _flwr(self, *arguments):
    result = subprocess.run(
        ['flwr', *arguments],
        env=self._environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout

  def _answers(self):
    assert self.superlink.poll() is None, self.logs()
    with socket.socket() as probe:
      host, port = self.address.split(':')
      return probe.connect_ex((host, int(port))) == 0

  def _wait(self, condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      found = condition()
      if found:
        return found
      time.sleep(0.5)
    raise TimeoutError(f'Not within {seconds} s: {what}.\n{self.logs()}')
