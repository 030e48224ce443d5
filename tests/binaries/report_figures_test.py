"""Tests for report_figures."""

import csv
import io

from matplotlib import image
import numpy as np
import pytest

from binaries import figure
from binaries import report_figures
from binaries import report_results
from binaries import report_tables
from fedaot_tff.simulation import metrics as metrics_lib
from tests.binaries import report_folder


def _shape(png):
  return image.imread(io.BytesIO(png)).shape[:2]


def _data(drawn):
  return list(csv.DictReader(io.StringIO(report_figures.format_csv(drawn))))


def test_perfect_and_reversed_and_tied_weights():
  is_byzantine = np.array([True, False, False, True])
  rates = np.linspace(0, 1, 201)
  perfect = report_figures.roc_curve(is_byzantine, np.array([0, 0.5, 0.5, 0]))
  np.testing.assert_array_equal(perfect, np.ones(201))
  reversed_ = report_figures.roc_curve(is_byzantine, np.array([1, 0.0, 0.0, 1]))
  np.testing.assert_array_equal(reversed_, rates == 1)
  tied = report_figures.roc_curve(is_byzantine, np.full(4, 0.25))
  np.testing.assert_allclose(tied, rates)


def test_steps_of_a_curve():
  # From the lowest weight: attacker, honest, attacker, honest.
  curve = report_figures.roc_curve(
      np.array([False, True, False, True]), np.array([0.2, 0.1, 0.4, 0.3])
  )
  rates = np.linspace(0, 1, 201)
  np.testing.assert_array_equal(curve, np.where(rates < 0.5, 0.5, 1.0))


@pytest.mark.parametrize('seed', range(5))
def test_area_below_the_curve_is_the_detection_auroc(seed):
  random = np.random.default_rng(seed)
  is_byzantine = random.permutation([True] * 7 + [False] * 13)
  weights = random.integers(0, 8, size=20) / 8
  curve = report_figures.roc_curve(is_byzantine, weights)
  area = np.mean((curve[1:] + curve[:-1]) / 2)
  expected = metrics_lib.detection_auroc(weights, is_byzantine)
  assert area == pytest.approx(expected, abs=0.01)


def test_roc_figure_averages_over_rounds_and_seeds(tmp_path):
  keys = [
      (aggregator, attack, 0.4, seed)
      for aggregator in ('mean', 'fedaot')
      for attack in ('none', 'flip', 'scale')
      for seed in (0, 1)
  ]
  report_folder.write(tmp_path, dict.fromkeys(keys, 0.5))
  good, bad = (0, 1), (1, 0)
  for seed, rounds in ((0, (good, good)), (1, (good, bad))):
    report_folder.write_weights(
        tmp_path,
        ('fedaot', 'flip', 0.4, seed),
        [
            (i, int(j == 0), weight)
            for i, weights in enumerate(rounds)
            for j, weight in enumerate(weights)
        ],
    )
  results = report_results.read(tmp_path)
  (drawn,) = report_figures.roc_figures(results, 0.4)
  rows = _data(drawn)
  assert {(row['attack'], row['aggregator']) for row in rows} == {
      ('flip', 'fedaot')
  }
  assert {row['area'] for row in rows} == {'0.750000'}
  rates = [float(row['false_positive_rate']) for row in rows]
  found = [float(row['true_positive_rate']) for row in rows]
  assert rates[:2] == [0, 0] and found[:2] == [0, 0.75]
  assert found[100] == 0.75 and found[-1] == 1
  assert 'flip: fedaot 0.750' in drawn.alternative
  assert min(_shape(drawn.png)) > 200


def test_no_weights_no_roc_figure(tmp_path):
  report_folder.write(tmp_path, {('mean', 'flip', 0.4, 0): 0.5})
  results = report_results.read(tmp_path)
  assert not list(report_figures.roc_figures(results, 0.4))
  assert not list(report_figures.weight_figures(results, 0.4))
  assert not list(report_figures.cost_figures(results))


