"""Tests for figures."""

import io
import math

from matplotlib import image
import numpy as np
import pytest

from binaries.reporting import figures
from binaries.reporting import results as results_lib
from binaries.reporting import tables
from fedaot_tff.simulation import metrics as metrics_lib
from tests.binaries import report_folder


def _read_grid(
    folder, aggregators, attacks, *, fractions=(0.4,), rounds=3, **measured
):
  """Results of accuracy 0.5 without and with attackers."""
  return report_folder.read(
      folder,
      {
          (aggregator, attack, 0, fraction): {'test_accuracy': 0.5, **measured}
          for aggregator in aggregators
          for attack in attacks
          for fraction in fractions
      },
      rounds=rounds,
  )


def _panels(results):
  """The panels of the summary by title and quantity."""
  return {
      (axes.get_title(), axes.get_ylabel()): axes
      for axes in figures.draw_summary(results).axes
  }


def test_summary_has_a_panel_an_attack_and_quantity(tmp_path):
  attacks = ('none', *(f'sign_flip:scale={i}' for i in range(2, 8)))
  measured = dict(fractions=(0.2, 0.4), attacker_weight=0.1)
  results = _read_grid(tmp_path, ('mean', 'fedaot'), attacks, **measured)
  drawn = figures.draw_summary(results)
  # Each fraction: seven panels of accuracy, and six of weights.
  assert len(drawn.axes) == 2 * (7 + 6)
  boxes = {tuple(axes.get_position().bounds) for axes in drawn.axes}
  assert len(boxes) == len(drawn.axes)
  assert {
      ('no attackers', 'Test accuracy (%)'),
      ('sign_flip:scale=2, 20% attackers', 'Weight on attackers (%)'),
      ('sign_flip:scale=7, 40% attackers', 'Test accuracy (%)'),
  } < set(_panels(results))
  figures.save_summary(tmp_path / 'comparison.png', results)
  pixels = image.imread(tmp_path / 'comparison.png')
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_lines_are_means_over_the_seeds_in_percent(tmp_path):
  results = report_folder.read(
      tmp_path,
      {('mean', 'none', seed): value for seed, value in ((0, 0.2), (1, 0.6))},
      rounds=2,
  )
  (axes,) = _panels(results).values()
  (line,) = axes.lines
  np.testing.assert_allclose(line.get_xdata(), [1, 2])
  np.testing.assert_allclose(line.get_ydata(), [20, 40])
  (band,) = axes.collections
  # The sample standard deviation of 20 and 60.
  y = band.get_paths()[0].vertices[:, 1]
  np.testing.assert_allclose(y.max(), 40 + 20 * math.sqrt(2))


def test_rounds_without_evaluation_are_left_out(tmp_path):
  results = _read_grid(tmp_path, ('mean',), ('none',), rounds=4)
  results.metrics.loc[results.metrics['round'] % 2 == 1, 'test_accuracy'] = None
  (axes,) = _panels(results).values()
  np.testing.assert_allclose(axes.lines[0].get_xdata(), [2, 4])


@pytest.mark.parametrize(('weight', 'rounds'), [(0.0, 1), (0.9, 1000)])
def test_all_is_inside_of_the_panels(tmp_path, weight, rounds):
  results = _read_grid(
      tmp_path, ('fedaot',), ('a',), attacker_weight=weight, rounds=rounds
  )
  axes = _panels(results)['a, 40% attackers', 'Weight on attackers (%)']
  low, high = axes.get_ylim()
  assert low < 100 * weight < high
  low, high = axes.get_xlim()
  assert low < 1 and rounds < high < 1.1 * rounds + 1


def test_lines_of_many_aggregators_can_be_told_apart():
  names = ['fedaot', 'fedaot_no_holdout', 'fedaot_frozen', 'oracle']
  names += ['fedaot_no_holdout_frozen', *(f'baseline{i}' for i in range(14))]
  styles = figures.line_styles(names)
  looks = {
      (style['color'], style['linestyle'], style.get('marker'))
      for style in styles.values()
  }
  assert len(looks) == len(names)
  assert max(styles, key=lambda name: styles[name]['linewidth']) == 'fedaot'


def test_summary_of_nothing(tmp_path):
  report_folder.write(tmp_path, {})
  names = ('aggregators', 'attacks', 'byzantine_fractions', 'seeds')
  axes = dict(zip(names, (['mean'], ['none'], [0.4], [0])))
  assert not _panels(results_lib.read(tmp_path, axes))


