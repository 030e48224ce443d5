"""Panels with a line for each aggregator, from which figures are made."""

import io
import textwrap
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

import matplotlib
from matplotlib import figure
from matplotlib import lines
from matplotlib import ticker
import pandas as pd

from binaries.reporting import estimates
from binaries.reporting import tables

# Okabe and Ito's palette, whose colours the colour-blind can tell apart, with
# grey for its yellow, which is too light for lines on white. Two are FedAOT's.
_HOLDOUT_COLOR, _NO_HOLDOUT_COLOR = '#D55E00', '#0072B2'
COLORS = ('#7F7F7F', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
_MARKERS = ('s', '^', 'D', 'v', 'P', 'X', '<')
_DASHES = ('solid', (0, (5, 1.5)), (0, (1.5, 1.2)))
_DOTTED = dict(color='0.4', linewidth=1, linestyle=(0, (2, 2)))

FONT_SIZE = 11
_DOTS_PER_INCH = 110
_PANEL_INCHES = (3.5, 2.7)
_LEGEND_INCHES = 2.3
_LEGEND_ENTRY_INCHES = 0.25
# What fits above a panel.
_TITLE_LENGTH = 38
_MARKERS_ON_LINE = 7


class Curves(NamedTuple):
  """A kind of curves, one for each attack and aggregator, and its figures."""

  name: str
  title: str
  caption: str
  # The column of `metrics.csv` that is shown by round, if any.
  column: str
  x: str
  y: str
  x_label: str
  y_label: str
  # The column whose last values stand for the curves in words; what they are.
  end: str
  ends: str
  end_format: str


ACCURACY = Curves(
    name='learning_curves',
    title='Test accuracy by round',
    caption='A line an aggregator.',
    column='test_accuracy',
    x='round',
    y='mean',
    x_label='Round',
    y_label='Test accuracy (%)',
    end='mean',
    ends='Test accuracy by round; in the last round',
    end_format='{:.1f} %',
)
WEIGHT = ACCURACY._replace(
    name='weight_curves',
    title='Weight on attackers by round',
    caption=(
        'A line an aggregator that weighs clients; the dotted grey line is what'
        ' a plain mean gives attackers.'
    ),
    column='attacker_weight',
    y_label='Weight on attackers (%)',
    ends='Weight on attackers by round; in the last round',
)
ROC = Curves(
    name='roc_curves',
    title='ROC curves of the detection of attackers',
    caption=(
        'Clients with a low weight are accused: how many attackers that finds,'
        ' by how many honest clients it hits. Curves are means over rounds and'
        ' seeds; the dotted grey line is chance.'
    ),
    column='',
    x='false_positive_rate',
    y='true_positive_rate',
    x_label='Honest clients accused',
    y_label='Attackers found',
    end='area',
    ends='Area under the ROC curve',
    end_format='{:.3f}',
)


class Panel(NamedTuple):
  """The curves under an attack."""

  curves: Curves
  attack: str
  fraction: float


def line_styles(aggregators: Sequence[str]) -> Dict[str, Dict[str, Any]]:
  """How the line of each aggregator looks."""
  styles = {}
  num_others = 0
  for aggregator in aggregators:
    name = aggregator.partition(':')[0]
    if aggregator == estimates.ORACLE:
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
          color=COLORS[num_others % len(COLORS)],
          linestyle=_DASHES[num_others // len(COLORS) % len(_DASHES)],
          marker=_MARKERS[num_others % len(_MARKERS)],
          linewidth=1.4,
          markersize=5,
          zorder=4,
      )
      num_others += 1
    styles[aggregator] = style
  return styles


def panel_title(attack: str, fraction: float) -> str:
  """The title of a panel that shows an attack."""
  if attack == estimates.NO_ATTACK:
    return 'no attackers'
  return textwrap.fill(
      f'{attack}, {tables.percent(fraction)}% attackers', _TITLE_LENGTH
  )


def select(data: pd.DataFrame, panel: Panel) -> pd.DataFrame:
  return data[
      (data['attack'] == panel.attack)
      & (data['byzantine_fraction'] == panel.fraction)
  ]


def draw(
    title: str,
    rows: Sequence[Sequence[Optional[Panel]]],
    data: Mapping[Curves, pd.DataFrame],
    styles: Mapping[str, Dict[str, Any]],
    num_rounds: int,
) -> figure.Figure:
  """Rows of panels, None for a gap, and a legend of aggregators beside them."""
  num_columns = max(map(len, rows))
  width = num_columns * _PANEL_INCHES[0] + _LEGEND_INCHES
  height = max(
      len(rows) * _PANEL_INCHES[1] + 0.4,
      (len(styles) + 2) * _LEGEND_ENTRY_INCHES,
  )
  with matplotlib.rc_context({'font.size': FONT_SIZE}):
    canvas = figure.Figure(figsize=(width, height), layout='constrained')
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
    shared = {}
    for i, row in enumerate(rows):
      for j, panel in enumerate(row):
        if panel is None:
          continue
        axes = canvas.add_subplot(
            len(rows),
            num_columns,
            i * num_columns + j + 1,
            sharey=shared.get(panel.curves),
        )
        shared[panel.curves] = axes
        _prepare(axes, panel, num_rounds)
        _draw_curves(
            axes, panel.curves, select(data[panel.curves], panel), styles
        )
    if WEIGHT in shared:
      # Room for the markers of lines at zero; not before all are drawn, as it
      # ends the scaling to what is drawn.
      axes = shared[WEIGHT]
      axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
  return canvas


def _prepare(axes: Any, panel: Panel, num_rounds: int) -> None:
  """Labels a panel, and draws the line that its curves are compared with."""
  axes.set_title(panel_title(panel.attack, panel.fraction), fontsize='medium')
  axes.set_xlabel(panel.curves.x_label)
  axes.set_ylabel(panel.curves.y_label)
  style_axes(axes)
  if panel.curves == ROC:
    for axis in (axes.xaxis, axes.yaxis):
      axis.set_major_formatter(ticker.PercentFormatter(1.0))
    axes.plot([0, 1], [0, 1], **_DOTTED)
    return
  margin = max(0.02 * num_rounds, 0.1)
  axes.set_xlim(1 - margin, num_rounds + margin)
  axes.xaxis.set_major_locator(
      ticker.MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10])
  )
  if panel.curves == WEIGHT:
    axes.axhline(100 * panel.fraction, **_DOTTED)
    axes.annotate(
        'plain mean',
        (1, 100 * panel.fraction),
        xycoords=('axes fraction', 'data'),
        xytext=(0, -2),
        textcoords='offset points',
        ha='right',
        va='top',
        fontsize='small',
        color='0.3',
    )


