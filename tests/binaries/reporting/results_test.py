"""Tests for results."""

import json
import math
import os

import pytest

from binaries import application
from binaries.reporting import results as results_lib
from tests.binaries import report_folder

_KEY = ('mean', 'none', 0, 0.4)
_OTHER = ('krum:num_byzantine=2', 'sign_flip:scale=-3', 7, 0.2)
_AXES = {
    'aggregators': ['oracle', _OTHER[0], 'mean'],
    'attacks': ['sign_flip', 'none'],
    'byzantine_fractions': [0.1, 0.4],
    'seeds': [3, 0],
}


def _run(results, aggregator, attack, seed, fraction):
  """The row of a run."""
  return results.runs.loc[(fraction, attack, aggregator, seed)]


def test_finished_runs_axes_and_metrics(tmp_path):
  results = report_folder.read(tmp_path, {_KEY: 0.5, _OTHER: 0.75})
  assert results.title == 'digits, 3 rounds, 2 seeds'
  assert results.aggregators == (_KEY[0], _OTHER[0])
  assert results.attacks == (_KEY[1], _OTHER[1])
  assert results.seeds == (0, 7)
  assert results.byzantine_fractions == (0.4, 0.2)
  assert _run(results, *_OTHER)['test_accuracy'] == 0.75
  assert math.isnan(_run(results, *_OTHER)['attacker_weight'])
  metrics = results.metrics[results.metrics['seed'] == 7]
  assert metrics['round'].tolist() == [1, 2, 3]
  assert metrics['test_accuracy'].tolist() == [0.25, 0.5, 0.75]
  assert not results.problems
  # All others of the grid that the axes span.
  assert results.runs['state'].value_counts().to_dict() == {
      'finished': 2,
      'not run': 2**4 - 2,
  }


def test_failed_and_unfinished_runs_are_told_apart(tmp_path):
  report_folder.write(
      tmp_path,
      {_KEY: 0.5, ('mean', 'none', 1): 0.5},
      run_info={'flags': {'aggregators': ['mean', 'fedaot']}},
  )
  failed = report_folder.run_folder(tmp_path, ('fedaot', 'none', 0))
  (failed / 'error.txt').write_text('Traceback\nValueError: no good\n\n')
  report_folder.write_metrics(tmp_path, ('fedaot', 'none', 1), 1)
  results = results_lib.read(tmp_path)
  assert results.runs[['state', 'error']].values.tolist() == [
      ['finished', ''],
      ['finished', ''],
      ['failed', 'ValueError: no good'],
      ['unfinished', ''],
  ]
  assert set(results.metrics['aggregator']) == {'mean'}


def test_runs_that_only_their_own_record_tells_of(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  names = ('aggregator', 'attack', 'seed', 'byzantine_fraction')
  record = report_folder.run_folder(tmp_path, _OTHER) / 'run.json'
  record.write_text(json.dumps({'settings': dict(zip(names, _OTHER))}))
  results = results_lib.read(tmp_path)
  assert _run(results, *_OTHER)['state'] == 'unfinished'
  assert not results.problems
  record.write_text('{}')
  (problem,) = results_lib.read(tmp_path).problems
  assert 'does not tell which run it is of' in problem


def test_axes_that_are_planned_or_asked_for(tmp_path):
  results = report_folder.read(tmp_path, {_KEY: 0.5}, run_info={'flags': _AXES})
  assert {name: [*getattr(results, name)] for name in _AXES} == _AXES
  report_folder.write(tmp_path, {_KEY: 0.5, _OTHER: 0.75})
  results = results_lib.read(tmp_path, _AXES)
  assert len(results.runs) == 3 * 2**3 and results.num_finished == 1
  assert set(results.metrics['aggregator']) == {'mean'}
  (tmp_path / 'results.csv').unlink()
  assert results_lib.read(tmp_path, _AXES).num_finished == 0


def test_columns_are_found_by_name_and_half_a_line_is_left_out(tmp_path):
  (tmp_path / 'results.csv').write_text(
      'seed,honest_mean_distance,attack,byzantine_fraction,test_accuracy,'
      'aggregator\n0,3.5,none,0.4,0.25,mean\n1,2.5,no'
  )
  results = results_lib.read(tmp_path)
  assert len(results.runs) == 1
  assert _run(results, *_KEY)['test_accuracy'] == 0.25
  assert math.isnan(_run(results, *_KEY)['attacker_weight'])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no results'),
        (b'a,b\n1,2\n', 'results.csv: no value for byzantine_fraction'),
        (b'\xff\xfe\x00\n\n', 'cannot read'),
        (
            b'aggregator,attack,byzantine_fraction,seed\nmean,none,x,0\n',
            "results.csv: could not convert string to float: 'x'",
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


@pytest.mark.parametrize(
    ('file', 'content'),
    [
        ('metrics.csv', 'round,test_accuracy\n1,high\n'),
        ('metrics.csv', 'step\n1\n'),
        ('weights.csv', 'round,weight\n1,0.5\n'),
        ('../../run.json', '{'),
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
  assert _run(results, *_KEY)['test_accuracy'] == 0.5


def test_metrics_that_are_gone_or_no_file_are_a_problem(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  path = report_folder.run_folder(tmp_path, _KEY) / 'metrics.csv'
  path.unlink()
  assert results_lib.read(tmp_path).problems == [f'there is no {path}.']
  # Nobody writes into it; to read it would take for ever.
  os.mkfifo(path)
  (problem,) = results_lib.read(tmp_path).problems
  assert problem.startswith(f'cannot read {path}: It is no file;')
  os.mkfifo(path.with_name('weights.csv'))
  os.mkfifo(tmp_path / 'run.json')
  assert len(results_lib.read(tmp_path).problems) == 3


def test_weights_of_rounds_that_tell_clients_apart(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  clients = [
      (1, 0, 0.75),
      (1, 1, 0.25),
      (2, 0, 0.5),
      (2, 0, 0.5),  # Nothing to detect.
      (3, 0, 'nan'),
      (3, 1, 0.5),
      (4, 1, 0.0),
      (4, 0, 1.0),
  ]
  report_folder.write_weights(tmp_path, _KEY, clients)
  weights = results_lib.read(tmp_path).weights
  found = weights[['round', 'is_byzantine', 'weight']].values.tolist()
  assert [*map(tuple, found)] == clients[:2] + clients[-2:]


def test_files_of_another_run_are_left_out(tmp_path):
  keys = [('mean', 'none', seed, 0.4) for seed in (0, 1)]
  report_folder.write(tmp_path, dict.fromkeys(keys, 0.5))
  first, second = (
      report_folder.run_folder(tmp_path, key) / 'metrics.csv' for key in keys
  )
  second.write_bytes(first.read_bytes())
  results = results_lib.read(tmp_path)
  (problem,) = results.problems
  assert f'{second}: line 2 is not as it was written, or of another' in problem
  assert set(results.metrics['seed']) == {0}


def test_results_of_another_comparison_are_refused(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  settings = {'task': 'digits', 'rounds': 9, 'data_dir': None}
  (tmp_path / 'settings.json').write_text(json.dumps(settings))
  with pytest.raises(application.UserError, match='results.csv: line 2 is not'):
    results_lib.read(tmp_path)
