"""What a comparison found, in sentences that are computed from its results."""

from collections.abc import Iterator
from typing import List

import pandas as pd

from binaries.reporting import estimates
from binaries.reporting import results as results_lib
from binaries.reporting import tables

# An accuracy below this part of the accuracy without attackers is a collapse.
_COLLAPSE = 0.5
# The AUROC of weights that do not depend on who attacks.
_CHANCE = 0.5
_MEASUREMENTS = (
    (tables.SUCCESS, '{} has the lowest attack success rate ({:.1f} %).'),
    (
        tables.WEIGHT,
        'Of the aggregators that weigh clients, {} gives attackers the least'
        ' weight ({:.1f} % on average; a plain mean gives {} %).',
    ),
    (
        tables.DETECTION,
        '{} tells attackers from honest clients best (AUROC {:.3f}).',
    ),
)


def find(results: results_lib.Results, fraction: float) -> List[str]:
  """What is best where, with a fraction of attackers, a sentence each.

  An aggregator is called ahead of another only with the difference; with
  several seeds, the 95 % confidence interval of the differences by seed says
  whether the lead stands out from the spread.
  """
  values = 100 * estimates.by_attack(results, 'test_accuracy', fraction)
  means = estimates.means(values)
  rivals = means.drop(estimates.ORACLE, errors='ignore')
  sentences = []
  if estimates.AVERAGE in values:
    oracle = means[estimates.AVERAGE].get(estimates.ORACLE)
    sentences += _describe_average(values, rivals, oracle)
    sentences += _describe_worst(values, rivals)
  rivals = rivals.drop(columns=estimates.AVERAGE, errors='ignore')
  sentences += _describe_columns(rivals)
  sentences += _describe_fedaot(values, rivals)
  if estimates.NO_ATTACK in values:
    sentences += _describe_price(values)
    sentences += _describe_collapses(rivals, means[estimates.NO_ATTACK].max())
  return [*sentences, *_describe_measurements(results, fraction)]


def describe_completeness(results: results_lib.Results) -> str:
  """How many runs have finished, and what the others are."""
  states = results.runs['state'].value_counts().sort_index()
  others = states.drop(results_lib.FINISHED, errors='ignore')
  return f'{results.num_finished} of {len(results.runs)} runs have a result' + (
      ''.join(f', {number} {state}' for state, number in others.items()) + '.'
  )


def describe_cost(results: results_lib.Results) -> List[str]:
  """How long a round takes, if there are two aggregators to compare."""
  seconds = estimates.run_seconds(results)['median']
  if len(seconds) < 2:
    return []
  return [
      f'A round takes from {seconds.min():.2f} s ({seconds.idxmin()}) to'
      f' {seconds.max():.2f} s ({seconds.idxmax()}).'
  ]


def _describe_average(values, rivals, oracle) -> Iterator[str]:
  """Who has the highest average accuracy, and by how much."""
  averages = rivals[estimates.AVERAGE].dropna()
  averages = averages.sort_values(ascending=False, kind='stable')
  if averages.empty:
    yield 'No aggregator has finished all attacks yet.'
    return
  unfinished = rivals.index.difference(averages.index, sort=False)
  if len(unfinished):
    yield f'Averages leave out what is unfinished: {", ".join(unfinished)}.'
  best = averages.index[0]
  by_seed = values[estimates.AVERAGE]
  finished, num_seeds = by_seed[best].count(), len(by_seed[best])
  seeds = f', {finished} of {num_seeds} seeds' if finished < num_seeds else ''
  text = (
      f'{best} has the highest accuracy averaged over all columns'
      f' ({averages[best]:.1f} %{seeds})'
  )
  if len(averages) > 1:
    second = averages.index[1]
    lead = _describe_lead((by_seed[best] - by_seed[second]).dropna())
    points = averages[best] - averages[second]
    text += f', {points:.1f} points more than {second} ({lead})'
  if pd.notna(oracle):
    points = f'{oracle - averages[best]:+.1f}'.replace('-', '−')
    text += f'; the oracle has {oracle:.1f} % ({points})'
  yield f'{text}.'


def _describe_lead(differences: pd.Series) -> str:
  """What the differences by seed say about a lead."""
  num_seeds = len(differences)
  if num_seeds < 2:
    return f'{num_seeds or "no"} seed in common: its spread is not known'
  mean = differences.mean()
  half = estimates.confidence(differences.std(), num_seeds)
  verdict = 'stands out from' if mean > half else 'is within'
  interval = f'{mean - half:.1f} to {mean + half:.1f}'.replace('-', '−')
  return (
      f'95 % confidence over {num_seeds} seeds: {interval}, so the lead'
      f' {verdict} their spread'
  )


