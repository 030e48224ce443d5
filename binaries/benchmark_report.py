"""What a benchmark of aggregators found: measurements, growth and tables."""

import dataclasses
import math
import statistics
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence
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
    'ratio_to_tff_robust',
    'peak_memory_mb',
    'extra_memory_mb',
    'ms_per_round',
    'mean_ms_per_round',
    'tff_robust_ms_per_round',
    'generation_ms_per_round',
)
_MISSING = '-'
# The columns of a table, and how their values are written.
_CELLS = {
    'ms_per_client': 'ms a client',
    'ratio_to_mean': 'times MeanFactory',
    'ratio_to_tff_robust': 'times tff_robust',
    'peak_memory_mb': 'peak MB',
    'extra_memory_mb': 'extra MB',
}
_FORMATS = {
    'ms_per_client': '.3g',
    'ratio_to_mean': '.2f',
    'ratio_to_tff_robust': '.2f',
    'peak_memory_mb': '.0f',
    'extra_memory_mb': '.0f',
}
# The symbol of an axis, what it counts, and the symbol of the other one.
_AXES = {
    'num_clients': ('N', 'clients', 'd'),
    'dimension': ('d', 'coordinates', 'N'),
}


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What is known of an aggregator for one cohort and dimension.

  Times are in milliseconds. Those of rounds are net of generating the updates:
  the median over the repeats of the time of the round less that of generation
  in the same repeat. Ratios are of such medians, not medians of ratios: a pause
  of the machine spoils one repeat of one of the two, and a short time that
  comes out near zero or below in one repeat is no divisor.

  Attributes:
    aggregator: The aggregator.
    num_clients: N.
    dimension: d.
    repeats: How many repeats there were.
    ms_per_client: `ms_per_round` by the number of clients.
    ratio_to_mean: `ms_per_round` by `mean_ms_per_round`, None if that is not
      positive.
    ratio_to_tff_robust: `ms_per_round` by `tff_robust_ms_per_round`, None if
      that is not positive or not known.
    peak_memory_mb: The most memory that the worker process has held, in 10^6
      bytes; None if that is not known. The updates are among it.
    extra_memory_mb: `peak_memory_mb` less that of a worker process that has
      played as many rounds of `MeanFactory` on the same updates and nothing
      else, so that what both hold of the updates cancels; None if that is not
      known.
    ms_per_round: The time of a round.
    mean_ms_per_round: The time of a round of TFF's `MeanFactory`.
    tff_robust_ms_per_round: The time of a round of TFF's `robust_aggregator`;
      None if it was not taken.
    generation_ms_per_round: The time that generating the updates takes.
  """

  aggregator: str
  num_clients: int
  dimension: int
  repeats: int
  ms_per_client: float
  ratio_to_mean: Optional[float]
  ratio_to_tff_robust: Optional[float]
  peak_memory_mb: Optional[float]
  extra_memory_mb: Optional[float]
  ms_per_round: float
  mean_ms_per_round: float
  tff_robust_ms_per_round: Optional[float]
  generation_ms_per_round: float

  @property
  def key(self) -> Key:
    """The name of the measurement."""
    return (self.aggregator, self.num_clients, self.dimension)


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

  def net_ms(name):
    # Net of the generation in the same repeat, when the machine was as busy.
    return 1000 * statistics.median(
        getattr(repeat, name) - repeat.generation for repeat in repeats
    )

  net = net_ms('aggregator')
  mean = net_ms('mean')
  is_robust_timed = all(repeat.tff_robust is not None for repeat in repeats)
  tff_robust = net_ms('tff_robust') if is_robust_timed else None
  peak = _largest(repeat.peak_memory_mb for repeat in repeats)
  mean_peak = _largest(repeat.mean_peak_memory_mb for repeat in repeats)
  return Measurement(
      aggregator,
      num_clients,
      dimension,
      len(repeats),
      ms_per_client=net / num_clients,
      ratio_to_mean=_ratio(net, mean),
      ratio_to_tff_robust=_ratio(net, tff_robust),
      peak_memory_mb=peak,
      extra_memory_mb=(
          None if peak is None or mean_peak is None else peak - mean_peak
      ),
      ms_per_round=net,
      mean_ms_per_round=mean,
      tff_robust_ms_per_round=tff_robust,
      generation_ms_per_round=1000
      * statistics.median(repeat.generation for repeat in repeats),
  )


def parse_row(row: Mapping[str, str]) -> Measurement:
  """The measurement in a row of `benchmark.csv`."""

  def parse(name, kind):
    return kind(row[name]) if row[name] else None

  kinds = dict.fromkeys(COLUMNS, float)
  kinds.update(aggregator=str, num_clients=int, dimension=int, repeats=int)
  return Measurement(**{name: parse(name, kinds[name]) for name in COLUMNS})


def fit_power(
    measurements: Sequence[Measurement], axis: str
) -> Optional[float]:
  """Fits a power law to the times of rounds.

  Args:
    measurements: Those of one aggregator that differ in `axis` only.
    axis: 'num_clients' or 'dimension'.

  Returns:
    The slope a of the least squares fit of log `ms_per_round` = a log axis + c:
    1 if the net time of a round is proportional to the axis, less if a part of
    it does not depend on it. All points count the same. Times that are not
    positive are left out; None if fewer than two different values are left.
  """
  timed = [m for m in measurements if m.ms_per_round > 0]
  x = [math.log(getattr(m, axis)) for m in timed]
  if len(set(x)) < 2:
    return None
  y = [math.log(m.ms_per_round) for m in timed]
  return float(np.polyfit(x, y, deg=1)[0])


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
    A table for each number of clients and dimension. If there are several
    numbers of clients, a table of the powers of N at each dimension, and
    likewise for several dimensions.
  """
  tables = []
  for d in dimensions:
    for n in num_clients:
      found = [measurements.get((name, n, d)) for name in aggregators]
      tables.append(
          _make_table(
              f'{n} clients, {d} coordinates: time of a round net of generating'
              ' the updates, and peak memory of the worker process, also less'
              " that of MeanFactory's",
              list(_CELLS.values()),
              {
                  name: _cells(measurement)
                  for name, measurement in zip(aggregators, found)
              },
          )
      )
  for axis, values, others in (
      ('num_clients', num_clients, dimensions),
      ('dimension', dimensions, num_clients),
  ):
    if len(values) > 1:
      tables.append(
          _make_growth_table(measurements, aggregators, axis, values, others)
      )
  return tables


