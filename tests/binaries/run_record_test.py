"""Tests for run_record."""

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

from absl import flags
import pytest

from binaries import application
from binaries import run_record
from tests.binaries import programs


@pytest.fixture(name='parsed_flags', autouse=True)
def _parsed_flags():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['program'])


def test_record(tmp_path):
  record = run_record.write(tmp_path, seed=[1, 2], settings={'rounds': 3})
  assert run_record.read(tmp_path) == record
  assert os.listdir(tmp_path) == ['run.json']
  assert record['seed'] == [1, 2]
  assert record['settings'] == {'rounds': 3}
  assert record['versions']['python'] == sys.version.split()[0]
  assert record['machine']['cores'] >= 1
  assert record['machine']['memory_gib'] > 0
  assert record['machine']['cpu']
  assert record['started'][:2] == '20'
  assert isinstance(record['flags'], dict)


def test_there_is_no_record(tmp_path):
  assert run_record.read(tmp_path) is None


def test_record_that_cannot_be_written_is_a_user_error(tmp_path):
  with pytest.raises(application.UserError, match='cannot write .*run.json'):
    run_record.write(tmp_path / 'missing', seed=0)


def test_continuations_are_added(tmp_path):
  record = run_record.write(tmp_path, seed=0)
  for count in (1, 2):
    run_record.add_continuation(tmp_path)
    found = run_record.read(tmp_path)
    assert len(found.pop('continued')) == count
    assert found == record


def test_versions_that_may_give_other_numbers(tmp_path):
  record = run_record.write(tmp_path, seed=0)
  assert run_record.describe_other_versions(record) is None
  versions = record['versions']
  changed = {**record, 'versions': {**versions, 'sources': '123'}}
  assert run_record.describe_other_versions(changed) == (
      f"sources='123', not {versions['sources']!r}"
  )
  changed = {**record, 'versions': {**versions, 'python': '3.9.1'}}
  assert run_record.describe_other_versions(changed) is None
  assert 'tensorflow=' in run_record.describe_other_versions({})


def _digest(root):
  return subprocess.run(
      [
          sys.executable, '-c',
          'from binaries import run_record;'
          'print(run_record.versions()["sources"])',
      ],
      cwd=root, capture_output=True, text=True, check=True,
  ).stdout


def test_digest_is_of_what_the_numbers_come_from(tmp_path):
  for name in ('fedaot_tff', 'tasks', 'binaries'):
    shutil.copytree(
        programs.ROOT / name,
        tmp_path / name,
        ignore=shutil.ignore_patterns('__pycache__'),
    )
  before = _digest(tmp_path)
  assert _digest(tmp_path) == before

  def change(name):
    with open(tmp_path / name, 'a', encoding='utf-8') as file:
      file.write('\n')

  change('binaries/progress.py')
  assert _digest(tmp_path) == before
  change('fedaot_tff/aggregators/krum.py')
  after = _digest(tmp_path)
  assert after != before
  change('binaries/runner.py')
  assert _digest(tmp_path) != after


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_commit_is_that_of_the_work_tree_of_the_sources(tmp_path):
  shutil.copytree(
      programs.ROOT / 'fedaot_tff',
      tmp_path / 'fedaot_tff',
      ignore=shutil.ignore_patterns('__pycache__'),
  )
  for name in ('binaries', 'tasks'):
    (tmp_path / name).symlink_to(programs.ROOT / name)

  def git(*arguments):
    return subprocess.run(
        ['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    ).stdout.strip()

  def found():
    return json.loads(
        subprocess.run(
            [
                sys.executable, '-c',
                'import json; from binaries import run_record;'
                'print(json.dumps(run_record._git()))',
            ],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout
    )

  git('init', '--quiet')
  # Inside of a work tree, but not under its control: installed there.
  assert found() is None
  git('add', 'fedaot_tff')
  git('commit', '--quiet', '-m', 'a')
  commit = git('rev-parse', 'HEAD')
  assert found() == {'commit': commit, 'has_changes': False}
  (tmp_path / 'fedaot_tff' / 'seeds.py').touch()
  (tmp_path / 'fedaot_tff' / '__init__.py').write_text(
      (tmp_path / 'fedaot_tff' / '__init__.py').read_text() + '\n'
  )
  assert found() == {'commit': commit, 'has_changes': True}


def test_command_can_be_run(tmp_path):
  result = programs.run(
      'tests.binaries.fake_program', 'train', '--rounds=1',
      f'--output_dir={tmp_path}/a folder', '--quiet',
  )
  assert result.returncode == 0, result.stderr
  record = run_record.read(pathlib.Path(tmp_path) / 'a folder')
  assert shlex.split(record['command']) == [
      'python', '-m', 'tests.binaries.fake_program', '--rounds=1',
      f'--output_dir={tmp_path}/a folder', '--quiet',
  ]
