"""Tests for compare."""

import signal

from matplotlib import image
import pytest

from binaries import csv_log
from fedaot_tff.aggregators import registry
from tests.binaries import programs

_RESULTS_COLUMNS = [
    'task', 'aggregator', 'attack', 'byzantine_fraction', 'seed', 'rounds',
    'test_accuracy', 'attack_success_rate', 'attacker_weight',
    'detection_auroc', 'relative_deviation', 'seconds_per_round',
]


def _compare(output_dir, *arguments, **environment):
  return programs.run_fake(
      'compare',
      f'--output_dir={output_dir}',
      '--rounds=3',
      '--aggregators=mean,krum:num_byzantine=2,fedaot',
      '--attacks=none,sign_flip',
      *arguments,
      **environment,
  )


def _finished(output_dir):
  """The runs in results.csv."""
  rows = csv_log.read_rows(output_dir / 'results.csv')
  return [(row['aggregator'], row['attack'], row['seed']) for row in rows]


def test_all_results_are_written(tmp_path):
  result = _compare(tmp_path, '--seeds=0,7', '--byzantine_fractions=0.2,0.4')
  assert result.returncode == 0, result.stderr
  rows = csv_log.read_rows(tmp_path / 'results.csv')
  assert list(rows[0]) == _RESULTS_COLUMNS
  assert len(rows) == 3 * 2 * 2 * 2
  run = 'mnist5k-krum_num_byzantine=2-sign_flip-0.2-7'
  metrics = csv_log.read_rows(tmp_path / 'runs' / run / 'metrics.csv')
  (row,) = [
      r
      for r in rows
      if r['aggregator'].startswith('krum')
      and (r['attack'], r['byzantine_fraction'], r['seed'])
      == ('sign_flip', '0.2', '7')
  ]
  assert row['test_accuracy'] == metrics[-1]['test_accuracy']
  assert row['rounds'] == '3'
  assert row['attack_success_rate'] == ''
  height, width = image.imread(tmp_path / 'comparison.png').shape[:2]
  assert min(height, width) > 500
  markdown = (tmp_path / 'comparison.md').read_text()
  for fraction in ('20%', '40%'):
    assert f'{fraction} attackers' in markdown
    assert f'{fraction} attackers' in result.stdout
  assert '\n| krum:num_byzantine=2 | ' in markdown
  assert '\nkrum:num_byzantine=2  ' in result.stdout
  assert f'See {tmp_path}/comparison.png' in result.stdout


def test_all_stands_for_every_aggregator(tmp_path):
  result = _compare(
      tmp_path, '--aggregators=all,nnm+mean', '--attacks=none', '--rounds=1'
  )
  assert result.returncode == 0, result.stderr
  assert [name for name, _, _ in _finished(tmp_path)] == [
      *registry.aggregator_names(), 'nnm+mean',
  ]
  assert (tmp_path / 'runs' / 'mnist5k-nnm_mean-none-0.4-0').is_dir()


def test_second_call_runs_nothing_and_tells_the_same(tmp_path):
  first = _compare(tmp_path)
  results = (tmp_path / 'results.csv').read_text()
  second = _compare(tmp_path, FAKE_FAILURE='mean')
  assert second.returncode == 0
  assert second.stdout == first.stdout
  assert second.stderr == ''
  assert (tmp_path / 'results.csv').read_text() == results


def test_comparison_can_be_extended(tmp_path):
  assert _compare(tmp_path).returncode == 0
  result = _compare(tmp_path, '--seeds=0,1', FAKE_FAILURE='nothing')
  assert result.returncode == 0
  assert len(result.stderr.splitlines()) == 6
  assert len(set(_finished(tmp_path))) == len(_finished(tmp_path)) == 12


