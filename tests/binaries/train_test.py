"""Tests for train."""

import json
import signal
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


def test_finished_run_is_kept_unless_overwritten(tmp_path):
  assert _train(tmp_path).returncode == 0
  before = (tmp_path / 'metrics.csv').read_text()
  again = _train(tmp_path)
  assert again.returncode == 1
  assert again.stderr == (
      f'train: {tmp_path} holds a finished run; choose another --output_dir or'
      ' add --overwrite.\n'
  )
  assert (tmp_path / 'metrics.csv').read_text() == before
  assert _train(tmp_path, '--overwrite', '--seed=1').returncode == 0
  assert (tmp_path / 'metrics.csv').read_text() != before


def test_unfinished_run_is_kept_if_its_settings_differ(tmp_path):
  assert _train(tmp_path, FAKE_CRASH='fedaot').returncode == -signal.SIGKILL
  assert programs.read_lines(tmp_path / 'metrics.csv')[-1] == '2,0.1'
  other = _train(tmp_path, '--seed=1')
  assert other.returncode == 1
  assert other.stderr == (
      f'train: {tmp_path} holds a run with seed=0, not 1; choose another'
      ' --output_dir or add --overwrite.\n'
  )


def test_unfinished_run_with_the_same_settings_is_started_over(tmp_path):
  _train(tmp_path / 'crashed', FAKE_CRASH='fedaot')
  result = _train(tmp_path / 'crashed')
  assert result.returncode == 0, result.stderr
  _train(tmp_path / 'whole')
  assert programs.read_columns(
      tmp_path / 'crashed' / 'metrics.csv', 2
  ) == programs.read_columns(tmp_path / 'whole' / 'metrics.csv', 2)


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


def test_interrupt_keeps_the_rows(tmp_path):
  process = programs.start(
      'tests.binaries.fake_program',
      'train',
      f'--output_dir={tmp_path}',
      FAKE_ENDLESS='fedaot',
  )
  path = tmp_path / 'metrics.csv'
  deadline = time.monotonic() + 60
  while not csv_log.read_rows(path) and time.monotonic() < deadline:
    time.sleep(0.05)
  interrupted = time.monotonic()
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert time.monotonic() - interrupted < 10
  assert process.returncode == 130
  assert errors == 'train: interrupted; what was written is kept.\n'
  assert len(csv_log.read_rows(path)) == 1


def test_file_in_place_of_the_output_folder(tmp_path):
  file = tmp_path / 'file'
  file.touch()
  result = _train(file)
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert f'cannot write to the output folder {file}' in line


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
