"""The numbers of ours on the page of the paper's rows are those of the runs."""

import re

import pandas as pd
import pytest

from tests.documents import pages

_PAPER, *_ROWS, _UNSEEN, _UNSEEN_FEMNIST, _COHORTS = pages.tables(
    pages.read('docs/paper_rows.md')
)
_LAST_TEN = _ROWS.pop(2)
_RESNET = _ROWS.pop()
# The paper's name of the row, our runs and the attack, in the page's order.
_RUNS = [
    ('medical X-rays', 'pneumonia_untargeted', 'sign_flip'),
    ('FEMNIST', 'femnist_noise_backdoor', 'noise_backdoor'),
    ('CIFAR-10', 'cifar10_label_flip', 'label_flip'),
]
_rows = pytest.mark.parametrize(
    'row, name, attack, accuracies, margins',
    [(*run, *_ROWS[2 * i : 2 * i + 2]) for i, run in enumerate(_RUNS)],
)


def _read(name):
  return pd.read_csv(pages.ROOT / 'docs' / name)


def _spread(values, sign=''):
  mean = round(values.mean(), 1) + 0.0  # No -0.0.
  return f'{mean:{sign}.1f} ± {values.std():.1f}'


def _runs(runs, **keys):
  for name, value in keys.items():
    runs = runs[runs[name] == value]
  assert sorted(runs.seed) == [0, 1, 2]
  return runs.set_index('seed').sort_index()


def test_every_row_is_there():
  assert len(_ROWS) == 2 * len(_RUNS)


@_rows
def test_numbers_of_the_paper(row, name, attack, accuracies, margins):
  del name, attack, margins
  (_, *names), *rows = _PAPER
  (values,) = (values for label, *values in rows if label.startswith(row))
  ours = dict(
      FedAvg='mean', Krum='krum', median='coordinate_median', FedAOT='fedaot'
  )
  expected = {ours[n]: value for n, value in zip(names, values)}
  assert {n: v for n, v, *_ in accuracies[1:] if v != '-'} == expected


@_rows
def test_accuracies(row, name, attack, accuracies, margins):
  del row, margins
  runs = _read(f'{name}.csv')
  (_, _, *attacks), *rows = accuracies
  assert attacks[:2] == ['none', attack]
  assert [n for n, *_ in rows] == list(dict.fromkeys(runs.aggregator))
  for defence, _, *cells in rows:
    none, attacked = (
        _runs(runs, aggregator=defence, attack=a) for a in ('none', attack)
    )
    expected = [_spread(100 * r.test_accuracy) for r in (none, attacked)]
    shares = [attacked.attacker_weight, attacked.attack_success_rate]
    expected += [
        '-' if share.isna().any() else f'{100 * share.mean():.1f}'
        for share in shares[: len(cells) - 2]
    ]
    assert cells == expected, defence


@_rows
def test_margins_of_fedaot(row, name, attack, accuracies, margins):
  del row, accuracies
  runs = _read(f'{name}.csv')
  (_, *defences), *rows = margins

  def accuracy(defence):
    of_rule = _runs(runs, aggregator=defence, attack=attack)
    return 100 * of_rule.test_accuracy

  for rival, *cells in rows:
    expected = [accuracy(d) - accuracy(rival) for d in defences]
    assert cells == [_spread(e, '+') for e in expected], rival


def test_last_ten_rounds_of_x_rays():
  rounds = _read('pneumonia_rounds.csv')
  last = rounds[rounds['round'] == 30].drop(columns='round')
  keys = ['aggregator', 'attack', 'seed']
  pd.testing.assert_series_equal(
      last.set_index(keys).test_accuracy.sort_index(),
      _read('pneumonia_untargeted.csv')
      .set_index(keys)
      .test_accuracy.sort_index(),
  )
  _, *rows = _LAST_TEN
  assert [n for n, *_ in rows] == list(dict.fromkeys(rounds.aggregator))
  ten = rounds[rounds['round'] > 20]
  of_seed = 100 * ten.groupby(keys).test_accuracy.mean()
  for name, *cells in rows:
    attacks = ('none', 'sign_flip')
    assert cells == [_spread(of_seed.loc[name, a]) for a in attacks], name


def test_resnet():
  runs = _read('cifar10_resnet20.csv').set_index('aggregator')
  _, *rows = _RESNET
  assert [name for name, *_ in rows] == list(runs.index)
  for name, *cells in rows:
    run = runs.loc[name]
    share = run.attacker_weight
    assert cells == [
        f'{100 * run.test_accuracy:.1f}',
        '-' if pd.isna(share) else f'{100 * share:.1f}',
    ]


def test_femnist_in_the_readme():
  runs = _read('femnist_noise_backdoor.csv')
  found = re.search(
      r'it ends at ([\d.]+), federated averaging at ([\d.]+)',
      ' '.join(pages.read('README.md').split()),
  )
  assert list(found.groups()) == [
      f'{100 * r.test_accuracy.mean():.1f}'
      for r in (
          _runs(runs, aggregator=name, attack='noise_backdoor')
          for name in ('fedaot', 'mean')
      )
  ]


@pytest.mark.parametrize(
    'task, table', [('mnist5k', _UNSEEN), ('femnist', _UNSEEN_FEMNIST)]
)
def test_attacks_not_seen_before(task, table):
  runs = _read(f'unseen_{task}.csv')
  (_, _, *attacks, _), *rows = table
  assert [name for name, *_ in rows] == list(dict.fromkeys(runs.aggregator))
  for name, *cells in rows:
    none, *attacked = (
        100 * _runs(runs, aggregator=name, attack=a).test_accuracy
        for a in ('none', *attacks)
    )
    drops = [none - accuracy for accuracy in attacked]
    mean = sum(drop.mean() for drop in drops) / len(drops)
    expected = [f'{none.mean():.1f}', *map(_spread, drops), f'{mean:.1f}']
    assert cells == expected, name


def test_cohorts_of_a_thousand():
  rounds = _read('thousand_clients.csv')
  _, *rows = _COHORTS
  assert [name for name, *_ in rows] == list(dict.fromkeys(rounds.aggregator))
  for name, *cells in rows:
    of_rule = rounds[rounds.aggregator == name]
    assert set(of_rule.cohort_size) == {1000}
    later = of_rule[of_rule['round'] > 1]
    assert cells == [
        f'{of_rule.cpu_seconds.iloc[0]:.0f}',
        f'{later.cpu_seconds.mean():.0f}',
        f'{later.seconds.mean():.0f}',
        f'{of_rule.peak_gib.max():.1f}',
    ]
