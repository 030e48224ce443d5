"""Tests for tables."""

import math

import numpy as np
import pytest

from binaries.reporting import color_scale
from binaries.reporting import results as results_lib
from binaries.reporting import tables
from tests.binaries import report_folder


def _read(folder, accuracies, *, others=None, **arguments):
  """The results of accuracies for aggregator, attack and seed."""

  def add_fraction(values):
    return {(a, b, 0.4, seed): v for (a, b, seed), v in values.items()}

  return report_folder.read(
      folder,
      add_fraction(accuracies),
      others=add_fraction(others or {}),
      **arguments,
  )


def _cells(table):
  """The cells by row and column."""
  return {
      (name, label): cell
      for name, cells in table.rows
      for label, cell in zip(table.header[1:], cells)
  }


def _texts(table):
  return [[name, *map(str, cells)] for name, cells in table.rows]


_ONE_SEED = {
    ('mean', 'none', 0): 0.91,
    ('mean', 'sign_flip', 0): 0.1004,
    ('fedaot', 'none', 0): 0.9,
    ('fedaot', 'sign_flip', 0): 0.895,
    ('oracle', 'none', 0): 0.92,
    ('oracle', 'sign_flip', 0): 0.906,
}


def test_summary_of_one_seed(tmp_path):
  results = _read(tmp_path, _ONE_SEED, rounds=30)
  (table,) = tables.summary_tables(results)
  assert tables.format_text(table) == """\
Test accuracy in % after the last round (digits, 30 rounds, 40% attackers)

aggregator  none  sign_flip  average
----------  ----  ---------  -------
mean        91.0       10.0     50.5
fedaot      90.0       89.5     89.8
oracle      92.0       90.6     91.3
"""
  assert tables.format_markdown(table) == """\
Test accuracy in % after the last round (digits, 30 rounds, 40% attackers)

| aggregator | none | sign_flip | average |
| --- | ---: | ---: | ---: |
| mean | **91.0** | 10.0 | 50.5 |
| fedaot | 90.0 | **89.5** | **89.8** |
| oracle | 92.0 | 90.6 | 91.3 |
"""


def test_summary_over_seeds_has_sample_standard_deviations(tmp_path):
  # Mean over attacks of seed 0: 0.6, of seed 1: 0.8.
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.8, ('mean', 'none', 1): 0.9,
          ('mean', 'sign_flip', 0): 0.4, ('mean', 'sign_flip', 1): 0.7,
      },
      rounds=1,
  )
  (table,) = tables.summary_tables(results)
  assert tables.format_text(table) == """\
Test accuracy in % after the last round (digits, 1 round, 2 seeds, 40% \
attackers); mean ± standard deviation over the seeds

aggregator        none    sign_flip      average
----------  ----------  -----------  -----------
mean        85.0 ± 7.1  55.0 ± 21.2  70.0 ± 14.1
"""


def test_summary_shows_missing_runs_as_missing(tmp_path):
  axes = {
      'aggregators': ['mean', 'fedaot'],
      'attacks': ['none', 'flip'],
      'byzantine_fractions': [0.2, 0.4],
      'seeds': [0, 1],
  }
  report_folder.write(
      tmp_path,
      {
          ('mean', 'none', 0.4, 0): 0.5,
          ('mean', 'none', 0.4, 1): 0.7,
          ('mean', 'flip', 0.4, 1): 0.3,
      },
  )
  empty, table = tables.summary_tables(results_lib.read(tmp_path, axes))
  assert '20% attackers' in empty.title
  assert _texts(empty) == [['mean', '-', '-', '-'], ['fedaot', '-', '-', '-']]
  assert _texts(table) == [
      ['mean', '60.0 ± 14.1', '30.0 (1/2 seeds)', '50.0 (1/2 seeds)'],
      ['fedaot', '-', '-', '-'],
  ]
  assert [cell.best for cell in table.rows[0][1]] == [True] * 3


def test_summary_of_many_attacks_has_them_as_rows(tmp_path):
  attacks = 'abcdefghi'
  results = _read(
      tmp_path,
      {
          ('fedaot' if attack == 'c' else 'mean', attack, 0): 0.5
          for attack in attacks
      },
  )
  (table,) = tables.summary_tables(results)
  assert table.header == ['attack', 'mean', 'fedaot']
  assert [name for name, _ in table.rows] == [*attacks, 'average']
  assert _texts(table)[1:3] == [['b', '50.0', '-'], ['c', '-', '50.0']]
  assert {p for p, cell in _cells(table).items() if cell.best} == {
      (attack, 'fedaot' if attack == 'c' else 'mean') for attack in attacks
  }


