"""The figures of a report, each with its data and a text in its place."""

import csv
import dataclasses
import io
import statistics
import textwrap
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import matplotlib
from matplotlib import figure as matplotlib_figure
from matplotlib import patches
import numpy as np

from binaries import comparison as comparison_lib
from binaries import figure
from binaries import report_results
from binaries import report_tables
from fedaot_tff.simulation import metrics as metrics_lib

# Few enough that the legend is in sight of all panels.
_PANELS_IN_ROW, _PANELS_IN_FIGURE = 3, 6
_DOTS_PER_INCH = 110
_FONT_SIZE = 11
_TITLE_LENGTH_OF_PANEL = 34
_BAR_COLOR = '#56B4E9'
_GRID_OF_RATES = np.linspace(0, 1, 201)
_MAX_NAMES = 6
_HEAT_MAP_CELL_INCHES = (0.72, 0.42)


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure.

  Attributes:
    name: A name for its files.
    title: What it shows.
    caption: How to read it.
    alternative: What a reader who does not see it should know.
    png: The picture.
    header: The names of the columns of its data.
    rows: Its data.
  """

  name: str
  title: str
  caption: str
  alternative: str
  png: bytes
  header: Sequence[str]
  rows: Sequence[Sequence[Any]]


def accuracy_figures(
    results: report_results.Results, fraction: float
) -> Iterator[Figure]:
  """The accuracies by round, a panel an attack."""
  yield from _curve_figures(
      results,
      fraction,
      'test_accuracy',
      results.comparison.attacks,
      name='learning_curves',
      title='Test accuracy by round',
      caption='A line an aggregator.',
  )


def weight_figures(
    results: report_results.Results, fraction: float
) -> Iterator[Figure]:
  """The attackers' shares of the weights by round, a panel an attack."""
  yield from _curve_figures(
      results,
      fraction,
      'attacker_weight',
      report_tables.attacks_of(results.comparison, with_none=False),
      name='weight_curves',
      title='Weight on attackers by round',
      caption=(
          'A line an aggregator that weighs clients; the dotted grey line is'
          ' what a plain mean gives attackers.'
      ),
  )


def roc_figures(
    results: report_results.Results, fraction: float
) -> Iterator[Figure]:
  """The ROC curves of low weights as a detector, a panel an attack.

  A curve is the mean over all rounds and seeds of each round's curve, at equal
  false positive rates.

  Args:
    results: The results.
    fraction: The fraction of attackers.

  Yields:
    The figures; none if no run has written its weights.
  """
  comparison = results.comparison
  rates = np.append(0, _GRID_OF_RATES)
  curves, areas = {}, {}
  for aggregator in comparison.aggregators:
    for attack in report_tables.attacks_of(comparison, with_none=False):
      rounds = [
          weights
          for seed in comparison.seeds
          for weights in results.weights.get(
              (aggregator, attack, fraction, seed), ()
          )
      ]
      if rounds:
        mean = np.mean([roc_curve(*weights) for weights in rounds], axis=0)
        # Curves begin at the origin, even those that rise vertically from it.
        curves[aggregator, attack] = np.append(0, mean)
        areas[aggregator, attack] = statistics.fmean(
            metrics_lib.detection_auroc(r.weights, r.is_byzantine)
            for r in rounds
        )

  def draw(axes, styles, attack):
    axes.set_title(figure.panel_title(attack, fraction), fontsize='medium')
    axes.set_xlabel('Honest clients accused (%)')
    axes.set_ylabel('Attackers found (%)')
    axes.set_xlim(-3, 103)
    axes.set_ylim(-3, 103)
    figure.style_axes(axes)
    axes.plot([0, 100], [0, 100], color='0.4', linestyle=(0, (2, 2)), lw=1)
    for i, (aggregator, style) in enumerate(styles.items()):
      if (aggregator, attack) in curves:
        axes.plot(
            100 * rates,
            100 * curves[aggregator, attack],
            markevery=(2 * i, 40),
            **style,
        )

  attacks = list(dict.fromkeys(attack for _, attack in curves))
  for part, chunk in _chunks(attacks):
    aggregators = _ordered(comparison, {a for a, b in curves if b in chunk})
    yield _make_figure(
        comparison,
        chunk,
        aggregators,
        draw,
        name=_name('roc_curves', fraction, part),
        title=_title('ROC curves of the detection of attackers', fraction),
        caption=(
            'Clients with a low weight are accused: how many attackers that'
            ' finds, by how many honest clients it hits. Curves are means over'
            ' rounds and seeds; the dotted grey line is chance.'
        ),
        alternative='; '.join(
            f'{attack}: '
            + ', '.join(
                f'{a} {areas[a, attack]:.3f}'
                for a in aggregators
                if (a, attack) in areas
            )
            for attack in chunk
        ).join(['Area under the ROC curve. ', '.']),
        header=(
            'attack',
            'aggregator',
            'false_positive_rate',
            'true_positive_rate',
            'area',
        ),
        rows=[
            (attack, a, f'{x:.3f}', f'{y:.6f}', f'{areas[a, attack]:.6f}')
            for attack in chunk
            for a in aggregators
            if (a, attack) in curves
            for x, y in zip(rates, curves[a, attack])
        ],
    )


