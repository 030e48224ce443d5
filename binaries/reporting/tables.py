"""The tables of a comparison, with what is needed to sort and colour them."""

from collections.abc import Iterator
import math
from typing import List, NamedTuple, Optional, Sequence, Tuple

import matplotlib
from matplotlib import colors
import numpy as np
import pandas as pd

from binaries.reporting import estimates
from binaries.reporting import results as results_lib

# How a table shows what there is no value for.
MISSING = '-'
# More attacks than this are the rows of a printed table.
_MAX_COLUMNS = 8
_MAX_NAMES = 6
# Differences that are larger have the colour of this one, so that one ruined
# aggregator does not leave all others white.
_MAX_POINTS = 20.0
# Means that differ by less are equal but for rounding errors.
_TIE = 1e-9


class Cell(NamedTuple):
  """A cell: what it shows, what it is sorted and coloured by, and a note."""

  text: str
  value: Optional[float] = None
  note: str = ''
  best: bool = False


class Scale(NamedTuple):
  """The values of the first and last colour of one of matplotlib's maps."""

  colormap: str
  low: float
  high: float

  def color(self, value: float) -> str:
    """The colour of a value, such as '#08306b'."""
    position = colors.Normalize(self.low, self.high)(value)
    return colors.to_hex(matplotlib.colormaps[self.colormap](position))


def text_color(background: str) -> str:
  """Black or white, whichever has the higher contrast to a colour."""
  linear = np.power(colors.to_rgb(background), 2.2)
  is_light = linear @ (0.2126, 0.7152, 0.0722) > 0.18
  return '#000000' if is_light else '#ffffff'


Row = Tuple[str, Sequence[Cell]]


class Table(NamedTuple):
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
  scale: Optional[Scale] = None


def format_text(table: Table) -> str:
  """The table for a terminal, with aligned columns."""
  lines = [[name, *(cell.text for cell in cells)] for name, cells in table.rows]
  lines.insert(0, table.header)
  widths = [max(map(len, column)) for column in zip(*lines)]
  lines.insert(1, ['-' * width for width in widths])
  texts = [
      '  '.join([name.ljust(widths[0]), *map(str.rjust, texts, widths[1:])])
      for name, *texts in lines
  ]
  return '\n'.join([table.title, '', *texts]) + '\n'


def format_markdown(table: Table) -> str:
  """The table in Markdown, with the best of each column in bold."""

  def format_cell(cell):
    text = cell.text.replace('|', '\\|')
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


def enumerate_values(values: pd.Series, form: str) -> str:
  """Names and values, such as 'mean 90.1 %, krum 80.0 %'; of many the first."""
  texts = [
      f'{name} {form.format(value).replace("-", "−")}'.rstrip()
      for name, value in values.head(_MAX_NAMES).items()
  ]
  if len(values) > len(texts):
    texts[-1] += f' and {len(values) - len(texts)} more'
  return ', '.join(texts)


class Measure(NamedTuple):
  """A column of `Results.runs`, or a difference, and its table in a report."""

  column: str
  name: str
  title: str
  caption: str
  colormap: str = 'Blues'
  smallest_is_best: bool = False
  # Whether there is a column for the worst attack.
  has_worst: bool = False
  is_difference: bool = False
  digits: int = 1
  factor: float = 100.0