def test_summary_of_what_only_some_measure(tmp_path):
  accuracies = {
      (aggregator, attack, 0): 0.5
      for aggregator in ('mean', 'fedaot', 'krum')
      for attack in ('none', 'backdoor')
  }
  results = _read(
      tmp_path,
      accuracies,
      others={
          ('mean', 'backdoor', 0): {'attack_success_rate': 0.995},
          ('fedaot', 'backdoor', 0): {
              'attack_success_rate': 0.02, 'attacker_weight': 0.012,
          },
          ('krum', 'backdoor', 0): {'attacker_weight': 0.0},
          # Not shown.
          ('fedaot', 'none', 0): {'attacker_weight': 0.0},
      },
  )
  _, success, weight = tables.summary_tables(results)
  assert tables.format_markdown(success) == """\
Success rate of the attack in % after the last round (digits, 3 rounds, 40% \
attackers)

| aggregator | backdoor |
| --- | ---: |
| mean | 99.5 |
| fedaot | **2.0** |
"""
  assert tables.format_markdown(weight) == """\
Weight on attackers in %, mean over the rounds (a plain mean gives 40)

| aggregator | backdoor |
| --- | ---: |
| fedaot | 1.2 |
| krum | **0.0** |
"""


def test_accuracies_over_seeds(tmp_path):
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.8, ('mean', 'none', 1): 0.9,
          ('mean', 'flip', 0): 0.1, ('mean', 'flip', 1): 0.3,
          ('krum', 'none', 0): 0.6, ('krum', 'none', 1): 0.6,
          ('krum', 'flip', 0): 0.7, ('krum', 'flip', 1): 0.5,
      },
  )
  (table,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  assert table.name == 'accuracy_40_percent'
  assert table.header == [
      'aggregator', 'average', 'worst attack', 'none', 'flip',
  ]
  assert _texts(table) == [
      ['mean', '52.5 ± 10.6', '20.0 ± 14.1', '85.0 ± 7.1', '20.0 ± 14.1'],
      ['krum', '60.0 ± 7.1', '60.0 ± 0.0', '60.0 ± 0.0', '60.0 ± 14.1'],
  ]
  cells = _cells(table)
  assert '63.5' in cells['mean', 'none'].note  # 12.706 * 7.071 / sqrt(2)
  assert cells['krum', 'worst attack'].value == pytest.approx(60)
  best = {place for place, cell in cells.items() if cell.best}
  assert best == {
      ('krum', 'average'), ('krum', 'worst attack'), ('mean', 'none'),
      ('krum', 'flip'),
  }
  assert '2 seeds' in table.caption


def test_ties_are_all_best_and_the_oracle_does_not_compete(tmp_path):
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.8,
          ('krum', 'none', 0): 0.8,
          ('fedaot', 'none', 0): 0.7,
          ('oracle', 'none', 0): 0.8,
      },
  )
  (table,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  assert [cell.best for _, (cell,) in table.rows] == [True, True, False, False]


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
  results = results_lib.read(folder)
  (accuracy,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  cells = _cells(accuracy)
  assert cells['mean', 'flip'].text == 'failed'
  assert cells['mean', 'flip'].note == '1 failed, 1 unfinished'
  assert cells['mean', 'flip'].value is None
  assert cells['krum', 'none'].spread == '(1/2 seeds)'
  assert '1 not run' in cells['krum', 'none'].note
  # Krum has no seed with both attacks.
  assert cells['krum', 'average'].text == '-'
  (missing,) = tables.missing_tables(results)
  assert _texts(missing) == [
      ['krum', 'none', '40 %', '1', 'not run', ''],
      ['mean', 'flip', '40 %', '0', 'failed', 'ValueError: | no'],
      ['mean', 'flip', '40 %', '1', 'unfinished', ''],
      ['krum', 'flip', '40 %', '0', 'not run', ''],
  ]
  assert 'ValueError: \\| no' in tables.format_markdown(missing)
  assert missing.data['attackers'].tolist() == [0.4] * 4


def test_differences_to_the_oracle_are_by_seed(tmp_path):
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.5, ('mean', 'none', 1): 0.7,
          ('oracle', 'none', 0): 0.6, ('oracle', 'none', 1): 0.8,
      },
  )
  (table,) = tables.oracle_tables(results, 0.4)
  assert _texts(table) == [['mean', '−10.0 ± 0.0']]


def test_nothing_to_show(tmp_path):
  results = _read(tmp_path, {('fedaot', 'none', 0): 0.5})
  assert not list(tables.oracle_tables(results, 0.4))
  assert not list(tables.baseline_tables(results, 0.4))
  for measure in (tables.SUCCESS, tables.WEIGHT, tables.DETECTION):
    assert not list(tables.measurement_tables(results, 0.4, measure))
  assert not list(tables.cost_tables(results))
  assert not list(tables.missing_tables(results))


def test_difference_to_the_best_baseline_of_each_column(tmp_path):
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.9, ('mean', 'flip', 0): 0.1,
          ('krum', 'none', 0): 0.7, ('krum', 'flip', 0): 0.6,
          ('nnm+fedaot:x=1', 'none', 0): 0.85,
          ('nnm+fedaot:x=1', 'flip', 0): 0.8,
          ('oracle', 'none', 0): 0.95, ('oracle', 'flip', 0): 0.95,
      },
  )
  (table,) = tables.baseline_tables(results, 0.4)
  # Krum's average of 0.65 is the best of a baseline.
  assert _texts(table)[2] == ['nnm+fedaot:x=1', '+17.5', '−5.0', '+20.0']
  assert [cell.text for cell in table.footer[1]] == ['krum', 'mean', 'krum']
  assert '| best baseline | krum 65.0 % | mean 90.0 % | krum 60.0 % |' in (
      tables.format_markdown(table)
  )


