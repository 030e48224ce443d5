"""Tests for compare, and for grid and worker_pool as it uses them."""

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

_KRUM = 'krum:num_byzantine=2'
_DEFAULTS = (
    '--rounds=3',
    f'--aggregators=mean,{_KRUM},fedaot',
    '--attacks=none,sign_flip',
    '--context=native',
    '--noreport',
)

linux_only = pytest.mark.skipif(
    sys.platform != 'linux', reason='reads the processes from /proc'
)


def _start(output_dir, *arguments, **environment):
  return programs.start_fake(
      'compare', f'--output_dir={output_dir}', *_DEFAULTS, *arguments,
      **{'FAKE_FIGURE': '1', **environment},
  )


def _compare(output_dir, *arguments, **environment):
  return programs.finish(_start(output_dir, *arguments, **environment))


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
  found = {'results.csv': programs.read_columns(output_dir / 'results.csv', 1)}
  for path in sorted(output_dir.glob('runs/*/*.csv')):
    name = str(path.relative_to(output_dir))
    num_times = 2 if path.name == 'metrics.csv' else 0
    found[name] = programs.read_columns(path, num_times)
  return found


def _finished(output_dir):
  rows = csv_log.read_rows(output_dir / 'results.csv')
  return [(row['aggregator'], row['attack'], row['seed']) for row in rows]


@pytest.fixture(name='whole', scope='module')
def _make_whole(tmp_path_factory):
  """The folder of a comparison that nothing happened to, and its output."""
  folder = tmp_path_factory.mktemp('whole')
  result = _compare(
      folder, '--seeds=0,7', '--byzantine_fractions=0.2,0.4', FAKE_FIGURE=''
  )
  assert result.returncode == 0, result.stderr
  return folder, result


@pytest.fixture(name='small', scope='module')
def _make_small(tmp_path_factory):
  """The folder of a comparison of one fraction and seed, and its output."""
  folder = tmp_path_factory.mktemp('small')
  result = _compare(folder)
  assert result.returncode == 0, result.stderr
  return folder, result.stdout


def test_all_results_are_written(whole):
  folder, result = whole
  rows = csv_log.read_rows(folder / 'results.csv')
  assert list(rows[0]) == [
      'task', 'aggregator', 'attack', 'byzantine_fraction', 'seed', 'rounds',
      'test_accuracy', 'attack_success_rate', 'attacker_weight',
      'detection_auroc', 'relative_deviation', 'seconds_per_round',
  ]
  assert len(rows) == 3 * 2 * 2 * 2
  run = 'mnist5k-krum_num_byzantine=2-sign_flip-0.2-7'
  metrics = csv_log.read_rows(folder / 'runs' / run / 'metrics.csv')
  (row,) = [
      r
      for r in rows
      if (r['aggregator'], r['attack'], r['byzantine_fraction'], r['seed'])
      == (_KRUM, 'sign_flip', '0.2', '7')
  ]
  assert row['test_accuracy'] == metrics[-1]['test_accuracy']
  assert row['rounds'] == '3'
  assert row['attack_success_rate'] == ''
  record = json.loads((folder / 'runs' / run / 'run.json').read_text())
  assert record['flags']['byzantine_fractions'] == ['0.2', '0.4']
  assert '--seeds=0,7' in record['command'].split()
  height, width = image.imread(folder / 'comparison.png').shape[:2]
  assert min(height, width) > 500
  markdown = (folder / 'comparison.md').read_text()
  for fraction in ('20%', '40%'):
    assert f'{fraction} attackers' in markdown
    assert f'{fraction} attackers' in result.stdout
  assert f'\n| {_KRUM} | ' in markdown
  assert f'\n{_KRUM}  ' in result.stdout
  *_, see = result.stdout.splitlines()
  assert see.startswith(f'See {folder}/comparison.png')
  assert not list(folder.glob('runs/*/checkpoints'))
  lines = result.stderr.splitlines()
  assert len(lines) == 24
  assert lines[0].startswith('1/24 mean, none, 20%, seed 0: ')


def test_report_is_the_last_thing_told(small):
  folder, output = small
  result = _compare(folder, '--report', FAKE_FIGURE='')
  assert result.returncode == 0
  assert result.stderr == 'writing the report on 6 runs\n'
  assert result.stdout == f'{output}{folder}/report.html\n'
  assert '6 of 6 runs have a result' in (folder / 'report.html').read_text()
  assert (folder / 'report').is_dir()


