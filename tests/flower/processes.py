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
    self._processes = []
    self.address = f'127.0.0.1:{free_port()}'
    self._environment = {
        **os.environ,
        'FLWR_HOME': str(folder / 'home'),
        'PATH': f'{pathlib.Path(sys.executable).parent}:{os.environ["PATH"]}',
        'PYTHONPATH': str(ROOT),
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
    self._result = self._folder / 'result.json'
    run_config['result'] = str(self._result)
    overrides = ' '.join(
        f'{name.replace("_", "-")}={json.dumps(value)}'
        for name, value in run_config.items()
    )
    options = ['--run-config', overrides]
    if num_supernodes:
      options += ['--federation-config', f'num-supernodes={num_supernodes}']
    self._flwr('run', str(copy), 'test', *options)

  def result(self, seconds):
    """Waits for what the app writes: the accuracies by round."""
    self._wait(self._result.exists, seconds, 'the run has a result')
    time.sleep(0.5)
    found = json.loads(self._result.read_text())
    return {int(round_num): value for round_num, value in found.items()}

  def kill(self, process):
    """Kills a process with its children, as a machine that is cut off."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    process.wait()

  def logs(self):
    """What the processes said."""
    return '\n'.join(
        f'--- {path.name}\n{path.read_text()[-3000:]}'
        for path in sorted(self._folder.glob('*.log'))
    )

  def __enter__(self):
    return self

  def __exit__(self, kind, *unused):
    for process in reversed(self._processes):
      self.kill(process)
    if kind:
      print(self.logs())

  def _start(self, program, *arguments):
    log = self._folder / f'{len(self._processes)}-{program}.log'
    with open(log, 'wb') as output:
      process = subprocess.Popen(
          [program, *arguments],
          env=self._environment,
          cwd=self._folder,
          stdin=subprocess.DEVNULL,
          stdout=output,
          stderr=subprocess.STDOUT,
          start_new_session=True,
      )
    self._processes.append(process)
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
