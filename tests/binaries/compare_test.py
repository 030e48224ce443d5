"""Tests for compare, and for grid, cells and ray_workers as it uses them."""

import contextlib
import importlib.util
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from matplotlib import image
import pytest

from binaries import csv_log
from fedaot_tff.aggregators import registry
from fedaot_tff.runtime import ray_cluster
from tests.binaries import programs

_KRUM = 'krum:num_byzantine=2'
_DEFAULTS = (
    '--rounds=3',
    f'--aggregators=mean,{_KRUM},fedaot',
    '--attacks=none,sign_flip',
    '--context=native',
    '--noreport',
)

_on_ray = pytest.mark.skipif(
    importlib.util.find_spec('ray') is None, reason='Ray is not installed'
)
_REPORTING = {'FAKE_REPORTING': ''}
_TWO_FAILED = 'compare: 2 of 6 runs failed; the same command tries them again.'


def _start(output_dir, *arguments, **environment):
  return programs.start_fake(
      'compare',
      f'--output_dir={output_dir}',
      *_DEFAULTS,
      *arguments,
      **{'FAKE_REPORTING': '1', **environment},
  )


def _compare(output_dir, *arguments, code=0, **environment):
  """Runs the program, which must end with this exit code."""
  result = programs.finish(_start(output_dir, *arguments, **environment))
  assert result.returncode == code, result.stderr
  return result


def test_rounds_on_ray_have_all_cores(tmp_path):
  arguments = '--context=ray', '--num_workers=2'
  assert _compare(tmp_path, *arguments, code=1).stderr == (
      'compare: with --context=ray a round has all cores, and --num_workers'
      ' must be 1; found 2.\n'
  )
  # They are not for the cells' workers.
  address = '--ray_address=192.0.2.1:1'
  assert _compare(tmp_path, '--context=ray', address).stdout


def _descendants(ancestor: int):
  """The command lines of the processes below one, by their ids."""
  parents, found = {}, {}
  for path in pathlib.Path('/proc').glob('[0-9]*'):
    with contextlib.suppress(OSError):  # It has just ended.
      status = (path / 'stat').read_text().rpartition(')')[2].split()
      command = (path / 'cmdline').read_text()
      # A zombie has ended, too.
      if status[0] != 'Z':
        parents[int(path.name)] = int(status[1]), command
  below = {ancestor}
  while below:
    below = {pid for pid, (parent, _) in parents.items() if parent in below}
    found.update((pid, parents[pid][1]) for pid in below)
  return found


def _workers(ancestor: int):
  """The ids of the workers of a program, or of a node."""
  commands = _descendants(ancestor).items()
  return [pid for pid, command in commands if command.startswith('ray::_Actor')]


def _assert_ended(pids):
  """They end within moments."""

  def is_alive(pid):
    try:
      status = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
      return False
    return status.rpartition(')')[2].split()[0] != 'Z'

  programs.wait_until(lambda: not any(map(is_alive, pids)))


def _listening_addresses(pids):
  """The hexadecimal addresses that processes listen on."""
  inodes = set()
  for pid in pids:
    for path in pathlib.Path(f'/proc/{pid}/fd').glob('*'):
      with contextlib.suppress(OSError):
        inodes.add(os.readlink(path))
  found = set()
  for name in ('tcp', 'tcp6'):
    for line in programs.read_lines(pathlib.Path(f'/proc/net/{name}'))[1:]:
      _, local, _, state, *_, inode = line.split()[:10]
      if state == '0A' and f'socket:[{inode}]' in inodes:
        found.add(local.partition(':')[0])
  return found


def _untimed(output_dir):
  """All that is measured, but times; by the path of the file."""
  num_times = {'results.csv': 1, 'metrics.csv': 2, 'weights.csv': 0}
  return {
      str(path.relative_to(output_dir)): programs.read_columns(
          path, num_times[path.name]
      )
      for path in output_dir.rglob('*.csv')
      if path.name in num_times
  }


