"""Tests for results."""

import json
import math

import pandas as pd
import pytest

from binaries import application
from binaries.reporting import results as results_lib
from tests.binaries import report_folder

_KEY = ('mean', 'none', 0.4, 0)
_OTHER = ('krum:num_byzantine=2', 'sign_flip:scale=-3', 0.2, 7)


def _run(results, key):
  """The row of a run."""
  aggregator, attack, fraction, seed = key
  return results.runs.loc[(fraction, attack, aggregator, seed)]


def _states(results):
  """The runs without a result, by state."""
  return {
      (aggregator, attack, fraction, seed): state
      for (fraction, attack, aggregator, seed), state in results.runs[
          'state'
      ].items()
      if state != 'finished'
  }


def test_finished_runs_axes_and_metrics(tmp_path):
  results = report_folder.read(tmp_path, {_KEY: 0.5, _OTHER: 0.75})
  assert results.title == 'digits, 3 rounds, 2 seeds'
  assert results.aggregators == (_KEY[0], _OTHER[0])
  assert results.attacks == (_KEY[1], _OTHER[1])
  assert results.byzantine_fractions == (0.4, 0.2)
  assert results.seeds == (0, 7)
  assert _run(results, _OTHER)['test_accuracy'] == 0.75
  assert math.isnan(_run(results, _OTHER)['attacker_weight'])
  metrics = results.metrics[results.metrics['seed'] == 7]
  assert metrics['round'].tolist() == [1, 2, 3]
  assert metrics['test_accuracy'].tolist() == [0.25, 0.5, 0.75]
  assert not results.problems
  # All others of the grid that the axes span.
  states = _states(results)
  assert len(states) == 2**4 - 2
  assert set(states.values()) == {'not run'}


def test_failed_and_unfinished_runs_are_told_apart(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5, ('mean', 'none', 0.4, 1): 0.5})
  failed = ('fedaot', 'none', 0.4, 0)
  unfinished = ('fedaot', 'none', 0.4, 1)
  (tmp_path / 'run.json').write_text(
      json.dumps({'flags': {'aggregators': ['mean', 'fedaot']}})
  )
  (report_folder.run_folder(tmp_path, failed) / 'error.txt').write_text(
      'Traceback\n  line\nValueError: no good\n\n'
  )
  report_folder.write_metrics(tmp_path, unfinished, 0.3, 1, {})
  results = results_lib.read(tmp_path)
  assert _states(results) == {failed: 'failed', unfinished: 'unfinished'}
  assert _run(results, failed)['error'] == 'ValueError: no good'
  assert set(results.metrics['aggregator']) == {'mean'}


@pytest.mark.parametrize('key', [_OTHER, ('nnm+fedaot', 'a-b', 1e-05, 1)])
def test_runs_that_only_their_own_record_tells_of(tmp_path, key):
  report_folder.write(tmp_path, {_KEY: 0.5})
  names = ('aggregator', 'attack', 'byzantine_fraction', 'seed')
  (report_folder.run_folder(tmp_path, key) / 'run.json').write_text(
      json.dumps({'settings': dict(zip(names, key))})
  )
  results = results_lib.read(tmp_path)
  assert _states(results)[key] == 'unfinished'
  assert not results.problems


def test_folders_that_tell_no_run_are_problems(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  (tmp_path / 'runs' / 'notes').mkdir()
  (problem,) = results_lib.read(tmp_path).problems
  assert 'does not tell which run notes is' in problem


def test_planned_axes_come_first(tmp_path):
  axes = {
      'aggregators': ['oracle', 'krum:num_byzantine=2', 'mean'],
      'attacks': ['none', 'sign_flip'],
      'byzantine_fractions': [0.1, 0.4],
      'seeds': [3, 0],
  }
  results = report_folder.read(tmp_path, {_KEY: 0.5}, run_info={'flags': axes})
  for name, values in axes.items():
    assert getattr(results, name) == tuple(values)


def test_axes_that_are_asked_for(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5, _OTHER: 0.75})
  axes = {
      'aggregators': ['krum', 'mean'],
      'attacks': ['none'],
      'byzantine_fractions': [0.4],
      'seeds': [0],
  }
  results = results_lib.read(tmp_path, axes)
  assert results.runs['state'].tolist() == ['not run', 'finished']
  assert results.num_finished == 1
  assert set(results.metrics['aggregator']) == {'mean'}
  (tmp_path / 'results.csv').unlink()
  assert results_lib.read(tmp_path, axes).num_finished == 0


