"""Tests for train."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from binaries import csv_log
from binaries import run_metrics
from tests.binaries import programs


def _train(output_dir, *arguments, **environment):
  return programs.run_fake(
      'train', f'--output_dir={output_dir}', '--rounds=4', *arguments,
      **environment,
  )


def test_metrics_and_settings_are_written(tmp_path):
  result = _train(
      tmp_path / 'a' / 'b',
      '--aggregator=fedaot',
      '--evaluate_every=3',
      '--seed=5',
  )
  assert result.returncode == 0, result.stderr
  rows = csv_log.read_rows(tmp_path / 'a' / 'b' / 'metrics.csv')
  assert tuple(rows[0]) == run_metrics.COLUMNS
  assert [row['round'] for row in rows] == ['1', '2', '3', '4']
  assert [bool(row['test_accuracy']) for row in rows] == [
      False, False, True, True,
  ]
  assert all(row['attacker_weight'] for row in rows)
  settings = json.loads((tmp_path / 'a' / 'b' / 'settings.json').read_text())
  assert settings['seed'] == 5
  assert settings['rounds'] == 4
  assert settings['num_clients'] == 50
  accuracy = float(rows[-1]['test_accuracy'])
  assert result.stdout == (
      f'Test accuracy {accuracy:.4f} after 4 rounds; see'
      f' {tmp_path}/a/b/metrics.csv\n'
  )


def test_finished_run_is_told_again_unless_overwritten(tmp_path):
  first = _train(tmp_path)
  assert first.returncode == 0
  before = _contents(tmp_path)
  again = _train(tmp_path)
  assert (again.returncode, again.stdout) == (0, first.stdout)
  assert _contents(tmp_path) == before
  other = _train(tmp_path, '--seed=1')
  assert other.returncode == 1
  assert other.stderr == (
      f'train: {tmp_path} holds a run with seed=0, not 1; choose another'
      ' --output_dir or add --overwrite.\n'
  )
  assert _contents(tmp_path) == before
  (tmp_path / 'checkpoints' / 'mine').touch()
  assert _train(tmp_path, '--overwrite', '--seed=1').returncode == 0
  assert (tmp_path / 'metrics.csv').read_text() != before['metrics.csv']
  assert (tmp_path / 'checkpoints' / 'mine').exists()


def test_overwriting_removes_what_the_new_run_does_not_have(tmp_path):
  assert _train(tmp_path, '--checkpoint_every=1').returncode == 0
  (tmp_path / 'tensorboard').mkdir()
  (tmp_path / 'tensorboard' / 'events.out.tfevents.1.host').touch()
  _train(tmp_path, '--aggregator=mean', '--overwrite')
  assert set(_contents(tmp_path)) == {
      'metrics.csv', 'run.json', 'settings.json',
  }


def test_unfinished_run_is_kept_if_its_settings_differ(tmp_path):
  assert _train(tmp_path, FAKE_CRASH='fedaot').returncode == -signal.SIGKILL
  assert programs.read_lines(tmp_path / 'metrics.csv')[-1] == '2,0.1'
  other = _train(tmp_path, '--seed=1')
  assert other.returncode == 1
  assert other.stderr == (
      f'train: {tmp_path} holds a run with seed=0, not 1; choose another'
      ' --output_dir or add --overwrite.\n'
  )


def test_run_in_the_other_context_is_not_gone_on_with(tmp_path):
  result = _train(tmp_path, '--context=in_process', FAKE_CRASH='fedaot')
  assert result.stderr.startswith('context: in_process, nowhere on GPU ')
  other = _train(tmp_path)
  assert other.returncode == 1
  assert other.stderr == (
      f"train: {tmp_path} holds a run with context='in_process', not 'native';"
      ' choose another --output_dir or add --overwrite.\n'
  )
  result = _train(tmp_path, '--context=in_process', '--quiet')
  assert (result.returncode, result.stderr) == (0, '')
  settings = json.loads((tmp_path / 'settings.json').read_text())
  assert settings['context'] == 'in_process'
  result = _train(tmp_path, '--context=in_process', '--overwrite')
  assert result.stderr.endswith(' was not busy\n')


def test_run_from_before_there_was_a_choice_of_context_is_native(tmp_path):
  _train(tmp_path, '--checkpoint_every=1', FAKE_CRASH='fedaot')
  path = tmp_path / 'run.json'
  record = json.loads(path.read_text())
  del record['settings']['context']
  path.write_text(json.dumps(record))
  result = _train(tmp_path, '--context=in_process')
  assert "context='native', not 'in_process'" in result.stderr
  result = _train(tmp_path, '--checkpoint_every=1')
  assert result.returncode == 0
  assert 'goes on after the checkpoint of round 1' in result.stderr


def test_run_of_other_code_is_not_gone_on_with(tmp_path):
  _train(tmp_path, FAKE_CRASH='fedaot')
  path = tmp_path / 'run.json'
  record = json.loads(path.read_text())
  record['versions']['numpy'] = '1.0'
  path.write_text(json.dumps(record))
  before = _contents(tmp_path)
  result = _train(tmp_path)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith(f"train: {tmp_path} holds a run with numpy='1.0', not")
  assert line.endswith('choose another --output_dir or add --overwrite.')
  # But for the row that the crash left unfinished.
  del before['metrics.csv']
  after = _contents(tmp_path)
  assert after.pop('metrics.csv').count('\n') == 2
  assert after == before


def test_rows_of_unknown_origin_are_left_alone(tmp_path):
  _train(tmp_path, FAKE_CRASH='fedaot')
  (tmp_path / 'run.json').unlink()
  result = _train(tmp_path)
  assert result.returncode == 1
  assert 'holds a run without run.json; choose another' in result.stderr


def _contents(folder):
  """The texts of the files by their names."""
  return {
      path.relative_to(folder).as_posix(): path.read_text()
      for path in folder.rglob('*')
      if path.is_file()
  }


def _results(folder):
  """What must not depend on interruptions."""
  return (
      programs.read_columns(folder / 'metrics.csv', 2),
      (folder / 'weights.csv').read_text(),
  )


@pytest.mark.parametrize('checkpoint_every', [1, 3, 10])
def test_run_goes_on_after_a_kill(tmp_path, checkpoint_every):
  flag = f'--checkpoint_every={checkpoint_every}'
  crashed, whole = tmp_path / 'crashed', tmp_path / 'whole'
  _train(crashed, flag, FAKE_CRASH='fedaot')
  assert programs.read_lines(crashed / 'metrics.csv')[-1] == '2,0.1'
  result = _train(crashed, flag)
  assert result.returncode == 0, result.stderr
  told = f'{crashed}: goes on after the checkpoint of round 1\n'
  assert result.stderr == (told if checkpoint_every == 1 else '')
  _train(whole, flag)
  assert _results(crashed) == _results(whole)
  first, second = (
      json.loads((folder / 'run.json').read_text())
      for folder in (crashed, whole)
  )
  assert len(first['continued']) == 1
  assert 'continued' not in second


def _start(output_dir, *arguments, **environment):
  return programs.start(
      'tests.binaries.fake_program', 'train', f'--output_dir={output_dir}',
      *arguments, **environment,
  )


def _await_rows(output_dir, num_rows=1, seconds=60):
  path = output_dir / 'metrics.csv'
  deadline = time.monotonic() + seconds
  while len(csv_log.read_rows(path)) < num_rows:
    assert time.monotonic() < deadline
    time.sleep(0.005)


def test_run_survives_kills_at_random_moments(tmp_path):
  arguments = ('--quiet', '--rounds=60', '--checkpoint_every=2')
  killed, whole = tmp_path / 'killed', tmp_path / 'whole'
  _train(whole, *arguments)
  moments = random.Random(0)
  num_rows, num_kills = 0, 0
  while num_kills < 8:
    process = _start(killed, *arguments, FAKE_SECONDS='0.02')
    # A round and its checkpoint take about 60 ms.
    _await_rows(killed, min(num_rows + 1, 60))
    time.sleep(moments.uniform(0, 0.3))
    process.kill()
    process.communicate(timeout=60)
    num_kills += process.returncode == -signal.SIGKILL
    num_rows = len(csv_log.read_rows(killed / 'metrics.csv'))
    if num_rows == 60:
      break
  assert num_kills >= 4
  result = _train(killed, *arguments)
  assert (result.returncode, result.stderr) == (0, '')
  assert _results(killed) == _results(whole)
  assert not list((killed / 'checkpoints').glob('*_temp*'))


def test_torn_checkpoint_is_passed_over(tmp_path):
  arguments = ('--rounds=9', '--checkpoint_every=2')
  torn, whole = tmp_path / 'torn', tmp_path / 'whole'
  _train(whole, *arguments)
  shutil.copytree(whole, torn)
  lines = programs.read_lines(torn / 'metrics.csv')
  (torn / 'metrics.csv').write_text('\n'.join(lines[:9]) + '\n')
  state = torn / 'checkpoints' / 'round_8' / 'state.json'
  state.write_text(state.read_text()[:100])
  result = _train(torn, *arguments, '--quiet')
  assert result.returncode == 0
  assert result.stderr == (
      'fedaot, none: the checkpoint of round 8 cannot be read\n'
  )
  assert _results(torn) == _results(whole)


def test_checkpoint_after_the_last_row_is_not_used(tmp_path):
  # As after a power failure that the rows did not survive.
  arguments = ('--rounds=9', '--checkpoint_every=2')
  torn, whole = tmp_path / 'torn', tmp_path / 'whole'
  _train(whole, *arguments)
  shutil.copytree(whole, torn)
  lines = programs.read_lines(torn / 'metrics.csv')
  (torn / 'metrics.csv').write_text('\n'.join(lines[:6]) + '\n')
  result = _train(torn, *arguments)
  assert 'goes on after the checkpoint of round 4' in result.stderr
  assert _results(torn) == _results(whole)


def test_second_program_on_a_folder_is_refused(tmp_path):
  process = _start(tmp_path, FAKE_ENDLESS='fedaot')
  try:
    _await_rows(tmp_path)
    before = _contents(tmp_path)
    for arguments in ((), ('--seed=1',), ('--overwrite',)):
      second = _train(tmp_path, *arguments)
      assert second.returncode == 1
      assert second.stderr == (
          f'train: another program is writing {tmp_path}/metrics.csv; wait'
          ' until it has ended.\n'
      )
    assert _contents(tmp_path) == before
  finally:
    process.kill()
    process.communicate(timeout=60)


@pytest.mark.skipif(
    not sys.platform.startswith('linux') or os.geteuid() != 0,
    reason='mounting a small disk needs root on Linux',
)
@pytest.mark.parametrize('checkpoint_every', [1, 5000])
def test_full_disk_is_one_line_and_loses_nothing(tmp_path, checkpoint_every):
  disk, copy, whole = (tmp_path / name for name in ('disk', 'copy', 'whole'))
  arguments = (
      '--quiet', '--rounds=1000', f'--checkpoint_every={checkpoint_every}'
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
    # The second time it is full from the start.
    for _ in range(2):
      result = _train(disk, *arguments)
      assert result.returncode == 1
      (line,) = result.stderr.splitlines()
      assert line.startswith('train: ')
      assert 'No space left on device' in line
      written = programs.read_columns(disk / 'metrics.csv', 2)
      assert 2 < len(written) < 1001
      assert (disk / 'metrics.csv').read_text().endswith('\n')
    shutil.copytree(disk, copy)
  finally:
    subprocess.run(['umount', disk], check=True)
  result = _train(copy, *arguments, '--checkpoint_every=5000')
  assert (result.returncode, result.stderr) == (0, '')
  _train(whole, *arguments, '--checkpoint_every=5000')
  assert _results(copy) == _results(whole)
  assert _results(whole)[0][: len(written)] == written


def test_file_size_limit_is_one_line_and_loses_nothing(tmp_path):
  output = tmp_path / 'out'
  whole = tmp_path / 'whole'
  _train(whole, '--quiet', '--rounds=200')
  limit = (whole / 'metrics.csv').stat().st_size // 2
  result = subprocess.run(
      [
          sys.executable, '-c',
          # Python ignores SIGXFSZ, so writing fails with EFBIG.
          'import os, resource, sys;'
          f'resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));'
          'os.execv(sys.argv[1], sys.argv[1:])',
          sys.executable, '-m', 'tests.binaries.fake_program', 'train',
          f'--output_dir={output}', '--quiet', '--rounds=200',
      ],
      cwd=programs.ROOT, capture_output=True, text=True, check=False,
  )
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert 'File too large' in line
  written = programs.read_lines(output / 'metrics.csv')
  assert 50 < len(written) < 150
  again = _train(output, '--quiet', '--rounds=200')
  assert (again.returncode, again.stderr) == (0, '')
  assert _results(output) == _results(whole)


def test_run_json_tells_what_made_the_run(tmp_path):
  _train(tmp_path, '--seed=3', '--aggregator=mean')
  record = json.loads((tmp_path / 'run.json').read_text())
  assert record['seed'] == 3
  assert '--seed=3' in record['command']
  assert record['flags']['rounds'] == 4
  assert record['flags']['checkpoint_every'] == 10
  assert record['settings']['aggregator'] == 'mean'
  assert set(record['versions']) >= {
      'python', 'tensorflow', 'tensorflow_federated', 'numpy', 'fedaot_tff',
  }
  assert record['machine']['cores'] >= 1
  assert 'started' in record


@pytest.mark.parametrize('value', ['0', '-3', 'x'])
def test_checkpoint_every_is_checked(tmp_path, value):
  result = _train(tmp_path, f'--checkpoint_every={value}')
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert 'checkpoint_every' in line
  assert os.listdir(tmp_path) == []


def test_failure_is_one_line_with_the_traceback_in_a_file(tmp_path):
  result = _train(tmp_path, '--quiet', FAKE_FAILURE='fedaot')
  assert result.returncode == 1
  path = tmp_path / 'error.txt'
  assert result.stderr == f'train: something is wrong (traceback: {path})\n'
  assert 'Traceback' in path.read_text()
  assert len(csv_log.read_rows(tmp_path / 'metrics.csv')) == 1
  assert _train(tmp_path).returncode == 0
  assert not path.exists()


def test_model_that_is_not_finite_is_told_once(tmp_path):
  result = _train(tmp_path, '--quiet', FAKE_NOT_FINITE='fedaot')
  assert result.returncode == 0
  assert result.stderr == (
      'fedaot, none: the model is not finite from round 2 on\n'
  )
  rows = csv_log.read_rows(tmp_path / 'metrics.csv')
  assert [row['model_is_finite'] for row in rows] == [
      'True', 'False', 'False', 'False',
  ]


def test_interrupt_keeps_the_rows_and_tells_how_to_go_on(tmp_path):
  process = _start(
      tmp_path, '--overwrite', '--checkpoint_every=1', FAKE_ENDLESS='fedaot'
  )
  _await_rows(tmp_path)
  interrupted = time.monotonic()
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert time.monotonic() - interrupted < 10
  assert process.returncode == 130
  first, second = errors.splitlines()
  assert first == 'train: interrupted; what was written is kept.'
  assert second.endswith(
      f'-m tests.binaries.fake_program --output_dir={tmp_path} --overwrite'
      ' --checkpoint_every=1 --nooverwrite'
  )
  assert len(csv_log.read_rows(tmp_path / 'metrics.csv')) == 1
  result = _train(tmp_path, '--overwrite', '--nooverwrite', '--rounds=4')
  assert result.returncode == 1
  assert 'rounds=' in result.stderr


def test_file_in_place_of_the_output_folder(tmp_path):
  file = tmp_path / 'file'
  file.touch()
  result = _train(file)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert f'cannot write to the output folder {file}' in line


def test_training_in_this_process(tmp_path):
  result = programs.run(
      'binaries.train',
      '--task=mnist5k',
      '--context=in_process',
      '--aggregator=mean',
      '--num_clients=8',
      '--cohort_size=5',
      '--client_epochs=1',
      '--rounds=1',
      f'--output_dir={tmp_path}',
  )
  assert result.returncode == 0, result.stderr
  placement, *_ = result.stderr.splitlines()
  assert placement.startswith('context: in_process, clients on ')
  assert placement.count('context') == 1 and ', server on ' in placement
  (row,) = csv_log.read_rows(tmp_path / 'metrics.csv')
  # Ten classes: a guess is right once in ten times.
  assert float(row['test_accuracy']) > 0.3
  for name in ('settings.json', 'run.json'):
    content = json.loads((tmp_path / name).read_text())
    assert content.get('settings', content)['context'] == 'in_process'


@pytest.mark.slow
def test_equal_settings_give_equal_runs(tmp_path):
  for name in ('a', 'b'):
    result = programs.run(
        'binaries.train',
        '--aggregator=fedaot',
        '--attack=sign_flip',
        '--num_clients=8',
        '--cohort_size=5',
        '--rounds=3',
        f'--output_dir={tmp_path / name}',
    )
    assert result.returncode == 0, result.stderr
    assert 'Traceback' not in result.stderr
    assert not (tmp_path / name / 'error.txt').exists()
  a, b = (
      programs.read_columns(tmp_path / name / 'metrics.csv', 2)
      for name in ('a', 'b')
  )
  assert a == b
  rows = csv_log.read_rows(tmp_path / 'a' / 'metrics.csv')
  # Ten classes: a loss below that of a uniform guess goes with an accuracy
  # above it.
  assert float(rows[-1]['test_loss']) < 2.3
  assert float(rows[-1]['test_accuracy']) > 0.2
  assert [row['num_attackers'] for row in rows] == ['2'] * 3
  assert all(0 <= float(row['attacker_weight']) <= 1 for row in rows)
  assert all(0 <= float(row['detection_auroc']) <= 1 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize('aggregator', ['fedaot', 'fedaot_no_holdout'])
def test_real_run_survives_kills_at_random_moments(tmp_path, aggregator):
  arguments = (
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
    process = programs.start(
        'binaries.train', *arguments, f'--output_dir={killed}'
    )
    # In a round, or in the checkpoint that follows on an even one.
    _await_rows(killed, num_rows, seconds=200)
    time.sleep(moments.uniform(0, 0.5))
    process.kill()
    assert process.communicate(timeout=60) == ('', '')
  for folder in (killed, whole):
    result = programs.run(
        'binaries.train', *arguments, f'--output_dir={folder}'
    )
    assert (result.returncode, result.stderr) == (0, '')
  assert _results(killed) == _results(whole)
  assert len(programs.read_lines(killed / 'metrics.csv')) == 9