def _num_rounds(output_dir):
  """The number of rounds of all runs."""
  paths = output_dir.glob('runs/*/metrics.csv')
  return sum(len(csv_log.read_rows(path)) for path in paths)


def _finished(output_dir):
  rows = csv_log.read_rows(output_dir / 'results.csv')
  return [(row['aggregator'], row['attack'], row['seed']) for row in rows]


@pytest.fixture(name='small', scope='module')
def _make_small(tmp_path_factory):
  """The folder of a comparison that nothing happened to, and its output."""
  folder = tmp_path_factory.mktemp('small')
  return folder, _compare(folder, **_REPORTING).stdout


def test_all_results_are_written(tmp_path):
  result = _compare(
      tmp_path,
      '--seeds=0,7',
      '--byzantine_fractions=0.2,0.4',
      **_REPORTING,
  )
  rows = csv_log.read_rows(tmp_path / 'results.csv')
  assert list(rows[0]) == [
      'task',
      'aggregator',
      'attack',
      'byzantine_fraction',
      'seed',
      'rounds',
      'test_accuracy',
      'attack_success_rate',
      'attacker_weight',
      'detection_auroc',
      'relative_deviation',
      'seconds_per_round',
  ]
  assert len(rows) == 3 * 2 * 2 * 2
  run = 'mnist5k-krum_num_byzantine=2-sign_flip-0.2-7'
  metrics = csv_log.read_rows(tmp_path / 'runs' / run / 'metrics.csv')
  key = (_KRUM, 'sign_flip', '0.2', '7')
  (row,) = [r for r in rows if tuple(r.values())[1:5] == key]
  assert row['test_accuracy'] == metrics[-1]['test_accuracy']
  assert (row['rounds'], row['attack_success_rate']) == ('3', '')
  record = json.loads((tmp_path / 'runs' / run / 'run.json').read_text())
  assert record['flags']['byzantine_fractions'] == [0.2, 0.4]
  assert '--seeds=0,7' in record['command'].split()
  assert min(image.imread(tmp_path / 'comparison.png').shape[:2]) > 500
  markdown = (tmp_path / 'comparison.md').read_text()
  for fraction in ('20%', '40%'):
    assert f'{fraction} attackers' in markdown
    assert f'{fraction} attackers' in result.stdout
  assert f'\n| {_KRUM} | ' in markdown
  assert f'\n{_KRUM}  ' in result.stdout
  assert f'\nSee {tmp_path}/comparison.png' in result.stdout
  assert not list(tmp_path.glob('runs/*/checkpoints'))
  lines = result.stderr.splitlines()
  assert len(lines) == 24
  assert lines[0].startswith('1/24 mean, none, 20%, seed 0: ')


def test_second_call_runs_nothing_and_ends_with_the_report(small):
  folder, output = small
  result = _compare(folder, '--report', FAKE_FAILURE='mean', **_REPORTING)
  assert result.stderr == 'writing the report on 6 runs\n'
  assert result.stdout == f'{output}{folder}/report.html\n'
  assert '6 of 6 runs have a result' in (folder / 'report.html').read_text()
  assert (folder / 'report').is_dir()


@_on_ray
def test_workers_find_what_one_finds(tmp_path, small):
  assert _compare(tmp_path, '--num_workers=3', '--quiet').stderr == ''
  assert _untimed(tmp_path) == _untimed(small[0])


def test_all_stands_for_every_aggregator_and_is_recorded(tmp_path):
  _compare(
      tmp_path,
      '--aggregators=all,nnm+mean',
      '--attacks=none',
      '--rounds=1',
  )
  names = [*registry.aggregator_names(), 'nnm+mean']
  assert [aggregator for aggregator, _, _ in _finished(tmp_path)] == names
  assert (tmp_path / 'runs' / 'mnist5k-nnm_mean-none-0.4-0').is_dir()
  record = json.loads((tmp_path / 'run.json').read_text())
  assert record['seed'] == record['flags']['seeds'] == [0]
  assert record['flags']['aggregators'] == names
  assert record['flags']['byzantine_fractions'] == [0.4]
  assert record['flags']['rounds'] == 1


