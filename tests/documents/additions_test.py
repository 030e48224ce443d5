"""Tests of what the documents say of rules and attacks."""

import re

import pytest

from fedaot import rules
from fedaot_tff.attacks import registry
from tests.documents import pages


@pytest.mark.parametrize(
    'page, name',
    [
        *(('defences', name) for name in rules.RULES),
        *(('defences', f'{name}+') for name in rules.WRAPPERS),
        *(('attacks', n) for n in registry.attack_names() if n != 'none'),
    ],
)
def test_every_rule_and_attack_has_a_row(page, name):
  rows = [r for r in pages.read(f'docs/{page}.md').split('\n') if r[:1] == '|']
  assert sum(f'`{name}`' in row.split('|')[1] for row in rows) == 1


@pytest.mark.parametrize(
    'page, num_files', [('adding_a_rule', 5), ('adding_an_attack', 7)]
)
def test_example_is_as_in_its_files(page, num_files):
  _, diff = pages.read(f'docs/{page}.md').split('```diff\n')
  _, *files = re.split(r'^--- .*\n\+\+\+ (.*)$', diff, flags=re.MULTILINE)
  assert len(files) == 2 * num_files
  for name, changes in zip(files[::2], files[1::2]):
    lines = pages.read(name).split('\n')
    added = [c[1:] for c in changes.split('\n') if c[:1] == '+']
    assert added and set(added) <= set(lines), name
