"""Tests for comparison."""

import pytest

from binaries import comparison as comparison_lib


def _make_comparison(results, **axes):
  defaults = dict(
      task='digits',
      rounds=30,
      aggregators=('mean', 'fedaot', 'oracle'),
      attacks=('none', 'sign_flip'),
      byzantine_fractions=(0.4,),
      seeds=(0,),
  )
  return comparison_lib.Comparison(**{**defaults, **axes}, results=results)


def _results(values, column='test_accuracy'):
  """Results by (aggregator, attack, fraction, seed) from one column."""
  return {
      key: {
          'test_accuracy': '',
          'attack_success_rate': '',
          'attacker_weight': '',
          column: repr(value),
      }
      for key, value in values.items()
  }


_ONE_SEED = _results({
    ('mean', 'none', 0.4, 0): 0.91,
    ('mean', 'sign_flip', 0.4, 0): 0.1004,
    ('fedaot', 'none', 0.4, 0): 0.9,
    ('fedaot', 'sign_flip', 0.4, 0): 0.895,
    ('oracle', 'none', 0.4, 0): 0.92,
    ('oracle', 'sign_flip', 0.4, 0): 0.906,
})

_ONE_SEED_TEXT = """\
Test accuracy in % after the last round (digits, 30 rounds, 40% attackers)

aggregator  none  sign_flip  average
----------  ----  ---------  -------
mean        91.0       10.0     50.5
fedaot      90.0       89.5     89.8
oracle      92.0       90.6     91.3
"""

_ONE_SEED_MARKDOWN = """\
Test accuracy in % after the last round (digits, 30 rounds, 40% attackers)

| aggregator | none | sign_flip | average |
| --- | ---: | ---: | ---: |
| mean | **91.0** | 10.0 | 50.5 |
| fedaot | 90.0 | **89.5** | **89.8** |
| oracle | 92.0 | 90.6 | 91.3 |
"""


def test_one_seed():
  (table,) = comparison_lib.make_tables(_make_comparison(_ONE_SEED))
  assert comparison_lib.format_text(table) == _ONE_SEED_TEXT
  assert comparison_lib.format_markdown(table) == _ONE_SEED_MARKDOWN


def test_seeds_give_mean_and_sample_standard_deviation():
  # Mean over attacks of seed 0: 0.6, of seed 1: 0.8.
  results = _results({
      ('mean', 'none', 0.25, 0): 0.8,
      ('mean', 'none', 0.25, 1): 0.9,
      ('mean', 'sign_flip', 0.25, 0): 0.4,
      ('mean', 'sign_flip', 0.25, 1): 0.7,
  })
  (table,) = comparison_lib.make_tables(
      _make_comparison(
          results,
          aggregators=('mean',),
          byzantine_fractions=(0.25,),
          seeds=(0, 1),
          rounds=1,
      )
  )
  assert comparison_lib.format_text(table) == """\
Test accuracy in % after the last round (digits, 1 round, 2 seeds, 25% \
attackers); mean ± standard deviation over the seeds

aggregator        none    sign_flip      average
----------  ----------  -----------  -----------
mean        85.0 ± 7.1  55.0 ± 21.2  70.0 ± 14.1
"""


def test_missing_runs_are_shown_as_missing():
  results = _results({
      ('mean', 'none', 0.4, 0): 0.5,
      ('mean', 'none', 0.4, 1): 0.7,
      ('mean', 'sign_flip', 0.4, 1): 0.3,
  })
  (table,) = comparison_lib.make_tables(
      _make_comparison(results, aggregators=('mean', 'fedaot'), seeds=(0, 1))
  )
  assert table.rows == [
      ['mean', '60.0 ± 14.1', '30.0', '50.0'],
      ['fedaot', '-', '-', '-'],
  ]
  assert table.best == {(0, 0), (0, 1), (0, 2)}


def test_nothing_finished():
  (table,) = comparison_lib.make_tables(_make_comparison({}))
  assert {cell for row in table.rows for cell in row[1:]} == {'-'}
  assert table.best == set()


def test_one_attack_has_no_average():
  (table,) = comparison_lib.make_tables(
      _make_comparison(_ONE_SEED, attacks=('sign_flip',))
  )
  assert table.header == ['aggregator', 'sign_flip']
  assert table.rows[1] == ['fedaot', '89.5']


def test_many_attacks_are_the_rows():
  attacks = tuple('abcdefghi')
  results = _results({
      ('fedaot' if attack == 'c' else 'mean', attack, 0.4, 0): 0.5
      for attack in attacks
  })
  (table,) = comparison_lib.make_tables(
      _make_comparison(
          results, aggregators=('mean', 'fedaot'), attacks=attacks
      )
  )
  assert table.header == ['attack', 'mean', 'fedaot']
  assert [row[0] for row in table.rows] == [*attacks, 'average']
  assert table.rows[1:3] == [['b', '50.0', '-'], ['c', '-', '50.0']]
  assert table.best == {(i, int(i == 2)) for i in range(9)}


def test_success_rates_of_the_attacks_that_have_one():
  results = _results(
      {
          ('mean', 'backdoor', 0.4, 0): 0.995,
          ('fedaot', 'backdoor', 0.4, 0): 0.02,
      },
      column='attack_success_rate',
  )
  _, table = comparison_lib.make_tables(
      _make_comparison(
          results,
          aggregators=('mean', 'fedaot'),
          attacks=('sign_flip', 'backdoor'),
      )
  )
  assert comparison_lib.format_markdown(table) == """\
Success rate of the attack in % after the last round (digits, 30 rounds, 40% \
attackers)

| aggregator | backdoor |
| --- | ---: |
| mean | 99.5 |
| fedaot | **2.0** |
"""


def test_each_fraction_has_a_table():
  tables = comparison_lib.make_tables(
      _make_comparison(_ONE_SEED, byzantine_fractions=(0.2, 0.4))
  )
  assert ['20% attackers' in table.title for table in tables] == [True, False]
  assert tables[0].rows[0][1] == '-'
  assert tables[1].rows[0][1] == '91.0'


def test_weights_on_attackers_of_the_aggregators_that_measure_them():
  results = _results(
      {
          ('fedaot', 'sign_flip', 0.4, 0): 0.012,
          ('krum', 'sign_flip', 0.4, 0): 0.0,
          ('fedaot', 'none', 0.4, 0): 0.0,
      },
      column='attacker_weight',
  )
  _, table = comparison_lib.make_tables(
      _make_comparison(results, aggregators=('mean', 'fedaot', 'krum'))
  )
  assert comparison_lib.format_markdown(table) == """\
Weight on attackers in %, mean over the rounds (a plain mean gives 40)

| aggregator | sign_flip |
| --- | ---: |
| fedaot | 1.2 |
| krum | **0.0** |
"""


def test_no_weights_without_attacks():
  results = _results(
      {('fedaot', 'none', 0.4, 0): 0.0}, column='attacker_weight'
  )
  tables = comparison_lib.make_tables(
      _make_comparison(results, attacks=('none',))
  )
  assert len(tables) == 1


@pytest.mark.parametrize('value', ['nan', '0.5'])
def test_values_are_by_seed(value):
  results = {('mean', 'none', 0.4, 1): {'test_accuracy': value}}
  values = _make_comparison(results, seeds=(0, 1)).values(
      'test_accuracy', 'mean', 'none', 0.4
  )
  assert list(values) == [1]
  assert repr(values[1]) == value
