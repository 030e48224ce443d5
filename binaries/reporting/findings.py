"""What a comparison found, in sentences that are computed from its results."""

from typing import List, Sequence

import pandas as pd

from binaries.reporting import estimates
from binaries.reporting import results as results_lib
from binaries.reporting import tables

# An accuracy below this part of the accuracy without attackers is a collapse.
_COLLAPSE = 0.5
_MAX_NAMES = 6
# The AUROC of weights that do not depend on who attacks.
_CHANCE = 0.5


def find(results: results_lib.Results, fraction: float) -> List[str]:
  """What is best where, with a fraction of attackers, a sentence each.

  An aggregator is called ahead of another only with the difference; with
  several seeds, the 95 % confidence interval of the differences by seed says
  whether the lead stands out from the spread.
  """
  values = estimates.by_attack(results, 'test_accuracy', fraction)
  means = estimates.means(values)
  return [
      *_describe_average(values, means, len(results.seeds)),
      *_describe_worst(values, means),
      *_describe_columns(means),
      *_describe_fedaot(values, means),
      *_describe_price(values),
      *_describe_collapses(means),
      *_describe_measurements(results, fraction),
  ]


def describe_completeness(results: results_lib.Results) -> str:
  """How many runs have finished, and what the others are."""
  states = results.runs['state'].value_counts()
  total = len(results.runs)
  others = [
      f', {states[state]} {state}'
      for state in results_lib.STATES
      if state in states
  ]
  return (
      f'{results.num_finished} of {results_lib.count(total, "run")}'
      f' {"has" if total == 1 else "have"} a result{"".join(others)}.'
  )


def describe_cost(results: results_lib.Results) -> List[str]:
  """How long a round takes, if there are two aggregators to compare."""
  seconds = estimates.run_seconds(results)['median']
  if len(seconds) < 2:
    return []
  fastest, slowest = seconds.idxmin(), seconds.idxmax()
  return [
      f'A round takes from {seconds[fastest]:.2f} s ({fastest}) to'
      f' {seconds[slowest]:.2f} s ({slowest}).'
  ]


def _describe_average(
    values: pd.DataFrame, means: pd.DataFrame, num_seeds: int
) -> List[str]:
  """Who has the highest average accuracy, and by how much."""
  if estimates.AVERAGE not in values:
    return []
  averages = means[estimates.AVERAGE]
  competing = averages[estimates.rivals(averages.index)].dropna()
  best = estimates.best(competing)
  if best is None:
    return ['No aggregator has finished all attacks yet.']
  unfinished = [
      a for a in estimates.rivals(averages.index) if a not in competing
  ]
  text = ''
  if unfinished:
    text = (
        'Averages leave out what has not finished all attacks:'
        f' {_enumerate(unfinished)}. Of the others, '
    )
  text += f'{best} has the highest accuracy averaged over all attacks'
  if estimates.NO_ATTACK in values:
    text += ' and none'
  by_seed = values[estimates.AVERAGE]
  seeds = ''
  if by_seed[best].count() < num_seeds:
    seeds = f', {by_seed[best].count()} of {num_seeds} seeds'
  text += f' ({_percent(averages[best])}{seeds})'
  second = estimates.best(competing.drop(best))
  if second is not None:
    text += (
        f', {100 * (averages[best] - averages[second]):.1f} points more than'
        f' {second}{_describe_lead(by_seed[best] - by_seed[second])}'
    )
  oracle = averages.get(estimates.ORACLE)
  if pd.notna(oracle):
    lead = 100 * (averages[best] - oracle)
    text += (
        f'; the oracle has {_percent(oracle)}, {abs(lead):.1f} points'
        f' {"less" if lead > 0 else "more"}'
    )
  return [f'{text}.']


def _describe_lead(differences: pd.Series) -> str:
  """What the differences by seed say about a lead, in parentheses."""
  found = estimates.estimate(100 * differences)
  if found is None:
    return ' (no seed in common)'
  if found.confidence is None:
    return ' (one seed: its spread is not known)'
  low, high = found.mean - found.confidence, found.mean + found.confidence
  verdict = 'stands out from' if low > 0 else 'is within'
  return (
      f' (95 % confidence over {found.seeds} seeds:'
      f' {_minus(f"{low:.1f} to {high:.1f}")}, so the lead {verdict} their'
      ' spread)'
  )


def _describe_worst(values: pd.DataFrame, means: pd.DataFrame) -> List[str]:
  """Who is best under the attack that is worst for it."""
  if estimates.AVERAGE not in values:
    return []
  worst = estimates.worst_attacks(values)
  worst = worst[estimates.rivals(worst.index)]
  accuracies = pd.Series(
      {name: means.loc[name, attack] for name, attack in worst.items()},
      dtype=float,
  )
  best = estimates.best(accuracies)
  if best is None:
    return []
  return [
      f'{best} holds up best in its worst case:'
      f' {_percent(accuracies[best])} {_under(worst[best])}.'
  ]


def _describe_columns(means: pd.DataFrame) -> List[str]:
  """Who is best under which attacks."""
  attacks = _attacks(means)
  wins = {}
  for attack in attacks:
    accuracies = means.loc[estimates.rivals(means.index), attack]
    best = estimates.best(accuracies)
    if best is not None:
      wins.setdefault(best, []).append(
          f'{_label(attack)} ({_percent(accuracies[best])})'
      )
  if not wins:
    return []
  texts = [
      f'{name} in {len(cells)}'
      + (f' ({", ".join(cells)})' if len(attacks) <= _MAX_NAMES else '')
      for name, cells in sorted(wins.items(), key=lambda item: -len(item[1]))
  ]
  return [
      f'The most accurate in each of {len(attacks)} columns:'
      f' {"; ".join(texts)}.'
  ]


