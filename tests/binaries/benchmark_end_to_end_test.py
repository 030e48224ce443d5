"""Tests for benchmark_end_to_end, and for `binaries.benchmark --end_to_end`."""

import asyncio
import collections
import signal
import types

import pytest

from binaries import benchmark_end_to_end as end_to_end
from binaries import csv_log
from tests.binaries import programs


def _benchmark(output_dir, *arguments, **environment):
  return programs.run(
      'tests.binaries.benchmark_test',
      '--end_to_end',
      f'--output_dir={output_dir}',
      '--rounds=2',
      *arguments,
      **environment,
  )


def _timed(output_dir):
  rows = csv_log.read_rows(output_dir / 'end_to_end.csv')
  return {m.key: m for m in map(end_to_end.parse_row, rows)}


def test_all_results_are_written(tmp_path):
  result = _benchmark(
      tmp_path, '--tasks=digits,breast_cancer', '--aggregators=fedaot,mean'
  )
  assert result.returncode == 0, result.stderr
  assert len(result.stderr.splitlines()) == 4
  timed = _timed(tmp_path)
  assert sorted(timed) == [
      ('breast_cancer', 'fedaot'),
      ('breast_cancer', 'mean'),
      ('digits', 'fedaot'),
      ('digits', 'mean'),
  ]
  for measurement in timed.values():
    assert (measurement.rounds, measurement.repeats) == (2, 3)
    assert measurement.seconds_per_round > 0
  assert timed['digits', 'mean'].ratio_to_mean == 1.0
  assert timed['digits', 'mean'].ratio_with_evaluation == 1.0
  markdown = (tmp_path / 'end_to_end.md').read_text()
  assert markdown.count('| aggregator | s a round | times mean |') == 2
  assert markdown.count('| 1.000 | 1.000 to 1.000 |') == 2
  assert 'breast_cancer: time of a round' in result.stdout
  assert f'See {tmp_path}/end_to_end.md' in result.stdout
  assert not (tmp_path / 'benchmark.csv').exists()


def test_default_is_fedaot_on_the_bundled_tasks(tmp_path):
  assert _benchmark(tmp_path, '--repeats=1').returncode == 0
  assert list(_timed(tmp_path)) == [
      (task, aggregator)
      for task in ('mnist5k', 'digits', 'breast_cancer')
      for aggregator in ('mean', 'fedaot', 'fedaot_no_holdout')
  ]


def test_mean_is_trained_though_it_is_not_asked_for(tmp_path):
  first = _benchmark(tmp_path, '--tasks=digits', '--aggregators=krum')
  assert first.returncode == 0, first.stderr
  assert [line.split(':')[0] for line in first.stderr.splitlines()] == [
      'digits, mean', 'digits, krum',
  ]
  assert list(_timed(tmp_path)) == [('digits', 'krum')]
  second = _benchmark(tmp_path, '--tasks=digits', '--aggregators=krum')
  assert (second.stdout, second.stderr) == (first.stdout, '')


def test_crash_costs_the_task_in_progress_only(tmp_path):
  arguments = ('--tasks=digits', '--aggregators=mean,krum')
  crashed = _benchmark(tmp_path, *arguments, FAKE_CRASH='krum')
  assert crashed.returncode == -signal.SIGKILL
  assert not _timed(tmp_path)
  assert _benchmark(tmp_path, *arguments).returncode == 0
  assert len(_timed(tmp_path)) == 2


def test_failure_does_not_stop_the_others(tmp_path):
  arguments = ('--tasks=digits', '--aggregators=krum,fedaot', '--quiet')
  failed = _benchmark(tmp_path, *arguments, FAKE_FAILURE='krum')
  assert failed.returncode == 1
  error_file = tmp_path / 'errors' / 'digits-krum' / 'error.txt'
  assert failed.stderr.splitlines() == [
      'digits, krum: failed: RuntimeError: something is wrong (traceback:'
      f' {error_file})',
      'benchmark: 1 of 2 measurements failed; the same command tries them'
      ' again.',
  ]
  assert 'Traceback' in error_file.read_text()
  assert list(_timed(tmp_path)) == [('digits', 'fedaot')]
  assert ['krum', *'-----'] in [
      line.split() for line in failed.stdout.splitlines()
  ]
  assert _benchmark(tmp_path, *arguments).returncode == 0
  assert len(_timed(tmp_path)) == 2
  assert not error_file.exists()


