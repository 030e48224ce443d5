"""Tables of the documents are those of the published runs."""

import pandas as pd
import pytest

from tests.documents import pages

_DEMO, _ATTACKS = pages.tables(pages.read('README.md'))


def _accuracies(name):
  """In %, a row an aggregator, a column an attack."""
  runs = pd.read_csv(pages.ROOT / 'docs' / name)
  return 100 * runs.pivot(
      index='aggregator', columns='attack', values='test_accuracy'
  )


def test_demo():
  (_, *columns, last), *rows = _DEMO
  assert last == 'average'
  found = _accuracies('demo.csv')
  assert {name for name, *_ in rows} == set(found.index)
  for name, *cells in rows:
    values = found.loc[name]
    expected = [*values[columns], values.mean()]
    assert cells == [f'{value:.1f}' for value in expected]


def test_averages_of_all_attacks():
  (_, *names), *rows = _ATTACKS
  for share, *cells in rows:
    found = _accuracies(f'attacks_{share.split()[0]}.csv')
    assert len(found.columns) == 1 + 34
    means = found.mean(axis='columns').to_dict()
    expected = [f'{means[n]:.1f}' if n in means else '-' for n in names]
    assert cells == expected


@pytest.mark.parametrize('share', [40, 60])
def test_every_attack(share):
  runs = pd.read_csv(pages.ROOT / 'docs' / f'attacks_{share}.csv')
  first = {40: 0, 60: 3}[share]
  tables = pages.tables(pages.read('docs/attack_results.md'))
  measures = ('test_accuracy', 'attack_success_rate', 'attacker_weight')
  for ((_, *names), *rows), measure in zip(tables[first:], measures):
    found = 100 * runs.pivot(
        index='attack', columns='aggregator', values=measure
    ).dropna(how='all')
    if measure == 'attacker_weight':
      found = found.drop('none')
    found.loc['average'] = found.mean()
    assert [name for name, *_ in rows[:-1]] == [
        name for name in runs.attack.unique() if name in found.index
    ]
    for name, *cells in rows:
      assert cells == [f'{value:.1f}' for value in found.loc[name, names]]


def test_backdoors_by_task():
  (table,) = (
      t
      for t in pages.tables(pages.read('docs/attack_results.md'))
      if t[0][0] == 'task'
  )
  (_, _, *names), *rows = table
  runs = pd.read_csv(pages.ROOT / 'docs' / 'backdoors_by_task.csv')
  of_run = runs.set_index(['task', 'attack', 'aggregator'])
  assert len(rows) * len(names) == len(runs)
  for task, attack, *cells in rows:
    for name, cell in zip(names, cells):
      run = of_run.loc[task, attack, name]
      accuracy = f'({100 * run.test_accuracy:.1f})'
      success = f'{100 * run.attack_success_rate:.1f} '
      assert cell == (accuracy if attack == 'none' else success + accuracy)


@pytest.mark.parametrize('name', ['demo_seeds', 'all_defences'])
def test_seeds(name):
  runs = pd.read_csv(pages.ROOT / 'docs' / f'{name}.csv')
  (table,) = (
      t
      for t in pages.tables(pages.read('docs/results.md'))
      if {row[0] for row in t[1:]} == set(runs.aggregator)
  )
  (_, *attacks, _), *rows = table
  for aggregator, *cells in rows:
    of_rule = runs[runs.aggregator == aggregator]
    by_seed = 100 * of_rule.pivot(
        index='seed', columns='attack', values='test_accuracy'
    )
    by_seed = by_seed[attacks]
    by_seed['average'] = by_seed.mean(axis='columns')
    assert cells == [
        f'{mean:.1f} ± {stddev:.1f}'
        for mean, stddev in zip(by_seed.mean(), by_seed.std())
    ]


def test_flower():
  (table,) = (
      t
      for t in pages.tables(pages.read('docs/flower.md'))
      if t[0][-1] == 'label_flip'
  )
  (_, *attacks), *rows = table
  runs = pd.read_csv(pages.ROOT / 'docs' / 'flower.csv')
  assert {name for name, *_ in rows} == set(runs.strategy)
  for name, *cells in rows:
    for attack, cell in zip(attacks, cells):
      if name == 'honest_mean':
        attack = 'absent'
      of_seeds = runs[
          (runs.strategy == name) & (runs.attack == attack)
      ].accuracy
      assert len(of_seeds) == 3
      least, most = of_seeds.min(), of_seeds.max()
      assert cell == f'{of_seeds.mean():.1f} ({least:.1f} to {most:.1f})'


def test_skew():
  (table,) = (
      t for t in pages.tables(pages.read('docs/why.md')) if 'federation' in t[0]
  )
  (_, _, *names), *rows = table
  runs = pd.read_csv(pages.ROOT / 'docs' / 'skew.csv')
  assert [row[0] for row in rows[::3]] == list(dict.fromkeys(runs.federation))
  for i, (_, kind, *cells) in enumerate(rows):
    of = runs[runs.federation == rows[i - i % 3][0]]
    of = of[(of.attack == 'none') == (kind == 'no attack')]
    found = of.groupby('aggregator').test_accuracy
    found = found.min() if kind == 'worst' else found.mean()
    assert cells == [f'{100 * found[name]:.1f}' for name in names]
