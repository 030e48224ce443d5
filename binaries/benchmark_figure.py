"""The figure of a benchmark: times and memory, with logarithmic axes."""

import pathlib
from typing import Any, List, Mapping, Sequence, Tuple

import matplotlib
from matplotlib import figure as figure_lib
from matplotlib import lines

from binaries import benchmark_report as report
from binaries import figure

_PANEL_INCHES = (4.6, 4.2)
_LEGEND_INCHES = 2.6
_DOTS_PER_INCH = 150
_LABELS = {
    'num_clients': 'Clients N',
    'dimension': 'Coordinates d',
    'ms_per_client': 'Time (ms a client)',
    'peak_memory_mb': 'Peak memory (MB)',
}


def save_figure(
    path: pathlib.Path,
    measurements: Mapping[report.Key, report.Measurement],
    aggregators: Sequence[str],
    num_clients: Sequence[int],
    dimensions: Sequence[int],
) -> None:
  """Draws a benchmark into a PNG file.

  If there are several numbers of clients, a row of panels with time and memory
  by that number, at the largest dimension; likewise for several dimensions.
  Otherwise one panel with memory by time.

  Args:
    path: The file to write.
    measurements: Those there are.
    aggregators: The aggregators, in the order of the legend.
    num_clients: The numbers of clients.
    dimensions: The dimensions.
  """
  largest = dict(num_clients=max(num_clients), dimension=max(dimensions))
  rows: List[List[Tuple[str, str]]] = [
      [(axis, 'ms_per_client'), (axis, 'peak_memory_mb')]
      for axis, values in (
          ('num_clients', num_clients),
          ('dimension', dimensions),
      )
      if len(values) > 1
  ] or [[('ms_per_client', 'peak_memory_mb')]]
  with matplotlib.rc_context({'font.size': 11}):
    canvas = figure_lib.Figure(
        figsize=(
            len(rows[0]) * _PANEL_INCHES[0] + _LEGEND_INCHES,
            max(
                len(rows) * _PANEL_INCHES[1],
                (len(aggregators) + 2) * figure.LEGEND_ENTRY_INCHES,
            ),
        ),
        layout='constrained',
    )
    styles = figure.line_styles(aggregators)
    panels = canvas.subplots(len(rows), len(rows[0]), squeeze=False)
    for row, names in zip(panels, rows):
      for axes, (x, y) in zip(row, names):
        fixed = {name: n for name, n in largest.items() if name != x}
        _draw_panel(axes, measurements.values(), styles, x, y, fixed)
    canvas.legend(
        handles=[
            lines.Line2D([], [], label=name, **styles[name])
            for name in aggregators
        ],
        loc='outside right upper',
        title='Aggregator',
        alignment='left',
        handlelength=3.2,
        frameon=False,
        fontsize='small',
    )
    canvas.savefig(path, dpi=_DOTS_PER_INCH)


def _draw_panel(
    axes: Any,
    measurements: Any,
    styles: Mapping[str, Any],
    x: str,
    y: str,
    fixed: Mapping[str, int],
) -> None:
  """Draws a line an aggregator, of measurements with the fixed values."""
  for name, style in styles.items():
    points = sorted(
        (getattr(m, x), getattr(m, y))
        for m in measurements
        if m.aggregator == name
        and all(getattr(m, key) == value for key, value in fixed.items())
        # A logarithm needs more than zero.
        and (getattr(m, x) or 0) > 0
        and (getattr(m, y) or 0) > 0
    )
    if points:
      axes.plot(*zip(*points), **style)
  axes.set_xscale('log')
  axes.set_yscale('log')
  axes.set_xlabel(_LABELS[x])
  axes.set_ylabel(_LABELS[y])
  axes.set_title(
      ', '.join(f'{_LABELS[name]} = {value}' for name, value in fixed.items()),
      fontsize='medium',
  )
  axes.grid(color='0.9', which='both')
  axes.set_axisbelow(True)
