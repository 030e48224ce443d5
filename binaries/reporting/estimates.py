"""Measurements by attack, and their mean and spread over the seeds."""

from typing import Iterable, List, NamedTuple, Optional

import pandas as pd
from scipy import special

from binaries.reporting import results as results_lib

AVERAGE = 'average'
WORST = 'worst attack'
NO_ATTACK = 'none'
ORACLE = 'oracle'
_CONFIDENCE = 0.95


class Estimate(NamedTuple):
  """What the values of several seeds come to.

  The sample standard deviation and half the width of the 95 % confidence
  interval of the mean, under Student's t distribution, are None for one seed.
  """

  mean: float
  deviation: Optional[float]
  confidence: Optional[float]
  seeds: int


def estimate(values: pd.Series) -> Optional[Estimate]:
  """Mean, deviation and confidence of values; None if all are missing."""
  values = values.dropna()
  num_seeds = len(values)
  if not num_seeds:
    return None
  if num_seeds == 1:
    return Estimate(values.mean(), None, None, 1)
  deviation = values.std()
  quantile = special.stdtrit(num_seeds - 1, 0.5 + _CONFIDENCE / 2)
  return Estimate(
      values.mean(), deviation, quantile * deviation / num_seeds**0.5, num_seeds
  )


def by_attack(
    results: results_lib.Results, column: str, fraction: float
) -> pd.DataFrame:
  """A measurement by aggregator and seed [rows] and attack [columns].

  Args:
    results: The results.
    column: The measurement. Accuracies have all aggregators and attacks; of
      others what has a value, and those without attackers are left out.
    fraction: The fraction of attackers.

  Returns:
    The values, NaN where there is none. Of two attacks or more, the first
    column is their average, of the seeds that have them all.
  """
  values = results.runs[column].xs(fraction, level='byzantine_fraction')
  values = values.unstack('attack').reindex(
      index=pd.MultiIndex.from_product(
          [results.aggregators, results.seeds], names=['aggregator', 'seed']
      ),
      columns=results.attacks,
  )
  if column != 'test_accuracy':
    values = values.drop(columns=NO_ATTACK, errors='ignore')
    values = values.dropna(axis='columns', how='all')
    measuring = values.notna().any(axis='columns')
    values = values[measuring.groupby(level='aggregator').transform('any')]
  if len(values.columns) > 1:
    values.insert(0, AVERAGE, values.mean(axis='columns', skipna=False))
  return values


def means(values: pd.DataFrame) -> pd.DataFrame:
  """The means over the seeds, a row an aggregator."""
  return values.groupby(level='aggregator', sort=False).mean()


def worst_attacks(values: pd.DataFrame, *, largest: bool = False) -> pd.Series:
  """The attack with the worst mean of each aggregator that has all attacks.

  Args:
    values: What `by_attack` returns.
    largest: Whether the largest value is the worst.
  """
  complete = means(values.drop(columns=AVERAGE, errors='ignore')).dropna()
  return complete.idxmax(axis=1) if largest else complete.idxmin(axis=1)


def difference(values: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
  """Values minus a reference [seed, column], seed by seed."""
  return values - reference.reindex(values.index, level='seed')


def best(by_aggregator: pd.Series, *, smallest: bool = False) -> Optional[str]:
  """The aggregator with the best value, None if none has one."""
  known = by_aggregator.dropna()
  if known.empty:
    return None
  return known.idxmin() if smallest else known.idxmax()


def rivals(aggregators: Iterable[str]) -> List[str]:
  """The aggregators without the oracle, which does not compete."""
  return [a for a in aggregators if a != ORACLE]


def baselines(aggregators: Iterable[str]) -> List[str]:
  """The aggregators that are neither the oracle nor a variant of FedAOT."""
  rules = {a: a.rpartition('+')[2].partition(':')[0] for a in aggregators}
  return [
      aggregator
      for aggregator, rule in rules.items()
      if rule != ORACLE and not rule.startswith('fedaot')
  ]


def run_seconds(results: results_lib.Results) -> pd.DataFrame:
  """Median, minimum, maximum and number of the runs' times of a round."""
  seconds = results.runs['seconds_per_round'].dropna()
  return (
      seconds.groupby('aggregator')
      .agg(['median', 'min', 'max', 'count'])
      .reindex([a for a in results.aggregators if a in seconds.index.levels[2]])
      .dropna()
  )
