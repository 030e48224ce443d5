"""The tables of a report, with what is needed to sort and colour them."""

import csv
import dataclasses
import io
import math
import statistics
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple
from typing import Optional, Sequence, Tuple

import matplotlib
from matplotlib import colors
from scipy import special

from binaries import comparison as comparison_lib
from binaries import report_results

AVERAGE = comparison_lib.AVERAGE
WORST = 'worst attack'
NO_ATTACK = 'none'
_CONFIDENCE = 0.95
# The part of matplotlib's maps that is used; symmetric, so that zero is white
# in maps that diverge from it.
_COLOR_RANGE = (0.08, 0.92)
# Differences that are larger have the colour of this one, so that one ruined
# aggregator does not leave all others white.
_MAX_POINTS = 20.0
# Means that differ by less are equal but for rounding errors.
_TIE = 1e-9

# For each aggregator, the values of a column of a table by seed.
Columns = Mapping[str, Mapping[str, Mapping[int, float]]]


class Estimate(NamedTuple):
  """What values of several seeds come to.

  Attributes:
    mean: Their mean.
    deviation: Their sample standard deviation, None for a single value.
    confidence: Half the width of the 95 % confidence interval of the mean
      under Student's t distribution, None for a single value.
    count: How many there are.
  """

  mean: float
  deviation: Optional[float]
  confidence: Optional[float]
  count: int


