"""The tables of a comparison, with what is needed to sort and colour them."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any, Callable, List, NamedTuple, Optional, Sequence, Tuple

import pandas as pd

from binaries.reporting import color_scale
from binaries.reporting import estimates
from binaries.reporting import results as results_lib

# How a table shows what there is no value for.
MISSING = '-'
# More attacks than this are the rows of a printed table.
_MAX_COLUMNS = 8
# Differences that are larger have the colour of this one, so that one ruined
# aggregator does not leave all others white.
_MAX_POINTS = 20.0
# Means that differ by less are equal but for rounding errors.
_TIE = 1e-9


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of a table; `str` is what it shows in a line."""

  text: str
  # What is below the text, such as '± 0.2'.
  spread: str = ''
  # What it is sorted and coloured by.
  value: Optional[float] = None
  note: str = ''
  best: bool = False
  estimate: Optional[estimates.Estimate] = None

  def __str__(self):
    return f'{self.text} {self.spread}'.strip()


Row = Tuple[str, Sequence[Cell]]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table; a report's has a name, a caption and the data of its CSV file."""

  title: str
  header: Sequence[str]
  rows: Sequence[Row]
  name: str = ''
  caption: str = ''
  data: Optional[pd.DataFrame] = None
  # A row below that does not take part in sorting.
  footer: Optional[Row] = None
  # How cells are coloured, if they are.
  scale: Optional[color_scale.Scale] = None


def format_text(table: Table) -> str:
  """The table for a terminal, with aligned columns."""
  lines = [[name, *map(str, cells)] for name, cells in table.rows]
  lines.insert(0, [*table.header])
  widths = [max(map(len, column)) for column in zip(*lines)]
  lines.insert(1, ['-' * width for width in widths])
  texts = [
      '  '.join([
          line[0].ljust(widths[0]),
          *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:])),
      ]).rstrip()
      for line in lines
  ]
  return '\n'.join([table.title, '', *texts]) + '\n'


def format_markdown(table: Table) -> str:
  """The table in Markdown, with the best of each column in bold."""

  def format_cell(cell):
    text = str(cell).replace('|', '\\|')
    return f'**{text}**' if cell.best else text

  rows = [*table.rows, *([table.footer] if table.footer else [])]
  lines = [
      table.header,
      ['---', *['---:'] * (len(table.header) - 1)],
      *([name, *map(format_cell, cells)] for name, cells in rows),
  ]
  text = '\n'.join(f'| {" | ".join(line)} |' for line in lines)
  caption = f'\n{table.caption}\n' if table.caption else ''
  return f'{table.title}\n\n{text}\n{caption}'


def percent(fraction: float) -> str:
  """A fraction in percent, without the sign."""
  return f'{100 * fraction:g}'


class Measure(NamedTuple):
  """A column of `Results.runs`, or a difference, and its table in a report."""

  column: str
  name: str
  title: str
  caption: str
  colormap: str
  smallest_is_best: bool = False
  # Whether there is a column for the worst attack.
  has_worst: bool = False
  # The formats of means, with a sign for differences, and of deviations.
  mean: str = '.1f'
  spread: str = '.1f'
  factor: float = 100.0


ACCURACY = Measure(
    'test_accuracy',
    'accuracy',
    'Test accuracy in % after the last round',
    'Darker is more accurate.',
    'Blues',
    has_worst=True,
)
SUCCESS = Measure(
    'attack_success_rate',
    'attack_success',
    'Attack success rate in %',
    'How often the attack reaches its aim, for attacks that have one; lighter'
    ' is better.',
    'Oranges',
    smallest_is_best=True,
    has_worst=True,
)
WEIGHT = Measure(
    'attacker_weight',
    'attacker_weight',
    'Weight on attackers in %, mean over the rounds',
    'A plain mean gives them {percent} %; lighter is better. Aggregators that'
    ' do not weigh clients are left out.',
    'Oranges',
    smallest_is_best=True,
)
DETECTION = Measure(
    'detection_auroc',
    'detection_auroc',
    'Detection of attackers: area under the ROC curve (AUROC)',
    'The probability that a random honest client has a larger weight than a'
    ' random attacker, mean over the rounds: 1 is perfect, 0.5 is chance.'
    ' Aggregators that do not weigh clients are left out.',
    'Blues',
    mean='.3f',
    spread='.3f',
    factor=1.0,
)
_TO_ORACLE = ACCURACY._replace(
    name='difference_to_oracle',
    title='Difference of test accuracy to the oracle, in points',
    caption=(
        'The oracle is the mean of the honest updates. Differences are taken'
        ' seed by seed; orange is below the oracle, purple above.'
    ),
    colormap='PuOr',
    mean='+.1f',
)
_TO_BASELINE = _TO_ORACLE._replace(
    name='difference_to_best_baseline',
    title='Difference of test accuracy to the best baseline, in points',
    caption=(
        'A baseline is an aggregator that is neither FedAOT nor the oracle; the'
        ' last row names the one with the highest mean accuracy in the column.'
        ' Differences are taken seed by seed; orange is below it, purple above.'
    ),
)


