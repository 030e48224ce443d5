"""Tests for figures."""

import io
import math
import sys

from matplotlib import image
import numpy as np
import pytest

from binaries.reporting import figures
from binaries.reporting import panels
from binaries.reporting import results as results_lib
from binaries.reporting import tables
from fedaot_tff.simulation import metrics as metrics_lib
from tests.binaries import report_folder


def _shape(png):
  return image.imread(io.BytesIO(png)).shape[:2]


def _read_grid(
    folder,
    aggregators,
    attacks,
    *,
    fractions=(0.4,),
    seeds=(0,),
    weight=None,
    rounds=3,
):
  """Results of accuracy 0.5 without and with attackers."""
  keys = [
      (aggregator, attack, fraction, seed)
      for aggregator in aggregators
      for attack in attacks
      for fraction in fractions
      for seed in seeds
  ]
  return report_folder.read(
      folder,
      dict.fromkeys(keys, 0.5),
      others={key: {'attacker_weight': weight} for key in keys},
      rounds=rounds,
  )


def _panels(results):
  """The panels of the summary by title and quantity."""
  return {
      (axes.get_title(), axes.get_ylabel()): axes
      for axes in figures.draw_summary(results).axes
  }


def test_summary_is_a_picture(tmp_path):
  results = _read_grid(
      tmp_path, ('mean', 'oracle'), ('none', 'flip'), weight=0.1
  )
  figures.save_summary(tmp_path / 'comparison.png', results)
  pixels = image.imread(tmp_path / 'comparison.png')
  height, width = pixels.shape[:2]
  assert 600 < height < width < 4000
  assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50
  # No window system is asked for.
  assert 'matplotlib.pyplot' not in sys.modules


def test_summary_has_a_panel_an_attack_and_quantity(tmp_path):
  accuracies = {
      ('no attackers', 'Test accuracy (%)'),
      ('sign_flip, 40% attackers', 'Test accuracy (%)'),
  }
  attacks = ('none', 'sign_flip')
  assert set(_panels(_read_grid(tmp_path, ('mean',), attacks))) == accuracies
  weighed = _read_grid(tmp_path, ('fedaot',), attacks, weight=0.1)
  assert set(_panels(weighed)) == {
      *accuracies, ('sign_flip, 40% attackers', 'Weight on attackers (%)')
  }


def test_summary_of_many_attacks_and_fractions_has_more_rows(tmp_path):
  attacks = ('none', *(f'sign_flip:scale={i}' for i in range(2, 8)))
  results = _read_grid(
      tmp_path, ('mean', 'fedaot'), attacks, fractions=(0.2, 0.4), weight=0.1
  )
  drawn = figures.draw_summary(results)
  # Each fraction: seven panels of accuracy, and six of weights.
  assert len(drawn.axes) == 2 * (7 + 6)
  boxes = {tuple(axes.get_position().bounds) for axes in drawn.axes}
  assert len(boxes) == len(drawn.axes)