def cost_figures(results: report_results.Results) -> Iterator[Figure]:
  """The time of a round, a bar an aggregator."""
  seconds = report_tables.run_seconds(results.comparison)
  if not seconds:
    return
  names = list(seconds)
  medians = [statistics.median(seconds[name]) for name in names]
  with matplotlib.rc_context({'font.size': _FONT_SIZE}):
    canvas = matplotlib_figure.Figure(
        figsize=(9, 1.2 + 0.3 * len(names)), layout='constrained'
    )
    axes = canvas.add_subplot()
    axes.barh(names, medians, color=_BAR_COLOR)
    axes.errorbar(
        medians,
        names,
        xerr=[
            [m - min(seconds[n]) for n, m in zip(names, medians)],
            [max(seconds[n]) - m for n, m in zip(names, medians)],
        ],
        fmt='none',
        ecolor='0.25',
        capsize=3,
    )
    axes.invert_yaxis()
    axes.set_xlabel('Seconds a round')
    figure.style_axes(axes)
    png = _render(canvas)
  yield Figure(
      'seconds_per_round_bars',
      'Time of a round',
      'Bars are medians over the runs, whiskers the fastest and the slowest.',
      'Median seconds a round. '
      + ', '.join(f'{n} {m:.2f}' for n, m in zip(names, medians))
      + '.',
      png,
      ('aggregator', 'median_seconds', 'runs'),
      [(n, m, len(seconds[n])) for n, m in zip(names, medians)],
  )