def summary_tables(results: results_lib.Results) -> List[Table]:
  """The tables that a comparison ends with.

  For each fraction of attackers the final accuracies; if an attack has an aim
  of its own, how often it is reached; and if an aggregator measures its
  weights, the attackers' share of them. All in percent: the mean over seeds
  and, for two seeds or more, the sample standard deviation.
  """
  over_seeds = ''
  if len(results.seeds) > 1:
    over_seeds = '; mean ± standard deviation over the seeds'
  found = []
  for fraction in results.byzantine_fractions:
    of_what = f' ({results.title}, {percent(fraction)}% attackers){over_seeds}'
    plain = f' (a plain mean gives {percent(fraction)}){over_seeds}'
    for measure, title in (
        (ACCURACY, f'{ACCURACY.title}{of_what}'),
        (
            SUCCESS,
            f'Success rate of the attack in % after the last round{of_what}',
        ),
        (WEIGHT, f'{WEIGHT.title}{plain}'),
    ):
      values = estimates.by_attack(results, measure.column, fraction)
      if not values.empty:
        found.append(_make_summary(values, measure, title))
  return found


def _make_summary(
    values: pd.DataFrame, measure: Measure, title: str
) -> Table:
  """A table with the average last; turned, if else it would be too wide."""
  labels = sorted(values.columns, key=lambda label: label == estimates.AVERAGE)
  rows = _make_rows(values[labels], measure)
  if len(labels) <= _MAX_COLUMNS + 1:
    return Table(title, ['aggregator', *labels], rows)
  names, columns = zip(*rows)
  return Table(title, ['attack', *names], [*zip(labels, zip(*columns))])


def measurement_tables(
    results: results_lib.Results, fraction: float, measure: Measure
) -> Iterator[Table]:
  """The table of a measurement, if there is a value."""
  values = estimates.by_attack(results, measure.column, fraction)
  if not values.empty:
    if measure.has_worst:
      values = _with_worst(values, largest=measure.smallest_is_best)
    yield _make_matrix(results, fraction, values, measure)


def oracle_tables(
    results: results_lib.Results, fraction: float
) -> Iterator[Table]:
  """The accuracies minus the oracle's, if there is one."""
  values = estimates.by_attack(results, 'test_accuracy', fraction)
  if estimates.ORACLE in results.aggregators:
    oracle = values.loc[estimates.ORACLE]
    others = values.drop(index=estimates.ORACLE, level='aggregator')
    difference = estimates.difference(others, oracle)
    yield _make_matrix(results, fraction, difference, _TO_ORACLE)


def baseline_tables(
    results: results_lib.Results, fraction: float
) -> Iterator[Table]:
  """The accuracies minus those of each column's best baseline, if any."""
  values = estimates.by_attack(results, 'test_accuracy', fraction)
  means = estimates.means(values)
  competing = means.loc[estimates.baselines(means.index)]
  reference, footer = {}, []
  for label in values.columns:
    leader = estimates.best(competing[label])
    if leader is None:
      footer.append(Cell(MISSING))
      continue
    reference[label] = values.loc[leader, label]
    footer.append(Cell(leader, f'{100 * means.loc[leader, label]:.1f} %'))
  if reference:
    difference = estimates.difference(
        values, pd.DataFrame(reference, columns=values.columns)
    )
    table = _make_matrix(results, fraction, difference, _TO_BASELINE)
    yield dataclasses.replace(table, footer=('best baseline', footer))


def cost_tables(results: results_lib.Results) -> Iterator[Table]:
  """The time of a round, if a run has measured it."""
  seconds = estimates.run_seconds(results)
  if seconds.empty:
    return
  fastest = seconds['median'].min()
  header = ['aggregator', 'seconds a round', 'fastest run', 'slowest run']
  data = seconds[['median', 'min', 'max']]
  if 'mean' in seconds.index:
    header.append('times mean')
    data = data.assign(ratio=seconds['median'] / seconds.loc['mean', 'median'])
  header.append('runs')
  data = data.assign(count=seconds['count'].astype(int))
  rows = []
  for aggregator, values in data.iterrows():
    cells = [
        Cell(f'{value:{".2f" if name == "ratio" else ".3f"}}', value=value)
        for name, value in values.drop('count').items()
    ]
    cells[0] = dataclasses.replace(cells[0], best=values['median'] == fastest)
    number = int(values['count'])
    rows.append((aggregator, [*cells, Cell(str(number), value=number)]))
  yield Table(
      'Time of a round',
      header,
      rows,
      name='seconds_per_round',
      caption=(
          'The median over the runs, whose times are medians over their rounds;'
          ' clients and server together, without evaluation.'
      ),
      data=data.reset_index().set_axis(header, axis='columns'),
  )