@dataclasses.dataclass(frozen=True)
class Scale:
  """How values become colours.

  Attributes:
    colormap: A name that matplotlib knows.
    low: The value of the first colour.
    high: The value of the last colour.
  """

  colormap: str
  low: float
  high: float

  def color(self, value: float) -> str:
    """The colour of a value, such as '#08306b'."""
    position = 0.5
    if self.high > self.low:
      position = (value - self.low) / (self.high - self.low)
    first, last = _COLOR_RANGE
    position = first + (last - first) * min(max(position, 0.0), 1.0)
    return colors.to_hex(matplotlib.colormaps[self.colormap](position))


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of a table.

  Attributes:
    text: What it shows.
    spread: What it shows below, such as '± 0.2'.
    value: What it is sorted and coloured by, None if there is nothing.
    note: More about it.
    best: Whether it is the best of its column.
    estimate: What it shows, in numbers.
  """

  text: str
  spread: str = ''
  value: Optional[float] = None
  note: str = ''
  best: bool = False
  estimate: Optional[Estimate] = None


@dataclasses.dataclass(frozen=True)
class Table:
  """A table.

  Attributes:
    name: A name for its files.
    title: What it shows.
    caption: How to read it.
    header: The names of the columns; the first is that of the rows' names.
    rows: For each row its name and its cells.
    footer: A row below that does not take part in sorting, None if there is
      none.
    scale: How its cells are coloured, None if they are not.
  """

  name: str
  title: str
  caption: str
  header: Sequence[str]
  rows: Sequence[Tuple[str, Sequence[Cell]]]
  footer: Optional[Tuple[str, Sequence[Cell]]] = None
  scale: Optional[Scale] = None


class _Format(NamedTuple):
  """How to show values of a kind.

  Attributes:
    unit: Their unit.
    factor: What to multiply them with.
    mean: The format of the mean.
    spread: The format of the standard deviation.
  """

  unit: str
  factor: float
  mean: str
  spread: str


_PERCENT = _Format('%', 100.0, '{:.1f}', '{:.1f}')
_POINTS = _Format('points', 100.0, '{:+.1f}', '{:.1f}')
_AREA = _Format('area', 1.0, '{:.3f}', '{:.3f}')


def estimate(values: Iterable[float]) -> Optional[Estimate]:
  """Mean, deviation and confidence of values; None if there are none."""
  values = list(values)
  if not values:
    return None
  mean = statistics.fmean(values)
  count = len(values)
  if count < 2:
    return Estimate(mean, None, None, count)
  if not all(map(math.isfinite, values)):
    return Estimate(mean, math.nan, math.nan, count)
  deviation = statistics.stdev(values)
  quantile = float(special.stdtrit(count - 1, 0.5 + _CONFIDENCE / 2))
  return Estimate(mean, deviation, quantile * deviation / count**0.5, count)


def text_color(background: str) -> str:
  """Black or white, whichever has the higher contrast to a colour."""
  return max(
      ('#000000', '#ffffff'), key=lambda color: contrast(color, background)
  )


def contrast(color: str, other: str) -> float:
  """The contrast ratio of two colours, in [1, 21], as WCAG 2 defines it."""
  low, high = sorted([_luminance(color), _luminance(other)])
  return (high + 0.05) / (low + 0.05)


def is_baseline(aggregator: str) -> bool:
  """Whether an aggregator is neither the oracle nor a variant of FedAOT."""
  rule = aggregator.rpartition('+')[2].partition(':')[0]
  return rule != comparison_lib.ORACLE and not rule.startswith('fedaot')


def attacks_of(
    comparison: comparison_lib.Comparison, *, with_none: bool = True
) -> List[str]:
  """The attacks of a comparison, with or without 'none'."""
  return [a for a in comparison.attacks if with_none or a != NO_ATTACK]


def measured_attacks(
    comparison: comparison_lib.Comparison, column: str, fraction: float
) -> List[str]:
  """The attacks, without 'none', for which a column has any value."""
  return [
      attack
      for attack in attacks_of(comparison, with_none=False)
      if any(
          comparison.values(column, aggregator, attack, fraction)
          for aggregator in comparison.aggregators
      )
  ]


def read_columns(
    comparison: comparison_lib.Comparison,
    column: str,
    fraction: float,
    attacks: Sequence[str],
) -> Dict[str, Dict[str, Dict[int, float]]]:
  """The values of a column of `results.csv`, as the columns of a table.

  Args:
    comparison: The results.
    column: The column of `results.csv`.
    fraction: The fraction of attackers.
    attacks: The attacks.

  Returns:
    For the average over the attacks, if there are two or more, and for each
    attack: for each aggregator the values by seed. An average needs all attacks
    of a seed.
  """
  columns = {AVERAGE: {}} if len(attacks) > 1 else {}
  for attack in attacks:
    columns[attack] = {}
    for aggregator in comparison.aggregators:
      columns[attack][aggregator] = comparison.values(
          column, aggregator, attack, fraction
      )
  if len(attacks) > 1:
    for aggregator in comparison.aggregators:
      columns[AVERAGE][aggregator] = comparison_lib.average_over_attacks(
          [columns[attack][aggregator] for attack in attacks]
      )
  return columns


def worst_attack(
    columns: Columns, aggregator: str, attacks: Sequence[str], worst: Callable
) -> Optional[str]:
  """The attack with the worst mean; None unless all have values.

  Args:
    columns: What `read_columns` returns.
    aggregator: The aggregator.
    attacks: The attacks.
    worst: `min` or `max`.
  """
  means = {a: estimate(columns[a][aggregator].values()) for a in attacks}
  if not means or None in means.values():
    return None
  return worst(attacks, key=lambda attack: means[attack].mean)


def best_of(
    by_aggregator: Mapping[str, Mapping[int, float]],
    aggregators: Iterable[str],
    best: Callable = max,
) -> Optional[str]:
  """The aggregator with the best mean over the seeds, None if none has one."""
  means = {a: estimate(by_aggregator.get(a, {}).values()) for a in aggregators}
  known = [a for a, e in means.items() if e and not math.isnan(e.mean)]
  return best(known, key=lambda a: means[a].mean, default=None)


def subtract(
    values: Mapping[int, float], others: Mapping[int, float]
) -> Dict[int, float]:
  """The differences of the seeds that both have."""
  return {s: values[s] - others[s] for s in values if s in others}


def accuracy_table(
    results: report_results.Results, fraction: float
) -> Table:
  """The accuracies after the last round."""
  comparison = results.comparison
  columns = read_columns(
      comparison, 'test_accuracy', fraction, comparison.attacks
  )
  columns = _with_worst(columns, comparison, comparison.attacks, min)
  return _make_matrix(
      results,
      fraction,
      columns,
      name='accuracy',
      title='Test accuracy in % after the last round',
      caption='Darker is more accurate.',
      form=_PERCENT,
      best=max,
      colormap='Blues',
  )


def oracle_table(
    results: report_results.Results, fraction: float
) -> Optional[Table]:
  """The accuracies minus the oracle's; None without an oracle."""
  comparison = results.comparison
  if comparison_lib.ORACLE not in comparison.aggregators:
    return None
  columns = read_columns(
      comparison, 'test_accuracy', fraction, comparison.attacks
  )
  return _make_matrix(
      results,
      fraction,
      {
          label: {
              aggregator: subtract(values, column[comparison_lib.ORACLE])
              for aggregator, values in column.items()
              if aggregator != comparison_lib.ORACLE
          }
          for label, column in columns.items()
      },
      name='difference_to_oracle',
      title='Difference of test accuracy to the oracle, in points',
      caption=(
          'The oracle is the mean of the honest updates. Differences are taken'
          ' seed by seed; orange is below the oracle, purple above.'
      ),
      form=_POINTS,
      best=max,
      colormap='PuOr',
  )


