"""The figures of a comparison, each with its data and a text in its place."""

from collections.abc import Iterator
import io
import itertools
import pathlib
import textwrap
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import matplotlib
from matplotlib import figure
from matplotlib import lines
import numpy as np
import pandas as pd
from sklearn import metrics

from binaries import output_folder
from binaries.reporting import estimates
from binaries.reporting import results as results_lib
from binaries.reporting import tables

matplotlib.rcParams.update(
    {
        'axes.axisbelow': True,
        'axes.grid': True,
        'axes.spines.right': False,
        'axes.spines.top': False,
        'axes.titlesize': 'medium',
        'figure.constrained_layout.use': True,
        'font.size': 11,
        'grid.color': '0.9',
        'legend.frameon': False,
        'savefig.dpi': 110,
    }
)
# Okabe and Ito's palette, whose colours the colour-blind can tell apart, with
# grey for its yellow, which is too light for lines on white. Two are FedAOT's.
_HOLDOUT_COLOR, _NO_HOLDOUT_COLOR = '#D55E00', '#0072B2'
_COLORS = ('#7F7F7F', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
_MARKERS = ('s', '^', 'D', 'v', 'P', 'X', '<')
_DOTTED = dict(color='0.4', linewidth=1, linestyle=':')
# So few that the legend is in sight.
_PANELS_IN_ROW, _PANELS_IN_FIGURE = 3, 6
# The false positive rates, in %, at which ROC curves are averaged.
_RATES = np.arange(201) / 2


class Figure(NamedTuple):
  """A picture, a text in its place, and the data of its CSV file."""

  title: str
  name: str
  caption: str
  alternative: str
  png: bytes
  data: pd.DataFrame


class Curves(NamedTuple):
  """A kind of curves, one for each attack and aggregator, and its figures."""

  name: str
  title: str
  caption: str
  # The columns of the data; the last value of `end` stands for a curve.
  x: str
  y: str
  end: str
  x_label: str
  y_label: str


ACCURACY = Curves(
    'learning_curves',
    'Test accuracy by round',
    'A line an aggregator.',
    x='round',
    y='test_accuracy',
    end='test_accuracy',
    x_label='Round',
    y_label='Test accuracy (%)',
)
WEIGHT = ACCURACY._replace(
    name='weight_curves',
    title='Weight on attackers by round',
    caption=(
        'A line an aggregator that weighs clients; the dotted grey line is what'
        ' a plain mean gives attackers.'
    ),
    y='attacker_weight',
    end='attacker_weight',
    y_label='Weight on attackers (%)',
)
_ROC = Curves(
    'roc_curves',
    'ROC curves of the detection of attackers',
    'Clients with a low weight are accused: how many attackers that finds, by'
    ' how many honest clients it hits. Curves are means over rounds and seeds;'
    ' the dotted grey line is chance. The number of a curve is the area below.',
    x='false_positive_rate',
    y='true_positive_rate',
    end='area',
    x_label='Honest clients accused (%)',
    y_label='Attackers found (%)',
)


class _Panel(NamedTuple):
  curves: Curves
  fraction: float
  attack: str
  data: pd.DataFrame


def save_summary(path: pathlib.Path, results: results_lib.Results) -> None:
  """Writes what `draw_summary` draws into a PNG file."""
  output_folder.replace_file(path, _render(draw_summary(results), dpi=150))


def draw_summary(results: results_lib.Results) -> figure.Figure:
  """The figure that a comparison ends with, a column an attack.

  For each fraction of attackers the test accuracy and, if anything measures
  them, the attackers' share of the weights.
  """
  rows = [
      _panels(curves, fraction, attacks, _by_round(results, curves, fraction))
      for fraction in results.byzantine_fractions
      for attacks in _chunks(results.attacks, 4)
      for curves in (ACCURACY, WEIGHT)
  ]
  # A row without data is left out, but not all are.
  shown = [row for row in rows if any(len(panel.data) for panel in row)]
  return _draw(results.title, shown or rows[:1], results.aggregators)


def curve_figures(
    results: results_lib.Results, fraction: float, curves: Curves
) -> Iterator[Figure]:
  """A column of `metrics.csv` by round, a panel an attack."""
  if len(results.seeds) > 1:
    caption = 'Lines are means over the seeds, bands their standard deviation.'
    curves = curves._replace(caption=f'{curves.caption} {caption}')
  data = _by_round(results, curves, fraction)
  yield from _make_figures(results, fraction, curves, data)


def roc_figures(
    results: results_lib.Results, fraction: float
) -> Iterator[Figure]:
  """The ROC curves of low weights as a detector, means of each round's."""
  weights = results.weights[results.weights['byzantine_fraction'] == fraction]
  found = []
  for (attack, aggregator), cell in weights.groupby(['attack', 'aggregator']):
    rates, areas = zip(
        *(
            roc_curve(clients['is_byzantine'], clients['weight'])
            for _, clients in cell.groupby(['seed', 'round'])
        )
    )
    curve = {
        'attack': attack,
        'aggregator': aggregator,
        # Curves begin at the origin, even those that rise vertically.
        _ROC.x: np.append(0, _RATES),
        _ROC.y: np.append(0, np.mean(rates, axis=0)),
        _ROC.end: np.mean(areas),
    }
    found.append(pd.DataFrame(curve))
  if found:
    yield from _make_figures(results, fraction, _ROC, pd.concat(found))


def roc_curve(
    is_byzantine: Sequence[bool], weights: Sequence[float]
) -> Tuple[np.ndarray, float]:
  """The ROC curve of a round's [N] clients, low weights as an attacker's sign.

  Clients of equal weight are accused together. Returns the true positive rates
  at `_RATES`, in %, where the curve rises vertically its upper end; and the
  area below the curve.
  """
  false, true, _ = metrics.roc_curve(
      is_byzantine, -np.asarray(weights), drop_intermediate=False
  )
  return np.interp(_RATES, 100 * false, 100 * true), metrics.auc(false, true)


def cost_figures(results: results_lib.Results) -> Iterator[Figure]:
  """The time of a round, a bar an aggregator."""
  seconds = estimates.run_seconds(results)
  if seconds.empty:
    return
  median = seconds['median']
  canvas = figure.Figure(figsize=(9, 1.2 + 0.3 * len(seconds)))
  axes = canvas.subplots()
  whiskers = [[*(median - seconds['min'])], [*(seconds['max'] - median)]]
  axes.barh(median.index, median, xerr=whiskers, color=_COLORS[3], capsize=3)
  axes.invert_yaxis()
  axes.set_xlabel('Seconds a round')
  yield Figure(
      'Time of a round',
      'seconds_per_round_bars',
      'Bars are medians over the runs, whiskers the fastest and the slowest.',
      f'Median seconds a round: {tables.enumerate_values(median, "{:.2f}")}.',
      _render(canvas),
      seconds.reset_index(),
  )


def draw_heat_map(table: tables.Table) -> bytes:
  """A coloured table as a picture."""
  names, rows = zip(*table.rows)
  height, width = len(rows), len(table.header) - 1
  canvas = figure.Figure(figsize=(2.6 + 0.85 * width, 1.9 + 0.5 * height))
  axes = canvas.subplots()
  axes.set(xlim=(0, width), ylim=(height, 0), frame_on=False)
  for y, row in enumerate(rows):
    for x, cell in enumerate(row):
      background = '#ffffff'
      if cell.value is not None:
        background = table.scale.color(cell.value)
        axes.barh(y + 0.5, 1, 1, left=x, color=background, edgecolor='white')
      text = cell.text.replace(' ±', '\n±').replace(' (', '\n(')
      font = dict(size='small', weight='bold' if cell.best else 'normal')
      place = dict(ha='center', va='center')
      color = tables.text_color(background)
      axes.text(x + 0.5, y + 0.5, text, color=color, **font, **place)
  axes.grid(False)
  axes.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
  x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
  axes.set_xticks(x, table.header[1:], rotation=40, ha='left')
  axes.set_yticks(y, names)
  canvas.suptitle(table.title, x=0.01, ha='left')
  return _render(canvas)


def line_styles(aggregators: Sequence[str]) -> Dict[str, Dict[str, Any]]:
  """How the line of each aggregator looks."""
  others = zip(
      itertools.cycle(itertools.product(('-', '--', ':'), _COLORS)),
      itertools.cycle(_MARKERS),
  )
  styles = {}
  for aggregator in aggregators:
    name = aggregator.partition(':')[0]
    if aggregator == estimates.ORACLE:
      # Above the others, which it coincides with at best.
      style = dict(color='black', linestyle='--', zorder=6)
    elif name.startswith('fedaot'):
      style = dict(
          color=_NO_HOLDOUT_COLOR if 'no_holdout' in name else _HOLDOUT_COLOR,
          linestyle=':' if 'frozen' in name else '-',
          linewidth=3 if name == 'fedaot' else 2,
          marker='o' if name == 'fedaot' else '*',
          zorder=5,
      )
    else:
      (linestyle, color), marker = next(others)
      style = dict(color=color, linestyle=linestyle, marker=marker, zorder=4)
    styles[aggregator] = {'linewidth': 1.4, 'markersize': 5, **style}
  return styles


def _by_round(
    results: results_lib.Results, curves: Curves, fraction: float
) -> pd.DataFrame:
  """A column of `metrics.csv` in %: mean, deviation and seeds by round."""
  rows = results.metrics.dropna(subset=curves.y)
  rows = rows[rows['byzantine_fraction'] == fraction]
  if curves.y == WEIGHT.y:
    rows = rows[rows['attack'] != estimates.NO_ATTACK]
  found = rows.groupby(['attack', 'aggregator', 'round'])[curves.y].agg(
      **{curves.y: 'mean'}, deviation='std', seeds='count'
  )
  return found.mul([100, 100, 1]).reset_index()


def _make_figures(results, fraction, curves, data) -> Iterator[Figure]:
  """Figures with a panel an attack, of few enough panels each."""
  percent = tables.percent(fraction)
  title = f'{curves.title} ({percent} % attackers)'
  attacks = [a for a in results.attacks if a in set(data['attack'])]
  for number, chunk in enumerate(_chunks(attacks, _PANELS_IN_FIGURE), start=1):
    shown = data[data['attack'].isin(chunk)]
    rows = [
        _panels(curves, fraction, row, shown)
        for row in _chunks(chunk, _PANELS_IN_ROW)
    ]
    heading = textwrap.fill(f'{title}: {results.title}', 30 * len(rows[0]))
    canvas = _draw(heading, rows, results.aggregators)
    ends = shown.groupby(['attack', 'aggregator'])[curves.end].last()
    ends = ends.sort_values(ascending=False, kind='stable')
    texts = [
        f'{attack}: {tables.enumerate_values(ends[attack], "{:.3g}")}'
        for attack in chunk
    ]
    suffix = f'_{number}' if len(attacks) > _PANELS_IN_FIGURE else ''
    yield Figure(
        title,
        f'{curves.name}_{percent}_percent{suffix}',
        curves.caption,
        f'{curves.title}: {curves.end.replace("_", " ")} in the end, from high'
        f' to low. {"; ".join(texts)}.',
        _render(canvas),
        shown,
    )


def _panels(curves, fraction, attacks, data) -> List[_Panel]:
  return [
      _Panel(curves, fraction, attack, data[data['attack'] == attack])
      for attack in attacks
  ]


def _draw(
    title: str, rows: Sequence[Sequence[_Panel]], aggregators: Sequence[str]
) -> figure.Figure:
  """Rows of panels, and a legend of the aggregators in them."""
  used = {name for panel in sum(rows, []) for name in panel.data['aggregator']}
  styles = {
      name: style
      for name, style in line_styles(aggregators).items()
      if name in used
  }
  width = max(map(len, rows))
  height = max(2.7 * len(rows) + 0.4, 0.25 * (len(styles) + 2))
  canvas = figure.Figure(figsize=(3.5 * width + 2.3, height))
  canvas.suptitle(title)
  grid = canvas.subplots(len(rows), width, squeeze=False, sharey='row')
  for axes_of_row, row in zip(grid, rows):
    for axes, panel in itertools.zip_longest(axes_of_row, row):
      if panel is None or panel.data.empty:
        axes.remove()
      else:
        _draw_panel(axes, panel, styles)
  canvas.legend(
      handles=[lines.Line2D([], [], label=n, **s) for n, s in styles.items()],
      loc='outside right upper',
      title='Aggregator',
  )
  return canvas


def _draw_panel(axes: Any, panel: _Panel, styles: Dict[str, Any]) -> None:
  """Draws a line an aggregator, and a band if there are several seeds."""
  curves = panel.curves
  title = f'{panel.attack}, {tables.percent(panel.fraction)}% attackers'
  if panel.attack == estimates.NO_ATTACK:
    title = 'no attackers'
  axes.set_title(textwrap.fill(title, 38))
  axes.set(xlabel=curves.x_label, ylabel=curves.y_label)
  axes.xaxis.get_major_locator().set_params(integer=True)
  axes.tick_params(labelleft=True)
  if curves == _ROC:
    axes.plot([0, 100], [0, 100], **_DOTTED)
  elif curves.y == WEIGHT.y:
    axes.axhline(100 * panel.fraction, **_DOTTED)
    place = dict(transform=axes.get_yaxis_transform(), ha='right', va='top')
    axes.text(1, 100 * panel.fraction, 'plain mean', fontsize='small', **place)
  by_aggregator = dict(iter(panel.data.groupby('aggregator')))
  for i, (aggregator, style) in enumerate(styles.items()):
    if aggregator not in by_aggregator:
      continue
    line = by_aggregator[aggregator]
    x, y = line[curves.x], line[curves.y]
    # Lines that coincide show their markers in turn.
    axes.plot(x, y, markevery=(0.15 * i / len(styles), 0.15), **style)
    if 'deviation' in line:
      low, high = y - line['deviation'], y + line['deviation']
      axes.fill_between(x, low, high, color=style['color'], alpha=0.1, lw=0)


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
  for start in range(0, len(items), size):
    yield items[start : start + size]


def _render(canvas: figure.Figure, **options: Any) -> bytes:
  """The PNG file of a figure, equal for equal figures."""
  content = io.BytesIO()
  canvas.savefig(content, metadata={'Software': None}, **options)
  return content.getvalue()