def draw_heat_map(table: report_tables.Table) -> bytes:
  """A coloured table as a picture."""
  width, height = _HEAT_MAP_CELL_INCHES
  num_columns = len(table.header) - 1
  with matplotlib.rc_context({'font.size': 9}):
    canvas = matplotlib_figure.Figure(
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
            color=report_tables.text_color(background),
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


def format_csv(drawn: Figure) -> str:
  """The data of a figure as CSV."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow(drawn.header)
  writer.writerows(drawn.rows)
  return text.getvalue()


def format_markdown(drawn: Figure) -> str:
  """A figure in Markdown, which shows the PNG file beside it."""
  alternative = drawn.alternative.replace('[', '(').replace(']', ')')
  return (
      f'{drawn.title}\n\n![{alternative}]({drawn.name}.png)\n\n'
      f'{drawn.caption}\n'
  )


def roc_curve(is_byzantine: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """The ROC curve of a round, with low weights as the sign of an attacker.

  Clients of equal weight are accused together, which makes the curve a straight
  line there, so that the area counts ties half.

  Args:
    is_byzantine: Bool [N], whether each client is an attacker; some must be,
      and some not.
    weights: Float [N], the weights.

  Returns:
    Float [201], the true positive rates at false positive rates from 0 to 1 in
    equal steps; where a curve rises vertically, its upper end.
  """
  thresholds = np.unique(weights)
  true, false = (
      np.concatenate([
          [0.0],
          np.searchsorted(np.sort(group), thresholds, side='right')
          / group.size,
      ])
      for group in (weights[is_byzantine], weights[~is_byzantine])
  )
  # The last point at each false positive rate is the upper one, and the first
  # ends the slope that leads to that rate.
  after = np.searchsorted(false, _GRID_OF_RATES, side='right')
  before = after - 1
  after = np.minimum(after, false.size - 1)
  width = false[after] - false[before]
  share = np.divide(
      _GRID_OF_RATES - false[before],
      width,
      out=np.zeros_like(width),
      where=width > 0,
  )
  return true[before] + share * (true[after] - true[before])


def _curve_figures(
    results: report_results.Results,
    fraction: float,
    column: str,
    attacks: Sequence[str],
    *,
    name: str,
    title: str,
    caption: str,
) -> Iterator[Figure]:
  """Figures of a column of `metrics.csv` by round."""
  comparison = results.comparison
  curves = {}
  for attack in attacks:
    for aggregator in comparison.aggregators:
      runs = [
          results.metrics[key]
          for key in (
              (aggregator, attack, fraction, s) for s in comparison.seeds
          )
          if key in results.metrics
      ]
      rounds, values = figure.read_curves(runs, column)
      if rounds.size:
        curves[attack, aggregator] = rounds, values
  if len(comparison.seeds) > 1:
    caption += (
        ' Lines are means over the seeds, bands their standard deviation.'
    )
  drawn = [attack for attack in attacks if any(a == attack for a, _ in curves)]
  for part, chunk in _chunks(drawn):
    aggregators = _ordered(comparison, {b for a, b in curves if a in chunk})
    shown = dataclasses.replace(comparison, aggregators=aggregators)

    def draw(axes, styles, attack, shown=shown):
      figure.draw_panel(
          axes, shown, results.metrics, styles, column, attack, fraction
      )

    yield _make_figure(
        comparison,
        chunk,
        aggregators,
        draw,
        name=_name(name, fraction, part),
        title=_title(title, fraction),
        caption=caption,
        alternative=_describe_ends(title, chunk, aggregators, curves),
        header=('attack', 'aggregator', 'round', 'mean', 'deviation', 'seeds'),
        rows=[
            (attack, a, r, f'{v.mean():.6g}', _deviation(v), v.size)
            for attack in chunk
            for a in aggregators
            if (attack, a) in curves
            for r, v in zip(curves[attack, a][0], curves[attack, a][1].T)
        ],
    )


def _deviation(values: np.ndarray) -> str:
  return f'{values.std(ddof=1):.6g}' if values.size > 1 else ''


def _describe_ends(
    title: str,
    attacks: Sequence[str],
    aggregators: Sequence[str],
    curves: Dict[Tuple[str, str], Tuple[np.ndarray, np.ndarray]],
) -> str:
  """Where the curves of each panel end, from high to low."""
  texts = []
  for attack in attacks:
    ends = {
        a: float(curves[attack, a][1][:, -1].mean())
        for a in aggregators
        if (attack, a) in curves
    }
    ordered = sorted(ends, key=ends.get, reverse=True)
    named = [f'{a} {ends[a]:.1f} %' for a in ordered]
    if len(named) > _MAX_NAMES:
      half = _MAX_NAMES // 2
      named = [*named[:half], '...', *named[-half:]]
    texts.append(f'{attack}: {", ".join(named)}')
  return f'{title}; in the last round, from high to low. {"; ".join(texts)}.'


def _make_figure(
    comparison: comparison_lib.Comparison,
    attacks: Sequence[str],
    aggregators: Sequence[str],
    draw: Callable[..., None],
    *,
    title: str,
    **fields: Any,
) -> Figure:
  """A figure with a panel an attack, which `draw` draws."""
  styles = figure.line_styles(comparison.aggregators)
  styles = {aggregator: styles[aggregator] for aggregator in aggregators}
  num_columns = min(len(attacks), _PANELS_IN_ROW)
  num_rows = -(-len(attacks) // num_columns)
  with matplotlib.rc_context({'font.size': _FONT_SIZE}):
    canvas = figure.make_canvas(
        textwrap.fill(
            f'{title}: {comparison.title}',
            _TITLE_LENGTH_OF_PANEL * num_columns,
        ),
        styles,
        num_rows=num_rows,
        num_columns=num_columns,
    )
    axes = None
    for i, attack in enumerate(attacks):
      axes = canvas.add_subplot(num_rows, num_columns, i + 1, sharey=axes)
      draw(axes, styles, attack)
    return Figure(title=title, png=_render(canvas), **fields)


def _render(canvas: matplotlib_figure.Figure) -> bytes:
  """The PNG file of a figure, equal for equal figures."""
  content = io.BytesIO()
  canvas.savefig(
      content,
      dpi=_DOTS_PER_INCH,
      facecolor='white',
      metadata={'Software': None},
  )
  return content.getvalue()


def _chunks(attacks: Sequence[str]) -> Iterator[Tuple[str, List[str]]]:
  """What goes into a figure each, with a suffix for its name."""
  for start in range(0, len(attacks), _PANELS_IN_FIGURE):
    suffix = ''
    if len(attacks) > _PANELS_IN_FIGURE:
      suffix = f'_{start // _PANELS_IN_FIGURE + 1}'
    yield suffix, list(attacks[start : start + _PANELS_IN_FIGURE])


def _ordered(
    comparison: comparison_lib.Comparison, aggregators: Any
) -> List[str]:
  return [a for a in comparison.aggregators if a in aggregators]


def _name(name: str, fraction: float, part: str) -> str:
  return f'{name}_{comparison_lib.percent(fraction)}_percent{part}'


def _title(title: str, fraction: float) -> str:
  return f'{title} ({comparison_lib.percent(fraction)} % attackers)'
