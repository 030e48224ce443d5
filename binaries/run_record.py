"""What made a run: the file `run.json`, written when the run starts.

TensorFlow is not imported; versions are read from what pip has installed.
"""

import datetime
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any, Dict, Mapping, Optional

from absl import flags

from binaries import application
from binaries import output_folder
import fedaot_tff

FILE_NAME = 'run.json'

_ROOT = pathlib.Path(fedaot_tff.__file__).resolve().parents[1]
# What the numbers of a run come from; what only presents them may change.
_SOURCES = (
    'fedaot/**/*.py',
    'fedaot_tff/**/*.py',
    'tasks/**/*.py',
    'binaries/runner.py',
)
_DISTRIBUTIONS = {
    'tensorflow': ('tensorflow', 'tensorflow-cpu'),
    'tensorflow_federated': ('tensorflow-federated',),
    'numpy': ('numpy',),
}
# Another version of these may give other numbers.
_DECISIVE_VERSIONS = (*_DISTRIBUTIONS, 'fedaot_tff', 'sources')
_GIT_TIMEOUT_SECONDS = 10.0


def write(folder: pathlib.Path, *, seed: Any, **others: Any) -> Dict[str, Any]:
  """Writes `run.json` as `output_folder.write_json` does; returns the content.

  That is `seed`, which may be a list of several, and what JSON can hold of
  `others`, besides the program and what it runs on.
  """
  record = {
      'command': application.command(),
      'flags': _flags(),
      'seed': seed,
      'versions': versions(),
      'machine': _machine(),
      'started': _now(),
      **others,
      **_git(),
  }
  output_folder.write_json(folder / FILE_NAME, record)
  return record


def read(folder: pathlib.Path) -> Optional[Dict[str, Any]]:
  """`output_folder.read_json` of what `write` left in a folder."""
  return output_folder.read_json(folder / FILE_NAME)


def add_continuation(folder: pathlib.Path) -> None:
  """Adds to `run.json` that this program goes on with the run."""
  record = read(folder) or {}
  record.setdefault('continued', []).append(
      {'started': _now(), 'command': application.command()}
  )
  output_folder.write_json(folder / FILE_NAME, record)


def describe_other_versions(record: Mapping[str, Any]) -> Optional[str]:
  """Why this code may not give the numbers of a run that was begun.

  Returns:
    The first difference to what `read` returned, as in "numpy='1.25.2', not
    '1.26.0'"; None if there is none.
  """
  old, new = record.get('versions') or {}, versions()
  return output_folder.describe_difference(
      *({name: v.get(name) for name in _DECISIVE_VERSIONS} for v in (old, new))
  )


@functools.lru_cache(maxsize=None)
def versions() -> Mapping[str, Optional[str]]:
  """The versions of Python and the libraries; `sources` is a digest of ours.

  None stands for a library that is not installed.
  """
  found: Dict[str, Optional[str]] = {'python': platform.python_version()}
  for name, distributions in _DISTRIBUTIONS.items():
    found[name] = next(filter(None, map(_version, distributions)), None)
  return {
      **found, 'fedaot_tff': fedaot_tff.__version__, 'sources': _source_digest()
  }


def _version(distribution: str) -> Optional[str]:
  try:
    return importlib.metadata.version(distribution)
  except importlib.metadata.PackageNotFoundError:
    return None


def _source_digest() -> str:
  digest = hashlib.sha256()
  for pattern in _SOURCES:
    for path in sorted(_ROOT.glob(pattern)):
      content = path.read_bytes()
      name = path.relative_to(_ROOT).as_posix()
      digest.update(f'{name} {len(content)}\n'.encode())
      digest.update(content)
  return digest.hexdigest()[:16]


def _now() -> str:
  """The time in ISO 8601, with the time zone."""
  return datetime.datetime.now().astimezone().isoformat(timespec='seconds')


def _flags() -> Dict[str, Any]:
  """The program's own flags, and others that were given."""
  return {
      flag.name: flag.value
      for module, of_module in sorted(
          flags.FLAGS.flags_by_module_dict().items()
      )
      for flag in of_module
      if module == sys.argv[0]
      or module.startswith('binaries.')
      or flag.present
  }


def _machine() -> Dict[str, Any]:
  """The machine that the run starts on."""
  cores = os.cpu_count()
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  num_bytes = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return {
      'cpu': _cpu_model(),
      'cores': cores,
      'memory_gib': round(num_bytes / 2**30, 1),
      'platform': platform.platform(),
  }


def _cpu_model() -> str:
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      for line in file:
        name, _, value = line.partition(':')
        if name.strip() == 'model name':
          return value.strip()
  except OSError:
    pass  # Not Linux.
  return platform.processor() or platform.machine()


def _git() -> Dict[str, Any]:
  """The commit of our sources, if they are under git's control."""
  if _run_git('ls-files', '--error-unmatch', 'fedaot_tff/__init__.py') is None:
    return {}
  changes = _run_git('status', '--porcelain', '--untracked-files=no')
  commit = _run_git('rev-parse', 'HEAD')
  return {'git': {'commit': commit, 'has_changes': bool(changes)}}


def _run_git(*arguments: str) -> Optional[str]:
  """What a git command that changes nothing prints; None if it fails."""
  try:
    return subprocess.run(
        ['git', '--no-optional-locks', '-C', str(_ROOT), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_GIT_TIMEOUT_SECONDS,
        check=True,
        text=True,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return None
