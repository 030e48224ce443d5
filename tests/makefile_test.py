"""Tests for how the Makefile builds the environment it runs in.

A shell script stands in for Python: its `-m venv` copies itself, and it writes
down what it was asked to run.
"""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]

_FAKE_PYTHON = """\
#!/bin/sh
case "$*" in
  -c*) exit "${FAKE_WRONG_VERSION:-0}" ;;
  "-m venv "*)
    mkdir -p "$3/bin"
    for name in python ruff pyink mypy mkdocs; do
      cp "$0" "$3/bin/$name"
    done ;;
  "-m pip "*) echo "pip $0" >> calls; exit "${FAKE_PIP_STATUS:-0}" ;;
  *) echo "${0##*/} $*" >> calls ;;
esac
"""

pytestmark = pytest.mark.skipif(
    shutil.which('make') is None, reason='make is not installed'
)


@pytest.fixture(name='checkout')
def _checkout(tmp_path: pathlib.Path) -> pathlib.Path:
  for path in (_ROOT / 'Makefile', *_ROOT.glob('requirements*.txt')):
    shutil.copy(path, tmp_path)
  python = tmp_path / 'fake_python'
  python.write_text(_FAKE_PYTHON)
  python.chmod(0o755)
  return tmp_path


def _make(
    checkout, target, others='./fake_python', **environment
) -> subprocess.CompletedProcess:
  # An outer make hands its command line down in these.
  outer = (
      'MAKEFLAGS',
      'MAKEOVERRIDES',
      'MAKELEVEL',
      'MFLAGS',
      'PYTHON',
      'PYTHON_flower',
      'PYTHON_syft',
      'VENV',
      'CI',
  )
  inherited = {k: v for k, v in os.environ.items() if k not in outer}
  return subprocess.run(
      [
          'make',
          'PYTHON=./fake_python',
          f'PYTHON_flower={others}',
          f'PYTHON_syft={others}',
          target,
      ],
      cwd=checkout,
      env={**inherited, **environment},
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=60,
  )


def _calls(checkout) -> list:
  calls = checkout / 'calls'
  return calls.read_text().splitlines() if calls.exists() else []


_PIP = 'pip .venv/bin/python'
_PIP_TOOLS = 'pip .venv-tools/bin/python'


def test_builds_the_environment_once_and_anew_for_other_requirements(checkout):
  for target in ('demo', 'test', 'test'):
    assert _make(checkout, target).returncode == 0
  calls = _calls(checkout)
  assert calls.count(_PIP) == calls.count(_PIP_TOOLS) == 1
  assert calls[1].startswith('python -m binaries.compare --flagfile=')
  for name in ('flower', 'syft'):
    assert calls.count(f'pip .venv-{name}/bin/python') == 1
  assert calls[-3].startswith('python -m pytest tests -m not slow')
  assert calls[-2:] == [
      'python -m pytest tests/flower -m not slow',
      'python -m pytest tests/syft -m not slow',
  ]
  later = (checkout / '.venv' / '.installed').stat().st_mtime + 10
  os.utime(checkout / 'requirements.txt', (later, later))
  assert _make(checkout, 'demo').returncode == 0
  assert _calls(checkout).count(_PIP) == 2


def test_tests_include_style_types_and_documents(checkout):
  assert _make(checkout, 'test').returncode == 0
  calls = _calls(checkout)
  assert {'ruff', 'pyink', 'mypy'} < {call.split()[0] for call in calls}
  assert 'mkdocs build' in calls  # With --quiet it would not count warnings.


def test_all_tests_leave_none_out(checkout):
  assert _make(checkout, 'test-all').returncode == 0
  assert not any('not slow' in call for call in _calls(checkout))


def test_what_has_no_python_is_skipped_but_not_in_ci(checkout):
  result = _make(checkout, 'test', others='')
  assert result.returncode == 0
  for name in ('flower', 'syft'):
    assert f'Skipped tests/{name}: no Python 3' in result.stdout
    assert not any(name in call for call in _calls(checkout))
  result = _make(checkout, 'test', others='', CI='true')
  assert result.returncode != 0
  assert 'Skipped tests/flower' in result.stdout


def test_failed_installation_is_tried_again(checkout):
  result = _make(checkout, 'demo', FAKE_PIP_STATUS='1')
  assert result.returncode != 0
  line, end = result.stderr.splitlines()
  assert re.match(r'make: pip failed, .* network .* is \S+ of free disk', line)
  assert end.startswith('make: *** ')
  assert _calls(checkout) == [_PIP]
  assert _make(checkout, 'demo').returncode == 0
  assert _calls(checkout)[1] == _PIP


def test_wrong_python_is_named(checkout):
  result = _make(checkout, 'test', FAKE_WRONG_VERSION='1')
  assert result.returncode != 0
  assert 'needs Python 3.9 to 3.11, not ./fake_python' in result.stderr
  assert _PIP not in _calls(checkout)


def test_clean_keeps_the_environment(checkout):
  assert _make(checkout, 'demo').returncode == 0
  (checkout / 'out').mkdir()
  assert _make(checkout, 'clean').returncode == 0
  assert not (checkout / 'out').exists()
  assert (checkout / '.venv' / 'bin' / 'python').exists()


def test_help_needs_no_environment(checkout):
  result = _make(checkout, 'help')
  assert result.returncode == 0
  for target in ('demo', 'test', 'test-all', 'benchmark', 'clean'):
    assert f'make {target} ' in result.stdout
  assert not (checkout / '.venv').exists()