def test_columns_are_found_by_name(tmp_path):
  (tmp_path / 'results.csv').write_text(
      'seed,honest_mean_distance,attack,byzantine_fraction,test_accuracy,'
      'aggregator\n0,3.5,none,0.4,0.25,mean\n'
  )
  results = results_lib.read(tmp_path)
  assert _run(results, _KEY)['test_accuracy'] == 0.25
  assert pd.isna(_run(results, _KEY)['attacker_weight'])


def test_half_a_last_line_is_left_out(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  with open(tmp_path / 'results.csv', 'a', encoding='utf-8') as file:
    file.write('digits,mea')
  assert len(results_lib.read(tmp_path).runs) == 1


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no results'),
        (b'', 'no results'),
        (b'task,aggregator\n', 'no results'),
        (b'a,b\n1,2\n', 'line 2: no value for byzantine_fraction'),
        (b'\xff\xfe\x00\n\n', 'cannot read'),
        (
            b'aggregator,attack,byzantine_fraction,seed\nmean,none,x,0\n',
            "line 2: could not convert string to float: 'x'",
        ),
        (
            b'aggregator,attack,byzantine_fraction,seed\nmean,none,0.4\n',
            'line 2: no value for seed',
        ),
        (
            b'aggregator,attack,byzantine_fraction,seed,test_accuracy\n'
            b'mean,none,0.4,0,0.5\nmean,none,0.4,1,high\n',
            'line 3: could not convert',
        ),
        (
            b'task,aggregator,attack,byzantine_fraction,seed\n'
            b'a,mean,none,0.4,0\nb,mean,none,0.4,0\n',
            'mixes the tasks a, b',
        ),
    ],
)
def test_corrupt_results(tmp_path, content, message):
  if content is not None:
    (tmp_path / 'results.csv').write_bytes(content)
  with pytest.raises(application.UserError, match=message) as error:
    results_lib.read(tmp_path)
  assert '\n' not in str(error.value)


def test_no_folder(tmp_path):
  with pytest.raises(application.UserError, match='there is no folder'):
    results_lib.read(tmp_path / 'missing')


@pytest.mark.parametrize(
    ('file', 'content'),
    [
        ('metrics.csv', 'round,test_accuracy\n1,high\n'),
        ('metrics.csv', 'step\n1\n'),
        ('weights.csv', 'round,weight\n1,0.5\n'),
        ('weights.csv', 'round,is_byzantine,weight\n1,2,0.5\n'),
        ('../../run.json', '{'),
        ('../../run.json', '[]'),
        ('../../run.json', '{"flags": {"seeds": "one"}}'),
    ],
)
def test_other_files_that_cannot_be_read_are_problems(tmp_path, file, content):
  report_folder.write(tmp_path, {_KEY: 0.5})
  (report_folder.run_folder(tmp_path, _KEY) / file).write_text(content)
  results = results_lib.read(tmp_path)
  (problem,) = results.problems
  assert file.rpartition('/')[2] in problem
  assert results.metrics.empty == (file == 'metrics.csv')
  assert _run(results, _KEY)['test_accuracy'] == 0.5


def test_weights_of_rounds_that_tell_clients_apart(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  report_folder.write_weights(
      tmp_path,
      _KEY,
      [
          (1, 0, 0.75), (1, 1, 0.25),
          (2, 0, 0.5), (2, 0, 0.5),  # Nothing to detect.
          (3, 0, 'nan'), (3, 1, 0.5),
          (4, 1, 0.0), (4, 0, 1.0),
      ],
  )
  weights = results_lib.read(tmp_path).weights
  assert weights[['round', 'is_byzantine', 'weight']].values.tolist() == [
      [1, False, 0.75], [1, True, 0.25], [4, True, 0.0], [4, False, 1.0],
  ]
