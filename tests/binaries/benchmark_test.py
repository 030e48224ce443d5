"""Tests for benchmark.

`python -m tests.binaries.benchmark_test --aggregators=...` is
`binaries.benchmark` with runners that only seem to measure and train; it does
without TensorFlow. Times of rounds are made up: one of MeanFactory takes N * d
ns, one of tff_robust twice as long, one of `fedaot` three times, of `krum`
N^2 * d ns and of the others N * d ns; generating takes a second. The first
repeat is late by ten seconds. What goes wrong is set by environment variables:

  FAKE_FAILURE=a  measurements of aggregator a fail in the second repeat, and
                  trainings in round 4
  FAKE_CRASH=a    the process is killed there
"""

import asyncio
import itertools
import os
import re
import signal
import sys
import types

from matplotlib import image
import pytest

from binaries import application
from binaries import benchmark_profile as profile
from binaries import benchmark_report as report
from binaries import csv_log
from tests.binaries import programs


def _fail_if_asked(aggregator):
  if os.environ.get('FAKE_FAILURE') == aggregator:
    raise RuntimeError('something is\nwrong')
  if os.environ.get('FAKE_CRASH') == aggregator:
    os.kill(os.getpid(), signal.SIGKILL)


class FakeRoundsRunner:
  """Stands in for `benchmark_runner.Runner`."""

  def __init__(self, *, byzantine_fraction, seed, time_tff_robust):
    assert 0 <= byzantine_fraction < 1
    assert seed >= 0
    self._time_tff_robust = time_tff_robust

  def run(self, aggregator, num_clients, dimension, repeats):
    mean = 1e-9 * num_clients * dimension
    factor = {'fedaot': 3, 'krum': num_clients}.get(aggregator, 1)
    for repeat in range(repeats):
      if repeat == 1:
        _fail_if_asked(aggregator)
      late = 10.0 if repeat == 0 else 0.0
      yield types.SimpleNamespace(
          generation=1.0 + late,
          mean=1.0 + late + mean,
          tff_robust=1.0 + 3 * late + 2 * mean
          if self._time_tff_robust
          else None,
          aggregator=1.0 + 2 * late + factor * mean,
          peak_memory_mb=(4e-6 if repeat == 0 else 3e-6)
          * num_clients
          * dimension,
          mean_peak_memory_mb=(1e-6 if repeat == 0 else 1.5e-6)
          * num_clients
          * dimension,
      )

  def close(self):
    pass


class FakeStepRunner:
  """Stands in for `benchmark_steps.StepRunner`."""

  def __init__(self, *, byzantine_fraction, seed):
    assert 0 <= byzantine_fraction < 1
    assert seed >= 0

  def run(self, aggregator, num_clients, dimension, repeats):
    del num_clients, dimension
    for repeat in range(repeats):
      if repeat == 1:
        _fail_if_asked(aggregator)
      late = 10.0 if repeat == 0 else 0.0
      seconds, end = {}, late + 1.0
      for number, step in enumerate(profile.STEPS):
        if aggregator == 'fedaot' or step not in profile.HOLDOUT_STEPS:
          end += 1e-3 * number
          seconds[step] = end
      yield {**seconds, profile.MEAN: late + 1.02}


class FakeTrainingRunner:
  """Stands in for `runner.Runner`."""

  def run(
      self,
      experiment,
      *,
      checkpoint_folder,
      checkpoint_every,
      release_managers,
      warn,
  ):
    """Yields what `Runner.run` yields, as far as it is looked at."""
    del warn
    assert checkpoint_folder.parent.is_dir()
    assert checkpoint_every >= 1
    for round_num in range(1, experiment.task_options['rounds'] + 1):
      if round_num == 4:
        _fail_if_asked(experiment.aggregator)
      record = types.SimpleNamespace(
          round_num=round_num,
          seconds=0.0,
          metrics={
              'aggregator': (),
              'honest_mean': {'norm': 1.0, 'distance': 0.5},
          },
          model_is_finite=True,
          num_attackers=0,
          attacker_weight=None,
          detection_auroc=None,
          is_byzantine=(False, False),
          weights=None,
          evaluation={'accuracy': 0.5, 'loss': 1.0},
          evaluation_seconds=1e-7,
      )
      for manager in release_managers:
        asyncio.run(manager.release(record, round_num))
      yield record


def _benchmark(output_dir, *arguments, **environment):
  return programs.run(
      'tests.binaries.benchmark_test',
      f'--output_dir={output_dir}',
      '--aggregators=mean,krum,fedaot',
      *arguments,
      **environment,
  )


