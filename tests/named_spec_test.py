"""Tests for names with options, and how the registries look them up."""

import pathlib
import subprocess
import sys

import pytest

from fedaot_tff import named_spec

_KNOWN = {
    'plain': {},
    'rich': {
        'count': named_spec.parse_positive_int,
        'size': named_spec.parse_positive_number,
        'kind': named_spec.choice_parser('round', 'square'),
    },
}


def _parse(text):
  return named_spec.parse(text, kind='thing', known=_KNOWN)


def test_parses_names_and_options():
  assert _parse('plain') == ('plain', {})
  assert _parse('rich') == ('rich', {})
  assert _parse('rich:size=1e-3,count=4,kind=square') == (
      'rich',
      {'size': 1e-3, 'count': 4, 'kind': 'square'},
  )


@pytest.mark.parametrize(
    'text, message',
    [
        ('dull', "unknown thing 'dull'; known: plain, rich"),
        ('', "unknown thing ''; known: plain, rich"),
        ('Rich', "unknown thing 'Rich'; known: plain, rich"),
        ('plain:a=1', "thing 'plain' has no option 'a'; known: none"),
        (
            'rich:a=1',
            "thing 'rich' has no option 'a'; known: count, size, kind",
        ),
        ('rich:', "options of thing 'rich' must be key=value; found ''"),
        ('rich:a', "options of thing 'rich' must be key=value; found 'a'"),
        (
            'rich:size=1,size=2',
            "option 'size' of thing 'rich' is given twice",
        ),
        (
            'rich:size=wide',
            "option 'size' of thing 'rich' must be a number; found 'wide' of"
            ' type str.',
        ),
    ],
)
def test_tells_what_is_wrong(text, message):
  with pytest.raises(ValueError) as error:
    _parse(text)
  assert str(error.value) == message


def test_rejects_other_kinds():
  with pytest.raises(TypeError, match='must be a string; found 3'):
    _parse(3)


@pytest.mark.parametrize(
    'text, specs',
    [
        ('', ()),
        ('a', ('a',)),
        ('a, b,,c ', ('a', 'b', 'c')),
        ('a:x=1,y=2,b,c:z=3', ('a:x=1,y=2', 'b', 'c:z=3')),
        ('a:x=b:c,y=d:e,f', ('a:x=b:c,y=d:e', 'f')),
        # Left to `parse` to complain about.
        ('x=1,a', ('x=1', 'a')),
    ],
)
def test_splits_lists(text, specs):
  assert named_spec.split_list(text) == specs


@pytest.mark.parametrize(
    'parser, text, value',
    [
        (named_spec.parse_int, '-3', -3),
        (named_spec.parse_nonnegative_int, '0', 0),
        (named_spec.parse_positive_int, '3', 3),
        (named_spec.parse_number, '-1e3', -1000.0),
        (named_spec.parse_positive_number, '2', 2.0),
        (named_spec.parse_count_or_fraction, '0', 0),
        (named_spec.parse_count_or_fraction, '7', 7),
        (named_spec.parse_count_or_fraction, '0.25', 0.25),
        (named_spec.parse_count_or_fraction, '0.0', 0.0),
        (named_spec.choice_parser('a', 'b'), 'b', 'b'),
    ],
)
def test_parsers_accept(parser, text, value):
  _, options = named_spec.parse(
      f'a:x={text}', kind='thing', known={'a': {'x': parser}}
  )
  assert options == {'x': value}
  assert type(options['x']) is type(value)


@pytest.mark.parametrize(
    'parser, text',
    [
        (named_spec.parse_nonnegative_int, '-1'),
        (named_spec.parse_int, '1.5'),
        (named_spec.parse_int, ''),
        (named_spec.parse_positive_int, '0'),
        (named_spec.parse_number, 'nan'),
        (named_spec.parse_number, 'inf'),
        (named_spec.parse_number, 400 * '9'),
        (named_spec.parse_number, ''),
        (named_spec.parse_positive_number, '0'),
        (named_spec.parse_positive_number, '-1'),
        (named_spec.parse_nonnegative_number, '-1'),
        (named_spec.parse_share, '0'),
        (named_spec.parse_share, '1.1'),
        (named_spec.parse_fraction, '1'),
        (named_spec.parse_count_or_fraction, '-1'),
        (named_spec.parse_count_or_fraction, '1.0'),
        (named_spec.parse_count_or_fraction, '-0.1'),
        (named_spec.parse_count_or_fraction, 'all'),
        (named_spec.choice_parser('a', 'b'), 'c'),
        (named_spec.choice_parser('a', 'b'), '3'),
    ],
)
def test_parsers_reject(parser, text):
  with pytest.raises(
      ValueError, match="^option 'x' of thing 'a' must .*; found"
  ) as info:
    named_spec.parse(f'a:x={text}', kind='thing', known={'a': {'x': parser}})
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'parser, text',
    [
        (named_spec.parse_positive_int, '100000000000'),
        (named_spec.parse_int, '-2147483649'),
        (named_spec.parse_positive_number, '1e39'),
        (named_spec.parse_positive_number, '1' + 39 * '0'),
        (named_spec.parse_number, '-1e-39'),
    ],
)
def test_numbers_must_fit_into_32_bits(parser, text):
  with pytest.raises(
      ValueError, match="^option 'x' of thing 'a' must fit into 32 bits; found"
  ):
    named_spec.parse(f'a:x={text}', kind='thing', known={'a': {'x': parser}})
  # What the kind holds is no matter of how it is written.
  if parser is named_spec.parse_positive_number:
    named_spec.parse('a:x=9000000000', kind='thing', known={'a': {'x': parser}})


def test_the_registries_look_up_without_tensorflow():
  source = """
import sys
from fedaot_tff.aggregators import registry as aggregators
from fedaot_tff.attacks import registry as attacks
for name in aggregators.aggregator_names():
  aggregators.get_aggregator(name)
for name in attacks.attack_names():
  assert attacks.get_attack(name).name == name
for get, text in (
    (aggregators.get_aggregator, 'median'),
    (aggregators.get_aggregator, 'krum:num_byzantine=x'),
    (aggregators.get_aggregator, 'fedaot:meta_learning_rate=-1'),
    (attacks.get_attack, 'sign_flip:scale=0'),
):
  try:
    get(text)
  except ValueError:
    continue
  raise AssertionError(text)
assert 'tensorflow' not in sys.modules
"""
  result = subprocess.run(
      [sys.executable, '-c', source],
      cwd=pathlib.Path(__file__).resolve().parents[1],
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=60,
  )
  assert result.returncode == 0, result.stderr
