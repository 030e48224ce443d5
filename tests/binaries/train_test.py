"""Tests for train."""

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import time

import pytest

from binaries import csv_log
from binaries import run_metrics
from tests.binaries import programs

_WHOLE = (
    '--rounds=8',
    '--checkpoint_every=2',
    '--evaluate_every=3',
    '--seed=5',
)


def _train(output_dir, *arguments, **environment):
  return programs.finish(_start(output_dir, *arguments, **environment))


def _start(output_dir, *arguments, **environment):
  return programs.start_fake(
      'train',
      f'--output_dir={output_dir}',
      '--rounds=4',
      '--context=native',
      *arguments,
      **environment,
  )


def _rows(folder):
  return csv_log.read_rows(folder / 'metrics.csv')


def _contents(folder):
  """The contents of the files by their names."""
  return {
      path.relative_to(folder).as_posix(): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file()
  }


def _results(folder):
  """What must not depend on interruptions."""
  return (
      programs.read_columns(folder / 'metrics.csv', 2),
      (folder / 'weights.csv').read_text(),
  )


def _assert_refused(folder, found, *arguments):
  """The folder holds something else, which is told and left alone."""
  before = _contents(folder)
  result = _train(folder, *arguments)
  assert (result.returncode, result.stdout) == (1, '')
  (line,) = result.stderr.splitlines()
  assert line.startswith(f'train: {folder} holds a run {found}')
  assert line.endswith('; choose another --output_dir or add --overwrite.')
  assert _contents(folder) == before


@pytest.fixture(name='whole', scope='module')
def _make_whole(tmp_path_factory):
  """A run that nothing happened to, with checkpoints of rounds 4, 6 and 8."""
  folder = tmp_path_factory.mktemp('whole') / 'a' / 'b'
  result = _train(folder, *_WHOLE)
  assert (result.returncode, result.stderr) == (0, '')
  return folder, result.stdout


def test_run_is_written(whole):
  folder, output = whole
  rows = _rows(folder)
  assert tuple(rows[0]) == run_metrics.COLUMNS
  assert [row['round'] for row in rows] == list('12345678')
  evaluated = [row['round'] for row in rows if row['test_accuracy']]
  assert evaluated == ['3', '6', '8']
  assert all(row['attacker_weight'] for row in rows)
  accuracy = float(rows[-1]['test_accuracy'])
  assert output == (
      f'Test accuracy {accuracy:.4f} after 8 rounds; see {folder}/metrics.csv\n'
  )
  record = json.loads((folder / 'run.json').read_text())
  assert 'continued' not in record
  assert record['seed'] == record['settings']['seed'] == 5
  assert record['settings']['num_clients'] == 50
  assert record['flags']['checkpoint_every'] == 2
  assert record['flags']['rounds'] == 8
  assert shlex.split(record['command']) == [
      'python',
      '-m',
      'tests.binaries.fake_program',
      f'--output_dir={folder}',
      '--rounds=4',
      '--context=native',
      *_WHOLE,
  ]


def test_finished_run_is_told_again_unless_overwritten(tmp_path):
  first = _train(tmp_path, '--checkpoint_every=1')
  before = _contents(tmp_path)
  again = _train(tmp_path)
  assert (again.returncode, again.stdout) == (0, first.stdout)
  assert _contents(tmp_path) == before
  (tmp_path / 'tensorboard').mkdir()
  (tmp_path / 'tensorboard' / 'events.out.tfevents.1.host').touch()
  for foreign in ('mine', 'tensorboard/mine', 'checkpoints/mine'):
    (tmp_path / foreign).write_text('kept')
  other = _train(tmp_path, '--overwrite', '--aggregator=mean')
  assert other.returncode == 0
  after = _contents(tmp_path)
  assert set(after) == {
      '.lock',
      'metrics.csv',
      'run.json',
      'mine',
      'tensorboard/mine',
      'checkpoints/mine',
  }
  assert after['metrics.csv'] != before['metrics.csv']


def test_killed_run_is_gone_on_with_by_its_like_alone(tmp_path, whole):
  arguments = (*_WHOLE, '--checkpoint_every=1')
  crashed = _train(tmp_path, *arguments, FAKE_CRASH='fedaot')
  assert crashed.returncode == -signal.SIGKILL
  assert programs.read_lines(tmp_path / 'metrics.csv')[-1] == '2,0.1'
  _assert_refused(
      tmp_path, 'with seed=5, not 1 (run.json);', *arguments, '--seed=1'
  )
  record_path = tmp_path / 'run.json'
  record = record_path.read_text()
  programs.change_json(
      record_path, lambda record: record['versions'].update(numpy='1.0')
  )
  _assert_refused(tmp_path, "with numpy='1.0', not '", *arguments)
  record_path.unlink()
  _assert_refused(tmp_path, 'without run.json;', *arguments)
  record_path.write_text(record)
  result = _train(tmp_path, *arguments)
  told = 'fedaot, none: goes on after the checkpoint of round 1\n'
  assert (result.returncode, result.stderr) == (0, told)
  assert _results(tmp_path) == _results(whole[0])
  assert len(json.loads(record_path.read_text())['continued']) == 1