def test_measurements_of_some_aggregators_without_the_clean_column(tmp_path):
  accuracies = {
      (aggregator, attack, 0): 0.5
      for aggregator in ('mean', 'fedaot', 'krum')
      for attack in ('none', 'flip', 'scale', 'aimless')
  }
  names = ('attacker_weight', 'detection_auroc', 'attack_success_rate')
  results = _read(
      tmp_path,
      accuracies,
      others={
          ('fedaot', 'flip', 0): dict(zip(names, (0.1, 0.75, 0.2))),
          ('fedaot', 'scale', 0): dict(zip(names, (0.3, 1.0, 0.4))),
          ('krum', 'flip', 0): dict(zip(names, (0.2, 0.5, 0.1))),
      },
  )
  (weight,) = tables.measurement_tables(results, 0.4, tables.WEIGHT)
  assert weight.header == ['aggregator', 'average', 'flip', 'scale']
  assert _texts(weight) == [
      ['fedaot', '20.0', '10.0', '30.0'], ['krum', '-', '20.0', '-'],
  ]
  assert _cells(weight)['fedaot', 'flip'].best
  assert 'A plain mean gives them 40 %' in weight.caption
  (detection,) = tables.measurement_tables(results, 0.4, tables.DETECTION)
  assert _texts(detection)[0] == ['fedaot', '0.875', '0.750', '1.000']
  assert _cells(detection)['fedaot', 'flip'].best
  (success,) = tables.measurement_tables(results, 0.4, tables.SUCCESS)
  assert _texts(success)[0] == ['fedaot', '30.0', '40.0', '20.0', '40.0']
  assert _cells(success)['krum', 'flip'].best


def test_cost_is_the_median_over_runs_and_relative_to_the_mean(tmp_path):
  seconds = {
      ('mean', 0): 0.2, ('krum', 0): 0.3, ('krum', 1): 0.5, ('krum', 2): 0.4,
  }
  results = _read(
      tmp_path,
      {(name, 'none', seed): 0.5 for name, seed in seconds},
      others={
          (name, 'none', seed): {'seconds_per_round': value}
          for (name, seed), value in seconds.items()
      },
  )
  (table,) = tables.cost_tables(results)
  assert table.header[1:] == [
      'seconds a round', 'fastest run', 'slowest run', 'times mean', 'runs',
  ]
  assert _texts(table) == [
      ['mean', '0.200', '0.200', '0.200', '1.00', '1'],
      ['krum', '0.400', '0.300', '0.500', '2.00', '3'],
  ]
  assert table.data.values.tolist()[1] == ['krum', 0.4, 0.3, 0.5, 2.0, 3]


def test_data_has_a_line_a_cell_with_all_digits(tmp_path):
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 1 / 3, ('mean', 'none', 1): 2 / 3,
          ('krum', 'none', 0): 0.25,
      },
  )
  (table,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  first, second = table.data.to_dict('records')
  assert (first['aggregator'], first['column']) == ('mean', 'none')
  assert first['mean'] == pytest.approx(50, abs=1e-12)
  assert first['standard_deviation'] == pytest.approx(
      100 / 3 / math.sqrt(2), abs=1e-12
  )
  assert first['confidence_95'] > 100
  assert math.isnan(second['standard_deviation'])
  assert second['seeds'] == 1
  assert '1 not run' in second['note']


@pytest.mark.parametrize('colormap', ['Blues', 'Oranges', 'PuOr'])
def test_text_on_any_colour_is_readable(colormap):
  scale = color_scale.Scale(colormap, -1.0, 1.0)
  backgrounds = [scale.color(value) for value in np.linspace(-1.5, 1.5, 61)]
  assert len(set(backgrounds)) > 30
  for background in backgrounds:
    color = color_scale.text_color(background)
    assert color_scale.contrast(color, background) >= 4.5


def test_contrast():
  assert color_scale.contrast('#ffffff', '#000000') == pytest.approx(21)
  assert color_scale.contrast('#777777', '#ffffff') == pytest.approx(
      4.48, abs=0.01
  )


def test_no_difference_is_white_and_large_ones_do_not_hide_small_ones(tmp_path):
  results = _read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.1, ('krum', 'none', 0): 0.85,
          ('oracle', 'none', 0): 0.9,
      },
  )
  (table,) = tables.oracle_tables(results, 0.4)
  assert table.scale.low == -table.scale.high == -20
  assert color_scale.contrast(table.scale.color(0), '#ffffff') < 1.1
  assert table.scale.color(-80) == table.scale.color(-20)
  assert table.scale.color(-20) != table.scale.color(-5)
