"""What a benchmark of aggregators found: measurements, growth and tables."""

import dataclasses
import math
import statistics
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence
from typing import Tuple

import numpy as np

from binaries import comparison

# The name of a measurement: aggregator, number of clients, dimension.
Key = Tuple[str, int, int]

COLUMNS = (
    'aggregator',
    'num_clients',
    'dimension',
    'repeats',
    'ms_per_client',
    'ratio_to_mean',
    'peak_memory_mb',
    'ms_per_round',
    'mean_ms_per_round',
    'generation_ms_per_round',
)
_MISSING = '-'


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What is known of an aggregator for one cohort and dimension.

  Times are medians over the repeats, in milliseconds, net of generating the
  updates unless stated.

  Attributes:
    aggregator: The aggregator.
    num_clients: N.
    dimension: d.
    repeats: How many repeats there were.
    ms_per_client: `ms_per_round` by the number of clients.
    ratio_to_mean: `ms_per_round` by `mean_ms_per_round`, None if that is not
      positive.
    peak_memory_mb: The most memory that the worker process has held, in 10^6
      bytes; None if that is not known.
    ms_per_round: The time of a round.
    mean_ms_per_round: The time of a round of TFF's `MeanFactory`.
    generation_ms_per_round: The time that generating the updates takes.
  """

  aggregator: str
  num_clients: int
  dimension: int
  repeats: int
  ms_per_client: float
  ratio_to_mean: Optional[float]
  peak_memory_mb: Optional[float]
  ms_per_round: float
  mean_ms_per_round: float
  generation_ms_per_round: float

  @property
  def key(self) -> Key:
    """The name of the measurement."""
    return (self.aggregator, self.num_clients, self.dimension)


class Growth(NamedTuple):
  """The powers of N and d that the time of a round grows with.

  Attributes:
    clients: The power of N, None if it cannot be told.
    dimension: The power of d, None if it cannot be told.
  """

  clients: Optional[float]
  dimension: Optional[float]


def summarize(
    aggregator: str, num_clients: int, dimension: int, repeats: Sequence[Any]
) -> Measurement:
  """Summarizes repeats.

  Args:
    aggregator: The aggregator.
    num_clients: N.
    dimension: d.
    repeats: A `benchmark_runner.Repeat` each, at least one.

  Returns:
    The `Measurement`.
  """

  def median_ms(seconds):
    return 1000 * statistics.median(seconds)

  # Net of the generation in the same repeat, when the machine was as busy.
  net = median_ms(r.aggregator - r.generation for r in repeats)
  mean = median_ms(r.mean - r.generation for r in repeats)
  return Measurement(
      aggregator,
      num_clients,
      dimension,
      len(repeats),
      ms_per_client=net / num_clients,
      ratio_to_mean=net / mean if mean > 0 else None,
      peak_memory_mb=repeats[-1].peak_memory_mb,
      ms_per_round=net,
      mean_ms_per_round=mean,
      generation_ms_per_round=median_ms(r.generation for r in repeats),
  )


def parse_row(row: Mapping[str, str]) -> Measurement:
  """The measurement in a row of `benchmark.csv`."""

  def parse(name, kind):
    return kind(row[name]) if row[name] else None

  kinds = dict.fromkeys(COLUMNS, float)
  kinds.update(aggregator=str, num_clients=int, dimension=int, repeats=int)
  return Measurement(**{name: parse(name, kinds[name]) for name in COLUMNS})


def fit_growth(measurements: Sequence[Measurement]) -> Growth:
  """Fits a power law to the times of rounds.

  Args:
    measurements: Those of one aggregator.

  Returns:
    The least squares fit of log time = a log N + b log d + c. None for what has
    only one value, and if there are too few positive times to tell.
  """
  timed = [m for m in measurements if m.ms_per_round > 0]
  columns = {
      name: [math.log(getattr(m, name)) for m in timed]
      for name in ('num_clients', 'dimension')
  }
  varying = [name for name, logs in columns.items() if len(set(logs)) > 1]
  design = np.array([columns[name] for name in varying] + [[1.0] * len(timed)])
  if not timed or np.linalg.matrix_rank(design) < len(design):
    return Growth(None, None)
  powers = np.linalg.lstsq(
      design.T, np.log([m.ms_per_round for m in timed]), rcond=None
  )[0]
  found = dict(zip(varying, map(float, powers)))
  return Growth(found.get('num_clients'), found.get('dimension'))


def make_tables(
    measurements: Mapping[Key, Measurement],
    aggregators: Sequence[str],
    num_clients: Sequence[int],
    dimensions: Sequence[int],
) -> List[comparison.Table]:
  """The tables of a benchmark.

  Args:
    measurements: Those there are.
    aggregators: The aggregators, in the order of the rows.
    num_clients: The numbers of clients.
    dimensions: The dimensions.

  Returns:
    A table for each number of clients and dimension. If there are several of
    one, a table of how times grow.
  """
  tables = []
  for d in dimensions:
    for n in num_clients:
      found = [measurements.get((name, n, d)) for name in aggregators]
      tables.append(
          _make_table(
              f'{n} clients, {d} coordinates: time of a round net of generating'
              ' the updates, and peak memory of the worker process',
              ['ms a client', 'times MeanFactory', 'peak MB'],
              {
                  name: _cells(measurement)
                  for name, measurement in zip(aggregators, found)
              },
          )
      )
  if max(len(num_clients), len(dimensions)) > 1:
    growth = {
        name: fit_growth(
            [
                measurements[name, n, d]
                for n in num_clients
                for d in dimensions
                if (name, n, d) in measurements
            ]
        )
        for name in aggregators
    }
    tables.append(
        _make_table(
            'Growth: the powers of N (clients) and d (coordinates) that fit the'
            ' times of a round',
            ['power of N', 'power of d'],
            {
                name: [_format(power, '.2f') for power in powers]
                for name, powers in growth.items()
            },
        )
    )
  return tables


def _cells(measurement: Optional[Measurement]) -> List[str]:
  if measurement is None:
    return [_MISSING] * 3
  return [
      _format(measurement.ms_per_client, '.3g'),
      _format(measurement.ratio_to_mean, '.2f'),
      _format(measurement.peak_memory_mb, '.0f'),
  ]


def _format(value: Optional[float], spec: str) -> str:
  return _MISSING if value is None else format(value, spec)


def _make_table(
    title: str, header: Sequence[str], rows: Dict[str, List[str]]
) -> comparison.Table:
  return comparison.Table(
      title,
      ['aggregator', *header],
      [[name, *cells] for name, cells in rows.items()],
      [None] * len(header),
  )
