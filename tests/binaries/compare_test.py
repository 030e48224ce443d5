"""Tests for compare."""

import json
import os
import pathlib
import random
import signal
import sys
import time

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


_DEFAULTS = (
    '--rounds=3',
    '--aggregators=mean,krum:num_byzantine=2,fedaot',
    '--attacks=none,sign_flip',
    '--noreport',
)

linux_only = pytest.mark.skipif(
    sys.platform != 'linux', reason='reads the processes from /proc'
)


def _compare(output_dir, *arguments, **environment):
  return programs.run_fake(
      'compare',
      f'--output_dir={output_dir}',
      *_DEFAULTS,
      *arguments,
      **environment,
  )


def _start(output_dir, *arguments, **environment):
  return programs.start(
      'tests.binaries.fake_program',
      'compare',
      f'--output_dir={output_dir}',
      *_DEFAULTS,
      *arguments,
      **environment,
  )


def _wait_until(condition, seconds=60.0):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def _workers(parent: int):
  """The ids of the worker processes of a program."""
  ids = []
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      status = (path / 'stat').read_text().rpartition(')')[2].split()
      command = (path / 'cmdline').read_text()
    except OSError:
      continue  # It has just ended.
    if status[1] == str(parent) and 'spawn_main' in command:
      ids.append(int(path.name))
  return ids


def _is_alive(pid: int) -> bool:
  try:
    status = pathlib.Path(f'/proc/{pid}/stat').read_text()
  except OSError:
    return False
  return status.rpartition(')')[2].split()[0] != 'Z'


def _untimed(output_dir):
  """All that is measured, but times; by the path of the file."""
  found = {
      'results.csv': programs.read_columns(output_dir / 'results.csv', 1)
  }
  for path in sorted(output_dir.glob('runs/*/*')):
    name = str(path.relative_to(output_dir))
    if path.name == 'metrics.csv':
      found[name] = programs.read_columns(path, 2)
    elif path.name == 'weights.csv':
      found[name] = programs.read_lines(path)
    else:
      assert path.name not in ('error.txt', 'worker.log')
  return found


def _finished(output_dir):
  """The runs in results.csv."""
  rows = csv_log.read_rows(output_dir / 'results.csv')
  return [(row['aggregator'], row['attack'], row['seed']) for row in rows]


@pytest.fixture(name='whole', scope='module')
def _make_whole(tmp_path_factory):
  """The folder of a comparison that nothing happened to, and its output."""
  folder = tmp_path_factory.mktemp('whole')
  result = _compare(folder)
  assert result.returncode == 0, result.stderr
  return folder, result.stdout


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


def test_crash_costs_the_run_in_progress_only(tmp_path, whole):
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
  folder, output = whole
  assert output.replace(str(folder), f'{tmp_path}/crashed') == resumed.stdout
  assert programs.read_columns(results, 1) == programs.read_columns(
      folder / 'results.csv', 1
  )
  run = 'runs/mnist5k-fedaot-none-0.4-0/metrics.csv'
  assert programs.read_columns(
      tmp_path / 'crashed' / run, 2
  ) == programs.read_columns(folder / run, 2)


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
        ('--context=in_process', "context='native', not 'in_process'"),
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


def test_two_workers_find_what_one_finds(tmp_path):
  arguments = ('--seeds=0,1', '--byzantine_fractions=0.2,0.4')
  one = _compare(tmp_path / 'one', *arguments)
  two = _compare(tmp_path / 'two', *arguments, '--num_workers=2')
  assert two.returncode == one.returncode == 0, two.stderr
  assert two.stdout.replace('/two/', '/one/') == one.stdout
  found = _untimed(tmp_path / 'two')
  assert found == _untimed(tmp_path / 'one')
  assert len(found['results.csv']) == 1 + 2 * 2 * 3 * 2
  lines = [line.partition(':')[0] for line in one.stderr.splitlines()]
  assert len(lines) == 24
  assert lines[0] == '1/24 mean, none, 20%, seed 0'


def test_comparison_from_before_there_was_a_choice_of_context(tmp_path):
  first = _compare(tmp_path)
  for path in (tmp_path / 'settings.json', *tmp_path.glob('runs/*/run.json')):
    content = json.loads(path.read_text())
    del content.get('settings', content)['context']
    path.write_text(json.dumps(content))
  (tmp_path / 'results.csv').unlink()
  again = _compare(tmp_path, '--quiet')
  assert (again.returncode, again.stderr) == (0, '')
  assert again.stdout == first.stdout


