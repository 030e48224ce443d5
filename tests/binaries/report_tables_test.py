"""Tests for report_tables."""

import csv
import io
import math

import numpy as np
import pytest

from binaries import report_results
from binaries import report_tables
from tests.binaries import report_folder


def _read(folder, accuracies, **arguments):
  """The results of accuracies for aggregator, attack and seed."""
  accuracies = {
      (aggregator, attack, 0.4, seed): value
      for (aggregator, attack, seed), value in accuracies.items()
  }
  others = {
      (aggregator, attack, 0.4, seed): value
      for (aggregator, attack, seed), value in arguments.pop(
          'others', {}
      ).items()
  }
  report_folder.write(folder, accuracies, others=others, **arguments)
  return report_results.read(folder)


def _cells(table):
  """The cells by row and column."""
  return {
      (name, label): cell
      for name, cells in table.rows
      for label, cell in zip(table.header[1:], cells)
  }


def test_estimate():
  assert report_tables.estimate([]) is None
  assert report_tables.estimate([2.0]) == (2.0, None, None, 1)
  found = report_tables.estimate([1.0, 2.0, 3.0])
  assert found.mean == 2 and found.deviation == 1 and found.count == 3
  # Student's t with 2 degrees of freedom has 4.3027 at 97.5 %.
  assert found.confidence == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_accuracies_over_seeds(tmp_path):
  table = report_tables.accuracy_table(
      _read(
          tmp_path,
          {
              ('mean', 'none', 0): 0.8, ('mean', 'none', 1): 0.9,
              ('mean', 'flip', 0): 0.1, ('mean', 'flip', 1): 0.3,
              ('krum', 'none', 0): 0.6, ('krum', 'none', 1): 0.6,
              ('krum', 'flip', 0): 0.7, ('krum', 'flip', 1): 0.5,
          },
      ),
      0.4,
  )
  assert table.header == [
      'aggregator', 'average', 'worst attack', 'none', 'flip',
  ]
  cells = _cells(table)
  assert cells['mean', 'none'].text == '85.0'
  assert cells['mean', 'none'].spread == '± 7.1'
  assert '63.5' in cells['mean', 'none'].note  # 12.706 * 7.071 / sqrt(2)
  assert cells['mean', 'average'].text == '52.5'
  assert cells['mean', 'worst attack'].text == '20.0'
  assert cells['krum', 'worst attack'].value == pytest.approx(60)
  best = {place for place, cell in cells.items() if cell.best}
  assert best == {
      ('krum', 'average'), ('krum', 'worst attack'), ('mean', 'none'),
      ('krum', 'flip'),
  }
  assert '2 seeds' in table.caption


def test_ties_are_all_best_and_the_oracle_does_not_compete(tmp_path):
  table = report_tables.accuracy_table(
      _read(
          tmp_path,
          {
              ('mean', 'none', 0): 0.8,
              ('krum', 'none', 0): 0.8,
              ('fedaot', 'none', 0): 0.7,
              ('oracle', 'none', 0): 0.8,
          },
      ),
      0.4,
  )
  assert [cells[0].best for _, cells in table.rows] == [
      True, True, False, False,
  ]
  assert table.header == ['aggregator', 'none']


def test_runs_without_result_are_shown_as_such(tmp_path):
  folder = report_folder.write(
      tmp_path,
      {
          ('mean', 'none', 0.4, 0): 0.8,
          ('mean', 'none', 0.4, 1): 0.6,
          ('krum', 'none', 0.4, 0): 0.5,
          ('krum', 'flip', 0.4, 1): 0.5,
      },
  )
  failed = report_folder.run_folder(folder, ('mean', 'flip', 0.4, 0))
  (failed / 'error.txt').write_text('ValueError: | no')
  report_folder.run_folder(folder, ('mean', 'flip', 0.4, 1))
  results = report_results.read(folder)
  cells = _cells(report_tables.accuracy_table(results, 0.4))
  assert cells['mean', 'flip'].text == 'failed'
  assert cells['mean', 'flip'].note == '1 failed, 1 unfinished'
  assert cells['mean', 'flip'].value is None
  assert cells['krum', 'none'].spread == '(1/2 seeds)'
  assert '1 not run' in cells['krum', 'none'].note
  # Krum has no seed with both attacks.
  assert cells['krum', 'average'].text == '-'
  missing = report_tables.missing_table(results)
  rows = {
      (name, *(c.text for c in cells[:3])): [c.text for c in cells[3:]]
      for name, cells in missing.rows
  }
  assert rows == {
      ('mean', 'flip', '40 %', '0'): ['failed', 'ValueError: | no'],
      ('mean', 'flip', '40 %', '1'): ['unfinished', ''],
      ('krum', 'none', '40 %', '1'): ['not run', ''],
      ('krum', 'flip', '40 %', '0'): ['not run', ''],
  }
  assert 'ValueError: \\| no' in report_tables.format_markdown(missing)