def _measured(output_dir):
  rows = csv_log.read_rows(output_dir / 'benchmark.csv')
  return {m.key: m for m in map(report.parse_row, rows)}


def test_all_results_are_written(tmp_path):
  result = _benchmark(
      tmp_path, '--num_clients=10,40', '--dimension=1000000,4000000'
  )
  assert result.returncode == 0, result.stderr
  measured = _measured(tmp_path)
  assert len(measured) == 3 * 2 * 2
  krum = measured['krum', 40, 1000000]
  # The median is not late, and the generation is taken off.
  assert krum.ms_per_client == pytest.approx(40.0)
  assert krum.ms_per_round == pytest.approx(1600.0)
  assert krum.mean_ms_per_round == pytest.approx(40.0)
  assert krum.ratio_to_mean == pytest.approx(40.0)
  assert krum.generation_ms_per_round == pytest.approx(1000.0)
  assert krum.tff_robust_ms_per_round == pytest.approx(80.0)
  assert krum.ratio_to_tff_robust == pytest.approx(20.0)
  # Both peaks are the largest ones.
  assert krum.peak_memory_mb == pytest.approx(160.0)
  assert krum.extra_memory_mb == pytest.approx(100.0)
  assert krum.repeats == 3
  lines = [line.split() for line in result.stdout.splitlines()]
  assert ['krum', '40', '40.00', '20.00', '160', '100'] in lines
  assert ['fedaot', '3', '3.00', '1.50', '40', '25'] in lines
  # In N at each of two d, then in d at each of two N.
  assert lines.count(['krum', '2.00', '2.00']) == 1
  assert lines.count(['krum', '1.00', '1.00']) == 1
  assert lines.count(['fedaot', '1.00', '1.00']) == 2
  markdown = (tmp_path / 'benchmark.md').read_text()
  assert '| krum | 40 | 40.00 | 20.00 | 160 | 100 |' in markdown
  assert '| krum | 2.00 | 2.00 |' in markdown
  assert '| power at d = 1000000 | power at d = 4000000 |' in markdown
  assert '40 clients, 4000000 coordinates' in markdown
  height, width = image.imread(tmp_path / 'benchmark.png').shape[:2]
  assert min(height, width) > 1000
  assert f'See {tmp_path}/benchmark.png' in result.stdout


def test_second_call_measures_nothing_and_tells_the_same(tmp_path):
  first = _benchmark(tmp_path)
  assert first.returncode == 0, first.stderr
  assert 'Growth' not in first.stdout
  second = _benchmark(tmp_path, FAKE_FAILURE='mean')
  assert second.returncode == 0
  assert (second.stdout, second.stderr) == (first.stdout, '')
  more = _benchmark(tmp_path, '--num_clients=20')
  assert len(more.stderr.splitlines()) == 3
  assert len(_measured(tmp_path)) == 6


def test_crash_costs_the_measurement_in_progress_only(tmp_path):
  assert _benchmark(tmp_path, FAKE_CRASH='krum').returncode == -signal.SIGKILL
  assert list(_measured(tmp_path)) == [('mean', 10, 1000000)]
  resumed = _benchmark(tmp_path)
  assert resumed.returncode == 0, resumed.stderr
  assert len(resumed.stderr.splitlines()) == 2
  assert len(_measured(tmp_path)) == 3


def test_failure_does_not_stop_the_others(tmp_path):
  failed = _benchmark(tmp_path, '--quiet', FAKE_FAILURE='krum')
  assert failed.returncode == 1
  error_file = tmp_path / 'errors' / 'krum-10-1000000' / 'error.txt'
  assert failed.stderr.splitlines() == [
      '2/3 krum, 10 clients, 1000000 coordinates: failed: RuntimeError:'
      f' something is wrong (traceback: {error_file})',
      'benchmark: 1 of 3 measurements failed; the same command tries them'
      ' again.',
  ]
  assert 'Traceback' in error_file.read_text()
  assert [key[0] for key in _measured(tmp_path)] == ['mean', 'fedaot']
  assert ['krum', *'-----'] in [
      line.split() for line in failed.stdout.splitlines()
  ]
  assert _benchmark(tmp_path).returncode == 0
  assert not error_file.exists()


