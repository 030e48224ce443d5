"""What a comparison found, in sentences that are computed from its results."""

import statistics
from typing import Dict, List, Mapping, Sequence

from binaries import comparison as comparison_lib
from binaries import report_results
from binaries import report_tables

_ORACLE = comparison_lib.ORACLE
# An accuracy below this part of the accuracy without attackers is a collapse.
_COLLAPSE = 0.5
_MAX_NAMES = 6
# The AUROC of weights that do not depend on who attacks.
_CHANCE = 0.5


def find(results: report_results.Results) -> Dict[float, List[str]]:
  """What is best where, for each fraction of attackers.

  Args:
    results: The results.

  Returns:
    For each fraction the sentences. An aggregator is called ahead of another
    only with the difference; with several seeds, the 95 % confidence interval
    of the differences by seed says whether the lead stands out from the spread.
  """
  return {
      fraction: _find(results.comparison, fraction)
      for fraction in results.comparison.byzantine_fractions
  }


def describe_completeness(results: report_results.Results) -> str:
  """How many runs have finished, and what the others are."""
  total = len(list(report_results.run_keys(results.comparison)))
  states = list(results.states.values())
  text = (
      f'{total - len(states)} of {comparison_lib.count(total, "run")}'
      f' {"has" if total == 1 else "have"} a result'
  )
  others = [
      f'{states.count(state)} {state}'
      for state in (
          report_results.FAILED,
          report_results.UNFINISHED,
          report_results.NOT_RUN,
      )
      if state in states
  ]
  return f'{text}{"".join(f", {other}" for other in others)}.'


def _find(
    comparison: comparison_lib.Comparison, fraction: float
) -> List[str]:
  """The sentences of a fraction of attackers."""
  columns = report_tables.read_columns(
      comparison, 'test_accuracy', fraction, comparison.attacks
  )
  rivals = [a for a in comparison.aggregators if a != _ORACLE]
  sentences = []
  if len(comparison.attacks) > 1:
    sentences += _describe_average(comparison, columns, rivals)
    sentences += _describe_worst(comparison, columns, rivals)
  sentences += _describe_columns(comparison, columns, rivals)
  sentences += _describe_fedaot(comparison, columns)
  sentences += _describe_price(columns, rivals)
  sentences += _describe_collapses(comparison, columns, rivals)
  sentences += _describe_measurements(comparison, fraction, rivals)
  return sentences


def _describe_average(
    comparison: comparison_lib.Comparison,
    columns: report_tables.Columns,
    rivals: Sequence[str],
) -> List[str]:
  """Who has the highest average accuracy, and by how much."""
  column = columns[report_tables.AVERAGE]
  best = report_tables.best_of(column, rivals)
  if best is None:
    return ['No aggregator has finished all attacks yet.']
  unfinished = [a for a in rivals if not column[a]]
  text = ''
  if unfinished:
    text = (
        'Averages leave out what has not finished all attacks:'
        f' {_enumerate(unfinished)}. Of the others, '
    )
  text += f'{best} has the highest accuracy averaged over all attacks'
  if report_tables.NO_ATTACK in comparison.attacks:
    text += ' and none'
  seeds = ''
  if len(column[best]) < len(comparison.seeds):
    seeds = f', {len(column[best])} of {len(comparison.seeds)} seeds'
  text += f' ({_percent(column[best])}{seeds})'
  second = report_tables.best_of(column, [a for a in rivals if a != best])
  if second is not None:
    text += (
        f', {_difference(column[best], column[second])} more than {second}'
        f'{_significance(column[best], column[second])}'
    )
  if column.get(_ORACLE):
    difference = statistics.fmean(column[best].values()) - statistics.fmean(
        column[_ORACLE].values()
    )
    text += (
        f'; the oracle has {_percent(column[_ORACLE])},'
        f' {abs(100 * difference):.1f} points'
        f' {"less" if difference > 0 else "more"}'
    )
  return [f'{text}.']