def test_other_settings_are_refused(small):
  folder, _ = small
  before = _untimed(folder)
  result = _compare(folder, '--rounds=4', code=1)
  assert result.stderr == (
      f'compare: {folder} holds a comparison with rounds=3, not 4'
      ' (settings.json); choose another --output_dir.\n'
  )
  assert _untimed(folder) == before


def test_results_are_restored_from_the_runs(tmp_path, small):
  shutil.copytree(small[0], tmp_path, dirs_exist_ok=True)
  (tmp_path / 'results.csv').unlink()
  again = _compare(tmp_path, '--quiet', **_REPORTING)
  assert again.stderr == ''
  assert again.stdout.replace(str(tmp_path), str(small[0])) == small[1]


@pytest.mark.parametrize('name', ['comparison.md', 'comparison.png'])
def test_summary_that_cannot_be_written_is_one_line(tmp_path, small, name):
  shutil.copytree(small[0], tmp_path, dirs_exist_ok=True)
  (tmp_path / name).unlink()
  (tmp_path / name).mkdir()
  result = _compare(tmp_path, code=1, **_REPORTING)
  assert result.stderr == (
      f'compare: cannot write {tmp_path / name}: Is a directory.\n'
  )
  assert _untimed(tmp_path) == _untimed(small[0])


def test_closed_output_costs_no_run(tmp_path, small):
  subprocess.run(
      [
          'sh',
          '-c',
          'exec "$@" >&- 2>&-',
          'sh',
          sys.executable,
          '-m',
          'tests.binaries.fake_program',
          'compare',
          f'--output_dir={tmp_path}',
          *_DEFAULTS,
      ],
      cwd=programs.ROOT,
      env={**os.environ, 'FAKE_REPORTING': '1'},
      check=True,
  )
  assert _untimed(tmp_path) == _untimed(small[0])


def test_comparison_can_be_extended(tmp_path):
  _compare(tmp_path, '--seeds=1', '--attacks=none')
  _compare(tmp_path, FAKE_FAILURE='mean', code=1)
  result = _compare(tmp_path, '--seeds=0')
  assert len(result.stderr.splitlines()) == 2
  assert _finished(tmp_path) == [
      # What the grid does not hold comes first.
      ('mean', 'none', '1'),
      (_KRUM, 'none', '1'),
      ('fedaot', 'none', '1'),
      ('mean', 'none', '0'),
      ('mean', 'sign_flip', '0'),
      (_KRUM, 'none', '0'),
      (_KRUM, 'sign_flip', '0'),
      ('fedaot', 'none', '0'),
      ('fedaot', 'sign_flip', '0'),
  ]


def test_failed_run_does_not_stop_the_others(tmp_path, small):
  failed = _compare(
      tmp_path, '--quiet', code=1, FAKE_FAILURE=_KRUM, **_REPORTING
  )
  run = 'mnist5k-krum_num_byzantine=2-none-0.4-0'
  error_file = tmp_path / 'runs' / run / 'error.txt'
  first, _, last = failed.stderr.splitlines()
  assert first == (
      f'3/6 {_KRUM}, none, 40%, seed 0: failed: something is wrong'
      f' (traceback: {error_file})'
  )
  assert last == _TWO_FAILED
  assert 'Traceback' in error_file.read_text()
  assert [aggregator for aggregator, _, _ in _finished(tmp_path)] == [
      'mean',
      'mean',
      'fedaot',
      'fedaot',
  ]
  assert f'{_KRUM}     -          -        -' in failed.stdout
  again = _compare(tmp_path, '--quiet', **_REPORTING)
  assert again.stdout.replace(str(tmp_path), str(small[0])) == small[1]
  assert not error_file.exists()


