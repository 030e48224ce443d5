"""Tests for run_record."""

import os
import resource
import subprocess
import sys

from absl import flags
import pytest

from binaries import output_folder
from binaries import run_record


@pytest.fixture(name='parsed_flags', autouse=True)
def _parsed_flags():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['program'])


def test_record_and_its_continuations(tmp_path):
  path = tmp_path / run_record.FILE_NAME
  record = run_record.write(tmp_path, seed=[1, 2], settings={'rounds': 3})
  assert output_folder.read_json(path) == record
  assert os.listdir(tmp_path) == ['run.json']
  assert record['seed'] == [1, 2]
  assert record['settings'] == {'rounds': 3}
  assert set(record['versions']) == {
      'python',
      'tensorflow',
      'tensorflow_federated',
      'numpy',
      'fedaot_tff',
      'sources',
  }
  assert record['versions']['python'] == sys.version.split()[0]
  assert record['machine']['cores'] >= 1
  assert record['machine']['memory_gib'] > 0
  assert record['machine']['cpu']
  assert record['started'][:2] == '20'
  assert isinstance(record['flags'], dict)
  for count in (1, 2):
    run_record.add_continuation(tmp_path)
    found = output_folder.read_json(path)
    assert len(found.pop('continued')) == count
    assert found == record


def test_versions_that_may_give_other_numbers():
  versions = run_record.versions()

  def describe(**others):
    return run_record.describe_other_versions(
        {'versions': {**versions, **others}}
    )

  assert describe() is None
  assert describe(sources='123') == (
      f"sources='123', not {versions['sources']!r}"
  )
  assert describe(python='3.9.1') is None
  assert 'tensorflow=' in run_record.describe_other_versions({})


def test_digest_is_of_what_the_numbers_come_from(tmp_path, monkeypatch):
  monkeypatch.setattr(run_record, '_ROOT', tmp_path)

  def digest_with(name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return run_record._source_digest()

  digest = digest_with('binaries/progress.py', 'a')
  assert digest_with('binaries/progress.py', 'b') == digest
  for name in (
      'fedaot/rules/krum.py',
      'fedaot_tff/attacks/alie.py',
      'tasks/digits.py',
      'binaries/runner.py',
  ):
    for text in 'ab':
      changed = digest_with(name, text)
      assert changed != digest
      digest = changed


def test_commit_is_that_of_the_work_tree_of_the_sources(tmp_path, monkeypatch):
  monkeypatch.setattr(run_record, '_ROOT', tmp_path)
  source = tmp_path / 'fedaot_tff' / '__init__.py'
  source.parent.mkdir()
  source.touch()

  def git(*arguments):
    return subprocess.run(
        ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()

  git('init', '--quiet')
  # Inside of a work tree, but not under its control: installed there.
  assert run_record._git() == {}
  git('add', 'fedaot_tff')
  git('commit', '--quiet', '-m', 'a')
  found = {'commit': git('rev-parse', 'HEAD'), 'has_changes': False}
  assert run_record._git() == {'git': found}
  source.write_text('changed')
  assert run_record._git() == {'git': {**found, 'has_changes': True}}

  # Where no file can be written, git is killed; its index stays unlocked.
  os.utime(tmp_path / 'fedaot_tff' / '__init__.py', (0, 0))
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
  try:
    run_record._git()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert not (tmp_path / '.git' / 'index.lock').exists()
