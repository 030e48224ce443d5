"""Tests for tables and the estimates in them."""

import math

from matplotlib import colors
import numpy as np
import pandas as pd
import pytest

from binaries.reporting import estimates
from binaries.reporting import results as results_lib
from binaries.reporting import tables
from tests.binaries import report_folder


def _cells(table):
  """The cells by row and column."""
  return {
      (name, label): cell
      for name, cells in table.rows
      for label, cell in zip(table.header[1:], cells)
  }


def _texts(table):
  return [[name, *(cell.text for cell in cells)] for name, cells in table.rows]


def _accuracy(results):
  (table,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  return table


_TWO_SEEDS = {
    ('mean', 'none', 0): 0.8,
    ('mean', 'none', 1): 0.9,
    ('mean', 'flip', 0): 0.1,
    ('mean', 'flip', 1): 0.3,
    ('krum', 'none', 0): 0.6,
    ('krum', 'none', 1): 0.6,
    ('krum', 'flip', 0): 0.7,
    ('krum', 'flip', 1): 0.5,
}


def test_variants_of_fedaot_and_the_oracle_are_no_baselines():
  names = ['mean', 'oracle', 'nnm+fedaot:x=1', 'fedaot_frozen', 'nnm+krum:a=1']
  assert estimates.baselines(names) == ['mean', 'nnm+krum:a=1']


def test_summary_of_one_seed(tmp_path):
  results = report_folder.read(
      tmp_path,
      {
          ('mean', 'none'): 0.91,
          ('mean', 'sign_flip'): 0.1004,
          ('fedaot', 'none'): 0.9,
          ('fedaot', 'sign_flip'): 0.895,
          ('oracle', 'none'): 0.92,
          ('oracle', 'sign_flip'): 0.906,
      },
      rounds=30,
  )
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
          ('mean', 'none', 0): 0.5,
          ('mean', 'none', 1): 0.7,
          ('mean', 'flip', 1): 0.3,
      },
  )
  empty, table = tables.summary_tables(results_lib.read(tmp_path, axes))
  assert '20% attackers' in empty.title
  assert _texts(empty) == [['mean', '-', '-', '-'], ['fedaot', '-', '-', '-']]
  # Sample standard deviations.
  assert _texts(table) == [
      ['mean', '60.0 ± 14.1', '30.0 (1/2 seeds)', '50.0 (1/2 seeds)'],
      ['fedaot', '-', '-', '-'],
  ]


def test_summary_of_many_attacks_has_them_as_rows(tmp_path):
  attacks = 'abcdefghi'
  runs = {('fedaot' if a == 'c' else 'mean', a): 0.5 for a in attacks}
  (table,) = tables.summary_tables(report_folder.read(tmp_path, runs))
  assert table.header == ['attack', 'mean', 'fedaot']
  assert [name for name, _ in table.rows] == [*attacks, 'average']
  assert _texts(table)[1:3] == [['b', '50.0', '-'], ['c', '-', '50.0']]


def test_accuracies_over_seeds(tmp_path):
  table = _accuracy(report_folder.read(tmp_path, _TWO_SEEDS))
  assert table.name == 'accuracy_40_percent' and '2 seeds' in table.caption
  assert table.header[1:] == ['average', 'worst attack', 'none', 'flip']
  assert _texts(table) == [
      ['mean', '52.5 ± 10.6', '20.0 ± 14.1', '85.0 ± 7.1', '20.0 ± 14.1'],
      ['krum', '60.0 ± 7.1', '60.0 ± 0.0', '60.0 ± 0.0', '60.0 ± 14.1'],
  ]
  cells = _cells(table)
  assert '63.5' in cells['mean', 'none'].note  # 12.706 * 7.071 / sqrt(2)
  assert {place for place, cell in cells.items() if cell.best} == {
      ('krum', 'average'),
      ('krum', 'worst attack'),
      ('mean', 'none'),
      ('krum', 'flip'),
  }


