"""The numbers of ours on the page of the paper's rows are those of the runs."""

import pandas as pd

from tests.documents import pages

_PAPER, _XRAYS, _MARGINS, _COHORTS = pages.tables(
    pages.read('docs/paper_rows.md')
)


def _read(name):
  return pd.read_csv(pages.ROOT / 'docs' / name)


def _spread(values):
  return f'{values.mean():.1f} ± {values.std():.1f}'


def _runs(runs, **keys):
  for name, value in keys.items():
    runs = runs[runs[name] == value]
  assert sorted(runs.seed) == [0, 1, 2]
  return runs.set_index('seed').sort_index()


def test_numbers_of_the_paper():
  (_, *names), *_, (row, *values) = _PAPER
  assert row == 'medical X-rays, 20 % untargeted attack'
  ours = dict(
      FedAvg='mean', Krum='krum', median='coordinate_median', FedAOT='fedaot'
  )
  expected = {ours[n]: value for n, value in zip(names, values)}
  assert {n: v for n, v, *_ in _XRAYS[1:] if v != '-'} == expected


def test_xrays():
  runs = _read('pneumonia_untargeted.csv')
  (_, _, *attacks, _), *rows = _XRAYS
  assert [name for name, *_ in rows] == list(dict.fromkeys(runs.aggregator))
  for name, _, *cells, weight in rows:
    found = {k: _runs(runs, aggregator=name, attack=k) for k in attacks}
    expected = [_spread(100 * r.test_accuracy) for r in found.values()]
    assert cells == expected, name
    weights = 100 * found['sign_flip'].attacker_weight
    assert weight == ('-' if weights.isna().any() else f'{weights.mean():.1f}')


def test_margins_of_fedaot():
  runs = _read('pneumonia_untargeted.csv')
  (_, *defences), *rows = _MARGINS

  def accuracies(name):
    return 100 * _runs(runs, aggregator=name, attack='sign_flip').test_accuracy

  for name, *cells in rows:
    expected = [accuracies(d) - accuracies(name) for d in defences]
    assert cells == [f'{e.mean():+.1f} ± {e.std():.1f}' for e in expected], name


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
