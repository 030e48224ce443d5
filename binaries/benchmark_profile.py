"""What the steps of a FedAOT round take: measurements and tables.

TensorFlow is not imported here; `benchmark_steps` makes the measurements.
"""

import dataclasses
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from binaries import comparison

# The name of a measurement: aggregator, number of clients, dimension.
Key = Tuple[str, int, int]

GENERATION = 'generation'
STATE = 'state'
SHARE = 'share'
SUMMARIES = 'summaries'
GATHER = 'gather'
WEIGHTS = 'weights'
SUM = 'sum'
UPDATE = 'update'
EVALUATION = 'evaluation'
PRODUCTS = 'products'
LEARNING = 'learning'
# The steps of a round in their order, the first of which is not FedAOT's.
STEPS = (
    GENERATION,
    STATE,
    SHARE,
    SUMMARIES,
    GATHER,
    WEIGHTS,
    SUM,
    UPDATE,
    EVALUATION,
    PRODUCTS,
    LEARNING,
)
# Those that a round without a hold-out does not have.
HOLDOUT_STEPS = (UPDATE, EVALUATION, PRODUCTS)
MEAN = 'mean'

_DESCRIPTIONS = {
    STATE: 'state, with a hold-out also the model, to the worker',
    SHARE: 'signs of the projection; root update and loss before',
    SUMMARIES: 'norm and projection of each update (first pass)',
    GATHER: 'gathering the summaries',
    WEIGHTS: 'statistics and weights',
    SUM: 'weighted sum (second pass)',
    UPDATE: "the model's update",
    EVALUATION: 'loss after, gradient and its projection',
    PRODUCTS: 'inner products with the gradient',
    LEARNING: 'meta step, reference; state and measurements back',
}

COLUMNS = (
    'aggregator',
    'num_clients',
    'dimension',
    'repeats',
    *(f'{step}_ms' for step in STEPS),
    'mean_ms',
)


@dataclasses.dataclass(frozen=True)
class Profile:
  """What the steps of an aggregator's round take for one cohort and dimension.

  Attributes:
    aggregator: The aggregator.
    num_clients: N.
    dimension: d.
    repeats: How many repeats there were.
    step_ms: The milliseconds of each step that there is, in the order of
      `STEPS`: differences of the times up to the steps' ends, each the least of
      the repeats, as what disturbs a round can only add to it. They add up to
      the least time of a round. A step may come out below zero by chance.
    mean_ms: The milliseconds of a round of TFF's `MeanFactory`, net of
      generating the updates; also of the least times.
  """

  aggregator: str
  num_clients: int
  dimension: int
  repeats: int
  step_ms: Dict[str, float]
  mean_ms: float

  @property
  def key(self) -> Key:
    """The name of the measurement."""
    return (self.aggregator, self.num_clients, self.dimension)

  @property
  def net_ms(self) -> float:
    """The milliseconds of a round, net of generating the updates."""
    return sum(ms for step, ms in self.step_ms.items() if step != GENERATION)

  def to_row(self) -> Dict[str, object]:
    """The row of `profile.csv`; a step that there is not is None."""
    row = dataclasses.asdict(self)
    del row['step_ms']
    row.update({f'{step}_ms': self.step_ms.get(step) for step in STEPS})
    return row


def summarize(
    aggregator: str,
    num_clients: int,
    dimension: int,
    repeats: Sequence[Mapping[str, float]],
) -> Profile:
  """Summarizes repeats.

  Args:
    aggregator: The aggregator.
    num_clients: N.
    dimension: d.
    repeats: What `benchmark_steps.StepRunner.run` yielded, at least one.

  Returns:
    The `Profile`.
  """
  ends = {
      step: 1000 * min(repeat[step] for repeat in repeats)
      for step in repeats[0]
  }
  step_ms, previous = {}, 0.0
  for step in STEPS:
    if step in ends:
      step_ms[step] = ends[step] - previous
      previous = ends[step]
  return Profile(
      aggregator,
      num_clients,
      dimension,
      len(repeats),
      step_ms,
      ends[MEAN] - ends[GENERATION],
  )


def parse_row(row: Mapping[str, str]) -> Profile:
  """The profile in a row of `profile.csv`."""
  return Profile(
      row['aggregator'],
      int(row['num_clients']),
      int(row['dimension']),
      int(row['repeats']),
      {
          step: float(row[f'{step}_ms'])
          for step in STEPS
          if row[f'{step}_ms']
      },
      float(row['mean_ms']),
  )


def make_tables(
    profiles: Mapping[Key, Profile],
    aggregators: Sequence[str],
    num_clients: Sequence[int],
    dimensions: Sequence[int],
) -> List[comparison.Table]:
  """The tables of profiles.

  Args:
    profiles: Those there are.
    aggregators: The aggregators, in the order of the columns.
    num_clients: The numbers of clients.
    dimensions: The dimensions.

  Returns:
    A table for each number of clients and dimension, with a row for each step.
  """
  return [
      comparison.Table(
          f'{n} clients, {d} coordinates: milliseconds of the steps of a round',
          ['step', *aggregators],
          _rows([profiles.get((name, n, d)) for name in aggregators]),
          set(),
      )
      for d in dimensions
      for n in num_clients
  ]


def _rows(profiles: Sequence[Optional[Profile]]) -> List[List[str]]:
  """The rows of a table with a column for each profile."""

  def cells(value_fn, spec='.1f'):
    values = [None if p is None else value_fn(p) for p in profiles]
    return [
        comparison.MISSING if value is None else format(value, spec)
        for value in values
    ]

  rows = [
      [description, *cells(lambda p, step=step: p.step_ms.get(step))]
      for step, description in _DESCRIPTIONS.items()
  ]
  rows.append(['all steps', *cells(lambda p: p.net_ms)])
  rows.append(['MeanFactory, side by side', *cells(lambda p: p.mean_ms)])
  rows.append([
      'all steps, times MeanFactory',
      *cells(lambda p: p.net_ms / p.mean_ms if p.mean_ms > 0 else None, '.2f'),
  ])
  return rows