def test_learning_curves(tmp_path):
  accuracies = {
      ('mean', 'flip', 0.4, 0): 0.2,
      ('mean', 'flip', 0.4, 1): 0.6,
      ('krum', 'flip', 0.4, 0): 0.8,
      ('oracle', 'flip', 0.4, 0): 0.9,
      ('mean', 'flip', 0.2, 0): 0.3,
  }
  results = report_results.read(
      report_folder.write(tmp_path, accuracies, rounds=2)
  )
  (drawn,) = report_figures.accuracy_figures(results, 0.4)
  assert drawn.alternative == (
      'Test accuracy by round; in the last round, from high to low. flip:'
      ' oracle 90.0 %, krum 80.0 %, mean 40.0 %.'
  )
  rows = [row for row in _data(drawn) if row['aggregator'] == 'mean']
  assert [(row['round'], row['mean'], row['seeds']) for row in rows] == [
      ('1', '20', '2'), ('2', '40', '2'),
  ]
  assert float(rows[1]['deviation']) == pytest.approx(28.2843)
  assert 'standard deviation' in drawn.caption
  height, width = _shape(drawn.png)
  assert 250 < height < width
  (other,) = report_figures.accuracy_figures(results, 0.2)
  assert other.name == 'learning_curves_20_percent'


def test_many_attacks_take_several_figures(tmp_path):
  attacks = [f'attack{i}' for i in range(8)]
  report_folder.write(
      tmp_path, {('mean', attack, 0.4, 0): 0.5 for attack in attacks}
  )
  first, second = report_figures.accuracy_figures(
      report_results.read(tmp_path), 0.4
  )
  assert first.name == 'learning_curves_40_percent_1'
  assert second.name == 'learning_curves_40_percent_2'
  assert {row['attack'] for row in _data(second)} == {'attack6', 'attack7'}
  assert _shape(first.png)[0] > 1.5 * _shape(second.png)[0]


def test_long_titles_of_panels_are_broken():
  attack = 'scaled_noise:scale=3,seed=12,many_more_options=1'
  title = figure.panel_title(attack, 0.4)
  assert title.replace('\n', ' ').endswith(', 40% attackers')
  assert max(map(len, title.split('\n'))) <= 38
  assert figure.panel_title('none', 0.4) == 'no attackers'


def test_weights_leave_out_the_clean_runs(tmp_path):
  others = {
      ('fedaot', attack, 0.4, 0): {'attacker_weight': 0.125}
      for attack in ('none', 'flip')
  }
  accuracies = {**dict.fromkeys(others, 0.5), ('mean', 'flip', 0.4, 0): 0.5}
  results = report_results.read(
      report_folder.write(tmp_path, accuracies, others=others)
  )
  (drawn,) = report_figures.weight_figures(results, 0.4)
  assert {
      (row['attack'], row['aggregator'], row['mean']) for row in _data(drawn)
  } == {('flip', 'fedaot', '12.5')}


def test_heat_map_has_the_colours_of_its_cells(tmp_path):
  report_folder.write(
      tmp_path,
      {('mean', 'none', 0.4, 0): 0.1, ('krum', 'none', 0.4, 0): 0.9},
  )
  results = report_results.read(tmp_path)
  table = report_tables.accuracy_table(results, 0.4)
  pixels = image.imread(io.BytesIO(report_figures.draw_heat_map(table)))
  colors = {
      '#%02x%02x%02x' % tuple(color)
      for color in np.unique(
          np.round(255 * pixels[..., :3]).astype(int).reshape(-1, 3), axis=0
      )
  }
  assert {table.scale.color(10), table.scale.color(90)} <= colors


def test_cost(tmp_path):
  report_folder.write(
      tmp_path,
      {('mean', 'none', 0.4, seed): 0.5 for seed in range(3)},
      others={
          ('mean', 'none', 0.4, seed): {'seconds_per_round': value}
          for seed, value in enumerate((0.5, 0.1, 0.2))
      },
  )
  (drawn,) = report_figures.cost_figures(report_results.read(tmp_path))
  assert drawn.alternative == 'Median seconds a round. mean 0.20.'
  assert _data(drawn) == [
      {'aggregator': 'mean', 'median_seconds': '0.2', 'runs': '3'}
  ]


def test_markdown_shows_the_picture(tmp_path):
  report_folder.write(tmp_path, {('mean', 'flip', 0.4, 0): 0.5})
  (drawn,) = report_figures.accuracy_figures(
      report_results.read(tmp_path), 0.4
  )
  text = report_figures.format_markdown(drawn)
  assert f'![{drawn.alternative}](learning_curves_40_percent.png)' in text