def test_tff_robust_can_be_left_out(tmp_path):
  result = _benchmark(tmp_path, '--notime_tff_robust', '--quiet')
  assert result.returncode == 0, result.stderr
  krum = _measured(tmp_path)['krum', 10, 1000000]
  assert krum.tff_robust_ms_per_round is krum.ratio_to_tff_robust is None
  assert krum.ratio_to_mean == pytest.approx(10.0)
  assert ['krum', '10', '10.00', '-', '40', '25'] in [
      line.split() for line in result.stdout.splitlines()
  ]


def _profile(output_dir, *arguments, **environment):
  return _benchmark(
      output_dir,
      '--profile',
      '--aggregators=fedaot_no_holdout,fedaot',
      *arguments,
      **environment,
  )


def test_profile_tells_what_each_step_takes(tmp_path):
  result = _profile(tmp_path, '--num_clients=10,20')
  assert result.returncode == 0, result.stderr
  rows = csv_log.read_rows(tmp_path / 'profile.csv')
  profiles = {p.key: p for p in map(profile.parse_row, rows)}
  assert len(profiles) == 4
  found = profiles['fedaot', 20, 1000000]
  # The quickest repeat is not late.
  assert found.step_ms == pytest.approx(
      {profile.GENERATION: 1000.0}
      | {step: float(n) for n, step in enumerate(profile.STEPS) if n}
  )
  assert found.net_ms == pytest.approx(sum(range(11)))
  assert found.mean_ms == pytest.approx(20.0)
  assert found.repeats == 3
  markdown = (tmp_path / 'profile.md').read_text()
  for text in (markdown, result.stdout):
    assert '20 clients, 1000000 coordinates' in text
  # Steps that a round does not have are no part of it.
  assert '| weighted sum (second pass) | 6.0 | 6.0 |' in markdown
  assert '| inner products with the gradient | - | 9.0 |' in markdown
  assert '| all steps | 31.0 | 55.0 |' in markdown
  assert '| all steps, times MeanFactory | 1.55 | 2.75 |' in markdown
  again = _profile(tmp_path, '--num_clients=10,20', FAKE_FAILURE='fedaot')
  assert (again.stdout, again.stderr) == (result.stdout, '')


def test_profile_goes_on_after_a_crash(tmp_path):
  assert _profile(tmp_path, FAKE_CRASH='fedaot').returncode == -signal.SIGKILL
  failed = _profile(tmp_path, '--quiet', FAKE_FAILURE='fedaot')
  assert failed.returncode == 1
  assert '| weighted sum (second pass) | 6.0 | - |' in (
      tmp_path / 'profile.md'
  ).read_text()
  assert _profile(tmp_path).returncode == 0
  assert len(csv_log.read_rows(tmp_path / 'profile.csv')) == 2


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['--aggregators=fedaot,krum'],
            'flag --profile takes FedAOT alone, such as'
            " fedaot,fedaot_no_holdout; found aggregator 'krum'.",
        ),
        (['--aggregators=nnm+fedaot'], 'flag --profile takes FedAOT alone, '),
        (['--rounds=5'], 'flag --rounds means nothing with --profile; leave'),
        (['--end_to_end'], 'flags --end_to_end and --profile exclude each'),
    ],
)
def test_profile_of_nothing_that_has_steps(tmp_path, arguments, message):
  result = _profile(tmp_path / 'new', *arguments)
  assert result.returncode == 1
  assert result.stderr.startswith(f'benchmark: {message}')
  assert len(result.stderr.splitlines()) == 1
  assert not (tmp_path / 'new').exists()


def test_all_stands_for_every_rule(tmp_path):
  result = _benchmark(tmp_path, '--aggregators=all,nnm+krum', '--quiet')
  assert result.returncode == 0, result.stderr
  names = [key[0] for key in _measured(tmp_path)]
  assert {'mean', 'trimmed_mean', 'fltrust', 'nnm+krum'} <= set(names)


@pytest.mark.parametrize(
    'argument, message',
    [
        ('--aggregators=median', "unknown aggregator 'median'; known: "),
        ('--aggregators=a+mean', "unknown wrapper 'a'; known: "),
        ('--aggregators=mean,mean', "flag --aggregators has 'mean' twice."),
        ('--aggregators=', 'flag --aggregators is empty; give one or more.'),
        ('--num_clients=0', 'flag --num_clients must be at least 1; found 0.'),
        ('--dimension=9,1', 'flag --dimension must be at least 2; found 1.'),
        ('--dimension=1e6', 'flag --dimension=1e6: invalid literal for int'),
        ('--repeats=0', 'flag --repeats=0: '),
        (
            '--tasks=digits',
            'flag --tasks means nothing without --end_to_end; leave it out.',
        ),
        ('--rounds=5', 'flag --rounds means nothing without --end_to_end;'),
    ],
)
def test_wrong_flags_are_told_in_one_line(tmp_path, argument, message):
  result = _benchmark(tmp_path / 'new', argument)
  assert result.returncode == 1
  assert result.stderr.startswith(f'benchmark: {message}')
  assert len(result.stderr.splitlines()) == 1
  assert not (tmp_path / 'new').exists()