def _draw_curves(
    axes: Any,
    curves: Curves,
    data: pd.DataFrame,
    styles: Mapping[str, Dict[str, Any]],
) -> None:
  """Draws a line an aggregator, and a band if there are several seeds."""
  by_aggregator = dict(iter(data.groupby('aggregator')))
  for i, (aggregator, style) in enumerate(styles.items()):
    if aggregator not in by_aggregator:
      continue
    line = by_aggregator[aggregator]
    step = max(1, len(line) // _MARKERS_ON_LINE)
    axes.plot(
        line[curves.x],
        line[curves.y],
        # Lines that coincide show their markers in turn.
        markevery=(i * step // len(styles), step),
        **style,
    )
    if curves.column and line['seeds'].max() > 1:
      axes.fill_between(
          line[curves.x],
          line[curves.y] - line['deviation'],
          line[curves.y] + line['deviation'],
          color=style['color'],
          alpha=min(0.15, 0.8 / len(styles)),
          linewidth=0,
      )


def style_axes(axes: Any) -> None:
  """Gives a panel a light grid behind the lines, and no frame."""
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)


def render(
    canvas: figure.Figure, *, dots_per_inch: int = _DOTS_PER_INCH
) -> bytes:
  """The PNG file of a figure, equal for equal figures."""
  content = io.BytesIO()
  # How many ticks there are is decided here, by the size of the font.
  with matplotlib.rc_context({'font.size': FONT_SIZE}):
    canvas.savefig(
        content,
        dpi=dots_per_inch,
        facecolor='white',
        metadata={'Software': None},
    )
  return content.getvalue()