def test_workers_find_what_one_finds(tmp_path, whole):
  result = _compare(
      tmp_path, '--seeds=0,7', '--byzantine_fractions=0.2,0.4',
      '--num_workers=3',
  )
  assert result.returncode == 0, result.stderr
  assert len(result.stderr.splitlines()) == 24
  assert _untimed(tmp_path) == _untimed(whole[0])
  assert whole[1].stdout.replace(str(whole[0]), str(tmp_path)) == result.stdout


def test_all_stands_for_every_aggregator_and_is_recorded(tmp_path):
  result = _compare(
      tmp_path, '--aggregators=all,nnm+mean', '--attacks=none', '--rounds=1',
      '--byzantine_fractions=0.2', '--seeds=1,2',
  )
  assert result.returncode == 0, result.stderr
  names = [*registry.aggregator_names(), 'nnm+mean']
  assert _finished(tmp_path) == [
      (name, 'none', seed) for seed in '12' for name in names
  ]
  assert (tmp_path / 'runs' / 'mnist5k-nnm_mean-none-0.2-1').is_dir()
  record = json.loads((tmp_path / 'run.json').read_text())
  assert record['flags']['aggregators'] == names
  assert record['flags']['attacks'] == ['none']
  assert record['flags']['byzantine_fractions'] == [0.2]
  assert record['flags']['seeds'] == record['seed'] == [1, 2]
  assert record['flags']['rounds'] == 1


def test_second_call_runs_nothing_and_other_settings_are_refused(small):
  folder, output = small
  results = (folder / 'results.csv').read_text()
  second = _compare(folder, FAKE_FAILURE='mean')
  assert (second.returncode, second.stdout, second.stderr) == (0, output, '')
  for argument, difference in (
      ('--rounds=4', 'rounds=3, not 4'),
      ('--model=cnn', "model='mlp', not 'cnn'"),
      ('--context=in_process', "context='native', not 'in_process'"),
  ):
    result = _compare(folder, argument)
    assert result.returncode == 1
    assert result.stderr == (
        f'compare: {folder} holds a comparison with {difference}; choose'
        ' another --output_dir.\n'
    )
  assert (folder / 'results.csv').read_text() == results


def test_results_are_restored_from_the_runs(tmp_path):
  # As before there was a choice of context.
  first = _compare(tmp_path)
  for path in (tmp_path / 'settings.json', *tmp_path.glob('runs/*/run.json')):
    programs.change_json(
        path, lambda content: content.get('settings', content).pop('context')
    )
  (tmp_path / 'results.csv').unlink()
  again = _compare(tmp_path, '--quiet', FAKE_FAILURE='mean')
  assert (again.returncode, again.stderr) == (0, '')
  assert again.stdout == first.stdout


def test_comparison_can_be_extended(tmp_path):
  assert _compare(tmp_path, '--seeds=1', '--attacks=none').returncode == 0
  failed = _compare(
      tmp_path, '--num_workers=3', '--seeds=0', FAKE_FAILURE='mean'
  )
  assert failed.returncode == 1
  result = _compare(tmp_path, '--seeds=0', '--num_workers=2')
  assert result.returncode == 0, result.stderr
  assert len(result.stderr.splitlines()) == 2
  assert _finished(tmp_path) == [
      # What the grid does not hold comes first.
      ('mean', 'none', '1'), (_KRUM, 'none', '1'), ('fedaot', 'none', '1'),
      ('mean', 'none', '0'), ('mean', 'sign_flip', '0'),
      (_KRUM, 'none', '0'), (_KRUM, 'sign_flip', '0'),
      ('fedaot', 'none', '0'), ('fedaot', 'sign_flip', '0'),
  ]


def test_failed_run_does_not_stop_the_others(tmp_path, small):
  failed = _compare(tmp_path, '--quiet', FAKE_FAILURE=_KRUM)
  assert failed.returncode == 1
  run = 'mnist5k-krum_num_byzantine=2-none-0.4-0'
  error_file = tmp_path / 'runs' / run / 'error.txt'
  first, _, last = failed.stderr.splitlines()
  assert first == (
      f'3/6 {_KRUM}, none, 40%, seed 0: failed: something is wrong'
      f' (traceback: {error_file})'
  )
  assert last == (
      'compare: 2 of 6 runs failed; the same command tries them again.'
  )
  assert 'Traceback' in error_file.read_text()
  assert not list(tmp_path.glob('runs/*/worker.log'))
  assert [aggregator for aggregator, _, _ in _finished(tmp_path)] == [
      'mean', 'mean', 'fedaot', 'fedaot',
  ]
  assert f'{_KRUM}     -          -        -' in failed.stdout
  again = _compare(tmp_path, '--quiet')
  assert again.returncode == 0
  assert again.stdout.replace(str(tmp_path), str(small[0])) == small[1]
  assert not error_file.exists()


