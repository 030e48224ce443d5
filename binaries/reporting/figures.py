"""The figures of a comparison, each with its data and a text in its place."""

from collections.abc import Iterator
import dataclasses
import io
import pathlib
import textwrap
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import matplotlib
from matplotlib import figure
from matplotlib import lines
from matplotlib import patches
from matplotlib import ticker
import numpy as np
import pandas as pd
from sklearn import metrics

from binaries.reporting import estimates
from binaries.reporting import results as results_lib
from binaries.reporting import tables

# Okabe and Ito's palette, whose colours the colour-blind can tell apart, with
# grey for its yellow, which is too light for lines on white. Two are FedAOT's.
_HOLDOUT_COLOR, _NO_HOLDOUT_COLOR = '#D55E00', '#0072B2'
_COLORS = ('#7F7F7F', '#009E73', '#CC79A7', '#56B4E9', '#E69F00')
_MARKERS = ('s', '^', 'D', 'v', 'P', 'X', '<')
_DASHES = ('solid', (0, (5, 1.5)), (0, (1.5, 1.2)))
_DOTTED = dict(color='0.4', linewidth=1, linestyle=(0, (2, 2)))

_FONT_SIZE = 11
_DOTS_PER_INCH = 110
_SUMMARY_DOTS_PER_INCH = 150
_SUMMARY_PANELS_IN_ROW = 4
# Few enough that the legend is in sight of all panels.
_PANELS_IN_ROW, _PANELS_IN_FIGURE = 3, 6
_PANEL_INCHES = (3.5, 2.7)
_LEGEND_INCHES = 2.3
# Height of an entry of the legend.
LEGEND_ENTRY_INCHES = 0.25
_HEAT_MAP_CELL_INCHES = (0.72, 0.42)
# What fits above a panel, and in its share of the width of a figure.
_PANEL_TITLE_LENGTH, _TITLE_LENGTH_OF_PANEL = 38, 34
_MARKERS_ON_LINE = 7
_MAX_NAMES = 6
# The false positive rates at which ROC curves are averaged.
_RATES = np.arange(201) / 200


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure.

  Attributes:
    title: What it shows.
    name: A name for its files.
    caption: How to read it.
    alternative: What a reader who does not see it should know.
    png: The picture.
    data: What its CSV file holds.
  """

  title: str
  name: str
  caption: str
  alternative: str
  png: bytes
  data: pd.DataFrame


class Curves(NamedTuple):
  """Curves of each attack and aggregator, and how figures show them.

  Attributes:
    name: A name for the files of figures.
    title: What figures show.
    caption: How to read figures.
    column: The column of `metrics.csv` that they show, if any.
    x: The column of the curves' first coordinates.
    y: The column of the second ones.
    x_label: What the first coordinates are.
    y_label: What the second ones are.
    end: The column whose last value tells a curve in a word.
    ends: What these values are.
    end_format: Their format.
  """

  name: str
  title: str
  caption: str
  column: str
  x: str
  y: str
  x_label: str
  y_label: str
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
_ROC = Curves(
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


class _Panel(NamedTuple):
  """The curves under an attack."""

  curves: Curves
  attack: str
  fraction: float


def format_markdown(drawn: Figure) -> str:
  """A figure in Markdown, which shows the PNG file beside it."""
  alternative = drawn.alternative.replace('[', '(').replace(']', ')')
  return (
      f'{drawn.title}\n\n![{alternative}]({drawn.name}.png)\n\n'
      f'{drawn.caption}\n'
  )


def save_summary(path: pathlib.Path, results: results_lib.Results) -> None:
  """Draws a comparison into a PNG file.

  A column an attack; for each fraction of attackers a row of panels with the
  test accuracy and below it, if there are attackers and an aggregator that
  measures its weights, a row with their share of the weights. Lines are means
  over the seeds, bands their standard deviation.
  """
  path.write_bytes(
      _render(draw_summary(results), dots_per_inch=_SUMMARY_DOTS_PER_INCH)
  )


def draw_summary(results: results_lib.Results) -> figure.Figure:
  """The figure that `save_summary` saves."""
  data = {curves: _by_round(results, curves.column) for curves in (ACCURACY, WEIGHT)}
  rows = []
  for fraction in results.byzantine_fractions:
    for attacks in _chunks(results.attacks, _SUMMARY_PANELS_IN_ROW):
      for curves in (ACCURACY, WEIGHT):
        row = [_Panel(curves, attack, fraction) for attack in attacks]
        if curves == WEIGHT:
          row = [None if _select(data[WEIGHT], p).empty else p for p in row]
        if any(row):
          rows.append(row)
  return _draw_panels(
      results.title, rows, data, line_styles(results.aggregators), results.rounds
  )


def curve_figures(
    results: results_lib.Results, fraction: float, curves: Curves
) -> Iterator[Figure]:
  """A column of `metrics.csv` by round, a panel an attack."""
  data = _by_round(results, curves.column)
  yield from _make_figures(
      results, fraction, curves, data[data['byzantine_fraction'] == fraction]
  )


def roc_figures(
    results: results_lib.Results, fraction: float
) -> Iterator[Figure]:
  """The ROC curves of low weights as a detector, a panel an attack.

  A curve is the mean over all rounds and seeds of each round's curve, at equal
  false positive rates. There are none if no run has written its weights.
  """
  weights = results.weights
  found = []
  for (attack, aggregator), of_cell in weights[
      weights['byzantine_fraction'] == fraction
  ].groupby(['attack', 'aggregator'], sort=False):
    rates, areas = zip(
        *(
            roc_curve(clients['is_byzantine'], clients['weight'])
            for _, clients in of_cell.groupby(['seed', 'round'])
        )
    )
    found.append(
        pd.DataFrame({
            'byzantine_fraction': fraction,
            'attack': attack,
            'aggregator': aggregator,
            # Curves begin at the origin, even those that rise vertically.
            _ROC.x: np.append(0, _RATES),
            _ROC.y: np.append(0, np.mean(rates, axis=0)),
            _ROC.end: np.mean(areas),
        })
    )
  if found:
    yield from _make_figures(results, fraction, _ROC, pd.concat(found))


def roc_curve(
    is_byzantine: Sequence[bool], weights: Sequence[float]
) -> Tuple[np.ndarray, float]:
  """The ROC curve of a round, with low weights as the sign of an attacker.

  Args:
    is_byzantine: [N], whether each client is an attacker; some must be, and
      some not.
    weights: [N], the weights. Clients of equal weight are accused together.

  Returns:
    The true positive rates at the false positive rates from 0 to 1 in 200 equal
    steps, where the curve rises vertically its upper end; and the area below
    the curve.
  """
  false, true, _ = metrics.roc_curve(
      is_byzantine, -np.asarray(weights), drop_intermediate=False
  )
  return np.interp(_RATES, false, true), metrics.auc(false, true)


def cost_figures(results: results_lib.Results) -> Iterator[Figure]:
  """The time of a round, a bar an aggregator."""
  seconds = estimates.run_seconds(results)
  if seconds.empty:
    return
  median = seconds['median']
  with matplotlib.rc_context({'font.size': _FONT_SIZE}):
    canvas = figure.Figure(
        figsize=(9, 1.2 + 0.3 * len(seconds)), layout='constrained'
    )
    axes = canvas.add_subplot()
    axes.barh(
        seconds.index,
        list(median),
        xerr=[[*(median - seconds['min'])], [*(seconds['max'] - median)]],
        color=_COLORS[3],
        error_kw={'ecolor': '0.25', 'capsize': 3},
    )
    axes.invert_yaxis()
    axes.set_xlabel('Seconds a round')
    _style_axes(axes)
    png = _render(canvas)
  named = ', '.join(f'{name} {value:.2f}' for name, value in median.items())
  yield Figure(
      'Time of a round',
      'seconds_per_round_bars',
      'Bars are medians over the runs, whiskers the fastest and the slowest.',
      f'Median seconds a round. {named}.',
      png,
      seconds[['median', 'count']]
      .astype({'count': int})
      .rename_axis('aggregator')
      .set_axis(['median_seconds', 'runs'], axis=1)
      .reset_index(),
  )


def draw_heat_map(table: tables.Table) -> bytes:
  """A coloured table as a picture."""
  width, height = _HEAT_MAP_CELL_INCHES
  num_columns = len(table.header) - 1
  with matplotlib.rc_context({'font.size': 9}):
    canvas = figure.Figure(
        figsize=(2.6 + width * num_columns, 1.9 + height * len(table.rows)),
        layout='constrained',
    )
    axes = canvas.add_subplot()
    axes.set_xlim(0, num_columns)
    axes.set_ylim(len(table.rows), 0)
    for i, (_, cells) in enumerate(table.rows):
      for j, cell in enumerate(cells):
        background = '#ffffff'
        if cell.value is not None:
          background = table.scale.color(cell.value)
        axes.add_patch(
            patches.Rectangle(
                (j, i), 1, 1, facecolor=background, edgecolor='white'
            )
        )
        axes.text(
            j + 0.5,
            i + 0.5,
            f'{cell.text}\n{cell.spread}'.strip(),
            ha='center',
            va='center',
            fontsize='small' if cell.value is not None else 'x-small',
            fontweight='bold' if cell.best else 'normal',
            color=tables.text_color(background),
        )
    axes.set_xticks(
        np.arange(num_columns) + 0.5,
        table.header[1:],
        rotation=40,
        ha='left',
        rotation_mode='anchor',
    )
    axes.xaxis.tick_top()
    axes.set_yticks(
        np.arange(len(table.rows)) + 0.5, [name for name, _ in table.rows]
    )
    axes.tick_params(length=0)
    axes.set_frame_on(False)
    canvas.suptitle(table.title, x=0.01, ha='left')
    return _render(canvas)


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


def panel_title(attack: str, fraction: float) -> str:
  """The title of a panel that shows an attack."""
  if attack == estimates.NO_ATTACK:
    return 'no attackers'
  return textwrap.fill(
      f'{attack}, {tables.percent(fraction)}% attackers', _PANEL_TITLE_LENGTH
  )


def _by_round(results: results_lib.Results, column: str) -> pd.DataFrame:
  """A column of `metrics.csv` in %: mean, deviation and seeds by round."""
  rows = results.metrics.dropna(subset=column)
  if column == WEIGHT.column:
    rows = rows[rows['attack'] != estimates.NO_ATTACK]
  cells = rows.assign(**{column: 100 * rows[column]}).groupby(
      ['byzantine_fraction', 'attack', 'aggregator', 'round'], sort=False
  )
  return (
      cells[column].agg(mean='mean', deviation='std', seeds='count').reset_index()
  )


def _select(data: pd.DataFrame, panel: _Panel) -> pd.DataFrame:
  return data[
      (data['attack'] == panel.attack)
      & (data['byzantine_fraction'] == panel.fraction)
  ]


def _make_figures(
    results: results_lib.Results,
    fraction: float,
    curves: Curves,
    data: pd.DataFrame,
) -> Iterator[Figure]:
  """Figures with a panel an attack, of few enough panels each."""
  percent = tables.percent(fraction)
  title = f'{curves.title} ({percent} % attackers)'
  caption = curves.caption
  if curves.column and len(results.seeds) > 1:
    caption += (
        ' Lines are means over the seeds, bands their standard deviation.'
    )
  attacks = [a for a in results.attacks if a in set(data['attack'])]
  chunks = list(_chunks(attacks, _PANELS_IN_FIGURE))
  for number, chunk in enumerate(chunks, start=1):
    shown = data[data['attack'].isin(chunk)]
    styles = {
        aggregator: style
        for aggregator, style in line_styles(results.aggregators).items()
        if aggregator in set(shown['aggregator'])
    }
    rows = [
        [_Panel(curves, attack, fraction) for attack in row]
        for row in _chunks(chunk, _PANELS_IN_ROW)
    ]
    canvas = _draw_panels(
        textwrap.fill(
            f'{title}: {results.title}', _TITLE_LENGTH_OF_PANEL * len(rows[0])
        ),
        rows,
        {curves: shown},
        styles,
        results.rounds,
    )
    ends = shown.groupby(['attack', 'aggregator'])[curves.end].last()
    texts = [
        f'{attack}: {_enumerate(ends[attack], curves.end_format)}'
        for attack in chunk
    ]
    yield Figure(
        title,
        f'{curves.name}_{percent}_percent'
        + (f'_{number}' if len(chunks) > 1 else ''),
        caption,
        f'{curves.ends}, from high to low. {"; ".join(texts)}.',
        _render(canvas),
        shown.drop(columns='byzantine_fraction'),
    )


def _enumerate(ends: pd.Series, form: str) -> str:
  """Names and values from high to low; of many only both ends."""
  ordered = ends.sort_values(ascending=False, kind='stable')
  texts = [f'{name} {form.format(value)}' for name, value in ordered.items()]
  if len(texts) > _MAX_NAMES:
    half = _MAX_NAMES // 2
    texts = [*texts[:half], '...', *texts[-half:]]
  return ', '.join(texts)


def _draw_panels(
    title: str,
    rows: Sequence[Sequence[Optional[_Panel]]],
    data: Mapping[Curves, pd.DataFrame],
    styles: Mapping[str, Dict[str, Any]],
    num_rounds: int,
) -> figure.Figure:
  """Rows of panels, and a legend of aggregators beside them.

  Args:
    title: The title.
    rows: The panels; None leaves a gap. Those of the same curves share an axis.
    data: What the panels show.
    styles: The styles of the lines by aggregator.
    num_rounds: The number of rounds of a run.
  """
  num_columns = max(map(len, rows))
  width = num_columns * _PANEL_INCHES[0] + _LEGEND_INCHES
  height = max(
      len(rows) * _PANEL_INCHES[1] + 0.4,
      (len(styles) + 2) * LEGEND_ENTRY_INCHES,
  )
  with matplotlib.rc_context({'font.size': _FONT_SIZE}):
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
        _prepare_axes(axes, panel, num_rounds)
        _draw_curves(
            axes, panel.curves, _select(data[panel.curves], panel), styles
        )
    if WEIGHT in shared:
      # Room for the markers of lines at zero; not before all are drawn, as it
      # ends the scaling to what is drawn.
      axes = shared[WEIGHT]
      axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
  return canvas


def _prepare_axes(axes: Any, panel: _Panel, num_rounds: int) -> None:
  """Labels a panel, and draws the line that its curves are compared with."""
  axes.set_title(panel_title(panel.attack, panel.fraction), fontsize='medium')
  axes.set_xlabel(panel.curves.x_label)
  axes.set_ylabel(panel.curves.y_label)
  _style_axes(axes)
  if panel.curves == _ROC:
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


def _style_axes(axes: Any) -> None:
  """Gives a panel a light grid behind the lines, and no frame."""
  axes.grid(color='0.9')
  axes.set_axisbelow(True)
  for side in ('top', 'right'):
    axes.spines[side].set_visible(False)


def _render(
    canvas: figure.Figure, *, dots_per_inch: int = _DOTS_PER_INCH
) -> bytes:
  """The PNG file of a figure, equal for equal figures."""
  content = io.BytesIO()
  # How many ticks there are is decided here, by the size of the font.
  with matplotlib.rc_context({'font.size': _FONT_SIZE}):
    canvas.savefig(
        content,
        dpi=dots_per_inch,
        facecolor='white',
        metadata={'Software': None},
    )
  return content.getvalue()


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
  for start in range(0, len(items), size):
    yield items[start : start + size]