def _make_growth_table(
    measurements: Mapping[Key, Measurement],
    aggregators: Sequence[str],
    axis: str,
    values: Sequence[int],
    others: Sequence[int],
) -> comparison.Table:
  """The powers of one axis, for each value of the other one."""
  symbol, what, other = _AXES[axis]

  def fit(name, fixed):
    keys = [
        (name, value, fixed) if axis == 'num_clients' else (name, fixed, value)
        for value in values
    ]
    return fit_power([measurements[k] for k in keys if k in measurements], axis)

  return _make_table(
      f'Growth with the number of {what}: the power of {symbol} that fits the'
      f' net time of a round for {symbol} = {", ".join(map(str, values))}'
      ' (least squares of the logarithms; 1.00 is linear)',
      [f'power at {other} = {fixed}' for fixed in others],
      {
          name: [_format(fit(name, fixed), '.2f') for fixed in others]
          for name in aggregators
      },
  )


def _cells(measurement: Optional[Measurement]) -> List[str]:
  if measurement is None:
    return [_MISSING] * len(_CELLS)
  return [
      _format(getattr(measurement, name), _FORMATS[name]) for name in _CELLS
  ]


def _ratio(value: float, divisor: Optional[float]) -> Optional[float]:
  return value / divisor if divisor is not None and divisor > 0 else None


def _largest(values: Iterable[Optional[float]]) -> Optional[float]:
  known = [value for value in values if value is not None]
  return max(known, default=None)


def _format(value: Optional[float], spec: str) -> str:
  if value is None:
    return _MISSING
  text = format(value, spec)
  # Of no use: -0.
  return text if float(text) else text.lstrip('-')


def _make_table(
    title: str, header: Sequence[str], rows: Dict[str, List[str]]
) -> comparison.Table:
  return comparison.Table(
      title,
      ['aggregator', *header],
      [[name, *cells] for name, cells in rows.items()],
      [None] * len(header),
  )