def baseline_table(
    results: report_results.Results, fraction: float
) -> Optional[Table]:
  """The accuracies minus those of each column's best baseline.

  Args:
    results: The results.
    fraction: The fraction of attackers.

  Returns:
    The table, None if no baseline has a result.
  """
  comparison = results.comparison
  columns = read_columns(
      comparison, 'test_accuracy', fraction, comparison.attacks
  )
  baselines = [a for a in comparison.aggregators if is_baseline(a)]
  leaders = {
      label: best_of(column, baselines) for label, column in columns.items()
  }
  if not any(leaders.values()):
    return None
  table = _make_matrix(
      results,
      fraction,
      {
          label: {
              aggregator: subtract(values, column.get(leaders[label], {}))
              for aggregator, values in column.items()
          }
          for label, column in columns.items()
      },
      name='difference_to_best_baseline',
      title='Difference of test accuracy to the best baseline, in points',
      caption=(
          'A baseline is an aggregator that is neither FedAOT nor the oracle;'
          ' the last row names the one with the highest mean accuracy in the'
          ' column. Differences are taken seed by seed; orange is below it,'
          ' purple above.'
      ),
      form=_POINTS,
      best=max,
      colormap='PuOr',
  )
  footer = []
  for label, leader in leaders.items():
    cell = Cell(comparison_lib.MISSING)
    if leader is not None:
      mean = estimate(columns[label][leader].values()).mean
      cell = Cell(leader, f'{100 * mean:.1f} %')
    footer.append(cell)
  return dataclasses.replace(table, footer=('best baseline', footer))


def success_table(
    results: report_results.Results, fraction: float
) -> Optional[Table]:
  """The attack success rates; None if there are none."""
  return _measurement_table(
      results,
      fraction,
      'attack_success_rate',
      worst=max,
      name='attack_success',
      title='Attack success rate in %',
      caption=(
          'How often the attack reaches its aim, for attacks that have one;'
          ' lighter is better.'
      ),
      form=_PERCENT,
      best=min,
      colormap='Oranges',
  )


def weight_table(
    results: report_results.Results, fraction: float
) -> Optional[Table]:
  """The attackers' shares of the weights; None if there are none."""
  return _measurement_table(
      results,
      fraction,
      'attacker_weight',
      name='attacker_weight',
      title='Weight on attackers in %, mean over the rounds',
      caption=(
          'A plain mean gives them'
          f' {comparison_lib.percent(fraction)} %; lighter is better.'
          ' Aggregators that do not weigh clients are left out.'
      ),
      form=_PERCENT,
      best=min,
      colormap='Oranges',
  )


def detection_table(
    results: report_results.Results, fraction: float
) -> Optional[Table]:
  """The areas under the ROC curves; None if there are none."""
  return _measurement_table(
      results,
      fraction,
      'detection_auroc',
      name='detection_auroc',
      title='Detection of attackers: area under the ROC curve (AUROC)',
      caption=(
          'The probability that a random honest client has a larger weight than'
          ' a random attacker, mean over the rounds: 1 is perfect, 0.5 is'
          ' chance. Aggregators that do not weigh clients are left out.'
      ),
      form=_AREA,
      best=max,
      colormap='Blues',
  )