@pytest.mark.parametrize('num_workers', [1, 2, 3])
def test_workers_take_gpus_in_turn(tmp_path, num_workers):
  result = _compare(
      tmp_path,
      '--context=in_process',
      f'--num_workers={num_workers}',
      CUDA_VISIBLE_DEVICES='5,7',
  )
  assert result.returncode == 0, result.stderr
  notes = [
      line for line in result.stderr.splitlines() if line.startswith('context')
  ]
  gpus = ['5,7'] if num_workers == 1 else ['5', '7']
  assert sorted(notes) == [
      f'context: in_process, nowhere on GPU {gpu}' for gpu in gpus
  ]
  reports = [line.split(': ') for line in result.stderr.splitlines()]
  remarked = [(label, text) for label, text in reports if 'busy' in text]
  assert {text for _, text in remarked} <= {
      f'GPU {gpu} was not busy' for gpu in gpus
  }
  assert sorted(label for label, _ in remarked) == sorted(
      label for label, text in reports if text.startswith('test accuracy')
  )


def test_results_are_in_the_order_of_the_grid(tmp_path):
  assert _compare(tmp_path, '--seeds=1', '--attacks=none').returncode == 0
  failed = _compare(
      tmp_path, '--num_workers=3', '--seeds=0', FAKE_FAILURE='mean'
  )
  assert failed.returncode == 1
  result = _compare(tmp_path, '--seeds=0', '--num_workers=2')
  assert result.returncode == 0, result.stderr
  krum = 'krum:num_byzantine=2'
  assert _finished(tmp_path) == [
      # What the grid does not hold keeps its place.
      ('mean', 'none', '1'), (krum, 'none', '1'), ('fedaot', 'none', '1'),
      ('mean', 'none', '0'), ('mean', 'sign_flip', '0'),
      (krum, 'none', '0'), (krum, 'sign_flip', '0'),
      ('fedaot', 'none', '0'), ('fedaot', 'sign_flip', '0'),
  ]


def test_killed_worker_costs_its_run_only(tmp_path, whole):
  killed = _compare(
      tmp_path, '--num_workers=2', '--quiet', FAKE_DEATH='fedaot'
  )
  assert killed.returncode == 1
  *failures, last = sorted(killed.stderr.splitlines())
  assert last == (
      'compare: 2 of 6 runs failed; the same command tries them again.'
  )
  assert len(failures) == 2
  for line, (number, attack) in zip(
      failures, [(5, 'none'), (6, 'sign_flip')]
  ):
    run_folder = tmp_path / f'runs/mnist5k-fedaot-{attack}-0.4-0'
    error_file = run_folder / 'error.txt'
    assert line.startswith(
        f'{number}/6 fedaot, {attack}, 40%, seed 0: failed: the worker process '
    )
    assert ' was killed by SIGKILL (often a sign that memory ran short)' in line
    assert line.endswith(
        f'; its output is in {run_folder}/worker.log (traceback: {error_file})'
    )
    assert 'was killed by SIGKILL' in error_file.read_text()
    assert (run_folder / 'worker.log').read_text() == 'last words\n'
  assert len(_finished(tmp_path)) == 4
  again = _compare(tmp_path, '--num_workers=2')
  assert again.returncode == 0, again.stderr
  assert _untimed(tmp_path) == _untimed(whole[0])


@linux_only
def test_killed_again_and_again_it_ends_with_the_same(tmp_path):
  moments = random.Random(0)
  finished = 0
  arguments = ('--num_workers=2', '--rounds=12')
  for _ in range(3):
    process = _start(tmp_path, *arguments, FAKE_SECONDS='0.2')
    # The last run of the grid has but one worker.
    _wait_until(lambda: _workers(process.pid) or process.poll() is not None)
    time.sleep(moments.uniform(0, 1.5))
    workers = _workers(process.pid)
    process.kill()
    process.communicate()
    _wait_until(lambda: not any(map(_is_alive, workers)), seconds=30)
    assert len(_finished(tmp_path)) >= finished
    finished = len(_finished(tmp_path))
  assert finished < 6
  result = _compare(tmp_path, *arguments)
  assert result.returncode == 0, result.stderr
  assert _compare(tmp_path / 'whole', '--rounds=12').returncode == 0
  assert _untimed(tmp_path) == _untimed(tmp_path / 'whole')


