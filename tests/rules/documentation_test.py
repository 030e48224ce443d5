"""Tests of what the documents say of rules."""

import pathlib
import re

import pytest

from fedaot import rules

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _read(name):
  return (_ROOT / name).read_text(encoding='utf-8')


@pytest.mark.parametrize(
    'name', [*rules.RULES, *(f'{name}+' for name in rules.WRAPPERS)]
)
def test_every_rule_has_a_row(name):
  rows = [r for r in _read('docs/defences.md').split('\n') if r[:1] == '|']
  assert sum(f'`{name}`' in row.split('|')[1] for row in rows) == 1


def test_example_of_a_new_rule_is_as_in_its_files():
  _, diff = _read('docs/adding_a_rule.md').split('```diff\n')
  _, *files = re.split(r'^--- .*\n\+\+\+ (.*)$', diff, flags=re.MULTILINE)
  assert len(files) == 2 * 5
  for name, changes in zip(files[::2], files[1::2]):
    lines = _read(name).split('\n')
    added = [c[1:] for c in changes.split('\n') if c[:1] == '+']
    assert added and set(added) <= set(lines), name
