"""Runs programs for the tests, in processes of their own."""

import os
import pathlib
import subprocess
import sys
from typing import List, Set

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(module: str, *arguments: str, **environment: str) -> subprocess.Popen:
  """Starts `python -m module arguments`."""
  # What the tests set for their own TensorFlow is not for the program's.
  inherited = {
      k: v for k, v in os.environ.items() if k != 'TF_CPP_MIN_LOG_LEVEL'
  }
  return subprocess.Popen(
      [sys.executable, '-m', module, *map(str, arguments)],
      cwd=ROOT,
      env={**inherited, **environment},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )


def run(
    module: str, *arguments: str, **environment: str
) -> subprocess.CompletedProcess:
  """Runs `python -m module arguments` to its end."""
  process = start(module, *arguments, **environment)
  output, errors = process.communicate(timeout=300)
  return subprocess.CompletedProcess(
      process.args, process.returncode, output, errors
  )


def run_source(source: str, *arguments: str) -> str:
  """The output of `python -c source arguments`, which must succeed."""
  return subprocess.run(
      [sys.executable, '-c', source, *arguments],
      cwd=ROOT,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      check=True,
      timeout=60,
  ).stdout


def loaded_packages(*modules: str) -> Set[str]:
  """The names of the top-level packages that modules of ours load."""
  return set(
      run_source(
          f'import sys; import {", ".join(modules)};'
          ' print(*{name.partition(".")[0] for name in sys.modules})'
      ).split()
  )


def run_fake(*arguments: str, **environment: str):
  """Runs a program that only seems to train; see `fake_program`."""
  return run('tests.binaries.fake_program', *arguments, **environment)


def read_lines(path: pathlib.Path) -> List[str]:
  """The lines of a file."""
  return path.read_text(encoding='utf-8').splitlines()


def read_columns(path: pathlib.Path, num_dropped: int) -> List[str]:
  """The lines of a CSV file without its last columns."""
  return [line.rsplit(',', num_dropped)[0] for line in read_lines(path)]