def test_run_survives_kills_at_random_moments(tmp_path):
  arguments = ('--quiet', '--rounds=60', '--checkpoint_every=2')
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  _train(whole, *arguments)
  moments = random.Random(0)
  num_rows, num_kills = 0, 0
  while num_kills < 8:
    process = _start(killed, *arguments, FAKE_SECONDS='0.02')
    # A round and its checkpoint take about 60 ms.
    target = min(num_rows + 1, 60)
    programs.wait_until(lambda: len(_rows(killed)) >= target)
    time.sleep(moments.uniform(0, 0.3))
    process.kill()
    num_kills += programs.finish(process).returncode == -signal.SIGKILL
    num_rows = len(_rows(killed))
    if num_rows == 60:
      break
  assert num_kills >= 4
  result = _train(killed, *arguments)
  assert (result.returncode, result.stderr) == (0, '')
  assert _results(killed) == _results(whole)
  assert not list((killed / 'checkpoints').glob('*.unfinished'))


@pytest.mark.parametrize(
    'num_lines, torn, told',
    [
        (
            8,
            'round_6',
            'the checkpoint of round 6 cannot be read and is passed'
            ' over: it is damaged, or of another version.\n',
        ),
        # As after a power failure that the rows did not survive.
        (6, None, 'goes on after the checkpoint of round 4\n'),
    ],
)
def test_checkpoint_that_does_not_serve(tmp_path, whole, num_lines, torn, told):
  folder = tmp_path / 'torn'
  shutil.copytree(whole[0], folder)
  lines = programs.read_lines(folder / 'metrics.csv')
  (folder / 'metrics.csv').write_text('\n'.join(lines[:num_lines]) + '\n')
  if torn is not None:
    (folder / 'checkpoints' / torn).write_text('torn')
  result = _train(folder, *_WHOLE)
  assert result.returncode == 0
  assert result.stderr.endswith(f'fedaot, none: {told}')
  assert _results(folder) == _results(whole[0])


@pytest.mark.skipif(os.geteuid() != 0, reason='mounting a disk needs root')
@pytest.mark.parametrize('checkpoint_every', [1, 5000])
def test_full_disk_is_one_line_and_loses_nothing(tmp_path, checkpoint_every):
  disk, copy, whole = (tmp_path / name for name in ('disk', 'copy', 'whole'))
  arguments = (
      '--quiet',
      '--rounds=1000',
      f'--checkpoint_every={checkpoint_every}',
  )
  disk.mkdir()
  mounted = subprocess.run(
      ['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk],
      capture_output=True,
      check=False,
  )
  if mounted.returncode:
    pytest.skip(f'cannot mount: {mounted.stderr}')
  try:
    written = 0
    # The second time it is full from the start.
    for _ in range(2):
      result = _train(disk, *arguments)
      assert result.returncode == 1
      (line,) = result.stderr.splitlines()
      assert line.startswith('train: ')
      assert 'No space left on device' in line
      assert len(_rows(disk)) >= written
      written = len(_rows(disk))
      assert 1 < written < 1000
      assert (disk / 'metrics.csv').read_text().endswith('\n')
    shutil.copytree(disk, copy)
  finally:
    subprocess.run(['umount', disk], check=True)
  for folder in (copy, whole):
    result = _train(folder, *arguments, '--checkpoint_every=5000')
    assert (result.returncode, result.stderr) == (0, '')
  assert _results(copy) == _results(whole)


def test_interrupt_keeps_the_rows_and_tells_how_to_go_on(tmp_path):
  process = _start(
      tmp_path, '--overwrite', '--checkpoint_every=1', FAKE_ENDLESS='fedaot'
  )
  programs.wait_until((tmp_path / 'checkpoints' / 'round_1').exists)
  process.send_signal(signal.SIGINT)
  result = programs.finish(process)
  assert result.returncode == 130
  first, second = result.stderr.splitlines()
  assert first == 'train: interrupted; what was written is kept.'
  assert second.startswith('To go on: ')
  assert second.endswith(
      f'-m tests.binaries.fake_program --output_dir={tmp_path} --rounds=4'
      ' --context=native --overwrite --checkpoint_every=1 --nooverwrite'
  )
  assert len(_rows(tmp_path)) == 1
  result = _train(
      tmp_path, '--overwrite', '--checkpoint_every=1', '--nooverwrite'
  )
  assert (result.returncode, result.stderr) == (
      0,
      'fedaot, none: goes on after the checkpoint of round 1\n',
  )
  assert len(_rows(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.parametrize('aggregator', ['fedaot', 'fedaot_no_holdout'])
def test_real_run_survives_kills_at_random_moments(tmp_path, aggregator):
  arguments = (
      'binaries.train',
      f'--aggregator={aggregator}',
      '--attack=backdoor',
      '--num_clients=8',
      '--cohort_size=5',
      '--client_epochs=1',
      '--evaluate_every=2',
      '--checkpoint_every=2',
      '--rounds=8',
      '--server_optimizer=adam',
      '--server_learning_rate=0.01',
      '--tensorboard',
      '--quiet',
  )
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  moments = random.Random(1)
  for num_rows in (2, 4, 5):
    process = programs.start(['-m', *arguments, f'--output_dir={killed}'], {})
    # In a round, or in the checkpoint that follows on an even one.
    programs.wait_until(lambda: len(_rows(killed)) >= num_rows, seconds=200)
    time.sleep(moments.uniform(0, 0.5))
    process.kill()
    assert process.communicate(timeout=60) == ('', '')
  for folder in (killed, whole):
    result = programs.run(*arguments, f'--output_dir={folder}')
    assert (result.returncode, result.stderr) == (0, '')
  assert _results(killed) == _results(whole)
  assert len(_rows(killed)) == 8