def cost_table(results: report_results.Results) -> Optional[Table]:
  """The time of a round; None if no run has measured it."""
  seconds = run_seconds(results.comparison)
  if not seconds:
    return None
  fastest = min(map(statistics.median, seconds.values()))
  mean = statistics.median(seconds['mean']) if 'mean' in seconds else None
  header = ['aggregator', 'seconds a round', 'fastest run', 'slowest run']
  header += ['times mean'] if mean else []
  rows = []
  for aggregator, values in seconds.items():
    median = statistics.median(values)
    cells = [
        Cell(f'{v:.3f}', value=v, best=not i and v == fastest)
        for i, v in enumerate((median, min(values), max(values)))
    ]
    if mean:
      cells.append(Cell(f'{median / mean:.2f}', value=median / mean))
    rows.append((aggregator, cells + [Cell(str(len(values)), '', len(values))]))
  return Table(
      'seconds_per_round',
      'Time of a round',
      'The median over the runs, whose times are medians over their rounds;'
      ' clients and server together, without evaluation.',
      [*header, 'runs'],
      rows,
  )


def run_seconds(
    comparison: comparison_lib.Comparison,
) -> Dict[str, List[float]]:
  """The times of a round of all runs, by aggregator, of those that have any."""
  seconds = {
      aggregator: [
          value
          for fraction in comparison.byzantine_fractions
          for attack in comparison.attacks
          for value in comparison.values(
              'seconds_per_round', aggregator, attack, fraction
          ).values()
      ]
      for aggregator in comparison.aggregators
  }
  return {name: values for name, values in seconds.items() if values}


def missing_table(results: report_results.Results) -> Optional[Table]:
  """The runs without a result; None if all have one."""
  if not results.states:
    return None
  header = ['aggregator', 'attack', 'attackers', 'seed', 'state', 'error']
  rows = []
  for key, state in results.states.items():
    aggregator, attack, fraction, seed = key
    rows.append((
        aggregator,
        [
            Cell(attack),
            Cell(f'{comparison_lib.percent(fraction)} %', value=fraction),
            Cell(str(seed), value=seed),
            Cell(state),
            Cell(results.errors.get(key, '')),
        ],
    ))
  return Table(
      'runs_without_result',
      'Runs without a result',
      'The command of the comparison, called again, runs these and keeps the'
      ' others.',
      header,
      rows,
  )


def format_markdown(table: Table) -> str:
  """The table in Markdown, with the best of each column in bold."""

  def format_cell(cell):
    text = f'{cell.text} {cell.spread}'.strip().replace('|', '\\|')
    return f'**{text}**' if cell.best else text

  rows = [*table.rows] + ([table.footer] if table.footer else [])
  text = comparison_lib.format_markdown(
      comparison_lib.Table(
          table.title,
          list(table.header),
          [[name, *map(format_cell, cells)] for name, cells in rows],
          set(),
      )
  )
  return f'{text}\n{table.caption}\n'


def format_csv(table: Table) -> str:
  """The table as CSV.

  Args:
    table: The table.

  Returns:
    For a table of estimates a line a cell, with mean, standard deviation,
    confidence and number of seeds; for others the cells as they are.
  """
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  if table.scale is None:
    writer.writerow(table.header)
    for name, cells in table.rows:
      writer.writerow(
          [name] + [c.text if c.value is None else c.value for c in cells]
      )
    return text.getvalue()
  writer.writerow([
      'aggregator',
      'column',
      'mean',
      'standard_deviation',
      'confidence_95',
      'seeds',
      'note',
  ])
  for name, cells in table.rows:
    for label, cell in zip(table.header[1:], cells):
      values = cell.estimate or Estimate(None, None, None, 0)
      writer.writerow(
          [name, label]
          + ['' if value is None else repr(value) for value in values]
          + [cell.note or ('' if cell.estimate else cell.text)]
      )
  return text.getvalue()


def _measurement_table(
    results: report_results.Results,
    fraction: float,
    column: str,
    *,
    worst: Optional[Callable] = None,
    **arguments: Any,
) -> Optional[Table]:
  """The matrix of a measurement under attacks that some runs make."""
  comparison = results.comparison
  attacks = measured_attacks(comparison, column, fraction)
  columns = read_columns(comparison, column, fraction, attacks)
  measuring = [
      aggregator
      for aggregator in comparison.aggregators
      if any(columns[attack][aggregator] for attack in attacks)
  ]
  if not measuring:
    return None
  if worst is not None:
    columns = _with_worst(columns, comparison, attacks, worst)
  columns = {
      label: {aggregator: column[aggregator] for aggregator in measuring}
      for label, column in columns.items()
  }
  return _make_matrix(results, fraction, columns, **arguments)


