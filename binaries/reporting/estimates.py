"""Measurements by attack, and their mean and spread over the seeds."""

from typing import Iterable, List

import pandas as pd
from scipy import special

from binaries.reporting import results as results_lib

AVERAGE = 'average'
NO_ATTACK = 'none'
ORACLE = 'oracle'
_CONFIDENCE = 0.95


def by_attack(
    results: results_lib.Results, column: str, fraction: float
) -> pd.DataFrame:
  """A measurement by aggregator and seed [rows] and attack [columns].

  NaN where there is no value. Accuracies have all aggregators and attacks; of
  others what has a value, and those without attackers are left out. Of two
  attacks or more, the first column is their average, of the seeds that have
  them all.
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


def summarize(values: pd.DataFrame) -> pd.DataFrame:
  """What the seeds come to, by aggregator and column of `by_attack`.

  The `mean`, the sample `standard_deviation`, half the width of the 95 %
  confidence interval of the mean, `confidence_95`, and the number of `seeds`.
  """
  cells = values.melt(var_name='column', ignore_index=False)
  found = cells.groupby(['aggregator', 'column'])['value'].agg(
      mean='mean', standard_deviation='std', seeds='count'
  )
  places = [values.index.unique('aggregator'), values.columns]
  found = found.reindex(
      pd.MultiIndex.from_product(places, names=found.index.names)
  )
  half = confidence(found['standard_deviation'], found['seeds'])
  found.insert(2, 'confidence_95', half)
  return found


def confidence(deviation, num_seeds):
  """Half the width of the interval of the mean, by Student's t."""
  quantile = special.stdtrit(num_seeds - 1, 0.5 + _CONFIDENCE / 2)
  return quantile * deviation / num_seeds**0.5


def means(values: pd.DataFrame) -> pd.DataFrame:
  """The means over the seeds, a row an aggregator."""
  return values.groupby(level='aggregator', sort=False).mean()


def worst_attacks(values: pd.DataFrame, *, largest: bool = False) -> pd.Series:
  """The attack with the worst mean of each aggregator that has all attacks."""
  complete = means(values.drop(columns=AVERAGE, errors='ignore')).dropna()
  return complete.idxmax(axis=1) if largest else complete.idxmin(axis=1)


def difference(values: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
  """Values minus a reference [seed, column], seed by seed."""
  return values - reference.reindex(values.index, level='seed')


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
  of_aggregator = seconds.groupby('aggregator', sort=False)
  return of_aggregator.agg(['median', 'min', 'max', 'count'])
