"""The figure of a comparison: accuracies and attackers' weights by round."""

import pathlib
import textwrap
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import matplotlib
from matplotlib import figure
from matplotlib import lines
from matplotlib import ticker
import numpy as np

from binaries import comparison as comparison_lib

# The metrics of a run: the fields of each row of its `metrics.csv`.
RunMetrics = Sequence[Mapping[str, str]]

# Okabe and Ito's palette, whose colours the colour-blind can tell apart, with
# grey for its yellow, which is too light for lines on white. Two are FedAOT's.
_HOLDOUT_COLOR, _NO_HOLDOUT_COLOR = '#D55E00', '#0072B2'
_COLORS = ('#7F7F7F', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
_MARKERS = ('s', '^', 'D', 'v', 'P', 'X', '<')
_DASHES = ('solid', (0, (5, 1.5)), (0, (1.5, 1.2)))

_MAX_PANELS_IN_ROW = 4
_PANEL_INCHES = (3.5, 2.7)
_LEGEND_INCHES = 2.3
# What fits above a panel.
_MAX_TITLE_LENGTH = 38
# Height of an entry of the legend.
LEGEND_ENTRY_INCHES = 0.25
_DOTS_PER_INCH = 150
_MARKERS_ON_LINE = 7
_LABELS = {
    'test_accuracy': 'Test accuracy (%)',
    'attacker_weight': 'Weight on attackers (%)',
}


def save_figure(
    path: pathlib.Path,
    comparison: comparison_lib.Comparison,
    metrics: Mapping[comparison_lib.RunKey, RunMetrics],
) -> None:
  """Draws a comparison into a PNG file.

  A column an attack; for each fraction of attackers a row of panels with the
  test accuracy and below it, if there are attackers and an aggregator that
  measures its weights, a row with their share of the weights. Lines are means
  over the seeds, bands their standard deviation.

  Args:
    path: The file to write.
    comparison: What was compared.
    metrics: The metrics of the runs that have finished.
  """
  with matplotlib.rc_context({'font.size': 11}):
    _draw(comparison, metrics).savefig(path, dpi=_DOTS_PER_INCH)


def _draw(
    comparison: comparison_lib.Comparison,
    metrics: Mapping[comparison_lib.RunKey, RunMetrics],
) -> figure.Figure:
  """Draws the figure."""
  rows = _plan_rows(comparison, metrics)
  num_columns = max(len(attacks) for _, _, attacks in rows)
  styles = line_styles(comparison.aggregators)
  canvas = make_canvas(
      comparison.title, styles, num_rows=len(rows), num_columns=num_columns
  )
  for i, (column, fraction, attacks) in enumerate(rows):
    axes = None
    for j, attack in enumerate(attacks):
      if column == 'attacker_weight' and attack == 'none':
        continue
      axes = canvas.add_subplot(
          len(rows), num_columns, i * num_columns + j + 1, sharey=axes
      )
      draw_panel(axes, comparison, metrics, styles, column, attack, fraction)
    if column == 'attacker_weight':
      # Room for the markers of lines at zero.
      axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
  return canvas


def make_canvas(
    title: str,
    styles: Mapping[str, Dict[str, Any]],
    *,
    num_rows: int,
    num_columns: int,
) -> figure.Figure:
  """A figure with room for panels, and a legend of aggregators beside them.

  Args:
    title: The title.
    styles: The styles of the lines by aggregator, as `line_styles` makes them.
    num_rows: The number of rows of panels.
    num_columns: The number of panels in a row.
  """
  canvas = figure.Figure(
      figsize=(
          num_columns * _PANEL_INCHES[0] + _LEGEND_INCHES,
          max(
              num_rows * _PANEL_INCHES[1] + 0.4,
              (len(styles) + 2) * LEGEND_ENTRY_INCHES,
          ),
      ),
      layout='constrained',
  )
  canvas.suptitle(title)
  canvas.legend(
      handles=[
          lines.Line2D([], [], label=aggregator, **style)
          for aggregator, style in styles.items()
      ],
      loc='outside right upper',
      title='Aggregator',
      alignment='left',
      handlelength=3.2,
      frameon=False,
  )
  return canvas


def _plan_rows(
    comparison: comparison_lib.Comparison,
    metrics: Mapping[comparison_lib.RunKey, RunMetrics],
) -> List[Tuple[str, float, Sequence[str]]]:
  """For each row of panels what it shows, the fraction and its attacks."""
  rows = []
  for fraction in comparison.byzantine_fractions:
    for start in range(0, len(comparison.attacks), _MAX_PANELS_IN_ROW):
      attacks = comparison.attacks[start : start + _MAX_PANELS_IN_ROW]
      rows.append(('test_accuracy', fraction, attacks))
      if any(
          row.get('attacker_weight')
          for key, run in metrics.items()
          if key[1] in attacks and key[1] != 'none' and key[2] == fraction
          for row in run
      ):
        rows.append(('attacker_weight', fraction, attacks))
  return rows


def line_styles(aggregators: Sequence[str]) -> Dict[str, Dict[str, Any]]:
  """How the line of each aggregator looks."""
  styles = {}
  num_others = 0
  for aggregator in aggregators:
    name = aggregator.partition(':')[0]
    if aggregator == comparison_lib.ORACLE:
      # Above the others, which it coincides with at best.
      style = dict(
          color='black', linestyle=(0, (4, 2)), linewidth=1.3, zorder=6
      )
    elif name.startswith('fedaot'):
      style = dict(
          color=_NO_HOLDOUT_COLOR if 'no_holdout' in name else _HOLDOUT_COLOR,
          linestyle=_DASHES[2] if 'frozen' in name else 'solid',
          linewidth=3.0 if name == 'fedaot' else 2.0,
          marker='o' if name == 'fedaot' else '*',
          markersize=7,
          zorder=5,
      )
    else:
      style = dict(
          color=_COLORS[num_others % len(_COLORS)],
          linestyle=_DASHES[num_others // len(_COLORS) % len(_DASHES)],
          marker=_MARKERS[num_others % len(_MARKERS)],
          linewidth=1.4,
          markersize=5,
          zorder=4,
      )
      num_others += 1
    styles[aggregator] = style
  return styles


def draw_panel(
    axes: Any,
    comparison: comparison_lib.Comparison,
    metrics: Mapping[comparison_lib.RunKey, RunMetrics],
    styles: Mapping[str, Dict[str, Any]],
    column: str,
    attack: str,
    fraction: float,
) -> None:
  """Draws a line an aggregator.

  Args:
    axes: The panel.
    comparison: What was compared.
    metrics: The metrics of the runs that have finished.
    styles: The styles of the lines by aggregator.
    column: What to draw by round: 'test_accuracy' or 'attacker_weight'.
    attack: The attack.
    fraction: The fraction of attackers.
  """
  axes.set_title(panel_title(attack, fraction), fontsize='medium')
  axes.set_xlabel('Round')
  axes.set_ylabel(_LABELS[column])
  margin = max(0.02 * comparison.rounds, 0.1)
  axes.set_xlim(1 - margin, comparison.rounds + margin)
  axes.xaxis.set_major_locator(
      ticker.MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10])
  )
  style_axes(axes)
  if column == 'attacker_weight':
    axes.axhline(
        100 * fraction, color='0.4', linewidth=1, linestyle=(0, (2, 2))
    )
    axes.annotate(
        'plain mean',
        (1, 100 * fraction),
        xycoords=('axes fraction', 'data'),
        xytext=(0, -2),
        textcoords='offset points',
        ha='right',
        va='top',
        fontsize='small',
        color='0.3',
    )
  for i, aggregator in enumerate(comparison.aggregators):
    runs = [
        metrics[key]
        for key in (
            (aggregator, attack, fraction, seed) for seed in comparison.seeds
        )
        if key in metrics
    ]
    rounds, values = read_curves(runs, column)
    if not rounds.size:
      continue
    step = max(1, rounds.size // _MARKERS_ON_LINE)
    axes.plot(
        rounds,
        values.mean(axis=0),
        # Lines that coincide show their markers in turn.
        markevery=(i * step // len(comparison.aggregators), step),
        **styles[aggregator],
    )
    if len(values) > 1:
      deviation = values.std(axis=0, ddof=1)
      axes.fill_between(
          rounds,
          values.mean(axis=0) - deviation,
          values.mean(axis=0) + deviation,
          color=styles[aggregator]['color'],
          alpha=min(0.15, 0.8 / len(comparison.aggregators)),
          linewidth=0,
      )


def panel_title(attack: str, fraction: float) -> str:
  """The title of a panel that shows an attack."""
  if attack == 'none':
    return 'no attackers'
  return textwrap.fill(
      f'{attack}, {100 * fraction:g}% attackers', _MAX_TITLE_LENGTH
  )


def style_axes(axes: Any) -> None:
  """Gives a panel a light grid behind the lines, and no frame."""
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)


def read_curves(
    runs: Sequence[RunMetrics], column: str
) -> Tuple[np.ndarray, np.ndarray]:
  """The rounds [r] that have a value in all runs, and these in % [runs, r]."""
  curves = [
      {
          int(row['round']): 100 * float(row[column])
          for row in run
          if row.get(column)
      }
      for run in runs
  ]
  if not curves:
    return np.zeros(0), np.zeros((0, 0))
  rounds = sorted(set(curves[0]).intersection(*curves[1:]))
  return np.array(rounds), np.array(
      [[curve[r] for r in rounds] for curve in curves]
  )