def test_other_settings_are_refused(tmp_path):
  assert _benchmark(tmp_path).returncode == 0
  result = _benchmark(tmp_path, '--repeats=4')
  assert result.returncode == 1
  assert result.stderr == (
      f'benchmark: {tmp_path} holds a benchmark with repeats=3, not 4; choose'
      ' another --output_dir.\n'
  )


def _measurement(num_clients, dimension, ms_per_round, aggregator='a'):
  return report.Measurement(
      aggregator,
      num_clients,
      dimension,
      1,
      ms_per_client=1.0,
      ratio_to_mean=1.0,
      ratio_to_tff_robust=1.0,
      peak_memory_mb=1.0,
      extra_memory_mb=1.0,
      ms_per_round=ms_per_round,
      mean_ms_per_round=1.0,
      tff_robust_ms_per_round=1.0,
      generation_ms_per_round=1.0,
  )


def test_power_is_fitted_to_all_points():
  powers = [_measurement(n, 10, 3e-4 * n**1.5) for n in (5, 10, 40)]
  assert report.fit_power(powers, 'num_clients') == pytest.approx(1.5)
  assert report.fit_power(powers, 'dimension') is None
  by_dimension = [_measurement(5, d, 7.0 * d**0.5) for d in (10, 30, 1000)]
  assert report.fit_power(by_dimension, 'dimension') == pytest.approx(0.5)
  # The slope of the line through (0, 0), (1, 2), (2, 1), with e as the base.
  points = [(1, 1), (2, 4), (4, 2)]
  scattered = [_measurement(n, 10, float(t)) for n, t in points]
  assert report.fit_power(scattered, 'num_clients') == pytest.approx(0.5)
  # A time that is not positive is noise.
  noise = [_measurement(20, 10, -1.0), _measurement(30, 10, 0.0)]
  assert report.fit_power(powers + noise, 'num_clients') == pytest.approx(1.5)
  assert report.fit_power(powers[:1] + noise, 'num_clients') is None
  assert report.fit_power([], 'num_clients') is None


def test_powers_of_different_dimensions_are_not_mixed():
  grid = itertools.product((5, 10, 20), (10, 100))
  measurements = {
      m.key: m
      for m in (
          _measurement(n, d, n ** {10: 1.0, 100: 2.0}[d]) for n, d in grid
      )
  }
  del measurements['a', 20, 100]
  tables = report.make_tables(measurements, ['a', 'b'], (5, 10, 20), (10, 100))
  *_, by_clients, by_dimension = tables
  assert by_clients.header[1:] == ['power at d = 10', 'power at d = 100']
  assert by_clients.rows == [['a', '1.00', '2.00'], ['b', '-', '-']]
  assert by_dimension.header[1:] == [
      'power at N = 5', 'power at N = 10', 'power at N = 20',
  ]
  assert by_dimension.rows[0] == ['a', '0.70', '1.00', '-']


def _repeat(generation, mean, tff_robust, aggregator, peak, mean_peak):
  return types.SimpleNamespace(
      generation=generation,
      mean=mean,
      tff_robust=tff_robust,
      aggregator=aggregator,
      peak_memory_mb=peak,
      mean_peak_memory_mb=mean_peak,
  )


def test_ratios_are_of_medians():
  measurement = report.summarize(
      'krum',
      4,
      5,
      [
          _repeat(1.0, 1.5, 2.0, 3.0, 100.0, 60.0),
          # The generation was paused, which leaves nothing of the others.
          _repeat(9.0, 1.5, 2.0, 3.0, 110.0, 70.0),
          _repeat(2.0, 2.6, 3.5, 4.4, 110.0, 75.0),
      ],
  )
  assert measurement.ms_per_round == pytest.approx(2000.0)
  assert measurement.ratio_to_mean == pytest.approx(2.0 / 0.5)
  assert measurement.ratio_to_tff_robust == pytest.approx(2.0)
  assert measurement.extra_memory_mb == pytest.approx(35.0)


