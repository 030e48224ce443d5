"""Tests for findings."""

import pytest

from binaries.reporting import findings
from binaries.reporting import results as results_lib
from tests.binaries import report_folder


def _find(folder, by_aggregator):
  """The findings for accuracies under none and flip, in percent, of a seed."""
  runs = {
      (aggregator, attack): value / 100
      for aggregator, values in by_aggregator.items()
      for attack, value in zip(('none', 'flip'), values)
  }
  return findings.find(report_folder.read(folder, runs), 0.4)


def test_best_on_average_in_the_worst_case_and_by_attack(tmp_path):
  assert _find(
      tmp_path,
      {
          'mean': (90, 10),
          'krum': (70, 72),
          'fedaot': (88, 80),
          'oracle': (91, 85),
      },
  ) == [
      'fedaot has the highest accuracy averaged over all columns (84.0 %), 13.0'
      ' points more than krum (1 seed in common: its spread is not known); the'
      ' oracle has 88.0 % (+4.0).',
      'fedaot holds up best in its worst case: 80.0 % under flip.',
      'The most accurate by column: mean in 1: none (90.0 %); fedaot in 1: flip'
      ' (80.0 %).',
      'fedaot against the best baseline of each attack, in points: ahead in 1:'
      ' flip (to krum) +8.0; behind in 1: none (to mean) −2.0.',
      'Without attackers, points gained or lost against the plain mean: fedaot'
      ' −2.0, krum −20.0.',
      'Collapses, to less than half of the best accuracy without attackers:'
      ' mean (10.0 %) under flip.',
  ]


@pytest.mark.parametrize(
    ('leads', 'verdict'),
    [
        ((10.0, 10.1, 9.9), '9.8 to 10.2, so the lead stands out from'),
        ((10.0, -5.0, 10.0), '−16.5 to 26.5, so the lead is within'),
    ],
)
def test_leads_are_judged_by_seed(tmp_path, leads, verdict):
  runs = {}
  for seed, lead in enumerate(leads):
    # The seeds' own spread is the same for both and must not matter.
    for attack in ('none', 'flip'):
      runs['mean', attack, seed] = 0.4 + 0.1 * seed
      runs['krum', attack, seed] = 0.4 + 0.1 * seed + lead / 100
  found = findings.find(report_folder.read(tmp_path, runs), 0.4)
  assert f'(95 % confidence over 3 seeds: {verdict} their spread)' in found[0]


def test_no_collapse_and_detection_no_better_than_chance(tmp_path):
  runs = {('krum', attack): 0.8 for attack in ('none', 'flip')}
  runs['mean', 'flip'] = {'test_accuracy': 0.41, 'detection_auroc': 0.49}
  assert findings.find(report_folder.read(tmp_path, runs), 0.4)[-2:] == [
      'No aggregator falls below half of the best accuracy without attackers.',
      'No aggregator tells attackers from honest clients better than chance;'
      ' the best, mean, has an AUROC of 0.490.',
  ]


def test_other_measurements(tmp_path):
  runs = {
      (aggregator, 'flip'): {
          'attacker_weight': weight,
          'detection_auroc': 1 - weight,
          'attack_success_rate': success,
      }
      for aggregator, weight, success in (
          ('krum', 0.3, 0.05),
          ('fedaot', 0.02, 0.1),
          ('oracle', 0, 0),
      )
  }
  assert findings.find(report_folder.read(tmp_path, runs), 0.4)[-3:] == [
      'krum has the lowest attack success rate (5.0 %).',
      'Of the aggregators that weigh clients, fedaot gives attackers the least'
      ' weight (2.0 % on average; a plain mean gives 40 %).',
      'fedaot tells attackers from honest clients best (AUROC 0.980).',
  ]


def test_averages_of_less_than_all_runs_say_so(tmp_path):
  results = report_folder.read(
      tmp_path,
      {
          ('mean', 'none', 0): 0.9,
          ('mean', 'flip', 0): 0.1,
          ('mean', 'none', 1): 0.9,
          ('fedaot', 'none', 0): 0.95,
      },
  )
  assert findings.find(results, 0.4)[:2] == [
      'Averages leave out what is unfinished: fedaot.',
      'mean has the highest accuracy averaged over all columns (50.0 %, 1 of 2'
      ' seeds).',
  ]
  assert findings.describe_completeness(results) == (
      '4 of 8 runs have a result, 4 not run.'
  )


def test_cost(tmp_path):
  seconds = {'mean': 0.25, 'krum': 0.5}
  runs = {(a, 'none'): {'seconds_per_round': s} for a, s in seconds.items()}
  results = report_folder.read(tmp_path, runs)
  assert findings.describe_cost(results) == [
      'A round takes from 0.25 s (mean) to 0.50 s (krum).'
  ]


def test_many_attacks_give_short_sentences(tmp_path):
  report_folder.write_large(tmp_path, num_aggregators=8, num_attacks=30)
  found = findings.find(results_lib.read(tmp_path), 0.4)
  assert max(len(s) for s in found if not s.startswith('Collapses')) < 1000
