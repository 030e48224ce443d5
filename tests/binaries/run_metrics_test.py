"""Tests for run_metrics."""

import asyncio
import collections
import math

import pytest

from binaries import application
from binaries import csv_log
from binaries import run_metrics
from tests.binaries import fake_program


def _make_record(measurements=(), **fields):
  defaults = {'round_num': 3, 'seconds': 0.123456}
  return fake_program.make_record(measurements, **{**defaults, **fields})


def test_row_of_an_aggregator_without_measurements():
  row = run_metrics.make_row(_make_record())
  assert tuple(row) == run_metrics.COLUMNS
  assert {name: value for name, value in row.items() if value is not None} == {
      'round': 3,
      'num_attackers': 4,
      'model_is_finite': True,
      'honest_mean_norm': 2.0,
      'honest_mean_distance': 0.5,
      'seconds': 0.1235,
      'evaluation_seconds': 0.0,
  }


_FULL_RECORD = _make_record(
    collections.OrderedDict(
        effective_clients=0.1 + 0.2,
        num_attenuated=2,
        num_non_finite=0,
        weights=[0.5, 0.5],
    ),
    evaluation={'accuracy': 1e-20, 'loss': math.inf, 'attack_success_rate': 1},
    model_is_finite=False,
    attacker_weight=0.25,
    detection_auroc=0.75,
)


def test_row_of_an_aggregator_with_measurements():
  row = run_metrics.make_row(_FULL_RECORD)
  assert (row['test_accuracy'], row['test_loss']) == (1e-20, math.inf)
  assert row['attack_success_rate'] == 1
  assert (row['attacker_weight'], row['detection_auroc']) == (0.25, 0.75)
  assert row['effective_clients'] == 0.1 + 0.2
  assert (row['num_attenuated'], row['num_non_finite']) == (2, 0)
  assert row['holdout_loss_before'] is None


def test_row_is_parsed_as_it_was_made(tmp_path):
  row = run_metrics.make_row(_FULL_RECORD)
  csv_log.CsvLog(tmp_path / 'a.csv', run_metrics.COLUMNS, {}).append(row)
  (texts,) = csv_log.read_rows(tmp_path / 'a.csv')
  parsed = {name: run_metrics._parse(text) for name, text in texts.items()}
  assert parsed == row
  assert list(map(type, parsed.values())) == list(map(type, row.values()))


@pytest.mark.parametrize(
    'measurements, norm, z',
    [
        ({'weights': [0.25, 0.75]}, None, ()),
        ({'norms': [2.0, 3.0], 'z': [[0.1, 0.2], [0.3, 0.4]]}, 2.0, (0.1, 0.2)),
    ],
)
def test_rows_of_the_clients(measurements, norm, z):
  first, second = run_metrics.make_client_rows(
      _make_record(measurements, weights=[0.25, 0.75])
  )
  assert tuple(first) == run_metrics.WEIGHTS_COLUMNS
  z_1, z_2 = z or (None, None)
  assert first == {
      'round': 3,
      'is_byzantine': 1,
      'weight': 0.25,
      'norm': norm,
      'z_1': z_1,
      'z_2': z_2,
      'z_3': None,
      'z_4': None,
  }
  assert (second['is_byzantine'], second['weight']) == (0, 0.75)


def _release(log, round_num, **fields):
  record = _make_record({}, round_num=round_num, **fields)
  asyncio.run(log.release(record, round_num))


def _rounds(folder, name):
  return [int(row['round']) for row in csv_log.read_rows(folder / name)]


def test_first_round_replaces_the_rows_from_it_on(tmp_path):
  log = run_metrics.RunLog(tmp_path, {}, {})
  for round_num in (1, 2, 3):
    _release(log, round_num, weights=[0.5, 0.5], attacker_weight=0.1)
  log.sync()
  log.close()
  with open(tmp_path / 'metrics.csv', 'a', encoding='utf-8') as file:
    file.write('4,0.')
  before = (tmp_path / 'metrics.csv').read_bytes()
  log = run_metrics.RunLog(tmp_path, {}, {})
  assert [row['round'] for row in log.rows] == [1, 2, 3]
  assert (tmp_path / 'metrics.csv').read_bytes() == before
  _release(log, 2, weights=[1, 1], attacker_weight=0.2)
  assert [row['attacker_weight'] for row in log.rows] == [0.1, 0.2]
  assert _rounds(tmp_path, 'metrics.csv') == [1, 2]
  assert _rounds(tmp_path, 'weights.csv') == [1, 1, 2, 2]
  log.close()


def _release_weighed(folder, rounds):
  log = run_metrics.RunLog(folder, {}, {})
  for round_num in rounds:
    _release(log, round_num, weights=[0.5, 0.5], attacker_weight=0.5)
  log.close()


def _drop_lines(path, start, end):
  lines = path.read_text().splitlines(keepends=True)
  del lines[start:end]
  path.write_text(''.join(lines))


@pytest.mark.parametrize('num_left', [2, 3])
def test_rounds_that_a_power_failure_cost_their_weights_are_redone(
    tmp_path, num_left
):
  _release_weighed(tmp_path, (1, 2, 3))
  _drop_lines(tmp_path / 'weights.csv', 1 + num_left, None)
  rows = run_metrics.RunLog(tmp_path, {}, {}).rows
  assert [row['round'] for row in rows] == [1]


@pytest.mark.parametrize(
    'name, start, end, message',
    [
        ('metrics.csv', 2, 3, 'metrics.csv: line 3 is not as it was written'),
        ('weights.csv', 3, 4, 'weights.csv: line 4 is not as it was written'),
        ('weights.csv', 1, None, 'weights.csv lacks all rows;'),
        ('weights.csv', 0, None, 'weights.csv lacks all rows;'),
    ],
)
def test_gap_is_an_error(tmp_path, name, start, end, message):
  _release_weighed(tmp_path, (1, 2, 3))
  _drop_lines(tmp_path / name, start, end)
  with pytest.raises(application.UserError, match=message):
    run_metrics.RunLog(tmp_path, {}, {})


def test_times_are_the_last_columns():
  assert run_metrics.COLUMNS[-2:] == ('seconds', 'evaluation_seconds')
  assert not [c for c in run_metrics.COLUMNS[:-2] if 'seconds' in c]


def test_summary():
  columns = dict(
      test_accuracy=[None, 0.9, 0.8],
      attacker_weight=[0.5, None, 0.25],
      attack_success_rate=[None, 0.1, 0.2],
      detection_auroc=[None] * 3,
      honest_mean_norm=[2.0, 0.0, 1.0],
      honest_mean_distance=[1.0, 3.0, 4.0],
      seconds=[9.0, 1.0, 2.0],
  )
  rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
  assert run_metrics.summarize(rows) == {
      'test_accuracy': 0.8,
      'attack_success_rate': 0.2,
      'attacker_weight': 0.375,
      'detection_auroc': None,
      'relative_deviation': 2.25,
      'seconds_per_round': 2.0,
  }