def test_what_is_not_known_is_left_empty(tmp_path):
  path = tmp_path / 'benchmark.csv'
  with csv_log.CsvLog(path, report.COLUMNS, keep=True) as log:
    measurement = report.summarize(
        'mean', 3, 5, [_repeat(2.0, 1.9, 2.0, 2.3, None, 70.0)]
    )
    log.append({name: getattr(measurement, name) for name in report.COLUMNS})
  (row,) = csv_log.read_rows(path)
  # Ratios need a positive divisor.
  for name in (
      'ratio_to_mean',
      'ratio_to_tff_robust',
      'peak_memory_mb',
      'extra_memory_mb',
  ):
    assert row[name] == ''
  assert report.parse_row(row) == measurement
  assert measurement.ms_per_client == pytest.approx(100.0)


def test_memory_less_than_half_a_megabyte_below_is_zero():
  measurement = report.summarize(
      'mean', 3, 5, [_repeat(1.0, 2.0, 2.0, 2.3, 70.0, 70.4)]
  )
  (table,) = report.make_tables(
      {measurement.key: measurement}, ['mean'], (3,), (5,)
  )
  assert table.rows[0][-2:] == ['70', '0']


_READ_FLAGS = """
import sys
from absl import flags
from binaries import benchmark

flags.FLAGS(['benchmark', f'--flagfile={sys.argv[1]}'])
for name in ('aggregators', 'num_clients', 'dimension', 'output_dir'):
  value = flags.FLAGS[name].value
  print(value if isinstance(value, str) else ','.join(value))
"""


@pytest.mark.parametrize(
    'name, num_clients, dimension',
    [
        ('speed', '10,100,1000', '10000,100000'),
        ('speed_large', '10,100,300', '1200000'),
    ],
)
def test_flag_file_of_the_speed_comparison(name, num_clients, dimension):
  path = programs.ROOT / 'binaries' / 'flags' / f'{name}.cfg'
  lines = programs.run_source(_READ_FLAGS, str(path)).splitlines()
  aggregators = 'mean,tff_robust,fedaot,fedaot_no_holdout'
  assert lines == [aggregators, num_clients, dimension, f'out/{name}']
  num_measurements = 1
  for axis in lines[:3]:
    num_measurements *= len(axis.split(','))
  (count,) = re.findall(r'(\d+) measurements', path.read_text())
  assert int(count) == num_measurements


@pytest.mark.slow
def test_profile_of_real_rounds(tmp_path):
  result = programs.run(
      'binaries.benchmark',
      '--profile',
      '--num_clients=3',
      '--dimension=20001',
      '--repeats=2',
      f'--output_dir={tmp_path}',
  )
  assert result.returncode == 0, result.stderr
  rows = csv_log.read_rows(tmp_path / 'profile.csv')
  with_holdout, without = map(profile.parse_row, rows)
  assert list(with_holdout.step_ms) == list(profile.STEPS)
  assert set(profile.STEPS) - set(without.step_ms) == set(profile.HOLDOUT_STEPS)
  for found in (with_holdout, without):
    assert 0 < found.net_ms < 60000
    assert 0 < found.mean_ms < 60000


@pytest.mark.slow
def test_benchmark_of_real_aggregators(tmp_path):
  result = programs.run(
      'binaries.benchmark',
      '--aggregators=mean,fltrust,nnm+krum',
      '--num_clients=4',
      '--dimension=200001',
      '--repeats=2',
      f'--output_dir={tmp_path}',
  )
  assert result.returncode == 0, result.stderr
  measured = _measured(tmp_path)
  assert [key[0] for key in measured] == ['mean', 'fltrust', 'nnm+krum']
  for measurement in measured.values():
    assert 0 < measurement.generation_ms_per_round < 60000
    assert measurement.ms_per_round < 60000
    # Less could not hold the updates.
    assert 3.2 < measurement.peak_memory_mb < 10000
    assert abs(measurement.extra_memory_mb) < measurement.peak_memory_mb
    assert measurement.tff_robust_ms_per_round < 60000


if __name__ == '__main__':
  sys.modules['binaries.benchmark_runner'] = types.SimpleNamespace(
      Runner=FakeRoundsRunner
  )
  sys.modules['binaries.benchmark_steps'] = types.SimpleNamespace(
      StepRunner=FakeStepRunner
  )
  sys.modules['binaries.runner'] = types.SimpleNamespace(
      Runner=FakeTrainingRunner
  )
  # pylint: disable-next=g-import-not-at-top
  from binaries import benchmark

  sys.argv[0] = 'benchmark.py'
  application.run(benchmark.main)