def test_ties_are_all_best_and_the_oracle_does_not_compete(tmp_path):
  runs = {(name, 'none'): 0.8 for name in ('mean', 'krum', 'fedaot', 'oracle')}
  runs['fedaot', 'none'] = 0.7
  table = _accuracy(report_folder.read(tmp_path, runs))
  assert [cell.best for _, (cell,) in table.rows] == [True, True, False, False]


def test_runs_without_result_are_shown_as_such(tmp_path):
  folder = report_folder.write(
      tmp_path,
      {
          ('mean', 'none', 0): 0.8,
          ('mean', 'none', 1): 0.6,
          ('krum', 'none', 0): 0.5,
          ('krum', 'flip', 1): 0.5,
      },
  )
  failed = report_folder.run_folder(folder, ('mean', 'flip', 0))
  (failed / 'error.txt').write_text('ValueError: | no')
  report_folder.run_folder(folder, ('mean', 'flip', 1))
  results = results_lib.read(folder)
  cells = _cells(_accuracy(results))
  assert cells['mean', 'flip'] == ('failed', None, '1 failed, 1 unfinished', 0)
  assert cells['krum', 'none'].text == '50.0 (1/2 seeds)'
  assert cells['krum', 'none'].note == '1 not run'
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


def test_nothing_to_show(tmp_path):
  results = report_folder.read(tmp_path, {('fedaot', 'none'): 0.5})
  assert not list(tables.oracle_tables(results, 0.4))
  assert not list(tables.baseline_tables(results, 0.4))
  for measure in (tables.SUCCESS, tables.WEIGHT, tables.DETECTION):
    assert not list(tables.measurement_tables(results, 0.4, measure))
  assert not list(tables.cost_tables(results))
  assert not list(tables.missing_tables(results))


def test_differences_to_the_best_baseline_and_to_the_oracle(tmp_path):
  runs = {
      (aggregator, attack): value
      for aggregator, values in {
          'mean': (0.9, 0.1),
          'krum': (0.7, 0.6),
          'nnm+fedaot:x=1': (0.85, 0.8),
          'oracle': (0.95, 0.95),
      }.items()
      for attack, value in zip(('none', 'flip'), values)
  }
  results = report_folder.read(tmp_path, runs)
  (table,) = tables.baseline_tables(results, 0.4)
  # Krum's average of 0.65 is the best of a baseline.
  assert _texts(table)[2] == ['nnm+fedaot:x=1', '+17.5', '−5.0', '+20.0']
  assert '| best baseline | krum 65.0 % | mean 90.0 % | krum 60.0 % |' in (
      tables.format_markdown(table)
  )
  runs = {**_TWO_SEEDS, ('oracle', 'none', 0): 0.9, ('oracle', 'none', 1): 1.0}
  (table,) = tables.oracle_tables(report_folder.read(tmp_path, runs), 0.4)
  # Seed by seed.
  assert _cells(table)['mean', 'none'].text == '−10.0 ± 0.0'


def test_measurements_of_some_aggregators_without_the_clean_column(tmp_path):
  names = ('attacker_weight', 'detection_auroc', 'attack_success_rate')
  results = report_folder.read(
      tmp_path,
      {
          ('mean', 'none'): 0.5,
          ('mean', 'aimless'): 0.5,
          ('fedaot', 'flip'): dict(zip(names, (0.1, 0.75, 0.2))),
          ('fedaot', 'scale'): dict(zip(names, (0.3, 1.0, 0.4))),
          ('krum', 'flip'): dict(zip(names, (0.2, 0.5, 0.1))),
      },
  )

  summary = tables.summary_tables(results)
  assert [table.header[1:] for table in summary[1:]] == [
      ['flip', 'scale', 'average']
  ] * 2

  def table_of(measure):
    (table,) = tables.measurement_tables(results, 0.4, measure)
    return table

  weight = table_of(tables.WEIGHT)
  assert weight.header == ['aggregator', 'average', 'flip', 'scale']
  assert _texts(weight) == [
      ['fedaot', '20.0', '10.0', '30.0'],
      ['krum', '-', '20.0', 'not run'],
  ]
  assert _cells(weight)['fedaot', 'flip'].best
  assert 'A plain mean gives them 40 %' in weight.caption
  detection = table_of(tables.DETECTION)
  assert _texts(detection)[0] == ['fedaot', '0.875', '0.750', '1.000']
  assert _cells(detection)['fedaot', 'flip'].best
  success = table_of(tables.SUCCESS)
  assert _texts(success)[0] == ['fedaot', '30.0', '40.0', '20.0', '40.0']
  assert _cells(success)['krum', 'flip'].best