def _describe_fedaot(values: pd.DataFrame, means: pd.DataFrame) -> List[str]:
  """How FedAOT does against the best baseline of each attack."""
  baselines = estimates.baselines(means.index)
  leaders = {
      attack: estimates.best(means.loc[baselines, attack])
      for attack in _attacks(means)
  }
  sentences = []
  for aggregator in estimates.rivals(means.index.difference(baselines, False)):
    found = {'ahead': [], 'level': [], 'behind': []}
    for attack, leader in leaders.items():
      if leader is None:
        continue
      by_seed = values[attack]
      points = 100 * (by_seed[aggregator] - by_seed[leader]).mean()
      if pd.isna(points):
        continue
      points = round(points, 1)
      verdict = 'ahead' if points > 0 else 'behind' if points < 0 else 'level'
      text = f'{_label(attack)} ({_minus(f"{points:+.1f}")} to {leader})'
      found[verdict].append((-abs(points), text))
    parts = [
        f'{verdict} in {len(cells)}:'
        f' {_enumerate([text for _, text in sorted(cells)])}'
        for verdict, cells in found.items()
        if cells
    ]
    if parts:
      sentences.append(
          f'{aggregator} against the best baseline of each attack, in points:'
          f' {"; ".join(parts)}.'
      )
  return sentences


def _describe_price(values: pd.DataFrame) -> List[str]:
  """What the defences cost without attackers."""
  aggregators = values.index.unique('aggregator')
  if estimates.NO_ATTACK not in values or 'mean' not in aggregators:
    return []
  clean = values[[estimates.NO_ATTACK]]
  gains = estimates.means(estimates.difference(clean, clean.loc['mean']))
  gains = gains[estimates.NO_ATTACK].dropna().drop(
      ['mean', estimates.ORACLE], errors='ignore'
  )
  if gains.empty:
    return []
  gains = gains.sort_values(ascending=False, kind='stable')
  texts = [
      f'{name} {_minus(f"{100 * gain:+.1f}")}' for name, gain in gains.items()
  ]
  return [
      'Without attackers, points gained or lost against the plain mean:'
      f' {", ".join(texts)}.'
  ]


def _describe_collapses(means: pd.DataFrame) -> List[str]:
  """Which attacks ruin which aggregators."""
  if estimates.NO_ATTACK not in means:
    return []
  reference = means[estimates.NO_ATTACK].max()
  if pd.isna(reference):
    return []
  texts = []
  for attack in _attacks(means).drop(estimates.NO_ATTACK):
    accuracies = means.loc[estimates.rivals(means.index), attack]
    ruined = accuracies[accuracies < _COLLAPSE * reference]
    if not ruined.empty:
      named = [f'{name} ({_percent(value)})' for name, value in ruined.items()]
      texts.append(f'{_enumerate(named)} {_under(attack)}')
  if not texts:
    return [
        'No aggregator falls below half of the best accuracy without'
        ' attackers.'
    ]
  return [
      'Collapses, to less than half of the best accuracy without attackers:'
      f' {"; ".join(texts)}.'
  ]


def _describe_measurements(
    results: results_lib.Results, fraction: float
) -> List[str]:
  """Who has the best of the other measurements."""

  def find_best(column, *, smallest):
    values = estimates.by_attack(results, column, fraction)
    if values.empty:
      return None, None
    # The average over the attacks, or the only one.
    column = estimates.means(values).iloc[:, 0]
    name = estimates.best(
        column[estimates.rivals(column.index)], smallest=smallest
    )
    return name, column.get(name)

  sentences = []
  name, rate = find_best('attack_success_rate', smallest=True)
  if name is not None:
    sentences.append(
        f'{name} has the lowest attack success rate ({_percent(rate)} on'
        ' average).'
    )
  name, weight = find_best('attacker_weight', smallest=True)
  if name is not None:
    sentences.append(
        f'Of the aggregators that weigh clients, {name} gives attackers the'
        f' least weight ({_percent(weight)} on average over attacks and rounds;'
        f' a plain mean gives {tables.percent(fraction)} %).'
    )
  name, area = find_best('detection_auroc', smallest=False)
  if name is not None:
    sentences.append(
        f'{name} tells attackers from honest clients best (AUROC {area:.3f}).'
        if area > _CHANCE
        else 'No aggregator tells attackers from honest clients better than'
        f' chance; the best AUROC is {area:.3f} ({name}).'
    )
  return sentences


def _attacks(means: pd.DataFrame) -> pd.Index:
  return means.columns.drop(estimates.AVERAGE, errors='ignore')


def _label(attack: str) -> str:
  return 'no attack' if attack == estimates.NO_ATTACK else attack


def _under(attack: str) -> str:
  if attack == estimates.NO_ATTACK:
    return 'without attackers'
  return f'under {attack}'


def _percent(value: float) -> str:
  return f'{100 * value:.1f} %'


def _minus(text: str) -> str:
  return text.replace('-', '−')


def _enumerate(texts: Sequence[str]) -> str:
  """The texts with commas; of many only the first."""
  if len(texts) > _MAX_NAMES:
    return f'{", ".join(texts[:_MAX_NAMES])} and {len(texts) - _MAX_NAMES} more'
  return ', '.join(texts)
