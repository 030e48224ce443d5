"""Tests for figure."""

import math
import sys

from matplotlib import image
import numpy as np
import pytest

from binaries import comparison as comparison_lib
from binaries import figure


def _make_run(rounds, accuracy=0.5, weight=None):
  return [
      {
          'round': str(i + 1),
          'test_accuracy': '' if accuracy is None else repr(accuracy),
          'attacker_weight': '' if weight is None else repr(weight),
      }
      for i in range(rounds)
  ]


def _make_comparison(**axes):
  defaults = dict(
      task='digits',
      rounds=10,
      aggregators=('mean', 'fedaot', 'oracle'),
      attacks=('none', 'sign_flip'),
      byzantine_fractions=(0.4,),
      seeds=(0,),
  )
  return comparison_lib.Comparison(**{**defaults, **axes}, results={})


def _make_metrics(comparison, **run):
  return {
      (aggregator, attack, fraction, seed): _make_run(comparison.rounds, **run)
      for aggregator in comparison.aggregators
      for attack in comparison.attacks
      for fraction in comparison.byzantine_fractions
      for seed in comparison.seeds
  }


def _panels(comparison, metrics):
  """The panels by title and quantity."""
  return {
      (axes.get_title(), axes.get_ylabel()): axes
      for axes in figure._draw(comparison, metrics).axes
  }


def test_png_is_written_and_not_empty(tmp_path):
  path = tmp_path / 'comparison.png'
  comparison = _make_comparison()
  figure.save_figure(path, comparison, _make_metrics(comparison, weight=0.1))
  pixels = image.imread(path)
  height, width = pixels.shape[:2]
  assert 600 < height < width < 4000
  colors = np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)
  assert len(colors) > 50


def test_no_window_system_is_asked_for(tmp_path):
  comparison = _make_comparison()
  figure.save_figure(
      tmp_path / 'comparison.png', comparison, _make_metrics(comparison)
  )
  assert 'matplotlib.pyplot' not in sys.modules


def test_a_panel_an_attack_and_quantity():
  comparison = _make_comparison()
  metrics = _make_metrics(comparison)
  assert set(_panels(comparison, metrics)) == {
      ('no attackers', 'Test accuracy (%)'),
      ('sign_flip, 40% attackers', 'Test accuracy (%)'),
  }
  metrics['fedaot', 'sign_flip', 0.4, 0] = _make_run(10, weight=0.1)
  assert ('sign_flip, 40% attackers', 'Weight on attackers (%)') in _panels(
      comparison, metrics
  )


def test_many_attacks_and_fractions_take_more_rows():
  attacks = ('none', *(f'sign_flip:scale={i}' for i in range(2, 8)))
  comparison = _make_comparison(
      attacks=attacks, byzantine_fractions=(0.2, 0.4)
  )
  drawn = figure._draw(comparison, _make_metrics(comparison, weight=0.1))
  # Each fraction: seven panels of accuracy, and six of weights.
  assert len(drawn.axes) == 2 * (7 + 6)
  boxes = {tuple(axes.get_position().bounds) for axes in drawn.axes}
  assert len(boxes) == len(drawn.axes)


def test_lines_are_means_over_the_seeds_in_percent():
  comparison = _make_comparison(
      aggregators=('mean',), attacks=('none',), seeds=(0, 1), rounds=2
  )
  metrics = {
      ('mean', 'none', 0.4, 0): _make_run(2, accuracy=0.2),
      ('mean', 'none', 0.4, 1): _make_run(2, accuracy=0.6),
  }
  (axes,) = _panels(comparison, metrics).values()
  (line,) = axes.lines
  np.testing.assert_allclose(line.get_xdata(), [1, 2])
  np.testing.assert_allclose(line.get_ydata(), [40, 40])
  (band,) = axes.collections
  # The sample standard deviation of 20 and 60.
  deviation = 20 * math.sqrt(2)
  y = band.get_paths()[0].vertices[:, 1]
  np.testing.assert_allclose(y.min(), 40 - deviation)
  np.testing.assert_allclose(y.max(), 40 + deviation)


def test_rounds_without_evaluation_are_left_out():
  comparison = _make_comparison(
      aggregators=('mean',), attacks=('none',), rounds=4
  )
  run = _make_run(4)
  run[0]['test_accuracy'] = run[2]['test_accuracy'] = ''
  (axes,) = _panels(comparison, {('mean', 'none', 0.4, 0): run}).values()
  np.testing.assert_allclose(axes.lines[0].get_xdata(), [2, 4])


def test_emphasis():
  comparison = _make_comparison(
      aggregators=('mean', 'fedaot', 'krum', 'oracle')
  )
  metrics = _make_metrics(comparison)
  axes = _panels(comparison, metrics)['no attackers', 'Test accuracy (%)']
  mean, fedaot, krum, oracle = axes.lines
  assert fedaot.get_linewidth() > max(
      line.get_linewidth() for line in (mean, krum, oracle)
  )
  assert oracle.get_linestyle() == '--'
  assert oracle.get_color() == 'black'
  assert len({line.get_color() for line in axes.lines}) == 4


def test_lines_of_many_aggregators_can_be_told_apart():
  names = ['fedaot', 'fedaot_no_holdout', 'fedaot_frozen', 'oracle']
  names += ['fedaot_no_holdout_frozen', *(f'baseline{i}' for i in range(14))]
  styles = figure.line_styles(names)
  looks = {
      (s['color'], s.get('linestyle', 'solid'), s.get('marker'))
      for s in styles.values()
  }
  assert len(looks) == len(names)


@pytest.mark.parametrize('rounds', [1, 2, 1000])
def test_any_number_of_rounds(tmp_path, rounds):
  comparison = _make_comparison(rounds=rounds)
  path = tmp_path / 'comparison.png'
  figure.save_figure(path, comparison, _make_metrics(comparison, weight=0.9))
  assert path.stat().st_size > 1000


def test_nothing_finished(tmp_path):
  path = tmp_path / 'comparison.png'
  figure.save_figure(path, _make_comparison(), {})
  assert path.stat().st_size > 1000


def test_accuracy_of_a_diverged_model_is_drawn_as_a_gap(tmp_path):
  path = tmp_path / 'comparison.png'
  comparison = _make_comparison()
  figure.save_figure(
      path, comparison, _make_metrics(comparison, accuracy=math.nan)
  )
  assert path.stat().st_size > 1000
