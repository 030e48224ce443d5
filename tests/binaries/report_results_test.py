"""Tests for report_results."""

import numpy as np
import pytest

from binaries import application
from binaries import experiment
from binaries import report_results
from tests.binaries import report_folder

_KEY = ('mean', 'none', 0.4, 0)
_OTHER = ('krum:num_byzantine=2', 'sign_flip:scale=-3', 0.2, 7)


def test_finished_runs_axes_and_metrics(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5, _OTHER: 0.75})
  results = report_results.read(tmp_path)
  comparison = results.comparison
  assert comparison.task == 'digits'
  assert comparison.rounds == 3
  assert list(comparison.aggregators) == [_KEY[0], _OTHER[0]]
  assert list(comparison.attacks) == [_KEY[1], _OTHER[1]]
  assert list(comparison.byzantine_fractions) == [0.4, 0.2]
  assert list(comparison.seeds) == [0, 7]
  assert comparison.values('test_accuracy', *_OTHER[:3]) == {7: 0.75}
  assert [row['round'] for row in results.metrics[_OTHER]] == ['1', '2', '3']
  assert not results.problems
  # All others of the grid that the axes span.
  assert len(results.states) == 2**4 - 2
  assert set(results.states.values()) == {'not run'}


def test_folders_are_named_as_compare_names_them():
  names = [
      ('fedaot', 'label_flip', 0.4, 0),
      ('nnm+krum:num_byzantine=2', 'sign_flip:scale=3', 0.25, 12),
  ]
  for key in names:
    axes = dict(
        zip(('aggregator', 'attack', 'byzantine_fraction', 'seed'), key)
    )
    assert (
        report_results.folder_name('mnist5k', key)
        == experiment.Experiment(task='mnist5k', **axes).name
    )


def test_failed_and_unfinished_runs_are_told_apart(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5, ('mean', 'none', 0.4, 1): 0.5})
  failed = ('fedaot', 'none', 0.4, 0)
  unfinished = ('fedaot', 'none', 0.4, 1)
  (report_folder.run_folder(tmp_path, failed) / 'error.txt').write_text(
      'Traceback\n  line\nValueError: no good\n\n'
  )
  report_folder.write_metrics(tmp_path, unfinished, 0.3, 1, {})
  results = report_results.read(tmp_path)
  assert results.states == {failed: 'failed', unfinished: 'unfinished'}
  assert results.errors == {failed: 'ValueError: no good'}
  assert unfinished not in results.metrics


@pytest.mark.parametrize(
    'key',
    [
        ('mean', 'sign_flip', 0.4, 1),
        ('trimmed_mean', 'none', 0.25, 0),
        ('nnm+fedaot', 'sign_flip:scale=-3', 0.4, 0),
    ],
)
def test_runs_that_only_their_folder_tells_of(tmp_path, key):
  report_folder.write(tmp_path, {_KEY: 0.5})
  report_folder.run_folder(tmp_path, key)
  report_folder.write(
      tmp_path,
      {_KEY: 0.5},
      run_info={'flags': {'aggregators': key[0], 'attacks': [key[1]]}},
  )
  assert report_results.read(tmp_path).states[key] == 'unfinished'


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('digits-mean-scale_x=-3-0.4-1', ('mean', 'scale_x=-3', 0.4, 1)),
        ('digits-bulyan_a=-1-none-1e-05-1', ('bulyan_a=-1', 'none', 1e-05, 1)),
        ('digits-bulyan-flip-0.25-0', ('bulyan', 'flip', 0.25, 0)),
        ('other-bulyan-flip-0.25-0', None),
        ('notes', None),
    ],
)
def test_names_of_folders_are_parsed_without_a_plan(tmp_path, name, key):
  report_folder.write(tmp_path, {_KEY: 0.5})
  (tmp_path / 'runs' / name).mkdir()
  states = report_results.read(tmp_path).states
  unfinished = [k for k, state in states.items() if state == 'unfinished']
  assert unfinished == ([] if key is None else [key])


def test_planned_axes_come_first(tmp_path):
  flags = {
      'aggregators': 'oracle,krum:num_byzantine=2,mean',
      'attacks': ['none', 'sign_flip'],
      'byzantine_fractions': '0.1,0.4',
      'seeds': [0, 1],
  }
  report_folder.write(tmp_path, {_KEY: 0.5}, run_info={'flags': flags})
  comparison = report_results.read(tmp_path).comparison
  assert comparison.aggregators == ('oracle', 'krum:num_byzantine=2', 'mean')
  assert comparison.attacks == ('none', 'sign_flip')
  assert comparison.byzantine_fractions == (0.1, 0.4)
  assert comparison.seeds == (0, 1)


def test_columns_are_found_by_name(tmp_path):
  columns = (
      'seed', 'honest_mean_distance', 'attack', 'byzantine_fraction',
      'test_accuracy', 'aggregator',
  )
  (tmp_path / 'results.csv').write_text(
      f'{",".join(columns)}\n0,3.5,none,0.4,0.25,mean\n'
  )
  results = report_results.read(tmp_path)
  assert results.comparison.values('test_accuracy', 'mean', 'none', 0.4) == {
      0: 0.25
  }
  assert not results.comparison.values(
      'attacker_weight', 'mean', 'none', 0.4
  )


def test_half_a_last_line_is_left_out(tmp_path):
  report_folder.write(tmp_path, {_KEY: 0.5})
  with open(tmp_path / 'results.csv', 'a', encoding='utf-8') as file:
    file.write('digits,mea')
  assert list(report_results.read(tmp_path).comparison.results) == [_KEY]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'no results'),
        (b'task,aggregator\n', 'no results'),
        (b'task,aggregator\ndigits,mean\n', 'no column attack'),
        (b'\xff\xfe\x00\n\n', 'cannot read'),
        (
            b'aggregator,attack,byzantine_fraction,seed\nmean,none,x,0\n',
            'line 2: could not convert',
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
            b'a,mean,none,0.4,0\nb,mean,none,0.4,0\nb,krum,none,0.4,1\n'
            b'a,krum,none,0.4,0\n',
            'mixes the tasks a, b',
        ),
    ],
)
def test_corrupt_results(tmp_path, content, message):
  (tmp_path / 'results.csv').write_bytes(content)
  with pytest.raises(application.UserError, match=message) as error:
    report_results.read(tmp_path)
  assert '\n' not in str(error.value)


def test_no_folder_and_no_results(tmp_path):
  with pytest.raises(application.UserError, match='there is no folder'):
    report_results.read(tmp_path / 'missing')
  with pytest.raises(application.UserError, match='no results'):
    report_results.read(tmp_path)


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
  results = report_results.read(tmp_path)
  (problem,) = results.problems
  assert file.rpartition('/')[2] in problem
  assert (_KEY in results.metrics) == (file != 'metrics.csv')


def test_weights_by_round(tmp_path):
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
  first, second = report_results.read(tmp_path).weights[_KEY]
  np.testing.assert_array_equal(first.is_byzantine, [False, True])
  np.testing.assert_array_equal(first.weights, [0.75, 0.25])
  np.testing.assert_array_equal(second.is_byzantine, [True, False])
  np.testing.assert_array_equal(second.weights, [0.0, 1.0])
