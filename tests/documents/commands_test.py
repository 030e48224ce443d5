"""Every command in a document is one that its program understands.

The shell runs blocks and inline commands as they are written, with a stub in
place of each program that writes down what it was asked to do.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from setuptools.config import pyprojecttoml

from tests.binaries import programs
from tests.documents import pages

_STUB = """#!{python}
import json, sys
with open({calls!r}, 'a') as file:
  file.write(json.dumps(['{name}', *sys.argv[1:]]) + '\\n')
"""
_STUBS = (
    'apt-get',
    'dpkg-deb',
    'flower-superlink',
    'flower-supernode',
    'flwr',
    'kubectl',
    'make',
    'pip',
    'python',
    'sbatch',
    'sh',
    '.venv/bin/python',
    '.venv/bin/pytest-benchmark',
    '.venv/bin/ray',
    '.venv-flower/bin/python',
    '.venv-syft/bin/python',
)
_SBATCH = 'deploy/slurm.sbatch'
_INLINE = re.compile(r'`((?:\./|\.venv|make|pip|python)[^`]* [^`]*)`')

# Parses the flags of commands as their program does.
_PARSE = """
import importlib, json, sys
from absl import flags
from binaries import application, experiment_flags

name, *commands = json.loads(sys.argv[1])
program = importlib.import_module(name)
for command in commands:
  flags.FLAGS.unparse_flags()
  application.parse_flags([name, *command], name == 'binaries.report')
  if name == 'binaries.compare':
    program.make_grid()
  elif name == 'binaries.train':
    experiment_flags.make_experiment()
assert not any('tensorflow' in name for name in sys.modules)
"""


def _commands(name):
  inline = _INLINE.findall(pages.prose(name))
  return [*pages.blocks(name, 'sh'), *(' '.join(c.split()) for c in inline)]


@pytest.fixture(name='calls', scope='module')
def _calls(tmp_path_factory):
  """What the documents' commands call: tuples of a program and arguments."""
  folder = tmp_path_factory.mktemp('commands')
  log = folder / 'calls'
  for name in _STUBS:
    path = folder / (name if '/' in name else f'bin/{name}')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        _STUB.format(python=sys.executable, calls=str(log), name=name)
    )
    path.chmod(0o755)
  for name in pages.NAMES:
    for command in _commands(name):
      result = subprocess.run(
          [shutil.which('bash'), '-euc', command],
          cwd=folder,
          env={'PATH': str(folder / 'bin'), 'n': '0'},
          stdin=subprocess.DEVNULL,
          capture_output=True,
          text=True,
          timeout=60,
      )
      assert result.returncode == 0, f'{name}: {command}\n{result.stderr}'
  lines = log.read_text().splitlines()
  return sorted({tuple(json.loads(line)) for line in lines})


def _arguments(calls, *program):
  """The arguments of each call that starts like this."""
  found = [c[len(program) :] for c in calls if c[: len(program)] == program]
  assert found
  return found


def test_programs_of_the_documents_are_known(calls):
  """To the tests below, or of other projects."""
  modules = {call[2] for call in calls if call[1:2] == ('-m',)}
  assert modules == {
      'binaries.compare',
      'binaries.report',
      'binaries.train',
      'benchmarks.building',
      'benchmarks.figure',
      'benchmarks.flower_speed',
      'benchmarks.ray_rounds',
      'benchmarks.round_speed',
      'build',
      'pytest',
  }


def test_targets_of_make(calls):
  makefile = pages.read('Makefile')
  for (target,) in _arguments(calls, 'make'):
    assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_what_pip_installs(calls):
  project = pyprojecttoml.read_configuration(pages.ROOT / 'pyproject.toml')
  extras = project['project']['optional-dependencies']
  pins = [
      line
      for name in ('requirements.txt', 'requirements-syft.txt')
      for line in pages.read(name).splitlines()
  ]
  known = {'-r', 'requirements.txt', '--no-deps', 'flwr[simulation]', 'torch'}
  for command, *arguments in _arguments(calls, 'pip'):
    assert command == 'install'
    for argument in {*arguments} - known:
      ours = re.fullmatch(r'(?:\.|\.\./\.\.)(?:\[(.*)\])?', argument)
      if ours:
        assert {*(ours[1] or 'tff').split(',')} <= set(extras)
      elif '==' in argument:
        assert argument in pins
      else:
        assert any(pin.startswith(f'{argument}==') for pin in pins)