def test_differences_to_the_oracle_are_by_seed(tmp_path):
  table = report_tables.oracle_table(
      _read(
          tmp_path,
          {
              ('mean', 'none', 0): 0.5, ('mean', 'none', 1): 0.7,
              ('oracle', 'none', 0): 0.6, ('oracle', 'none', 1): 0.8,
          },
      ),
      0.4,
  )
  ((name, (cell,)),) = table.rows
  assert name == 'mean'
  assert cell.text == '−10.0'
  assert cell.spread == '± 0.0'


def test_no_oracle_and_no_baseline(tmp_path):
  results = _read(tmp_path, {('fedaot', 'none', 0): 0.5})
  assert report_tables.oracle_table(results, 0.4) is None
  assert report_tables.baseline_table(results, 0.4) is None
  assert report_tables.success_table(results, 0.4) is None
  assert report_tables.weight_table(results, 0.4) is None
  assert report_tables.detection_table(results, 0.4) is None
  assert report_tables.cost_table(results) is None
  assert report_tables.missing_table(results) is None


def test_difference_to_the_best_baseline_of_each_column(tmp_path):
  table = report_tables.baseline_table(
      _read(
          tmp_path,
          {
              ('mean', 'none', 0): 0.9, ('mean', 'flip', 0): 0.1,
              ('krum', 'none', 0): 0.7, ('krum', 'flip', 0): 0.6,
              ('nnm+fedaot:x=1', 'none', 0): 0.85,
              ('nnm+fedaot:x=1', 'flip', 0): 0.8,
              ('oracle', 'none', 0): 0.95, ('oracle', 'flip', 0): 0.95,
          },
      ),
      0.4,
  )
  cells = _cells(table)
  assert cells['nnm+fedaot:x=1', 'none'].text == '−5.0'
  assert cells['nnm+fedaot:x=1', 'flip'].text == '+20.0'
  # Krum's average of 0.65 is the best of a baseline.
  assert cells['nnm+fedaot:x=1', 'average'].text == '+17.5'
  assert [cell.text for cell in table.footer[1]] == ['krum', 'mean', 'krum']
  assert '| best baseline | krum 65.0 % | mean 90.0 % | krum 60.0 % |' in (
      report_tables.format_markdown(table)
  )


def test_measurements_of_some_aggregators_without_the_clean_column(tmp_path):
  accuracies = {
      (aggregator, attack, 0): 0.5
      for aggregator in ('mean', 'fedaot', 'krum')
      for attack in ('none', 'flip', 'scale')
  }
  measured = {
      ('fedaot', 'flip', 0): (0.1, 0.75, 0.2),
      ('fedaot', 'scale', 0): (0.3, 1.0, 0.4),
      ('krum', 'flip', 0): (0.2, 0.5, 0.1),
  }
  others = {
      key: dict(
          zip(('attacker_weight', 'detection_auroc', 'attack_success_rate'), v)
      )
      for key, v in measured.items()
  }
  results = _read(tmp_path, accuracies, others=others)
  weight = report_tables.weight_table(results, 0.4)
  assert weight.header == ['aggregator', 'average', 'flip', 'scale']
  assert [name for name, _ in weight.rows] == ['fedaot', 'krum']
  assert _cells(weight)['fedaot', 'average'].text == '20.0'
  assert _cells(weight)['fedaot', 'flip'].best
  detection = _cells(report_tables.detection_table(results, 0.4))
  assert detection['fedaot', 'average'].text == '0.875'
  assert detection['fedaot', 'flip'].best
  success = _cells(report_tables.success_table(results, 0.4))
  assert success['fedaot', 'worst attack'].text == '40.0'
  assert success['krum', 'flip'].best
  assert success['krum', 'scale'].text == '-'