@_on_ray
def test_worker_that_is_killed_each_time_costs_its_run_only(tmp_path, small):
  killed = _compare(
      tmp_path, '--num_workers=2', '--quiet', FAKE_CRASH='fedaot', code=1
  )
  *failures, last = sorted(killed.stderr.splitlines())
  assert last == _TWO_FAILED
  for line, number, attack in zip(failures, (5, 6), ('none', 'sign_flip')):
    run_folder = tmp_path / f'runs/mnist5k-fedaot-{attack}-0.4-0'
    error_file = run_folder / 'error.txt'
    assert line == (
        f'{number}/6 fedaot, {attack}, 40%, seed 0: failed: its worker died 3'
        ' times, often a sign that memory ran short; its output is in'
        f' {run_folder}/worker.log (traceback: {error_file})'
    )
    assert 'ActorDiedError' in error_file.read_text()
    assert (run_folder / 'worker.log').read_text() == 'last words\n'
    assert programs.read_lines(run_folder / 'metrics.csv')[-1] == '2,0.1'
  assert len(_finished(tmp_path)) == 4
  assert _compare(tmp_path, '--quiet').stderr == ''
  assert _untimed(tmp_path) == _untimed(small[0])


def test_one_worker_has_all_gpus(tmp_path):
  result = _compare(
      tmp_path, '--context=in_process', CUDA_VISIBLE_DEVICES='5,7'
  )
  lines = result.stderr.splitlines()
  assert [line for line in lines if line.startswith('context')] == [
      'context: in_process, nowhere on GPU 5,7'
  ]


@_on_ray
def test_several_workers_have_a_gpu_each(tmp_path):
  result = _compare(
      tmp_path,
      '--context=in_process',
      '--num_workers=2',
      CUDA_VISIBLE_DEVICES='5,7',
  )
  lines = {l for l in result.stderr.splitlines() if l.startswith('context')}
  assert lines
  # Which of them come to a run depends on the machine.
  assert lines <= {f'context: in_process, nowhere on GPU {i}' for i in (5, 7)}


@pytest.mark.slow
@_on_ray
def test_killed_again_and_again_it_ends_with_the_same(tmp_path, small):
  moments = random.Random(0)
  finished = 0
  for _ in range(3):
    process = _start(tmp_path, '--num_workers=2', FAKE_SECONDS='0.8')
    # The last run of the grid has but one worker.
    programs.wait_until(
        lambda: _workers(process.pid) or process.poll() is not None
    )
    time.sleep(moments.uniform(0, 1.5))
    processes = _descendants(process.pid)
    process.kill()
    process.communicate()
    _assert_ended(processes)
    assert len(_finished(tmp_path)) >= finished
    finished = len(_finished(tmp_path))
  assert finished < 6
  _compare(tmp_path, '--num_workers=2')
  assert _untimed(tmp_path) == _untimed(small[0])


@_on_ray
def test_interrupt_ends_the_workers_and_tells_how_to_go_on(tmp_path):
  # Where pytest has its folders, the names of Ray's sockets would be too long.
  with tempfile.TemporaryDirectory() as temporary:
    process = _start(
        tmp_path, '--num_workers=2', FAKE_ENDLESS='mean', TMPDIR=temporary
    )
    in_progress = [
        tmp_path / f'runs/mnist5k-mean-{attack}-0.4-0/metrics.csv'
        for attack in ('none', 'sign_flip')
    ]
    # One worker has done what is left, and then taken the second.
    programs.wait_until(
        lambda: all(len(csv_log.read_rows(path)) == 1 for path in in_progress)
    )
    assert _compare(tmp_path, '--num_workers=2', code=1).stderr == (
        f'compare: another program is writing to {tmp_path}; wait until it has'
        ' ended or choose another --output_dir.\n'
    )
    processes = _descendants(process.pid)
    # 127.0.0.1, as itself and for IPv6.
    assert _listening_addresses(processes) <= {
        '0100007F',
        '0000000000000000FFFF00000100007F',
    }
    workers = _workers(process.pid)
    assert len(workers) == 2
    # A terminal sends it to all.
    for pid in (*workers, process.pid):
      os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    _assert_ended(processes)
    assert os.listdir(temporary) == []
  *_, first, second = errors.splitlines()
  assert first == 'compare: interrupted; what was written is kept.'
  assert second.startswith('To go on: ')
  assert f' --output_dir={tmp_path} --rounds=3 ' in second
  assert second.endswith(' --num_workers=2')
  assert 'Traceback' not in errors
  assert len(_finished(tmp_path)) == 4