def test_cost_is_the_median_over_runs_and_relative_to_the_mean(tmp_path):
  seconds = {('mean', 0): 0.2}
  seconds.update({('krum', i): (0.3, 0.5, 0.4)[i] for i in range(3)})
  runs = {
      (name, 'none', seed): {'seconds_per_round': value}
      for (name, seed), value in seconds.items()
  }
  (table,) = tables.cost_tables(report_folder.read(tmp_path, runs))
  assert table.header[1:] == [
      'seconds a round',
      'fastest run',
      'slowest run',
      'times mean',
      'runs',
  ]
  assert _texts(table) == [
      ['mean', '0.200', '0.200', '0.200', '1.000', '1'],
      ['krum', '0.400', '0.300', '0.500', '2.000', '3'],
  ]


def test_data_has_a_line_a_cell_with_all_digits(tmp_path):
  runs = {('mean', 'none', seed): (1 + seed) / 3 for seed in (0, 1)}
  results = report_folder.read(tmp_path, {**runs, ('krum', 'none', 0): 0.25})
  first, second = _accuracy(results).data.to_dict('records')
  deviation = 100 / 3 / math.sqrt(2)
  # Student's t with a degree of freedom has 12.7062 at 97.5 %.
  half = pytest.approx(12.7062 * deviation / math.sqrt(2), rel=1e-5)
  assert first == {
      'aggregator': 'mean',
      'column': 'none',
      'mean': pytest.approx(50),
      'standard_deviation': pytest.approx(deviation),
      'confidence_95': half,
      'seeds': 2,
      'note': '',
  }
  assert math.isnan(second['standard_deviation'])
  assert (second['seeds'], second['note']) == (1, '1 not run')


@pytest.mark.parametrize('colormap', ['Blues', 'Oranges', 'PuOr'])
def test_text_on_any_colour_is_readable(colormap):
  scale = tables.Scale(colormap, -1.0, 1.0)
  for value in np.linspace(-1.5, 1.5, 61):
    color = scale.color(value)
    # Luminances as WCAG 2 has them, but for its linear piece near black.
    low, high = sorted(
        0.05 + np.dot((0.2126, 0.7152, 0.0722), np.power(rgb, 2.2))
        for rgb in map(colors.to_rgb, (color, tables.text_color(color)))
    )
    assert high / low >= 4.5


def test_no_difference_is_white_and_large_ones_do_not_hide_small_ones(tmp_path):
  accuracies = {'mean': 0.1, 'krum': 0.85, 'oracle': 0.9}
  runs = {(name, 'none'): value for name, value in accuracies.items()}
  (table,) = tables.oracle_tables(report_folder.read(tmp_path, runs), 0.4)
  scale = table.scale
  assert (scale.low, scale.high) == (-20, 20)
  assert min(colors.to_rgb(scale.color(0))) > 0.94
  assert scale.color(-80) == scale.color(-20) != scale.color(-5)


@pytest.mark.parametrize(
    'form, expected', [('{:+.1f}', 'a +1.0, b −2.0'), ('', 'a, b')]
)
def test_enumerates_names_with_or_without_values(form, expected):
  values = pd.Series({'a': 1.0, 'b': -2.0})
  assert tables.enumerate_values(values, form) == expected