def _describe_worst(
    comparison: comparison_lib.Comparison,
    columns: report_tables.Columns,
    rivals: Sequence[str],
) -> List[str]:
  """Who is best under the attack that is worst for it."""
  worst = {
      a: report_tables.worst_attack(columns, a, comparison.attacks, min)
      for a in rivals
  }
  values = {a: columns[attack][a] for a, attack in worst.items() if attack}
  best = report_tables.best_of(values, rivals)
  if best is None:
    return []
  return [
      f'{best} holds up best in its worst case: {_percent(values[best])}'
      f' {_under(worst[best])}.'
  ]


def _describe_columns(
    comparison: comparison_lib.Comparison,
    columns: report_tables.Columns,
    rivals: Sequence[str],
) -> List[str]:
  """Who is best under which attacks."""
  wins = {}
  for attack in comparison.attacks:
    best = report_tables.best_of(columns[attack], rivals)
    if best is not None:
      wins.setdefault(best, []).append(
          f'{_label(attack)} ({_percent(columns[attack][best])})'
      )
  ordered = sorted(wins.items(), key=lambda item: -len(item[1]))
  if not ordered:
    return []
  texts = [
      f'{name} in {len(cells)} ({", ".join(cells)})'
      if len(comparison.attacks) <= _MAX_NAMES
      else f'{name} in {len(cells)}'
      for name, cells in ordered
  ]
  return [
      f'The most accurate in each of {len(comparison.attacks)} columns:'
      f' {"; ".join(texts)}.'
  ]


def _describe_fedaot(
    comparison: comparison_lib.Comparison, columns: report_tables.Columns
) -> List[str]:
  """How FedAOT does against the best baseline of each attack."""
  baselines = [
      a for a in comparison.aggregators if report_tables.is_baseline(a)
  ]
  own = [
      a
      for a in comparison.aggregators
      if a != _ORACLE and not report_tables.is_baseline(a)
  ]
  sentences = []
  for aggregator in own:
    ahead, behind, equal = [], [], []
    for attack in comparison.attacks:
      column = columns[attack]
      best = report_tables.best_of(column, baselines)
      if best is None or not column[aggregator]:
        continue
      differences = report_tables.subtract(column[aggregator], column[best])
      found = report_tables.estimate(differences.values())
      if found is None:
        continue
      points = round(100 * found.mean, 1)
      text = f'{_label(attack)} ({points:+.1f} to {best})'.replace('-', '−')
      (ahead if points > 0 else behind if points < 0 else equal).append(
          (-abs(points), text)
      )
    parts = [
        f'{verb} in {len(texts)}: {_enumerate([t for _, t in sorted(texts)])}'
        for verb, texts in (
            ('ahead', ahead), ('level', equal), ('behind', behind)
        )
        if texts
    ]
    if parts:
      sentences.append(
          f'{aggregator} against the best baseline of each attack, in points:'
          f' {"; ".join(parts)}.'
      )
  return sentences


def _describe_price(
    columns: report_tables.Columns, rivals: Sequence[str]
) -> List[str]:
  """What the defences cost without attackers."""
  column = columns.get(report_tables.NO_ATTACK, {})
  if not column.get('mean'):
    return []
  losses = []
  for aggregator in rivals:
    differences = report_tables.subtract(
        column[aggregator], column['mean']
    ).values()
    if aggregator != 'mean' and differences:
      losses.append((statistics.fmean(differences), aggregator))
  if not losses:
    return []
  texts = [
      f'{name} {100 * loss:+.1f}'.replace('-', '−')
      for loss, name in sorted(losses, reverse=True)
  ]
  return [
      'Without attackers, points gained or lost against the plain mean:'
      f' {", ".join(texts)}.'
  ]