def test_attacks_without_an_aim_are_left_out_of_the_success_rates(tmp_path):
  keys = [
      (aggregator, attack, 0)
      for aggregator in ('mean', 'krum')
      for attack in ('none', 'noise', 'flip', 'backdoor')
  ]
  others = {
      key: {'attack_success_rate': 0.25 if key[0] == 'mean' else 0.5}
      for key in keys
      if key[1] in ('flip', 'backdoor')
  }
  table = report_tables.success_table(
      _read(tmp_path, dict.fromkeys(keys, 0.5), others=others), 0.4
  )
  assert table.header == [
      'aggregator', 'average', 'worst attack', 'flip', 'backdoor',
  ]
  assert _cells(table)['krum', 'average'].text == '50.0'
  assert _cells(table)['mean', 'average'].best


def test_cost_is_the_median_over_runs_and_relative_to_the_mean(tmp_path):
  seconds = {('mean', 0): 0.2, ('krum', 0): 0.3, ('krum', 1): 0.5}
  seconds['krum', 2] = 0.4
  table = report_tables.cost_table(
      _read(
          tmp_path,
          {(name, 'none', seed): 0.5 for name, seed in seconds},
          others={
              (name, 'none', seed): {'seconds_per_round': value}
              for (name, seed), value in seconds.items()
          },
      )
  )
  cells = _cells(table)
  assert cells['krum', 'seconds a round'].text == '0.400'
  assert cells['krum', 'slowest run'].text == '0.500'
  assert cells['krum', 'times mean'].text == '2.00'
  assert cells['krum', 'runs'].text == '3'


def test_csv_has_a_line_a_cell_with_all_digits(tmp_path):
  table = report_tables.accuracy_table(
      _read(
          tmp_path,
          {('mean', 'none', 0): 1 / 3, ('mean', 'none', 1): 2 / 3,
           ('krum', 'none', 0): 0.25},
      ),
      0.4,
  )
  rows = list(csv.DictReader(io.StringIO(report_tables.format_csv(table))))
  first, second = rows
  assert float(first['mean']) == pytest.approx(50, abs=1e-12)
  assert float(first['standard_deviation']) == pytest.approx(
      100 / 3 / math.sqrt(2), abs=1e-12
  )
  assert float(first['confidence_95']) > 100
  assert (first['aggregator'], first['column']) == ('mean', 'none')
  assert second['standard_deviation'] == ''
  assert second['seeds'] == '1'
  assert '1 not run' in second['note']


@pytest.mark.parametrize('colormap', ['Blues', 'Oranges', 'PuOr'])
def test_text_on_any_colour_is_readable(colormap):
  scale = report_tables.Scale(colormap, -1.0, 1.0)
  backgrounds = [scale.color(value) for value in np.linspace(-1.5, 1.5, 61)]
  assert len(set(backgrounds)) > 30
  for background in backgrounds:
    color = report_tables.text_color(background)
    assert report_tables.contrast(color, background) >= 4.5


def test_contrast():
  assert report_tables.contrast('#ffffff', '#000000') == pytest.approx(21)
  assert report_tables.contrast('#777777', '#ffffff') == pytest.approx(
      4.48, abs=0.01
  )


def test_no_difference_is_white_and_large_ones_do_not_hide_small_ones(tmp_path):
  table = report_tables.oracle_table(
      _read(
          tmp_path,
          {
              ('mean', 'none', 0): 0.1, ('krum', 'none', 0): 0.85,
              ('oracle', 'none', 0): 0.9,
          },
      ),
      0.4,
  )
  assert table.scale.low == -table.scale.high == -20
  assert report_tables.contrast(table.scale.color(0), '#ffffff') < 1.1
  assert table.scale.color(-80) == table.scale.color(-20)
  assert table.scale.color(-20) != table.scale.color(-5)
