"""Tests for findings."""

import pytest

from binaries.reporting import findings
from binaries.reporting import results as results_lib
from tests.binaries import report_folder


def _read_grid(folder, by_aggregator):
  """Results for accuracies under none and flip, in percent, of one seed."""
  return report_folder.read(
      folder,
      {
          (aggregator, attack, 0.4, 0): value / 100
          for aggregator, values in by_aggregator.items()
          for attack, value in zip(('none', 'flip'), values)
      },
  )


def _find(results):
  return findings.find(results, 0.4)


def test_best_on_average_in_the_worst_case_and_by_attack(tmp_path):
  sentences = _find(
      _read_grid(
          tmp_path,
          {'mean': (90, 10), 'krum': (70, 72), 'fedaot': (88, 80),
           'oracle': (91, 85)},
      )
  )
  assert sentences[0] == (
      'fedaot has the highest accuracy averaged over all attacks and none'
      ' (84.0 %), 13.0 points more than krum (one seed: its spread is not'
      ' known); the oracle has 88.0 %, 4.0 points more.'
  )
  assert sentences[1] == (
      'fedaot holds up best in its worst case: 80.0 % under flip.'
  )
  assert sentences[2] == (
      'The most accurate in each of 2 columns: mean in 1 (no attack (90.0 %));'
      ' fedaot in 1 (flip (80.0 %)).'
  )
  assert sentences[3] == (
      'fedaot against the best baseline of each attack, in points: ahead in 1:'
      ' flip (+8.0 to krum); behind in 1: no attack (−2.0 to mean).'
  )
  assert sentences[4] == (
      'Without attackers, points gained or lost against the plain mean: fedaot'
      ' −2.0, krum −20.0.'
  )
  assert sentences[5] == (
      'Collapses, to less than half of the best accuracy without attackers:'
      ' mean (10.0 %) under flip.'
  )


@pytest.mark.parametrize(
    ('leads', 'verdict'),
    [
        ((10.0, 10.1, 9.9), '9.8 to 10.2, so the lead stands out from'),
        ((10.0, -5.0, 10.0), '−16.5 to 26.5, so the lead is within'),
    ],
)
def test_leads_are_judged_by_seed(tmp_path, leads, verdict):
  accuracies = {}
  for seed, lead in enumerate(leads):
    # The seeds' own spread is the same for both and must not matter.
    for attack in ('none', 'flip'):
      accuracies['mean', attack, 0.4, seed] = 0.4 + 0.1 * seed
      accuracies['krum', attack, 0.4, seed] = 0.4 + 0.1 * seed + lead / 100
  sentence = _find(report_folder.read(tmp_path, accuracies))[0]
  assert f'(95 % confidence over 3 seeds: {verdict} their spread)' in sentence


def test_oracle_that_is_beaten(tmp_path):
  sentences = _find(
      _read_grid(tmp_path, {'fedaot': (90, 90), 'oracle': (89, 89)})
  )
  assert sentences[0].endswith('the oracle has 89.0 %, 1.0 points less.')


def test_no_collapse_is_said(tmp_path):
  sentences = _find(_read_grid(tmp_path, {'mean': (90, 46), 'krum': (80, 80)}))
  assert (
      'No aggregator falls below half of the best accuracy without attackers.'
      in sentences
  )


def test_other_measurements(tmp_path):
  accuracies = {
      (aggregator, attack, 0.4, 0): 0.8
      for aggregator in ('krum', 'fedaot', 'oracle')
      for attack in ('none', 'flip')
  }
  others = {
      (aggregator, 'flip', 0.4, 0): dict(
          attacker_weight=weight,
          detection_auroc=1 - weight,
          attack_success_rate=success,
      )
      for aggregator, weight, success in (
          ('krum', 0.3, 0.05), ('fedaot', 0.02, 0.1), ('oracle', 0, 0)
      )
  }
  sentences = _find(report_folder.read(tmp_path, accuracies, others=others))
  assert sentences[-3:] == [
      'krum has the lowest attack success rate (5.0 % on average).',
      'Of the aggregators that weigh clients, fedaot gives attackers the least'
      ' weight (2.0 % on average over attacks and rounds; a plain mean gives 40'
      ' %).',
      'fedaot tells attackers from honest clients best (AUROC 0.980).',
  ]


def test_detection_that_is_no_better_than_chance(tmp_path):
  key = ('krum', 'flip', 0.4, 0)
  results = report_folder.read(
      tmp_path, {key: 0.8}, others={key: {'detection_auroc': 0.49}}
  )
  assert _find(results)[-1] == (
      'No aggregator tells attackers from honest clients better than chance;'
      ' the best AUROC is 0.490 (krum).'
  )


def test_incomplete_aggregators_are_left_out_of_averages_and_named(tmp_path):
  accuracies = {
      ('mean', 'none', 0.4, 0): 0.9,
      ('mean', 'flip', 0.4, 0): 0.1,
      ('fedaot', 'none', 0.4, 0): 0.95,
  }
  results = report_folder.read(tmp_path, accuracies)
  assert _find(results)[0] == (
      'Averages leave out what has not finished all attacks: fedaot. Of the'
      ' others, mean has the highest accuracy averaged over all attacks and'
      ' none (50.0 %).'
  )
  assert findings.describe_completeness(results) == (
      '3 of 4 runs have a result, 1 not run.'
  )


def test_averages_of_fewer_seeds_say_so(tmp_path):
  accuracies = {
      (aggregator, attack, 0.4, seed): 0.5 + 0.1 * (aggregator == 'krum')
      for aggregator in ('mean', 'krum')
      for attack in ('none', 'flip')
      for seed in (0, 1)
  }
  del accuracies['krum', 'flip', 0.4, 1]
  results = report_folder.read(tmp_path, accuracies)
  assert '(60.0 %, 1 of 2 seeds)' in _find(results)[0]


def test_cost(tmp_path):
  accuracies = {(a, 'none', 0.4, 0): 0.5 for a in ('mean', 'krum')}
  others = {
      (a, 'none', 0.4, 0): {'seconds_per_round': s}
      for a, s in (('mean', 0.25), ('krum', 0.5))
  }
  results = report_folder.read(tmp_path, accuracies, others=others)
  assert findings.describe_cost(results) == [
      'A round takes from 0.25 s (mean) to 0.50 s (krum).'
  ]


def test_many_attacks_give_short_sentences(tmp_path):
  results = results_lib.read(
      report_folder.write_large(
          tmp_path, num_aggregators=8, num_attacks=30, seeds=1
      )
  )
  sentences = [s for s in _find(results) if not s.startswith('Collapses')]
  assert max(map(len, sentences)) < 800