def test_crash_costs_the_run_in_progress_only(tmp_path):
  crashed = _compare(tmp_path / 'crashed', FAKE_CRASH='fedaot')
  assert crashed.returncode == -signal.SIGKILL
  results = tmp_path / 'crashed' / 'results.csv'
  assert programs.read_lines(results)[-1] == 'mnist5k,me'
  before = programs.read_lines(results)[:-1]
  assert len(before) == 5
  resumed = _compare(tmp_path / 'crashed')
  assert resumed.returncode == 0, resumed.stderr
  assert len(resumed.stderr.splitlines()) == 2
  assert programs.read_lines(results)[:5] == before
  whole = _compare(tmp_path / 'whole')
  assert whole.stdout.replace('whole', 'crashed') == resumed.stdout
  assert programs.read_columns(results, 1) == programs.read_columns(
      tmp_path / 'whole' / 'results.csv', 1
  )
  run = 'runs/mnist5k-fedaot-none-0.4-0/metrics.csv'
  assert programs.read_columns(
      tmp_path / 'crashed' / run, 2
  ) == programs.read_columns(tmp_path / 'whole' / run, 2)


def test_failed_run_does_not_stop_the_others(tmp_path):
  failed = _compare(
      tmp_path, '--quiet', FAKE_FAILURE='krum:num_byzantine=2'
  )
  assert failed.returncode == 1
  run = 'mnist5k-krum_num_byzantine=2-none-0.4-0'
  error_file = tmp_path / 'runs' / run / 'error.txt'
  lines = failed.stderr.splitlines()
  assert lines[0] == (
      '3/6 krum:num_byzantine=2, none, 40%, seed 0: failed: something is wrong'
      f' (traceback: {error_file})'
  )
  assert lines[2] == (
      'compare: 2 of 6 runs failed; the same command tries them again.'
  )
  assert len(lines) == 3
  assert 'Traceback' in error_file.read_text()
  assert [aggregator for aggregator, _, _ in _finished(tmp_path)] == [
      'mean', 'mean', 'fedaot', 'fedaot',
  ]
  assert 'krum:num_byzantine=2     -          -        -' in failed.stdout
  assert (tmp_path / 'comparison.png').exists()
  again = _compare(tmp_path, '--quiet')
  assert again.returncode == 0
  assert len(_finished(tmp_path)) == 6
  assert not error_file.exists()


@pytest.mark.parametrize(
    'argument, difference',
    [
        ('--rounds=4', 'rounds=3, not 4'),
        ('--model=cnn', "model='mlp', not 'cnn'"),
    ],
)
def test_other_settings_are_refused(tmp_path, argument, difference):
  assert _compare(tmp_path).returncode == 0
  result = _compare(tmp_path, argument)
  assert result.returncode == 1
  assert result.stderr == (
      f'compare: {tmp_path} holds a comparison with {difference}; choose'
      ' another --output_dir.\n'
  )


def test_flag_file_of_the_demo_is_valid(tmp_path):
  result = programs.run_fake(
      'compare',
      '--flagfile=binaries/flags/demo.cfg',
      f'--output_dir={tmp_path}',
  )
  assert result.returncode == 0, result.stderr
  assert len(_finished(tmp_path)) == 21


@pytest.mark.slow
def test_comparison_of_trained_models(tmp_path):
  arguments = (
      '--attacks=label_flip',
      '--num_clients=8',
      '--cohort_size=5',
      '--rounds=2',
      f'--output_dir={tmp_path}',
  )
  result = programs.run(
      'binaries.compare', '--aggregators=mean,fedaot', *arguments
  )
  assert result.returncode == 0, result.stderr
  assert len(result.stderr.splitlines()) <= 6
  assert _finished(tmp_path) == [
      ('mean', 'label_flip', '0'), ('fedaot', 'label_flip', '0'),
  ]
  before = (tmp_path / 'results.csv').read_text()
  # Nobody is left to be honest.
  result = programs.run(
      'binaries.compare',
      '--aggregators=mean',
      '--byzantine_fractions=0.4,0.95',
      *arguments,
  )
  assert result.returncode == 1
  first, *_, last = result.stderr.splitlines()
  assert 'mean, label_flip, 95%, seed 0: failed: ' in first
  assert last.startswith('compare: 1 of 2 runs failed')
  assert 'Traceback' not in result.stderr
  assert (tmp_path / 'results.csv').read_text() == before