@_on_ray
def test_missing_package_is_told_once(tmp_path):
  result = _compare(
      tmp_path, '--num_workers=2', FAKE_MISSING='tensorflow', code=1
  )
  assert result.stderr == (
      "compare: No module named 'tensorflow'; install what requirements.txt"
      ' lists.\n'
  )


def test_what_the_end_needs_is_missed_before_the_runs(tmp_path):
  result = _compare(tmp_path, FAKE_MISSING='matplotlib', code=1)
  assert result.stderr == (
      "compare: No module named 'matplotlib'; install what requirements.txt"
      ' lists.\n'
  )
  assert not list(tmp_path.iterdir())


def test_one_worker_needs_no_ray(tmp_path):
  _compare(tmp_path, '--quiet', FAKE_MISSING='ray')
  result = _compare(
      tmp_path, '--seeds=1', '--num_workers=2', FAKE_MISSING='ray', code=1
  )
  assert result.stderr == (
      'compare: Ray is not installed; with Python 3.10 or 3.11, install it'
      " with: pip install 'ray==2.52.1'\n"
  )


@pytest.mark.parametrize(
    'address, error',
    [
        (
            'here',
            "The address of a Ray cluster must be host:port, found 'here'.",
        ),
        ('127.0.0.1:1', 'No Ray cluster answers at 127.0.0.1:1 ('),
    ],
)
@_on_ray
def test_address_without_a_cluster_is_one_line(tmp_path, address, error):
  result = _compare(tmp_path, f'--ray_address={address}', code=1)
  (line,) = result.stderr.splitlines()
  assert line.startswith(f'compare: {error}')


@_on_ray
def test_nodes_and_programs_may_die(tmp_path, small, monkeypatch):
  monkeypatch.setenv('FAKE_SECONDS', '0.5')
  ray_cluster.import_ray()
  # pylint: disable-next=g-import-not-at-top
  from ray import cluster_utils

  options = dict(num_cpus=1, object_store_memory=75 << 20)
  with tempfile.TemporaryDirectory() as temporary:
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args=dict(
            options,
            temp_dir=temporary,
            include_dashboard=False,
            no_monitor=True,
            include_log_monitor=False,
        ),
    )
    node = cluster.add_node(**options)
    try:
      for is_killed in (True, False):
        process = _start(
            tmp_path, '--num_workers=2', f'--ray_address={cluster.address}'
        )
        rounds = _num_rounds(tmp_path)
        programs.wait_until(lambda: _num_rounds(tmp_path) > rounds + 1)
        if is_killed:
          process.kill()
          process.communicate()
      cluster.remove_node(node, allow_graceful=False)
      result = programs.finish(process)
    finally:
      cluster.shutdown()
  assert result.returncode == 0, result.stderr
  assert 'its worker died; another one goes on' in result.stderr
  assert _untimed(tmp_path) == _untimed(small[0])


@pytest.mark.slow
@_on_ray
@pytest.mark.parametrize('context', ['native', 'in_process'])
def test_workers_train_as_one_process_does(tmp_path, context):
  tables = []
  for num_workers in (1, 2):
    folder = tmp_path / str(num_workers)
    result = programs.run(
        'binaries.compare',
        '--num_clients=8',
        '--cohort_size=5',
        '--rounds=2',
        '--noreport',
        '--quiet',
        f'--output_dir={folder}',
        '--aggregators=fedaot',
        '--attacks=none,label_flip',
        f'--context={context}',
        f'--num_workers={num_workers}',
    )
    assert (result.returncode, result.stderr) == (0, '')
    tables.append(programs.read_columns(folder / 'results.csv', 1))
  assert tables[0] == tables[1]
