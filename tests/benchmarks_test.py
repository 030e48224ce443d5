"""Tests for the benchmarks, which run in a pytest of their own."""

import json

import pandas as pd
import pytest

from benchmarks import turns
from tests.binaries import programs


def _run(*arguments):
  return programs.run('pytest', '-p', 'no:cacheprovider', *arguments)


@pytest.mark.parametrize(
    'argument, message',
    [
        (
            '--num-clients=3,none',
            "--num-clients must be comma-separated integers >= 1; found '3,no",
        ),
        ('--dimension=1', '--dimension must be comma-separated integers >= 2'),
        ('--aggregators=mean,men', "--aggregators: unknown aggregator 'men'"),
    ],
)
def test_wrong_options_are_told_in_one_line(argument, message):
  run = _run('benchmarks', argument)
  assert run.returncode == pytest.ExitCode.USAGE_ERROR
  assert run.stderr.startswith(f'ERROR: {message}')
  assert run.stderr.rstrip().count('\n') == 0


def test_figures_are_printed_and_saved(tmp_path):
  path = tmp_path / 'results.json'
  run = _run(
      'benchmarks/bench_aggregators.py',
      '--aggregators=krum:num_byzantine=0',
      '--num-clients=3',
      '--dimension=20',
      '--benchmark-min-rounds=1',
      f'--benchmark-json={path}',
  )
  assert run.returncode == 0, run.stdout + run.stderr
  (found,) = json.loads(path.read_text())['benchmarks']
  assert found['group'] == 'in_process, N = 3, d = 20'
  assert found['stats']['rounds'] == 1
  figures = found['extra_info']
  assert figures['ms'] == pytest.approx(3 * figures['ms_per_client'])
  (row,) = [
      line for line in run.stdout.splitlines() if ' ms_per_client ' in line
  ]
  assert row.startswith('test_round[krum:num_byzantine=0-3-20]')
  for name, figure in figures.items():
    assert f'{name} {figure:10.4g}' in row
  run = programs.run('benchmarks.figure', tmp_path / 'speed.png', path)
  assert run.returncode == 0, run.stderr
  assert (tmp_path / 'speed.png').read_bytes().startswith(b'\x89PNG')
  (saved,) = pd.read_csv(tmp_path / 'speed.csv').to_dict('records')
  assert saved.pop('group') == found['group']
  assert saved.pop('name') == 'krum:num_byzantine=0'
  assert saved == pytest.approx(figures, rel=1e-3)


def test_rounds_take_turns(tmp_path):
  path = tmp_path / 'bench_turns.py'
  path.write_text("""
import time

def test_turns(time_in_turns):
  order = []

  def mean():
    order.append('mean')
    time.sleep(0.05)  # Not within the noise, so that there is a ratio.

  time_in_turns(
      lambda: order.append('play'), mean, lambda: order.append('generate')
  )
  assert order == ['mean', 'generate', 'play'] * (2 + 3)  # Two do not count.
""")
  run = _run(
      '-p',
      'benchmarks.conftest',
      '--benchmark-min-rounds=3',
      f'--benchmark-storage={tmp_path}',
      path,
  )
  assert run.returncode == 0, run.stdout + run.stderr
  assert ' times_mean ' in run.stdout


def test_times_are_net_and_ratios_are_of_medians():
  # Busy in the second turn, and a pause of the mean in the third.
  figures = turns.summarize(
      [0.5, 1.5, 0.5], [0.3, 1.3, 9.0], [0.1, 1.1, 0.1], num_clients=4
  )
  assert figures == pytest.approx(
      {'ms': 400, 'ms_per_client': 100, 'times_mean': 2}
  )


def test_mean_within_the_noise_is_no_divisor():
  assert turns.summarize([0.5], [0.1], [0.2]) == pytest.approx({'ms': 300})