def test_lines_are_means_over_the_seeds_in_percent(tmp_path):
  results = report_folder.read(
      tmp_path,
      {('mean', 'none', 0.4, 0): 0.2, ('mean', 'none', 0.4, 1): 0.6},
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


def test_all_weights_are_inside_of_their_panels(tmp_path):
  keys = [('fedaot', attack, 0.1, 0) for attack in ('a', 'b')]
  results = report_folder.read(
      tmp_path,
      dict.fromkeys(keys, 0.5),
      others={
          key: {'attacker_weight': weight}
          for key, weight in zip(keys, (0, 0.9))
      },
  )
  drawn = _panels(results)
  for attack, weight in (('a', 0), ('b', 90)):
    axes = drawn[f'{attack}, 10% attackers', 'Weight on attackers (%)']
    low, high = axes.get_ylim()
    assert low < weight < high


def test_fedaot_and_the_oracle_stand_out():
  mean, fedaot, krum, oracle = panels.line_styles(
      ['mean', 'fedaot', 'krum', 'oracle']
  ).values()
  assert fedaot['linewidth'] > max(
      style['linewidth'] for style in (mean, krum, oracle)
  )
  assert oracle['color'] == 'black' and oracle['linestyle'] != 'solid'


def test_lines_of_many_aggregators_can_be_told_apart():
  names = ['fedaot', 'fedaot_no_holdout', 'fedaot_frozen', 'oracle']
  names += ['fedaot_no_holdout_frozen', *(f'baseline{i}' for i in range(14))]
  looks = {
      (style['color'], style['linestyle'], style.get('marker'))
      for style in panels.line_styles(names).values()
  }
  assert len(looks) == len(names)


@pytest.mark.parametrize('rounds', [1, 2, 1000])
def test_any_number_of_rounds(tmp_path, rounds):
  results = _read_grid(tmp_path, ('a',), ('flip',), weight=0.9, rounds=rounds)
  for axes in _panels(results).values():
    low, high = axes.get_xlim()
    assert low < 1 and rounds < high < 1.1 * rounds + 1


def test_summary_of_nothing(tmp_path):
  report_folder.write(tmp_path, {})
  axes = {
      'aggregators': ['mean'], 'attacks': ['none'],
      'byzantine_fractions': [0.4], 'seeds': [0],
  }
  (panel,) = _panels(results_lib.read(tmp_path, axes)).values()
  assert not panel.lines


def test_long_titles_of_panels_are_broken():
  attack = 'scaled_noise:scale=3,seed=12,many_more_options=1'
  title = panels.panel_title(attack, 0.4)
  assert title.replace('\n', ' ').endswith(', 40% attackers')
  assert max(map(len, title.split('\n'))) <= 38


@pytest.mark.parametrize(
    ('weights', 'expected_rates', 'expected_area'),
    [
        ([0.5, 0.0, 0.5, 0.0], [1.0, 1.0, 1.0], 1.0),
        ([0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0], 0.0),
        ([0.25] * 4, [0.0, 0.5, 1.0], 0.5),
        # From the lowest weight: attacker, honest, attacker, honest.
        ([0.2, 0.1, 0.4, 0.3], [0.5, 1.0, 1.0], 0.75),
    ],
)
def test_roc_curve(weights, expected_rates, expected_area):
  rates, area = figures.roc_curve([False, True, False, True], weights)
  np.testing.assert_allclose(rates[[0, 100, 200]], expected_rates)
  assert area == pytest.approx(expected_area)


@pytest.mark.parametrize('seed', range(3))
def test_area_below_the_curve_is_the_detection_auroc(seed):
  random = np.random.default_rng(seed)
  is_byzantine = random.permutation([True] * 7 + [False] * 13)
  weights = random.integers(0, 8, size=20) / 8
  curve, area = figures.roc_curve(is_byzantine, weights)
  assert np.mean((curve[1:] + curve[:-1]) / 2) == pytest.approx(area, abs=0.01)
  assert area == pytest.approx(
      metrics_lib.detection_auroc(weights, is_byzantine)
  )


def test_roc_figure_averages_over_rounds_and_seeds(tmp_path):
  attacks = ('none', 'flip', 'scale')
  results = _read_grid(tmp_path, ('mean', 'fedaot'), attacks, seeds=(0, 1))
  assert not list(figures.roc_figures(results, 0.4))
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
  (drawn,) = figures.roc_figures(results_lib.read(tmp_path), 0.4)
  data = drawn.data
  assert set(zip(data['attack'], data['aggregator'])) == {('flip', 'fedaot')}
  assert set(data['area']) == {0.75}
  rates = data['false_positive_rate'].tolist()
  found = data['true_positive_rate'].tolist()
  assert rates[:2] == [0, 0] and found[:2] == [0, 0.75]
  assert found[100] == 0.75 and found[-1] == 1
  assert drawn.alternative == (
      'Area under the ROC curve, from high to low. flip: fedaot 0.750.'
  )
  assert min(_shape(drawn.png)) > 200


def test_learning_curves(tmp_path):
  accuracies = {
      ('mean', 'flip', 0.4, 0): 0.2,
      ('mean', 'flip', 0.4, 1): 0.6,
      ('krum', 'flip', 0.4, 0): 0.8,
      ('oracle', 'flip', 0.4, 0): 0.9,
      ('mean', 'flip', 0.2, 0): 0.3,
  }
  results = report_folder.read(tmp_path, accuracies, rounds=2)
  (drawn,) = figures.curve_figures(results, 0.4, panels.ACCURACY)
  assert drawn.alternative == (
      'Test accuracy by round; in the last round, from high to low. flip:'
      ' oracle 90.0 %, krum 80.0 %, mean 40.0 %.'
  )
  rows = drawn.data[drawn.data['aggregator'] == 'mean']
  assert [*rows['round']] == [1, 2] and [*rows['seeds']] == [2, 2]
  np.testing.assert_allclose(rows['mean'], [20, 40])
  np.testing.assert_allclose(
      rows['deviation'], [10 * math.sqrt(2), 20 * math.sqrt(2)]
  )
  assert 'standard deviation' in drawn.caption
  height, width = _shape(drawn.png)
  assert 250 < height < width
  assert f'![{drawn.alternative}](learning_curves_40_percent.png)' in (
      figures.format_markdown(drawn)
  )
  (other,) = figures.curve_figures(results, 0.2, panels.ACCURACY)
  assert other.name == 'learning_curves_20_percent'


def test_many_attacks_take_several_figures(tmp_path):
  results = _read_grid(tmp_path, ('mean',), [f'attack{i}' for i in range(8)])
  first, second = figures.curve_figures(results, 0.4, panels.ACCURACY)
  assert first.name == 'learning_curves_40_percent_1'
  assert second.name == 'learning_curves_40_percent_2'
  assert set(second.data['attack']) == {'attack6', 'attack7'}
  assert _shape(first.png)[0] > 1.5 * _shape(second.png)[0]


def test_weights_leave_out_the_clean_runs(tmp_path):
  results = _read_grid(tmp_path, ('fedaot',), ('none', 'flip'), weight=0.125)
  (drawn,) = figures.curve_figures(results, 0.4, panels.WEIGHT)
  assert set(
      zip(drawn.data['attack'], drawn.data['aggregator'], drawn.data['mean'])
  ) == {('flip', 'fedaot', 12.5)}


def test_heat_map_has_the_colours_of_its_cells(tmp_path):
  results = report_folder.read(
      tmp_path, {('mean', 'none', 0.4, 0): 0.1, ('krum', 'none', 0.4, 0): 0.9}
  )
  (table,) = tables.measurement_tables(results, 0.4, tables.ACCURACY)
  pixels = image.imread(io.BytesIO(figures.draw_heat_map(table)))
  colors = {
      '#%02x%02x%02x' % tuple(color)
      for color in np.unique(
          np.round(255 * pixels[..., :3]).astype(int).reshape(-1, 3), axis=0
      )
  }
  assert {table.scale.color(10), table.scale.color(90)} <= colors


def test_cost(tmp_path):
  keys = [('mean', 'none', 0.4, seed) for seed in range(3)]
  results = report_folder.read(tmp_path, dict.fromkeys(keys, 0.5))
  assert not list(figures.cost_figures(results))
  results = report_folder.read(
      tmp_path,
      dict.fromkeys(keys, 0.5),
      others={
          key: {'seconds_per_round': value}
          for key, value in zip(keys, (0.5, 0.1, 0.2))
      },
  )
  (drawn,) = figures.cost_figures(results)
  assert drawn.alternative == 'Median seconds a round. mean 0.20.'
  assert drawn.data.to_dict('records') == [
      {'aggregator': 'mean', 'median_seconds': 0.2, 'runs': 3}
  ]