def missing_tables(results: results_lib.Results) -> Iterator[Table]:
  """The runs without a result, if there are any."""
  missing = results.runs[results.runs['state'] != results_lib.FINISHED]
  if missing.empty:
    return
  header = ['aggregator', 'attack', 'attackers', 'seed', 'state', 'error']
  columns = ['aggregator', 'attack', 'byzantine_fraction', *header[3:]]
  data = missing.reset_index()[columns].set_axis(header, axis=1)
  yield Table(
      'Runs without a result',
      header,
      [
          (
              run.aggregator,
              [
                  Cell(run.attack),
                  Cell(f'{percent(run.attackers)} %', value=run.attackers),
                  Cell(str(run.seed), value=run.seed),
                  Cell(run.state),
                  Cell(run.error),
              ],
          )
          for run in data.itertuples()
      ],
      name='runs_without_result',
      caption=(
          'The command of the comparison, called again, runs these and keeps'
          ' the others.'
      ),
      data=data,
  )


def _with_worst(
    values: pd.DataFrame, *, largest: bool = False
) -> pd.DataFrame:
  """The values, with each aggregator's worst attack after the average."""
  if estimates.AVERAGE not in values:
    return values
  worst = pd.Series(math.nan, index=values.index)
  for aggregator, attack in estimates.worst_attacks(
      values, largest=largest
  ).items():
    worst[aggregator] = values.loc[aggregator, attack].to_numpy()
  values = values.copy()
  values.insert(1, estimates.WORST, worst)
  return values


def _make_matrix(
    results: results_lib.Results,
    fraction: float,
    values: pd.DataFrame,
    measure: Measure,
) -> Table:
  """A coloured table with a row an aggregator."""
  states = results.runs['state'].xs(fraction, level='byzantine_fraction')
  states = states.groupby(level=['attack', 'aggregator']).agg(list).to_dict()

  def missing(aggregator, label):
    found = states.get((label, aggregator), [])
    return [
        f'{found.count(state)} {state}'
        for state in results_lib.STATES
        if state in found
    ]

  rows = _make_rows(values, measure, missing)
  shown = [
      cell.value
      for _, cells in rows
      for cell in cells
      if cell.value is not None
  ]
  low, high = min(shown, default=0.0), max(shown, default=0.0)
  if measure.mean.startswith('+'):
    high = min(max(abs(low), abs(high)), _MAX_POINTS)
    low = -high
  elif measure is WEIGHT:
    # So that next to nothing is light, even where nothing is more.
    low, high = 0.0, max(high, measure.factor * fraction)
  caption = measure.caption.format(percent=percent(fraction))
  if len(results.seeds) > 1:
    caption += (
        f' Mean ± sample standard deviation over {len(results.seeds)} seeds.'
    )
  caption += ' The best of each column is marked; the oracle does not compete.'
  no_estimate = estimates.Estimate(None, None, None, 0)
  return Table(
      f'{measure.title} ({percent(fraction)} % attackers)',
      ['aggregator', *values.columns],
      rows,
      name=f'{measure.name}_{percent(fraction)}_percent',
      caption=caption,
      data=pd.DataFrame(
          [
              (
                  name,
                  label,
                  *(cell.estimate or no_estimate),
                  cell.note or ('' if cell.estimate else cell.text),
              )
              for name, cells in rows
              for label, cell in zip(values.columns, cells)
          ],
          columns=[
              'aggregator',
              'column',
              'mean',
              'standard_deviation',
              'confidence_95',
              'seeds',
              'note',
          ],
      ),
      scale=color_scale.Scale(measure.colormap, low, high),
  )


def _make_rows(
    values: pd.DataFrame,
    measure: Measure,
    missing: Callable[[str, str], List[str]] = lambda aggregator, label: [],
) -> List[Row]:
  """A row an aggregator; `missing` tells what runs of a cell have no result."""
  means = measure.factor * estimates.means(values)
  leading = means.loc[estimates.rivals(means.index)]
  leading = leading.min() if measure.smallest_is_best else leading.max()
  is_best = (means - leading).abs() < _TIE
  is_best.loc[is_best.index == estimates.ORACLE] = False
  return [
      (
          aggregator,
          [
              dataclasses.replace(
                  _make_cell(
                      measure.factor * values.loc[aggregator, label],
                      measure,
                      missing(aggregator, label),
                  ),
                  best=bool(is_best.loc[aggregator, label]),
              )
              for label in values.columns
          ],
      )
      for aggregator in means.index
  ]


def _make_cell(
    values: pd.Series, measure: Measure, missing: Sequence[str]
) -> Cell:
  """The cell of values by seed; says so if runs of it have no result."""
  found = estimates.estimate(values)
  if found is None:
    # The state that comes first tells most.
    text = missing[0].partition(' ')[2] if missing else MISSING
    return Cell(text, note=', '.join(missing))
  notes, spreads = [], []
  if found.deviation is not None:
    spreads.append(f'± {found.deviation:{measure.spread}}')
    notes.append(
        f'95 % confidence of the mean: ± {found.confidence:{measure.spread}}'
    )
  if found.seeds < len(values):
    spreads.append(f'({found.seeds}/{len(values)} seeds)')
    notes += [f'{found.seeds} of {len(values)} seeds', *missing]
  return Cell(
      f'{found.mean:{measure.mean}}'.replace('-', '−'),
      ' '.join(spreads),
      found.mean,
      '; '.join(notes),
      estimate=found,
  )
