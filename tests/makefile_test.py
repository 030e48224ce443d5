"""Tests for how the Makefile builds the environment it runs in.

A shell script stands in for Python: it answers the Makefile's questions, its
`-m venv` copies itself, and it writes down what it was asked to run.
"""

import os
import pathlib
import shutil
import subprocess

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]

_FAKE_PYTHON = """\
#!/bin/sh
case "$*" in
  *platform*) echo "${FAKE_VERSION:-3.11.4}" ;;
  *ensurepip*) exit "${FAKE_VENV_STATUS:-0}" ;;
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*)
    echo "pip" >> calls
    echo "what pip said"
    [ -z "$FAKE_PIP_KILLS" ] || kill -9 "$PPID"
    exit "${FAKE_PIP_STATUS:-0}" ;;
  *) echo "run $*" >> calls ;;
esac
"""

pytestmark = pytest.mark.skipif(
    shutil.which('make') is None, reason='make is not installed'
)


@pytest.fixture(name='checkout')
def _checkout(tmp_path: pathlib.Path) -> pathlib.Path:
  for name in ('Makefile', 'requirements.txt'):
    shutil.copy(_ROOT / name, tmp_path)
  python = tmp_path / 'fake_python'
  python.write_text(_FAKE_PYTHON)
  python.chmod(0o755)
  return tmp_path


