"""Tests for benchmark."""

import signal

from matplotlib import image
import pytest

from binaries import benchmark_report as report
from binaries import csv_log
from tests.binaries import programs


def _benchmark(output_dir, *arguments, **environment):
  return programs.run(
      'tests.binaries.fake_benchmark',
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
  assert krum.peak_memory_mb == pytest.approx(160.0)
  assert krum.repeats == 3
  lines = [line.split() for line in result.stdout.splitlines()]
  assert ['krum', '40', '40.00', '160'] in lines
  assert ['fedaot', '3', '3.00', '40'] in lines
  assert ['krum', '2.00', '1.00'] in lines
  assert ['fedaot', '1.00', '1.00'] in lines
  markdown = (tmp_path / 'benchmark.md').read_text()
  assert '| krum | 40 | 40.00 | 160 |' in markdown
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
  assert ['krum', '-', '-', '-'] in [
      line.split() for line in failed.stdout.splitlines()
  ]
  assert _benchmark(tmp_path).returncode == 0
  assert not error_file.exists()


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


def _measurement(num_clients, dimension, ms_per_round):
  return report.Measurement(
      'a', num_clients, dimension, 1, 1.0, 1.0, 1.0, ms_per_round, 1.0, 1.0
  )


def test_growth_is_fitted():
  grid = [(n, d) for n in (5, 10, 40) for d in (10, 1000)]
  growth = report.fit_growth(
      [_measurement(n, d, 3e-4 * n**1.5 * d**0.5) for n, d in grid]
  )
  assert growth == pytest.approx((1.5, 0.5))
  # A time that is not positive is noise.
  few = [_measurement(5, 10, 1.0), _measurement(10, 10, 4.0)]
  growth = report.fit_growth(few + [_measurement(5, 100, -1.0)])
  assert growth.clients == pytest.approx(2.0)
  assert growth.dimension is None
  # N and d grew together.
  together = [_measurement(5, 10, 1.0), _measurement(10, 20, 4.0)]
  assert report.fit_growth(together) == (None, None)
  assert report.fit_growth([]) == (None, None)
  assert report.fit_growth(few[:1]) == (None, None)


def test_ratio_needs_a_positive_time_of_the_mean(tmp_path):
  path = tmp_path / 'benchmark.csv'
  with csv_log.CsvLog(path, report.COLUMNS, keep=True) as log:
    repeat = report.summarize(
        'mean', 3, 5, [_Repeat(2.0, 1.9, 2.3, None)]
    )
    log.append({name: getattr(repeat, name) for name in report.COLUMNS})
  (row,) = csv_log.read_rows(path)
  assert row['ratio_to_mean'] == row['peak_memory_mb'] == ''
  assert report.parse_row(row) == repeat
  assert repeat.ms_per_client == pytest.approx(100.0)


class _Repeat:
  """The times of a repeat."""

  def __init__(self, generation, mean, aggregator, peak_memory_mb):
    self.generation = generation
    self.mean = mean
    self.aggregator = aggregator
    self.peak_memory_mb = peak_memory_mb


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
