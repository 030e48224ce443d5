"""What a comparison of aggregators found: tables of its results."""

import dataclasses
import math
import statistics
from typing import (
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

# The name of a run in a comparison: aggregator, attack, fraction, seed.
RunKey = Tuple[str, str, float, int]

# How a table shows what there is no value for.
MISSING = '-'
AVERAGE = 'average'
# More attacks than this are the rows of a table instead of its columns.
_MAX_COLUMNS = 8
ORACLE = 'oracle'


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The axes of a comparison and the results there are.

  Attributes:
    task: The task.
    rounds: The number of rounds.
    aggregators: The aggregators, in the order of the tables' rows.
    attacks: The attacks, in the order of the tables' columns.
    byzantine_fractions: The fractions of attackers.
    seeds: The seeds.
    results: The values by the columns of `results.csv`, for each finished run.
  """

  task: str
  rounds: int
  aggregators: Sequence[str]
  attacks: Sequence[str]
  byzantine_fractions: Sequence[float]
  seeds: Sequence[int]
  results: Mapping[RunKey, Mapping[str, str]]

  @property
  def title(self) -> str:
    """Task, rounds and seeds."""
    title = f'{self.task}, {count(self.rounds, "round")}'
    if len(self.seeds) > 1:
      title += f', {len(self.seeds)} seeds'
    return title

  def values(
      self, column: str, aggregator: str, attack: str, fraction: float
  ) -> Dict[int, float]:
    """The values of a column of `results.csv`, by seed."""
    values = {}
    for seed in self.seeds:
      result = self.results.get((aggregator, attack, fraction, seed), {})
      if result.get(column):
        values[seed] = float(result[column])
    return values


class Table(NamedTuple):
  """A table of text.

  Attributes:
    title: What it shows.
    header: The names of the columns; the first is that of the row names.
    rows: For each row its name and its cells.
    best: Row and column, from 0 and without the row names, of the best cell for
      each attack and for the average, where there is one.
  """

  title: str
  header: List[str]
  rows: List[List[str]]
  best: Set[Tuple[int, int]]


def make_tables(comparison: Comparison) -> List[Table]:
  """The tables of a comparison.

  Args:
    comparison: The results.

  Returns:
    For each fraction of attackers a table of the final accuracies; if an attack
    has an aim of its own, one of how often it is reached; and if an aggregator
    measures its weights, one of the attackers' share of them.
    Values are in percent: the mean over seeds and, for two seeds or more, the
    sample standard deviation.
  """
  tables = []
  for fraction in comparison.byzantine_fractions:
    over_seeds = ''
    if len(comparison.seeds) > 1:
      over_seeds = '; mean ± standard deviation over the seeds'
    tables.append(
        _make_table(
            comparison,
            f'Test accuracy in % after the last round ({comparison.title},'
            f' {percent(fraction)}% attackers){over_seeds}',
            'test_accuracy',
            fraction,
            comparison.aggregators,
            comparison.attacks,
            best=max,
        )
    )
    with_success_rate = [
        attack
        for attack in comparison.attacks
        if any(
            comparison.values(
                'attack_success_rate', aggregator, attack, fraction
            )
            for aggregator in comparison.aggregators
        )
    ]
    if with_success_rate:
      tables.append(
          _make_table(
              comparison,
              'Success rate of the attack in % after the last round'
              f' ({comparison.title}, {percent(fraction)}%'
              f' attackers){over_seeds}',
              'attack_success_rate',
              fraction,
              comparison.aggregators,
              with_success_rate,
              best=min,
          )
      )
    weighing = [
        aggregator
        for aggregator in comparison.aggregators
        if any(
            comparison.values('attacker_weight', aggregator, attack, fraction)
            for attack in comparison.attacks
        )
    ]
    attacks = [attack for attack in comparison.attacks if attack != 'none']
    if weighing and attacks:
      tables.append(
          _make_table(
              comparison,
              'Weight on attackers in %, mean over the rounds (a plain mean'
              f' gives {percent(fraction)}){over_seeds}',
              'attacker_weight',
              fraction,
              weighing,
              attacks,
              best=min,
          )
      )
  return tables


def format_text(table: Table) -> str:
  """The table for a terminal, with aligned columns."""
  lines = [table.header, *table.rows]
  widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

  def format_line(cells):
    first, *others = zip(cells, widths)
    aligned = [first[0].ljust(first[1])]
    aligned += [cell.rjust(width) for cell, width in others]
    return '  '.join(aligned).rstrip()

  rule = '  '.join('-' * width for width in widths)
  text = [table.title, '', format_line(table.header), rule]
  return '\n'.join(text + [format_line(row) for row in table.rows]) + '\n'


def format_markdown(table: Table) -> str:
  """The table in Markdown, with the best of each column in bold."""

  def format_line(cells):
    return f'| {" | ".join(cells)} |'

  def emphasize(row, column, cell):
    return f'**{cell}**' if (row, column) in table.best else cell

  header = [table.header[0], *table.header[1:]]
  rows = [
      [row[0]] + [emphasize(i, j, cell) for j, cell in enumerate(row[1:])]
      for i, row in enumerate(table.rows)
  ]
  alignment = ['---'] + ['---:'] * (len(header) - 1)
  lines = [header, alignment, *rows]
  return f'{table.title}\n\n' + '\n'.join(map(format_line, lines)) + '\n'


def average_over_attacks(
    by_attack: Sequence[Mapping[int, float]]
) -> Dict[int, float]:
  """The means over attacks, by seed, of the seeds that have every attack.

  Args:
    by_attack: For each attack, of which there must be one, values by seed.
  """
  seeds = set(by_attack[0]).intersection(*by_attack[1:])
  return {
      seed: statistics.fmean(values[seed] for values in by_attack)
      for seed in sorted(seeds)
  }


def _make_table(
    comparison: Comparison,
    title: str,
    column: str,
    fraction: float,
    aggregators: Sequence[str],
    attacks: Sequence[str],
    best,
) -> Table:
  """A row for each aggregator, a column for each attack and for their mean.

  With many attacks it is turned, so that it still fits a page.
  """
  rows, means = [], []
  for aggregator in aggregators:
    by_attack = [
        comparison.values(column, aggregator, attack, fraction)
        for attack in attacks
    ]
    if len(attacks) > 1:
      by_attack.append(average_over_attacks(by_attack))
    rows.append([aggregator] + [_format_cell(v.values()) for v in by_attack])
    means.append(
        [statistics.fmean(v.values()) if v else math.nan for v in by_attack]
    )
  header = ['aggregator', *attacks] + ([AVERAGE] if len(attacks) > 1 else [])
  found = [
      _find_best(best, aggregators, [row[j] for row in means])
      for j in range(len(header) - 1)
  ]
  positions = {(i, j) for j, i in enumerate(found) if i is not None}
  if len(attacks) > _MAX_COLUMNS:
    header, *rows = (list(column) for column in zip(header, *rows))
    header[0] = 'attack'
    positions = {(j, i) for i, j in positions}
  return Table(title, header, rows, positions)


def _format_cell(values) -> str:
  values = list(values)
  if not values:
    return MISSING
  cell = f'{100 * statistics.fmean(values):.1f}'
  if len(values) > 1:
    cell += f' ± {100 * statistics.stdev(values):.1f}'
  return cell


def _find_best(
    best, aggregators: Sequence[str], values: Sequence[float]
) -> Optional[int]:
  """The row with the best value; the oracle does not compete."""
  competing = [
      i
      for i, (aggregator, value) in enumerate(zip(aggregators, values))
      if aggregator != ORACLE and not math.isnan(value)
  ]
  return best(competing, key=lambda i: values[i], default=None)


def count(number: int, noun: str) -> str:
  """As in '1 round' and '2 rounds'."""
  return f'{number} {noun}{"" if number == 1 else "s"}'


def percent(fraction: float) -> str:
  """A fraction in percent, without the sign."""
  return f'{100 * fraction:g}'