def _make(
    checkout: pathlib.Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
  # An outer make hands its command line down in these.
  outer = (
      'MAKEFLAGS', 'MAKEOVERRIDES', 'MAKELEVEL', 'MFLAGS', 'PYTHON', 'VENV'
  )
  inherited = {k: v for k, v in os.environ.items() if k not in outer}
  return subprocess.run(
      ['make', 'PYTHON=./fake_python', *arguments],
      cwd=checkout,
      env={**inherited, **environment},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=60,
  )


def _calls(checkout: pathlib.Path) -> list[str]:
  calls = checkout / 'calls'
  return calls.read_text().splitlines() if calls.exists() else []


_IN_PARALLEL = '-n auto --maxprocesses=4 --dist=loadfile'
_RUN_TESTS = f'run -m pytest tests -m not slow {_IN_PARALLEL}'


def test_builds_the_environment_once(checkout):
  first = _make(checkout, 'test')
  assert first.returncode == 0, first.stderr
  assert first.stdout.startswith('Installing pinned packages into .venv')
  second = _make(checkout, 'test')
  assert second.returncode == 0, second.stderr
  assert second.stdout == ''
  assert _calls(checkout) == ['pip', _RUN_TESTS, _RUN_TESTS]
  assert not (checkout / '.venv.unfinished').exists()


def test_demo_reads_its_flag_file(checkout):
  assert _make(checkout, 'demo').returncode == 0
  assert _calls(checkout)[-1] == (
      'run -m binaries.compare --flagfile=binaries/flags/demo.cfg'
  )


def test_test_all_leaves_no_test_out(checkout):
  assert _make(checkout, 'test-all').returncode == 0
  assert _calls(checkout)[-1] == f'run -m pytest tests {_IN_PARALLEL}'


def test_newer_requirements_are_installed_into_the_same_environment(checkout):
  _make(checkout, 'test')
  kept = checkout / '.venv' / 'kept'
  kept.touch()
  stamp = (checkout / '.venv' / '.installed').stat().st_mtime
  os.utime(checkout / 'requirements.txt', (stamp + 10, stamp + 10))
  assert _make(checkout, 'test').returncode == 0
  assert _calls(checkout) == ['pip', _RUN_TESTS] * 2
  assert kept.exists()


@pytest.mark.parametrize('had_environment', [False, True])
def test_interrupted_installation_is_made_anew(checkout, had_environment):
  if had_environment:
    _make(checkout, 'test')
    os.utime(checkout / '.venv' / '.installed', (0, 0))
  interrupted = _make(checkout, 'test', FAKE_PIP_KILLS='1')
  assert interrupted.returncode != 0
  assert _calls(checkout)[-1] == 'pip'
  half_made = checkout / '.venv' / 'half_made'
  half_made.touch()
  again = _make(checkout, 'test')
  assert again.returncode == 0, again.stderr
  assert _calls(checkout)[-2:] == ['pip', _RUN_TESTS]
  assert not half_made.exists()


def test_environment_of_the_user_is_completed_and_never_removed(checkout):
  (checkout / '.venv' / 'bin').mkdir(parents=True)
  shutil.copy(checkout / 'fake_python', checkout / '.venv' / 'bin' / 'python')
  kept = checkout / '.venv' / 'kept'
  kept.touch()
  for _ in range(2):
    assert _make(checkout, 'test', FAKE_PIP_KILLS='1').returncode != 0
  assert _make(checkout, 'test').returncode == 0
  assert _calls(checkout) == ['pip', 'pip', 'pip', _RUN_TESTS]
  assert kept.exists()


def test_failed_installation_shows_what_pip_said(checkout):
  result = _make(checkout, 'test', FAKE_PIP_STATUS='1')
  assert result.returncode != 0
  assert 'what pip said' in result.stderr
  assert '.venv/install.log' in result.stderr
  assert _calls(checkout) == ['pip']


@pytest.mark.parametrize('version', ['3.8.18', '3.12.1', '3.13.0', '2.7.18'])
def test_wrong_python_is_named(checkout, version):
  result = _make(checkout, 'test', FAKE_VERSION=version)
  assert result.returncode != 0
  first_line = result.stderr.splitlines()[0]
  assert f'./fake_python is Python {version}' in first_line
  assert 'make PYTHON=' in first_line
  assert not (checkout / '.venv').exists()


def test_missing_python_is_named(checkout):
  result = _make(checkout, 'test', 'PYTHON=./no_such_python')
  assert result.returncode != 0
  assert './no_such_python' in result.stderr.splitlines()[0]
  assert not (checkout / '.venv').exists()


def test_missing_venv_module_is_named(checkout):
  result = _make(checkout, 'test', FAKE_VENV_STATUS='1')
  assert result.returncode != 0
  first_line = result.stderr.splitlines()[0]
  assert 'no venv module' in first_line
  assert 'python3.11-venv' in first_line


@pytest.mark.skipif(
    shutil.which('flock') is None, reason='flock is not installed'
)
def test_second_make_does_not_touch_an_unfinished_environment(checkout):
  half_made = checkout / '.venv' / 'half_made'
  half_made.parent.mkdir()
  half_made.touch()
  unfinished = checkout / '.venv.unfinished'
  with subprocess.Popen(
      ['flock', unfinished, 'sh', '-c', 'echo locked; read _'],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
  ) as other:
    assert other.stdout.readline() == 'locked\n'
    result = _make(checkout, 'test')
    other.communicate('\n')
  assert result.returncode != 0
  assert 'another make' in result.stderr.splitlines()[0]
  assert half_made.exists()
  assert _calls(checkout) == []


def test_clean_keeps_the_environment(checkout):
  _make(checkout, 'test')
  for name in ('out/demo', 'tests/__pycache__', '.venv/lib/__pycache__'):
    (checkout / name).mkdir(parents=True)
  assert _make(checkout, 'clean').returncode == 0
  assert not (checkout / 'out').exists()
  assert (checkout / 'tests').exists()
  assert not (checkout / 'tests' / '__pycache__').exists()
  assert (checkout / '.venv' / 'lib' / '__pycache__').exists()


def test_help_needs_no_environment(checkout):
  result = _make(checkout, 'help')
  assert result.returncode == 0
  for target in ('demo', 'test', 'test-all', 'clean'):
    assert f'make {target} ' in result.stdout
  assert not (checkout / '.venv').exists()