@pytest.mark.parametrize('num_workers', [1, 2])
def test_killed_worker_costs_its_run_only(tmp_path, small, num_workers):
  arguments = (f'--num_workers={num_workers}', '--quiet')
  killed = _compare(tmp_path, *arguments, FAKE_CRASH='fedaot')
  assert killed.returncode == 1
  *failures, last = sorted(killed.stderr.splitlines())
  assert last == (
      'compare: 2 of 6 runs failed; the same command tries them again.'
  )
  assert len(failures) == 2
  for line, number, attack in zip(failures, (5, 6), ('none', 'sign_flip')):
    run_folder = tmp_path / f'runs/mnist5k-fedaot-{attack}-0.4-0'
    error_file = run_folder / 'error.txt'
    assert line.startswith(
        f'{number}/6 fedaot, {attack}, 40%, seed 0: failed: the worker process '
    )
    assert line.endswith(
        ' was killed by signal 9 (Killed), often a sign that memory ran short;'
        f' its output is in {run_folder}/worker.log (traceback: {error_file})'
    )
    assert 'was killed by signal 9' in error_file.read_text()
    assert (run_folder / 'worker.log').read_text() == 'last words\n'
    assert programs.read_lines(run_folder / 'metrics.csv')[-1] == '2,0.1'
  assert len(_finished(tmp_path)) == 4
  again = _compare(tmp_path, *arguments)
  assert (again.returncode, again.stderr) == (0, '')
  assert _untimed(tmp_path) == _untimed(small[0])
  assert not list(tmp_path.glob('runs/*/worker.log'))


@pytest.mark.parametrize('num_workers', [1, 2, 3])
def test_workers_take_gpus_in_turn(tmp_path, num_workers):
  result = _compare(
      tmp_path, '--context=in_process', f'--num_workers={num_workers}',
      CUDA_VISIBLE_DEVICES='5,7',
  )
  assert result.returncode == 0, result.stderr
  notes = [
      line for line in result.stderr.splitlines() if line.startswith('context')
  ]
  assert sorted(notes) == [
      f'context: in_process, nowhere on GPU {gpu}'
      for gpu in (['5,7'] if num_workers == 1 else ['5', '7'])
  ]


@linux_only
def test_killed_again_and_again_it_ends_with_the_same(tmp_path):
  moments = random.Random(0)
  finished = 0
  arguments = ('--num_workers=2', '--rounds=12')
  for _ in range(3):
    process = _start(tmp_path, *arguments, FAKE_SECONDS='0.2')
    # The last run of the grid has but one worker.
    programs.wait_until(
        lambda: _workers(process.pid) or process.poll() is not None
    )
    time.sleep(moments.uniform(0, 1.5))
    workers = _workers(process.pid)
    process.kill()
    process.communicate()
    programs.wait_until(lambda: not any(map(_is_alive, workers)))
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
  # One worker has done what is left, and then taken the second.
  programs.wait_until(
      lambda: all(len(csv_log.read_rows(path)) == 1 for path in in_progress)
  )
  second = _compare(tmp_path, '--num_workers=2')
  assert second.returncode == 1
  assert second.stderr == (
      f'compare: another program is writing to {tmp_path}; wait until it has'
      ' ended or choose another --output_dir.\n'
  )
  workers = _workers(process.pid)
  assert len(workers) == 2
  # A terminal sends it to all.
  for pid in (*workers, process.pid):
    os.kill(pid, signal.SIGINT)
  _, errors = process.communicate(timeout=10)
  assert process.returncode == 130
  programs.wait_until(lambda: not any(map(_is_alive, workers)))
  *_, first, second = errors.splitlines()
  assert first == 'compare: interrupted; what was written is kept.'
  assert second.startswith('To go on: ')
  assert f' --output_dir={tmp_path} --rounds=3 ' in second
  assert second.endswith(' --num_workers=2')
  assert 'Traceback' not in errors
  assert len(_finished(tmp_path)) == 4


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
  before = sorted(programs.read_lines(tmp_path / 'results.csv'))
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
  assert sorted(programs.read_lines(tmp_path / 'results.csv')) == before


@pytest.mark.slow
@pytest.mark.parametrize('context', ['native', 'in_process'])
def test_workers_train_as_one_process_does(tmp_path, context):
  arguments = (
      '--aggregators=fedaot',
      '--attacks=none,label_flip',
      f'--context={context}',
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