def _describe_collapses(
    comparison: comparison_lib.Comparison,
    columns: report_tables.Columns,
    rivals: Sequence[str],
) -> List[str]:
  """Which attacks ruin which aggregators."""
  clean = columns.get(report_tables.NO_ATTACK, {})
  reference = max(
      (statistics.fmean(v.values()) for v in clean.values() if v), default=None
  )
  if reference is None:
    return []
  texts = []
  for attack in report_tables.attacks_of(comparison, with_none=False):
    ruined = [
        f'{a} ({_percent(columns[attack][a])})'
        for a in rivals
        if columns[attack][a]
        and statistics.fmean(columns[attack][a].values())
        < _COLLAPSE * reference
    ]
    if ruined:
      texts.append(f'{_enumerate(ruined)} {_under(attack)}')
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
    comparison: comparison_lib.Comparison,
    fraction: float,
    rivals: Sequence[str],
) -> List[str]:
  """Who has the best of the other measurements."""
  sentences = []
  found = {}
  for column, best in (
      ('attack_success_rate', min),
      ('attacker_weight', min),
      ('detection_auroc', max),
  ):
    attacks = report_tables.measured_attacks(comparison, column, fraction)
    if not attacks:
      continue
    columns = report_tables.read_columns(comparison, column, fraction, attacks)
    values = columns[report_tables.AVERAGE if len(attacks) > 1 else attacks[0]]
    name = report_tables.best_of(values, rivals, best)
    if name is not None:
      found[column] = name, values[name]
  if 'attack_success_rate' in found:
    name, values = found['attack_success_rate']
    sentences.append(
        f'{name} has the lowest attack success rate ({_percent(values)} on'
        ' average).'
    )
  if 'attacker_weight' in found:
    name, values = found['attacker_weight']
    sentences.append(
        f'Of the aggregators that weigh clients, {name} gives attackers the'
        f' least weight ({_percent(values)} on average over attacks and rounds;'
        f' a plain mean gives {comparison_lib.percent(fraction)} %).'
    )
  if 'detection_auroc' in found:
    name, values = found['detection_auroc']
    area = statistics.fmean(values.values())
    sentences.append(
        f'{name} tells attackers from honest clients best (AUROC {area:.3f}).'
        if area > _CHANCE
        else 'No aggregator tells attackers from honest clients better than'
        f' chance; the best AUROC is {area:.3f} ({name}).'
    )
  return sentences


def describe_cost(comparison: comparison_lib.Comparison) -> List[str]:
  """How long a round takes."""
  seconds = {
      name: statistics.median(values)
      for name, values in report_tables.run_seconds(comparison).items()
  }
  if len(seconds) < 2:
    return []
  fastest, slowest = min(seconds, key=seconds.get), max(
      seconds, key=seconds.get
  )
  return [
      f'A round takes from {seconds[fastest]:.2f} s ({fastest}) to'
      f' {seconds[slowest]:.2f} s ({slowest}).'
  ]


def _significance(
    values: Mapping[int, float], others: Mapping[int, float]
) -> str:
  """What the seeds say about a difference, in parentheses."""
  found = report_tables.estimate(
      report_tables.subtract(values, others).values()
  )
  if found is None:
    return ' (no seed in common)'
  if found.confidence is None:
    return ' (one seed: its spread is not known)'
  low, high = (
      100 * (found.mean + sign * found.confidence) for sign in (-1, 1)
  )
  verdict = 'stands out from' if low > 0 else 'is within'
  interval = f'{low:.1f} to {high:.1f}'.replace('-', '−')
  return (
      f' (95 % confidence over {found.count} seeds: {interval}, so the lead'
      f' {verdict} their spread)'
  )


def _difference(
    values: Mapping[int, float], others: Mapping[int, float]
) -> str:
  difference = statistics.fmean(values.values()) - statistics.fmean(
      others.values()
  )
  return f'{100 * difference:.1f} points'


def _label(attack: str) -> str:
  return 'no attack' if attack == report_tables.NO_ATTACK else attack


def _under(attack: str) -> str:
  if attack == report_tables.NO_ATTACK:
    return 'without attackers'
  return f'under {attack}'


def _percent(values: Mapping[int, float]) -> str:
  return f'{100 * statistics.fmean(values.values()):.1f} %'


def _enumerate(texts: Sequence[str]) -> str:
  """The texts with commas; of many only the first."""
  if len(texts) > _MAX_NAMES:
    return f'{", ".join(texts[:_MAX_NAMES])} and {len(texts) - _MAX_NAMES} more'
  return ', '.join(texts)