ACCURACY = Measure(
    'test_accuracy',
    'accuracy',
    'Test accuracy in % after the last round',
    'Darker is more accurate.',
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
    digits=3,
    factor=1.0,
)
_TO_ORACLE = Measure(
    'test_accuracy',
    'difference_to_oracle',
    'Difference of test accuracy to the oracle, in points',
    'The oracle is the mean of the honest updates. Differences are taken seed'
    ' by seed; orange is below the oracle, purple above.',
    'PuOr',
    is_difference=True,
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

  For each fraction of attackers the final accuracies and, if they were
  measured, success rates of attacks and the attackers' share of the weights.
  """
  tables = []
  for fraction in results.byzantine_fractions:
    for measure in (ACCURACY, SUCCESS, WEIGHT):
      values = estimates.by_attack(results, measure.column, fraction)
      if values.empty:
        continue
      of_what = f'{results.title}, {percent(fraction)}% attackers'
      title = f'{measure.title} ({of_what})'
      if len(results.seeds) > 1:
        title += '; mean ± standard deviation over the seeds'
      labels = sorted(values, key=lambda label: label == estimates.AVERAGE)
      found = estimates.summarize(measure.factor * values[labels])
      rows = _make_rows(found.assign(note=''), measure, len(results.seeds))
      header = ['aggregator', *labels]
      if len(labels) > _MAX_COLUMNS + 1:
        names, columns = zip(*rows)
        header, rows = ['attack', *names], [*zip(labels, zip(*columns))]
      tables.append(Table(title, header, rows))
  return tables


def measurement_tables(
    results: results_lib.Results, fraction: float, measure: Measure
) -> Iterator[Table]:
  """The table of a measurement, if there is a value."""
  values = estimates.by_attack(results, measure.column, fraction)
  if values.empty:
    return
  if measure.has_worst and estimates.AVERAGE in values:
    worst = estimates.worst_attacks(values, largest=measure.smallest_is_best)
    of_worst = [
        values.at[key, worst[key[0]]] if key[0] in worst else math.nan
        for key in values.index
    ]
    values.insert(1, 'worst attack', of_worst)
  yield _make_matrix(results, fraction, values, measure)


def oracle_tables(results, fraction) -> Iterator[Table]:
  """The accuracies minus the oracle's, if there is one and others are."""
  values = estimates.by_attack(results, 'test_accuracy', fraction)
  if {estimates.ORACLE} < set(results.aggregators):
    oracle = values.loc[estimates.ORACLE]
    others = values.drop(index=estimates.ORACLE, level='aggregator')
    difference = estimates.difference(others, oracle)
    yield _make_matrix(results, fraction, difference, _TO_ORACLE)


def baseline_tables(results, fraction) -> Iterator[Table]:
  """The accuracies minus those of each column's best baseline, if any."""
  values = estimates.by_attack(results, 'test_accuracy', fraction)
  means = estimates.means(values)
  means = means.loc[estimates.baselines(means.index)]
  leaders = means.dropna(axis='columns', how='all').idxmax()
  if leaders.empty:
    return
  reference = pd.DataFrame(
      {label: values.loc[leader, label] for label, leader in leaders.items()},
      columns=values.columns,
  )
  footer = [
      Cell(f'{leaders[label]} {100 * means.at[leaders[label], label]:.1f} %')
      if label in leaders
      else Cell(MISSING)
      for label in values
  ]
  difference = estimates.difference(values, reference)
  yield _make_matrix(results, fraction, difference, _TO_BASELINE)._replace(
      footer=('best baseline', footer)
  )


def cost_tables(results: results_lib.Results) -> Iterator[Table]:
  """The time of a round, if a run has measured it."""
  data = estimates.run_seconds(results).set_axis(
      ['seconds a round', 'fastest run', 'slowest run', 'runs'], axis=1
  )
  if data.empty:
    return
  if 'mean' in data.index:
    seconds = data['seconds a round']
    data.insert(3, 'times mean', seconds / seconds['mean'])
  yield _make_plain(
      'Time of a round',
      'seconds_per_round',
      'The median over the runs, whose times are medians over their rounds;'
      ' clients and server together, without evaluation.',
      data.reset_index(),
  )


def missing_tables(results: results_lib.Results) -> Iterator[Table]:
  """The runs without a result, if there are any."""
  missing = results.runs[results.runs['state'] != results_lib.FINISHED]
  if missing.empty:
    return
  data = missing.reset_index().assign(
      attackers=lambda runs: runs['byzantine_fraction'].map(percent) + ' %'
  )
  yield _make_plain(
      'Runs without a result',
      'runs_without_result',
      'The command of the comparison, called again, runs these and keeps the'
      ' others.',
      data[['aggregator', 'attack', 'attackers', 'seed', 'state', 'error']],
  )


def _make_plain(title, name, caption, data) -> Table:
  """A table without colours that shows a frame as it is."""

  def make_cell(value):
    text = f'{value:.3f}' if isinstance(value, float) else str(value)
    return Cell(text, None if isinstance(value, str) else value)

  rows = [
      (first, [*map(make_cell, others)])
      for first, *others in data.itertuples(index=False)
  ]
  return Table(title, [*data.columns], rows, name, caption, data)


def _make_matrix(results, fraction, values, measure) -> Table:
  """A coloured table with a row an aggregator."""
  data = estimates.summarize(measure.factor * values)
  notes = _describe_missing(results, fraction)
  data['note'] = notes.reindex(data.index, fill_value='')
  low, high = data['mean'].min(), data['mean'].max()
  if measure.is_difference:
    high = min(data['mean'].abs().max(), _MAX_POINTS)
    low = -high
  elif measure is WEIGHT:
    # So that next to nothing is light, even where nothing is more.
    low, high = 0.0, max(high, measure.factor * fraction)
  caption = measure.caption.format(percent=percent(fraction))
  if len(results.seeds) > 1:
    caption += f' Mean ± sample deviation over {len(results.seeds)} seeds.'
  caption += ' The best of each column is marked; the oracle does not compete.'
  return Table(
      f'{measure.title} ({percent(fraction)} % attackers)',
      ['aggregator', *values.columns],
      _make_rows(data, measure, len(results.seeds)),
      f'{measure.name}_{percent(fraction)}_percent',
      caption,
      data.reset_index(),
      scale=Scale(measure.colormap, low, high),
  )


def _describe_missing(results, fraction) -> pd.Series:
  """What runs of an aggregator and attack have no result, as '1 failed'."""
  states = results.runs['state'].xs(fraction, level='byzantine_fraction')
  states = states[states != results_lib.FINISHED]
  # By alphabet, 'failed' comes first, which tells most.
  return states.groupby(['aggregator', 'attack']).agg(
      lambda cell: ', '.join(
          f'{number} {state}'
          for state, number in cell.value_counts().sort_index().items()
      )
  )


def _make_rows(found, measure, num_seeds) -> List[Row]:
  """A row an aggregator, of what `estimates.summarize` returns and notes."""
  names = found.index.get_level_values('aggregator')
  competing = found.loc[names != estimates.ORACLE, 'mean']
  best = competing.groupby('column')
  best = best.min() if measure.smallest_is_best else best.max()
  is_best = competing.sub(best, level='column').abs() < _TIE
  is_best = is_best.reindex(found.index, fill_value=False)

  def make_cell(place):
    cell = found.loc[place]
    note = cell['note']
    if not cell['seeds']:
      state = note.partition(',')[0].partition(' ')[2]
      return Cell(state or MISSING, note=note)
    sign = '+' if measure.is_difference else ''
    text = f'{cell["mean"]:{sign}.{measure.digits}f}'.replace('-', '−')
    if cell['seeds'] > 1:
      text += f' ± {cell["standard_deviation"]:.{measure.digits}f}'
      half = f'{cell["confidence_95"]:.{measure.digits}f}'
      note = f'95 % confidence of the mean: ± {half}; {note}'.rstrip('; ')
    if cell['seeds'] < num_seeds:
      text += f' ({cell["seeds"]}/{num_seeds} seeds)'
    return Cell(text, float(cell['mean']), note, bool(is_best[place]))

  return [
      (name, [make_cell(place) for place in of_name.index])
      for name, of_name in found.groupby(level='aggregator', sort=False)
  ]
