"""Runs programs for the tests, in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, Sequence, Set

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(
    arguments: Sequence[Any], environment: Dict[str, str]
) -> subprocess.Popen:
  """Starts `python arguments`."""
  # What is set for the tests' own TensorFlow and pytest is not the program's.
  own = ('TF_CPP_MIN_LOG_LEVEL', 'PYTEST_XDIST_WORKER')
  inherited = {k: v for k, v in os.environ.items() if not k.startswith(own)}
  return subprocess.Popen(
      [sys.executable, *map(str, arguments)],
      cwd=ROOT,
      env={**inherited, **environment},
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )


def finish(process: subprocess.Popen) -> subprocess.CompletedProcess:
  """Waits for a process that was started."""
  output, errors = process.communicate(timeout=300)
  return subprocess.CompletedProcess(
      process.args, process.returncode, output, errors
  )


def run(
    module: str, *arguments: Any, **environment: str
) -> subprocess.CompletedProcess:
  """Runs `python -m module arguments` to its end."""
  return finish(start(['-m', module, *arguments], environment))


def start_fake(*arguments: Any, **environment: str) -> subprocess.Popen:
  """Starts a program that only seems to train; see `fake_program`."""
  return start(['-m', 'tests.binaries.fake_program', *arguments], environment)


def run_fake(*arguments: Any, **environment: str):
  """Runs a program that only seems to train to its end."""
  return finish(start_fake(*arguments, **environment))


def run_source(source: str, *arguments: Any) -> str:
  """The output of `python -c source arguments`, which must succeed."""
  result = finish(start(['-c', source, *arguments], {}))
  assert result.returncode == 0, result.stderr
  return result.stdout


def loaded_packages(*modules: str) -> Set[str]:
  """The names of the top-level packages that modules of ours load."""
  return set(
      run_source(
          f'import sys; import {", ".join(modules)};'
          ' print(*{name.partition(".")[0] for name in sys.modules})'
      ).split()
  )


def wait_until(condition: Callable[[], Any], seconds: float = 300) -> None:
  """Waits for a condition, which must come true in time."""
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.005)


def read_lines(path: pathlib.Path) -> List[str]:
  """The lines of a file."""
  return path.read_text(encoding='utf-8').splitlines()


def read_columns(path: pathlib.Path, num_dropped: int) -> List[str]:
  """The lines of a CSV file without its last columns and the checksums."""
  return [line.rsplit(',', num_dropped + 1)[0] for line in read_lines(path)]


def change_json(path: pathlib.Path, change: Callable[[Dict], Any]) -> None:
  """Changes the content of a JSON file."""
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))