def test_without_mean_nothing_can_be_told(tmp_path):
  failed = _benchmark(
      tmp_path,
      '--tasks=digits',
      '--aggregators=krum,fedaot',
      FAKE_FAILURE='mean',
  )
  assert failed.returncode == 1
  assert failed.stderr.endswith(
      'benchmark: 2 of 2 measurements failed; the same command tries them'
      ' again.\n'
  )
  assert not _timed(tmp_path)


@pytest.mark.parametrize(
    'argument, message',
    [
        ('--tasks=digit', 'option `task` must be one of femnist, '),
        ('--tasks=', 'flag --tasks is empty; give one or more.'),
        ('--tasks=digits,digits', "flag --tasks has 'digits' twice."),
        ('--aggregators=median', "unknown aggregator 'median'; known: "),
        ('--rounds=0', 'flag --rounds=0: '),
        (
            '--num_clients=10',
            'flag --num_clients means nothing with --end_to_end; leave it out.',
        ),
        ('--dimension=10', 'flag --dimension means nothing with --end_to_end;'),
    ],
)
def test_wrong_flags_are_told_in_one_line(tmp_path, argument, message):
  result = _benchmark(tmp_path / 'new', argument)
  assert result.returncode == 1
  assert result.stderr.startswith(f'benchmark: {message}')
  assert len(result.stderr.splitlines()) == 1
  assert not (tmp_path / 'new').exists()


def test_other_settings_are_refused(tmp_path):
  assert _benchmark(tmp_path, '--tasks=digits').returncode == 0
  result = _benchmark(tmp_path, '--tasks=digits', '--rounds=3')
  assert result.returncode == 1
  assert result.stderr == (
      f'benchmark: {tmp_path} holds a benchmark with rounds=2, not 3; choose'
      ' another --output_dir.\n'
  )


class _FakeClock:
  """Stands in for the module `time`."""

  def __init__(self):
    self.now = 0.0

  def perf_counter(self):
    return self.now


class _FakeProgress:
  """Stands in for a `Progress`."""

  def __init__(self):
    self.started = []
    self.rounds = collections.Counter()
    self._selected = None

  def start_run(self, label):
    self.started.append(label)

  def select_run(self, label):
    self._selected = label

  def advance(self, unused_text):
    self.rounds[self._selected] += 1

  def warn(self, text):
    raise AssertionError(text)


class _FakeRunner:
  """Rounds of given times; the first two of a training take a hundred times.

  Attributes:
    played: The aggregator of each round that was played.
    folders: The folders of the runs.
  """

  def __init__(self, clock, seconds, evaluation_seconds=0.5):
    self._clock = clock
    self._seconds = seconds
    self._evaluation_seconds = evaluation_seconds
    self.played = []
    self.folders = []

  def run(
      self,
      experiment,
      *,
      checkpoint_folder,
      checkpoint_every,
      release_managers,
      warn,
  ):
    del checkpoint_every, warn
    self.folders.append(checkpoint_folder.parent)
    for round_num in range(1, experiment.task_options['rounds'] + 1):
      self.played.append(experiment.aggregator)
      factor = 100 if round_num <= 2 else 1
      self._clock.now += factor * self._seconds[experiment.aggregator]
      self._clock.now += self._evaluation_seconds
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
          is_byzantine=(False,),
          weights=None,
          evaluation={'accuracy': 0.5, 'loss': 1.0},
          evaluation_seconds=self._evaluation_seconds,
      )
      for manager in release_managers:
        asyncio.run(manager.release(record, round_num))
      yield record


