"""Tests for the flag files."""

import json
import pathlib
import re

import pytest

from tests.binaries import programs

_FOLDER = programs.ROOT / 'binaries' / 'flags'
_COMPARISONS = tuple(path.stem for path in sorted(_FOLDER.glob('*.cfg')))
# In a process of their own, as the programs define flags of the same names.
_READ_COMPARISONS = """
import json, sys
from absl import flags
from binaries import compare

found = {}
for path in sys.argv[1:]:
  flags.FLAGS.unparse_flags()
  flags.FLAGS(['compare', f'--flagfile={path}'])
  experiments = compare.make_grid().experiments.values()
  found[path] = dict(
      output_dir=flags.FLAGS.output_dir,
      runs=[[e.aggregator, e.attack, e.byzantine_fraction, e.seed]
            for e in experiments],
  )
assert not any('tensorflow' in name for name in sys.modules)
print(json.dumps(found))
"""


def _path(name: str) -> str:
  return str(_FOLDER / f'{name}.cfg')


def _comment(name: str) -> str:
  lines = pathlib.Path(_path(name)).read_text().splitlines()
  return ' '.join(line[1:].strip() for line in lines if line.startswith('#'))


@pytest.fixture(name='comparisons', scope='module')
def _read_comparisons():
  found = json.loads(
      programs.run_source(_READ_COMPARISONS, *map(_path, _COMPARISONS))
  )
  return {name: found[_path(name)] for name in _COMPARISONS}


@pytest.mark.parametrize('name', _COMPARISONS)
def test_comparison_is_as_its_comment_says(comparisons, name):
  runs = comparisons[name]['runs']
  assert runs
  assert int(re.search(r'(\d+) runs', _comment(name))[1]) == len(runs)


def test_each_has_a_folder_of_its_own(comparisons):
  folders = [found['output_dir'] for found in comparisons.values()]
  assert all(folder.startswith('out/') for folder in folders)
  assert len(set(folders)) == len(folders) > 8


def _read_keys(path: pathlib.Path):
  """The runs in a published `results.csv`, which may have fewer columns."""
  lines = [line.split(',') for line in programs.read_lines(path)]
  assert lines[0][:5] == [
      'task', 'aggregator', 'attack', 'byzantine_fraction', 'seed',
  ]
  return [[a, k, float(f), int(s)] for _, a, k, f, s, *_ in lines[1:]]


@pytest.mark.parametrize('name', _COMPARISONS)
def test_comparison_makes_the_published_table(comparisons, name):
  match = re.search(r'results\.csv is (docs/\w+\.csv)', _comment(name))
  if match is None or not (programs.ROOT / match[1]).exists():
    pytest.skip('nothing is published')
  published = _read_keys(programs.ROOT / match[1])
  assert sorted(published) == sorted(comparisons[name]['runs'])
