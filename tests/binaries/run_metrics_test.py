"""Tests for run_metrics."""

import collections
import math
import types

from binaries import csv_log
from binaries import run_metrics


_HONEST_MEAN = {'norm': 2.0, 'distance': 0.5}


def _make_record(**fields):
  defaults = dict(
      round_num=3,
      seconds=0.123456,
      metrics={'aggregator': (), 'honest_mean': _HONEST_MEAN},
      model_is_finite=True,
      num_attackers=4,
      attacker_weight=None,
      detection_auroc=None,
      evaluation=None,
      evaluation_seconds=0.0,
  )
  return types.SimpleNamespace(**{**defaults, **fields})


def test_row_of_an_aggregator_without_measurements():
  row = run_metrics.make_row(_make_record())
  assert tuple(row) == run_metrics.COLUMNS
  assert row['round'] == 3
  assert row['num_attackers'] == 4
  assert row['model_is_finite']
  assert row['seconds'] == 0.1235
  for name in ('test_accuracy', 'attacker_weight', 'effective_clients'):
    assert row[name] is None


def test_row_of_an_aggregator_with_measurements():
  measurements = collections.OrderedDict(
      effective_clients=7.5, num_attenuated=2, weights=[0.5, 0.5]
  )
  row = run_metrics.make_row(
      _make_record(
          metrics={'aggregator': measurements, 'honest_mean': _HONEST_MEAN},
          evaluation={
              'accuracy': 0.5,
              'loss': 1.5,
              'attack_success_rate': 0.125,
          },
          attacker_weight=0.25,
          detection_auroc=0.75,
      )
  )
  assert tuple(row) == run_metrics.COLUMNS
  assert row['test_accuracy'] == 0.5
  assert row['test_loss'] == 1.5
  assert row['attack_success_rate'] == 0.125
  assert row['honest_mean_norm'] == 2.0
  assert row['honest_mean_distance'] == 0.5
  assert row['attacker_weight'] == 0.25
  assert row['detection_auroc'] == 0.75
  assert row['effective_clients'] == 7.5
  assert row['num_attenuated'] == 2
  assert row['holdout_loss_before'] is None


def test_row_is_parsed_as_it_was_made(tmp_path):
  measurements = collections.OrderedDict(
      effective_clients=0.1 + 0.2, num_attenuated=2, num_non_finite=0
  )
  row = run_metrics.make_row(
      _make_record(
          metrics={'aggregator': measurements, 'honest_mean': _HONEST_MEAN},
          evaluation={'accuracy': 1e-20, 'loss': math.inf},
          model_is_finite=False,
      )
  )
  path = tmp_path / 'metrics.csv'
  with csv_log.CsvLog(path, run_metrics.COLUMNS, keep=False) as log:
    log.append(row)
  (texts,) = csv_log.read_rows(path)
  parsed = run_metrics.parse_row(texts)
  assert parsed == row
  assert {k: type(v) for k, v in parsed.items()} == {
      k: type(v) for k, v in row.items()
  }


def test_rows_of_the_clients():
  measurements = {'norms': [2.0, 3.0], 'z': [[0.1, 0.2], [0.3, 0.4]]}
  first, second = run_metrics.make_client_rows(
      _make_record(
          metrics={'aggregator': measurements},
          is_byzantine=(True, False),
          weights=[0.25, 0.75],
      )
  )
  assert tuple(first) == run_metrics.WEIGHTS_COLUMNS
  assert first == {
      'round': 3,
      'is_byzantine': 1,
      'weight': 0.25,
      'norm': 2.0,
      'z_1': 0.1,
      'z_2': 0.2,
      'z_3': None,
      'z_4': None,
  }
  assert (second['is_byzantine'], second['z_1']) == (0, 0.3)


def test_rows_of_clients_without_statistics():
  row, _ = run_metrics.make_client_rows(
      _make_record(
          metrics={'aggregator': {'weights': [0.5, 0.5]}},
          is_byzantine=(True, False),
          weights=[0.5, 0.5],
      )
  )
  assert row['weight'] == 0.5
  assert row['norm'] is None and row['z_1'] is None


def test_times_are_the_last_columns():
  assert run_metrics.COLUMNS[-2:] == ('seconds', 'evaluation_seconds')
  assert not [c for c in run_metrics.COLUMNS[:-2] if 'seconds' in c]


def _make_rows(**columns):
  names = (
      'test_accuracy',
      'attack_success_rate',
      'attacker_weight',
      'detection_auroc',
      'honest_mean_norm',
      'honest_mean_distance',
      'seconds',
  )
  num_rows = len(next(iter(columns.values())))
  return [
      {name: columns.get(name, [None] * num_rows)[i] for name in names}
      for i in range(num_rows)
  ]


def test_summary():
  rows = _make_rows(
      test_accuracy=[None, 0.9, 0.8],
      attacker_weight=[0.5, None, 0.25],
      attack_success_rate=[None, 0.1, 0.2],
      honest_mean_norm=[2.0, 0.0, 1.0],
      honest_mean_distance=[1.0, 3.0, 4.0],
      seconds=[9.0, 1.0, 2.0],
  )
  assert run_metrics.summarize(rows) == {
      'test_accuracy': 0.8,
      'attack_success_rate': 0.2,
      'attacker_weight': 0.375,
      'detection_auroc': None,
      'relative_deviation': 2.25,
      'seconds_per_round': 2.0,
  }
