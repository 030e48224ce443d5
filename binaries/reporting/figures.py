"""The figures of a comparison, each with its data and a text in its place."""

from collections.abc import Iterator
import pathlib
import textwrap
from typing import NamedTuple, Sequence, Tuple

import matplotlib
from matplotlib import figure
from matplotlib import patches
import numpy as np
import pandas as pd
from sklearn import metrics

from binaries.reporting import color_scale
from binaries.reporting import estimates
from binaries.reporting import panels
from binaries.reporting import results as results_lib
from binaries.reporting import tables

_SUMMARY_DOTS_PER_INCH = 150
_SUMMARY_PANELS_IN_ROW = 4
# Few enough that the legend is in sight of all panels.
_PANELS_IN_ROW, _PANELS_IN_FIGURE = 3, 6
_HEAT_MAP_CELL_INCHES = (0.72, 0.42)
# What of a title fits above each panel in a row.
_TITLE_LENGTH_OF_PANEL = 30
_MAX_NAMES = 6
# The false positive rates at which ROC curves are averaged.
_RATES = np.arange(201) / 200


class Figure(NamedTuple):
  """A picture, a text in its place, and the data of its CSV file."""

  title: str
  name: str
  caption: str
  alternative: str
  png: bytes
  data: pd.DataFrame


def format_markdown(drawn: Figure) -> str:
  """A figure in Markdown, which shows the PNG file beside it."""
  alternative = drawn.alternative.replace('[', '(').replace(']', ')')
  return (
      f'{drawn.title}\n\n![{alternative}]({drawn.name}.png)\n\n'
      f'{drawn.caption}\n'
  )


def save_summary(path: pathlib.Path, results: results_lib.Results) -> None:
  """Writes what `draw_summary` draws into a PNG file."""
  path.write_bytes(
      panels.render(draw_summary(results), dots_per_inch=_SUMMARY_DOTS_PER_INCH)
  )


def draw_summary(results: results_lib.Results) -> figure.Figure:
  """The figure that a comparison ends with.

  A column an attack; for each fraction of attackers a row of panels with the
  test accuracy and below it, if anything measures them, a row with the
  attackers' share of the weights. Lines are means over the seeds, bands their
  standard deviation.
  """
  data = {
      curves: _by_round(results, curves.column)
      for curves in (panels.ACCURACY, panels.WEIGHT)
  }
  rows = []
  for fraction in results.byzantine_fractions:
    for attacks in _chunks(results.attacks, _SUMMARY_PANELS_IN_ROW):
      accuracies, weights = (
          [panels.Panel(curves, attack, fraction) for attack in attacks]
          for curves in data
      )
      rows.append(accuracies)
      weights = [
          None if panels.select(data[panels.WEIGHT], panel).empty else panel
          for panel in weights
      ]
      if any(weights):
        rows.append(weights)
  return panels.draw(
      results.title,
      rows,
      data,
      panels.line_styles(results.aggregators),
      results.rounds,
  )


def curve_figures(
    results: results_lib.Results, fraction: float, curves: panels.Curves
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
            panels.ROC.x: np.append(0, _RATES),
            panels.ROC.y: np.append(0, np.mean(rates, axis=0)),
            panels.ROC.end: np.mean(areas),
        })
    )
  if found:
    yield from _make_figures(results, fraction, panels.ROC, pd.concat(found))


def roc_curve(
    is_byzantine: Sequence[bool], weights: Sequence[float]
) -> Tuple[np.ndarray, float]:
  """The ROC curve of a round, with low weights as the sign of an attacker.

  Args:
    is_byzantine: [N], whether each client is an attacker; some are, some not.
    weights: [N], the weights. Clients of equal weight are accused together.

  Returns:
    The true positive rates at `_RATES`, where the curve rises vertically its
    upper end; and the area below the curve.
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
  with matplotlib.rc_context({'font.size': panels.FONT_SIZE}):
    canvas = figure.Figure(
        figsize=(9, 1.2 + 0.3 * len(seconds)), layout='constrained'
    )
    axes = canvas.add_subplot()
    axes.barh(
        seconds.index,
        list(median),
        xerr=[[*(median - seconds['min'])], [*(seconds['max'] - median)]],
        color=panels.COLORS[3],
        error_kw={'ecolor': '0.25', 'capsize': 3},
    )
    axes.invert_yaxis()
    axes.set_xlabel('Seconds a round')
    panels.style_axes(axes)
    png = panels.render(canvas)
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
            color=color_scale.text_color(background),
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
    return panels.render(canvas)


def _by_round(results: results_lib.Results, column: str) -> pd.DataFrame:
  """A column of `metrics.csv` in %: mean, deviation and seeds by round."""
  rows = results.metrics.dropna(subset=column)
  if column == panels.WEIGHT.column:
    rows = rows[rows['attack'] != estimates.NO_ATTACK]
  cells = rows.assign(**{column: 100 * rows[column]}).groupby(
      ['byzantine_fraction', 'attack', 'aggregator', 'round'], sort=False
  )
  found = cells[column].agg(mean='mean', deviation='std', seeds='count')
  return found.reset_index()


def _make_figures(
    results: results_lib.Results,
    fraction: float,
    curves: panels.Curves,
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
        for aggregator, style in panels.line_styles(results.aggregators).items()
        if aggregator in set(shown['aggregator'])
    }
    rows = [
        [panels.Panel(curves, attack, fraction) for attack in row]
        for row in _chunks(chunk, _PANELS_IN_ROW)
    ]
    canvas = panels.draw(
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
        panels.render(canvas),
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


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
  for start in range(0, len(items), size):
    yield items[start : start + size]