@pytest.mark.parametrize('program', ['compare', 'report', 'train'])
def test_flags_of_programs(calls, program):
  name = f'binaries.{program}'
  commands = _arguments(calls, '.venv/bin/python', '-m', name)
  if program == 'compare':
    commands += [
        c[c.index(name) + 1 :] for c in calls if c[0] == 'kubectl' and name in c
    ]
    commands += [c[c.index(_SBATCH) + 1 :] for c in calls if c[0] == 'sbatch']
  programs.run_source(_PARSE, json.dumps([name, *commands]))


def test_flags_of_round_speed(calls):
  """Which cannot be loaded beside the programs: it has flags of their names."""
  source = pages.read('benchmarks/round_speed.py')
  program = '.venv/bin/python', '-m', 'benchmarks.round_speed'
  for argument in sum(_arguments(calls, *program), ()):
    flag = argument.partition('=')[0].lstrip('-')
    assert re.search(rf"DEFINE_\w+\(\s*'{flag}'", source), argument


def test_options_of_pytest(calls):
  for arguments in _arguments(calls, '.venv/bin/python', '-m', 'pytest'):
    assert (pages.ROOT / arguments[0]).exists()
    # Told once the options are read, before anything is collected.
    run = programs.run('pytest', '--markers', *arguments)
    assert run.returncode == 0, run.stdout + run.stderr


def test_options_of_pytest_benchmark(calls):
  (arguments,) = _arguments(calls, '.venv/bin/pytest-benchmark')
  run = programs.run('pytest_benchmark.cli', *arguments)
  assert run.returncode == 0, run.stderr


def test_options_of_other_environments(calls):
  """Those of Flower and PySyft."""
  flower = '.venv-flower/bin/python', '-m'
  assert _arguments(calls, *flower, 'benchmarks.flower_speed') == [()]
  ((path, *_),) = _arguments(calls, '.venv-syft/bin/python')
  assert (pages.ROOT / path).exists()


def test_options_of_ray(calls):
  pytest.importorskip('ray')
  commands = _arguments(calls, '.venv/bin/ray')
  for command in {name for name, *_ in commands}:
    known = programs.run('ray.scripts.scripts', command, '--help').stdout
    for name, *options in commands:
      if name == command:
        for option in options:
          assert f'{option.partition("=")[0]} ' in known, (name, option)


@pytest.mark.slow
def test_demo_prints_the_table_of_the_readme(tmp_path):
  """`make demo` as written, in a copy with the environment of the tests."""
  if not (pathlib.Path(sys.prefix) / '.installed').exists():
    pytest.skip('make did not build this environment')
  for name in ('binaries', 'fedaot', 'fedaot_tff', 'tasks'):
    shutil.copytree(pages.ROOT / name, tmp_path / name)
  shutil.copy(pages.ROOT / 'Makefile', tmp_path)
  (tmp_path / '.venv').symlink_to(sys.prefix)
  # Older than the environment, which is not to be built again.
  (tmp_path / 'requirements.txt').touch()
  os.utime(tmp_path / 'requirements.txt', (0, 0))
  own = ('MAKE', 'TF_CPP_MIN_LOG_LEVEL', 'PYTEST_XDIST_WORKER')
  result = subprocess.run(
      ['make', 'demo'],
      cwd=tmp_path,
      env={k: v for k, v in os.environ.items() if not k.startswith(own)},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=3000,
  )
  assert result.returncode == 0, result.stderr
  printed = (tmp_path / 'out' / 'demo' / 'comparison.md').read_text()
  assert pages.tables(pages.read('README.md'))[0] == pages.tables(printed)[0]