@linux_only
def test_interrupt_ends_the_workers_and_tells_how_to_go_on(tmp_path):
  process = _start(tmp_path, '--num_workers=2', FAKE_ENDLESS='mean')
  in_progress = [
      tmp_path / f'runs/mnist5k-mean-{attack}-0.4-0/metrics.csv'
      for attack in ('none', 'sign_flip')
  ]
  # The other workers have done what is left, and one has stolen the second.
  _wait_until(
      lambda: all(len(csv_log.read_rows(path)) == 1 for path in in_progress)
  )
  workers = _workers(process.pid)
  assert len(workers) == 2
  # A terminal sends it to all.
  for pid in (*workers, process.pid):
    os.kill(pid, signal.SIGINT)
  _, errors = process.communicate(timeout=10)
  assert process.returncode == 130
  _wait_until(lambda: not any(map(_is_alive, workers)), seconds=30)
  *_, first, second = errors.splitlines()
  assert first == 'compare: interrupted; what was written is kept.'
  assert second.startswith('To go on: ')
  assert f' --output_dir={tmp_path} --rounds=3 ' in second
  assert second.endswith(' --num_workers=2')
  assert 'Traceback' not in errors
  assert len(_finished(tmp_path)) == 4


def test_second_comparison_in_a_folder_is_refused(tmp_path):
  process = _start(tmp_path, FAKE_ENDLESS='krum:num_byzantine=2')
  _wait_until(lambda: len(_finished(tmp_path)) == 2)
  result = _compare(tmp_path, '--num_workers=2')
  process.kill()
  process.communicate()
  assert result.returncode == 1
  assert result.stderr == (
      f'compare: another program is writing to {tmp_path}; wait until it has'
      ' ended or choose another --output_dir.\n'
  )
  assert _compare(tmp_path).returncode == 0


@pytest.mark.parametrize('num_workers', ['0', '-1', 'many'])
def test_impossible_number_of_workers_is_refused(tmp_path, num_workers):
  result = _compare(tmp_path / 'new', f'--num_workers={num_workers}')
  assert result.returncode == 1
  (line,) = result.stderr.splitlines()
  assert line.startswith(f'compare: flag --num_workers={num_workers}: ')
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize('num_workers', [1, 2])
def test_missing_package_is_told_once(tmp_path, num_workers):
  result = _compare(tmp_path, f'--num_workers={num_workers}', FAKE_MISSING='1')
  assert result.returncode == 1
  assert result.stderr == (
      "compare: No module named 'tensorflow'; install what requirements.txt"
      ' lists.\n'
  )


def test_report_is_the_last_thing_told(tmp_path):
  result = _compare(tmp_path, '--report', '--quiet')
  assert result.returncode == 0
  assert result.stderr == ''
  assert result.stdout.splitlines()[-1] == f'{tmp_path}/report.html'
  page = (tmp_path / 'report.html').read_text()
  assert '6 of 6 runs have a result' in page
  assert (tmp_path / 'report').is_dir()


def test_record_spells_the_axes_out(tmp_path):
  result = _compare(
      tmp_path, '--attacks=none', '--aggregators=all', '--rounds=1',
      '--byzantine_fractions=0.2', '--seeds=1,2',
  )
  assert result.returncode == 0
  record = json.loads((tmp_path / 'run.json').read_text())
  assert record['flags']['aggregators'] == list(registry.aggregator_names())
  assert record['flags']['attacks'] == ['none']
  assert record['flags']['byzantine_fractions'] == [0.2]
  assert record['flags']['seeds'] == record['seed'] == [1, 2]
  assert record['flags']['rounds'] == 1


@pytest.mark.slow
def test_comparison_of_trained_models(tmp_path):
  arguments = (
      '--attacks=label_flip',
      '--num_clients=8',
      '--cohort_size=5',
      '--rounds=2',
      '--noreport',
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


@pytest.mark.slow
def test_workers_train_as_one_process_does(tmp_path):
  arguments = (
      '--aggregators=fedaot',
      '--attacks=none,label_flip',
      '--num_clients=8',
      '--cohort_size=5',
      '--rounds=2',
      '--noreport',
  )
  for num_workers in (1, 2):
    result = programs.run(
        'binaries.compare',
        *arguments,
        f'--num_workers={num_workers}',
        f'--output_dir={tmp_path}/{num_workers}',
    )
    assert result.returncode == 0, result.stderr
  assert programs.read_columns(
      tmp_path / '1' / 'results.csv', 1
  ) == programs.read_columns(tmp_path / '2' / 'results.csv', 1)