def _describe_worst(values, rivals) -> Iterator[str]:
  """Who is best under the attack that is worst for it."""
  worst = estimates.worst_attacks(values).reindex(rivals.index).dropna()
  accuracies = {name: rivals.at[name, worst[name]] for name in worst.index}
  if accuracies:
    best = max(accuracies, key=accuracies.get)
    yield (
        f'{best} holds up best in its worst case: {accuracies[best]:.1f} %'
        f' under {worst[best]}.'
    )


def _describe_columns(rivals) -> Iterator[str]:
  """Who is best under which attacks."""
  best = rivals.dropna(axis='columns', how='all').idxmax()
  texts = []
  for name, number in best.value_counts().items():
    cells = rivals.loc[name, best.index[best == name]]
    listed = tables.enumerate_values(cells, '({:.1f} %)')
    texts.append(f'{name} in {number}: {listed}')
  if texts:
    yield f'The most accurate by column: {"; ".join(texts)}.'


def _describe_fedaot(values, rivals) -> Iterator[str]:
  """How FedAOT does against the best baseline of each attack."""
  baselines = estimates.baselines(rivals.index)
  leaders = rivals.loc[baselines].dropna(axis='columns', how='all').idxmax()
  for aggregator in rivals.index.drop(baselines):
    leads = {
        f'{attack} (to {leader})': (
            values.loc[aggregator, attack] - values.loc[leader, attack]
        ).mean()
        for attack, leader in leaders.items()
    }
    leads = pd.Series(leads, dtype=float).dropna().round(1)
    leads = leads.sort_values(ascending=False, kind='stable')
    parts = [
        f'{verdict} in {len(chosen)}: {tables.enumerate_values(chosen, form)}'
        for verdict, chosen, form in (
            ('ahead', leads[leads > 0], '{:+.1f}'),
            ('level', leads[leads == 0], ''),
            ('behind', leads[leads < 0][::-1], '{:+.1f}'),
        )
        if len(chosen)
    ]
    if parts:
      yield (
          f'{aggregator} against the best baseline of each attack, in points:'
          f' {"; ".join(parts)}.'
      )


def _describe_price(values) -> Iterator[str]:
  """What the defences cost without attackers."""
  clean = values[[estimates.NO_ATTACK]]
  if 'mean' not in clean.index.unique('aggregator'):
    return
  gains = estimates.means(estimates.difference(clean, clean.loc['mean']))
  gains = gains[estimates.NO_ATTACK].dropna().sort_values(ascending=False)
  gains = gains.drop(['mean', estimates.ORACLE], errors='ignore')
  if not gains.empty:
    yield (
        'Without attackers, points gained or lost against the plain mean:'
        f' {tables.enumerate_values(gains, "{:+.1f}")}.'
    )


def _describe_collapses(rivals, reference) -> Iterator[str]:
  """Which attacks ruin which aggregators."""
  texts = []
  for attack in rivals.columns.drop(estimates.NO_ATTACK):
    ruined = rivals.loc[rivals[attack] < _COLLAPSE * reference, attack]
    if not ruined.empty:
      named = tables.enumerate_values(ruined, '({:.1f} %)')
      texts.append(f'{named} under {attack}')
  if texts:
    yield (
        'Collapses, to less than half of the best accuracy without attackers:'
        f' {"; ".join(texts)}.'
    )
  elif pd.notna(reference):
    yield (
        'No aggregator falls below half of the best accuracy without attackers.'
    )


def _describe_measurements(results, fraction) -> Iterator[str]:
  """Who has the best of the other measurements."""
  for measure, sentence in _MEASUREMENTS:
    values = estimates.by_attack(results, measure.column, fraction)
    if values.empty:
      continue
    # The average over the attacks, or the only one.
    column = measure.factor * estimates.means(values).iloc[:, 0].dropna()
    column = column.drop(estimates.ORACLE, errors='ignore')
    if column.empty:
      continue
    name = column.idxmin() if measure.smallest_is_best else column.idxmax()
    value = column[name]
    if measure is tables.DETECTION and value <= _CHANCE:
      sentence = (
          'No aggregator tells attackers from honest clients better than'
          ' chance; the best, {}, has an AUROC of {:.3f}.'
      )
    yield sentence.format(name, value, tables.percent(fraction))
