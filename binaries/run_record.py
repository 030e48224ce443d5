"""What made a run: the file `run.json`, written when the run starts."""

import datetime
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
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
    *(f'{package}/**/*.py' for package in ('fedaot', 'fedaot_tff', 'tasks')),
    'binaries/runner.py',
)
_LIBRARIES = ('tensorflow', 'tensorflow_federated', 'numpy')
# Another version of these may give other numbers.
_DECISIVE_VERSIONS = (*_LIBRARIES, 'fedaot_tff', 'sources')
# Of what is read again.
_KINDS = {'settings': dict, 'versions': dict, 'continued': list}
_GIT_TIMEOUT_SECONDS = 10.0


def write(folder: pathlib.Path, *, seed: Any, **others: Any) -> Dict[str, Any]:
  """Writes `run.json`, or UserError; returns the content.

  That is `seed`, which may be a list of several, and `others`, besides the
  program and what it runs on.
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
  """What `run.json` holds; None for no file, UserError for a damaged one."""
  path = folder / FILE_NAME
  record = output_folder.read_json(path)
  for name, kind in _KINDS.items():
    if record and not isinstance(record.get(name, kind()), kind):
      raise output_folder.unreadable(path, f'{name} is no {kind.__name__}')
  return record


def add_continuation(folder: pathlib.Path) -> None:
  """Adds to `run.json` that this program goes on with the run."""
  record = read(folder)
  record.setdefault('continued', []).append(
      {'started': _now(), 'command': application.command()}
  )
  output_folder.write_json(folder / FILE_NAME, record)


def describe_other_versions(record: Mapping[str, Any]) -> Optional[str]:
  """Why this code may not give the numbers of a run that was begun, if so."""
  old, new = record.get('versions') or {}, versions()
  return output_folder.describe_difference(
      *({name: v.get(name) for name in _DECISIVE_VERSIONS} for v in (old, new))
  )


@functools.lru_cache(maxsize=None)
def versions() -> Mapping[str, Optional[str]]:
  """The versions of Python and the libraries, None for one that is missing.

  `sources` is a digest of ours.
  """
  return {
      'python': platform.python_version(),
      **{name: _version(name) for name in _LIBRARIES},
      'fedaot_tff': fedaot_tff.__version__,
      'sources': _source_digest(),
  }


def _version(library: str) -> Optional[str]:
  try:
    return importlib.metadata.version(library)
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
  modules = flags.FLAGS.flags_by_module_dict()
  return {
      flag.name: flag.value
      for module in sorted(modules)
      for flag in modules[module]
      if module == sys.argv[0] or module.startswith('binaries.') or flag.present
  }


def _machine() -> Dict[str, Any]:
  """The machine that the run starts on."""
  num_bytes = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  return {
      'cpu': _cpu_model(),
      'cores': len(os.sched_getaffinity(0)),
      'memory_gib': round(num_bytes / 2**30, 1),
      'platform': platform.platform(),
  }


def _cpu_model() -> str:
  info = pathlib.Path('/proc/cpuinfo')
  text = info.read_text(encoding='utf-8') if info.exists() else ''
  found = re.search(r'^model name\s*: (.+)$', text, re.MULTILINE)
  return found[1] if found else platform.machine()


def _git() -> Dict[str, Any]:
  """The commit of our sources, if they are under git's control."""
  try:
    _run_git('ls-files', '--error-unmatch', 'fedaot_tff/__init__.py')
    commit = _run_git('rev-parse', 'HEAD')
    # `describe --dirty` locks the index, for good if it is killed.
    changes = _run_git('status', '--porcelain', '--untracked-files=no')
  except (OSError, subprocess.SubprocessError):
    return {}
  return {'git': {'commit': commit, 'has_changes': bool(changes)}}


def _run_git(*arguments: str) -> str:
  """What a git command that changes nothing prints."""
  return subprocess.run(
      ['git', '--no-optional-locks', *arguments],
      cwd=_ROOT,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      timeout=_GIT_TIMEOUT_SECONDS,
      check=True,
      text=True,
  ).stdout.strip()