def test_trainings_take_turns(monkeypatch):
  clock = _FakeClock()
  monkeypatch.setattr(end_to_end, 'time', clock)
  runner = _FakeRunner(clock, {'mean': 1.0, 'krum': 3.0})
  progress = _FakeProgress()
  experiments = end_to_end.make_experiments(
      'digits',
      ['krum', 'mean'],
      rounds=3,
      repeats=2,
      byzantine_fraction=0.2,
      seed=5,
  )
  assert list(experiments) == ['mean', 'krum']
  assert experiments['krum'].attack == 'none'
  assert experiments['krum'].byzantine_fraction == 0.2
  assert experiments['krum'].seed == 5
  times, errors = end_to_end.train_in_turns(
      runner, experiments, progress, rounds=3, repeats=2
  )
  assert not errors
  assert runner.played == (
      ['mean'] * 2 + ['krum'] * 2 + (['mean'] * 3 + ['krum'] * 3) * 2
  )
  # The first rounds do not count, and the evaluation is apart.
  assert times['krum'] == [[(3.0, 0.5)] * 3] * 2
  assert times['mean'] == [[(1.0, 0.5)] * 3] * 2
  assert progress.started == ['digits, mean', 'digits, krum']
  assert progress.rounds == {'digits, mean': 8, 'digits, krum': 8}
  # Each has a folder of its own, for a while.
  assert len(set(runner.folders)) == 2
  assert not any(folder.exists() for folder in runner.folders)


def test_training_that_fails_leaves_the_others(monkeypatch):
  clock = _FakeClock()
  monkeypatch.setattr(end_to_end, 'time', clock)
  # There is no time for `krum`.
  runner = _FakeRunner(clock, {'mean': 1.0, 'fedaot': 2.0})
  experiments = end_to_end.make_experiments(
      'digits',
      ['krum', 'fedaot'],
      rounds=1,
      repeats=2,
      byzantine_fraction=0.1,
      seed=0,
  )
  times, errors = end_to_end.train_in_turns(
      runner, experiments, _FakeProgress(), rounds=1, repeats=2
  )
  assert list(errors) == ['krum']
  assert isinstance(errors['krum'], KeyError)
  assert len(times['fedaot']) == len(times['mean']) == 2


def _rounds(*seconds, evaluation_seconds=1.0):
  return [end_to_end.RoundTime(s, evaluation_seconds) for s in seconds]


def test_ratios_are_of_the_same_repeat():
  measurement = end_to_end.summarize(
      'digits',
      'krum',
      # A late round in each repeat, and a machine that grew slower.
      [_rounds(2.0, 2.0, 9.0), _rounds(99.0, 6.0, 6.0), _rounds(8.0, 8.0, 8.0)],
      [_rounds(1.0, 1.0, 7.0), _rounds(2.0, 2.0, 2.0), _rounds(5.0, 5.0, 5.0)],
  )
  assert measurement.key == ('digits', 'krum')
  assert (measurement.rounds, measurement.repeats) == (3, 3)
  assert measurement.seconds_per_round == 6.0
  assert measurement.ratio_to_mean == 2.0
  assert measurement.ratio_min == pytest.approx(1.6)
  assert measurement.ratio_max == 3.0
  assert measurement.evaluation_seconds == 1.0
  # 3 / 2, 7 / 3 and 9 / 6.
  assert measurement.ratio_with_evaluation == 1.5


def test_row_is_read_as_it_was_written(tmp_path):
  path = tmp_path / 'end_to_end.csv'
  measurement = end_to_end.summarize(
      'digits', 'krum', [_rounds(0.1, 0.3)], [_rounds(0.7, 0.1)]
  )
  with csv_log.CsvLog(path, end_to_end.COLUMNS, keep=True) as log:
    log.append(
        {name: getattr(measurement, name) for name in end_to_end.COLUMNS}
    )
  (row,) = csv_log.read_rows(path)
  assert end_to_end.parse_row(row) == measurement


@pytest.mark.slow
def test_real_trainings(tmp_path):
  result = programs.run(
      'binaries.benchmark',
      '--end_to_end',
      '--tasks=breast_cancer',
      '--aggregators=mean,coordinate_median',
      '--rounds=2',
      '--repeats=1',
      f'--output_dir={tmp_path}',
  )
  assert result.returncode == 0, result.stderr
  timed = _timed(tmp_path)
  assert [key[1] for key in timed] == ['mean', 'coordinate_median']
  for measurement in timed.values():
    assert measurement.seconds_per_round > 0
    assert measurement.evaluation_seconds > 0