@pytest.mark.parametrize(
    ('weights', 'expected_rates', 'expected_area'),
    [
        ([0.5, 0.0, 0.5, 0.0], [100, 100, 100], 1.0),
        ([0.0, 1.0, 0.0, 1.0], [0, 0, 100], 0.0),
        ([0.25] * 4, [0, 50, 100], 0.5),
        # From the lowest weight: attacker, honest, attacker, honest.
        ([0.2, 0.1, 0.4, 0.3], [50, 100, 100], 0.75),
    ],
)
def test_roc_curve(weights, expected_rates, expected_area):
  is_byzantine = [False, True, False, True]
  rates, area = figures.roc_curve(is_byzantine, weights)
  np.testing.assert_allclose(rates[[0, 100, 200]], expected_rates)
  assert area == pytest.approx(expected_area)
  assert area == metrics_lib.detection_auroc(
      np.array(weights), np.array(is_byzantine)
  )


def test_roc_figure_averages_over_rounds_and_seeds(tmp_path):
  runs = {('fedaot', 'flip', seed): 0.5 for seed in (0, 1)}
  results = report_folder.read(tmp_path, runs)
  assert not list(figures.roc_figures(results, 0.4))
  good, bad = (0, 1), (1, 0)
  for seed, rounds in ((0, (good, good)), (1, (good, bad))):
    clients = [
        (i, int(j == 0), weight)
        for i, weights in enumerate(rounds)
        for j, weight in enumerate(weights)
    ]
    report_folder.write_weights(tmp_path, ('fedaot', 'flip', seed), clients)
  (drawn,) = figures.roc_figures(results_lib.read(tmp_path), 0.4)
  assert set(drawn.data['area']) == {0.75}
  rates = drawn.data['false_positive_rate'].tolist()
  found = drawn.data['true_positive_rate'].tolist()
  assert rates[:2] == [0, 0] and found[:2] == [0, 75]
  assert found[100] == 75 and found[-1] == 100
  assert drawn.alternative.endswith('flip: fedaot 0.75.')


def test_learning_curves(tmp_path):
  results = report_folder.read(
      tmp_path,
      {
          ('mean', 'flip', 0): 0.2,
          ('mean', 'flip', 1): 0.6,
          ('krum', 'flip', 0): 0.8,
          ('oracle', 'flip', 0): 0.9,
          ('mean', 'flip', 0, 0.2): 0.3,
      },
      rounds=2,
  )
  (drawn,) = figures.curve_figures(results, 0.4, figures.ACCURACY)
  assert drawn.name == 'learning_curves_40_percent'
  assert drawn.alternative.endswith('flip: oracle 90, krum 80, mean 40.')
  rows = drawn.data[drawn.data['aggregator'] == 'mean']
  assert [*rows['round']] == [1, 2] and [*rows['seeds']] == [2, 2]
  np.testing.assert_allclose(rows['test_accuracy'], [20, 40])
  np.testing.assert_allclose(
      rows['deviation'], [10 * math.sqrt(2), 20 * math.sqrt(2)]
  )
  assert 'standard deviation' in drawn.caption


def test_many_attacks_take_several_figures(tmp_path):
  results = _read_grid(tmp_path, ('mean',), [f'attack{i}' for i in range(8)])
  first, second = figures.curve_figures(results, 0.4, figures.ACCURACY)
  assert first.name == 'learning_curves_40_percent_1'
  assert set(second.data['attack']) == {'attack6', 'attack7'}


def test_heat_map_has_the_colours_of_its_cells(tmp_path):
  results = report_folder.read(
      tmp_path, {('mean', 'none'): 0.1, ('krum', 'none'): 0.9}
  )
  (table,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  pixels = image.imread(io.BytesIO(figures.draw_heat_map(table)))
  found = np.unique((255 * pixels[..., :3]).round().reshape(-1, 3), axis=0)
  colors = {'#%02x%02x%02x' % tuple(color) for color in found.astype(int)}
  assert {table.scale.color(10), table.scale.color(90)} <= colors


def test_cost(tmp_path):
  runs = {
      ('mean', 'none', seed): {'seconds_per_round': seconds}
      for seed, seconds in enumerate((0.5, 0.1, 0.2))
  }
  (drawn,) = figures.cost_figures(report_folder.read(tmp_path, runs))
  assert drawn.alternative == 'Median seconds a round: mean 0.20.'
  assert drawn.data.values.tolist() == [['mean', 0.2, 0.1, 0.5, 3]]