def _with_worst(
    columns: Columns,
    comparison: comparison_lib.Comparison,
    attacks: Sequence[str],
    worst: Callable,
) -> Dict[str, Mapping[str, Mapping[int, float]]]:
  """The columns, with each aggregator's worst attack after the average."""
  if AVERAGE not in columns:
    return dict(columns)
  worst_column = {}
  for aggregator in comparison.aggregators:
    attack = worst_attack(columns, aggregator, attacks, worst)
    worst_column[aggregator] = columns[attack][aggregator] if attack else {}
  return {AVERAGE: columns[AVERAGE], WORST: worst_column, **columns}


def _make_matrix(
    results: report_results.Results,
    fraction: float,
    columns: Columns,
    *,
    name: str,
    title: str,
    caption: str,
    form: _Format,
    best: Callable,
    colormap: str,
) -> Table:
  """A table with a row an aggregator and a column of values each."""
  comparison = results.comparison
  rows = []
  aggregators = list(next(iter(columns.values())))
  leaders = {
      label: best_of(
          column, [a for a in aggregators if a != comparison_lib.ORACLE], best
      )
      for label, column in columns.items()
  }
  best_means = {
      label: form.factor * statistics.fmean(columns[label][leader].values())
      for label, leader in leaders.items()
      if leader is not None
  }
  means = []
  for aggregator in aggregators:
    cells = []
    for label, column in columns.items():
      cell = _make_cell(results, fraction, aggregator, label, column, form)
      if cell.value is not None:
        means.append(cell.value)
        is_best = (
            aggregator != comparison_lib.ORACLE
            and label in best_means
            and abs(cell.value - best_means[label]) < _TIE
        )
        cell = dataclasses.replace(cell, best=is_best)
      cells.append(cell)
    rows.append((aggregator, cells))
  low, high = min(means, default=0.0), max(means, default=0.0)
  if form is _POINTS:
    high = min(max(abs(low), abs(high)), _MAX_POINTS)
    low = -high
  if len(comparison.seeds) > 1:
    caption += (
        f' Mean ± sample standard deviation over {len(comparison.seeds)} seeds.'
    )
  caption += ' The best of each column is marked; the oracle does not compete.'
  percent = comparison_lib.percent(fraction)
  return Table(
      f'{name}_{percent}_percent',
      f'{title} ({percent} % attackers)',
      caption,
      ['aggregator', *columns],
      rows,
      scale=Scale(colormap, low, high),
  )


def _make_cell(
    results: report_results.Results,
    fraction: float,
    aggregator: str,
    label: str,
    column: Mapping[str, Mapping[int, float]],
    form: _Format,
) -> Cell:
  """The cell of an aggregator; says so if runs of it have no result."""
  seeds = results.comparison.seeds
  states = [
      results.states.get((aggregator, label, fraction, seed)) for seed in seeds
  ]
  missing = [
      f'{states.count(state)} {state}'
      for state in (
          report_results.FAILED,
          report_results.UNFINISHED,
          report_results.NOT_RUN,
      )
      if state in states
  ]
  found = estimate(form.factor * v for v in column[aggregator].values())
  if found is None:
    text = comparison_lib.MISSING
    if missing:
      # The state that comes first tells most.
      text = missing[0].partition(' ')[2]
    return Cell(text, note=', '.join(missing))
  notes = []
  spread = ''
  if found.deviation is not None:
    spread = f'± {form.spread.format(found.deviation)}'
    notes.append(
        f'95 % confidence of the mean: ± {form.spread.format(found.confidence)}'
    )
  if found.count < len(seeds):
    spread = f'{spread} ({found.count}/{len(seeds)} seeds)'.strip()
    notes += [f'{found.count} of {len(seeds)} seeds', *missing]
  return Cell(
      form.mean.format(found.mean).replace('-', '−'),
      spread,
      None if math.isnan(found.mean) else found.mean,
      '; '.join(notes),
      estimate=found,
  )


def _luminance(color: str) -> float:
  """The relative luminance of a colour as WCAG 2 defines it."""
  linear = [
      c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
      for c in colors.to_rgb(color)
  ]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
