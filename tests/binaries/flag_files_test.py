"""Tests for the flag files."""

import json
import pathlib
import re

import pytest

from tests.binaries import programs

_PATHS = tuple(sorted((programs.ROOT / 'binaries' / 'flags').glob('*.cfg')))
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


def _comment(path: pathlib.Path) -> str:
  lines = programs.read_lines(path)
  return ' '.join(line[1:].strip() for line in lines if line.startswith('#'))


@pytest.fixture(name='comparisons', scope='module')
def _read_comparisons():
  return json.loads(programs.run_source(_READ_COMPARISONS, *_PATHS))


@pytest.mark.parametrize('path', _PATHS, ids=lambda path: path.stem)
def test_comparison_is_as_its_comment_says(comparisons, path):
  runs = comparisons[str(path)]['runs']
  assert runs
  assert int(re.search(r'(\d+) runs', _comment(path))[1]) == len(runs)


def test_each_has_a_folder_of_its_own(comparisons):
  folders = [found['output_dir'] for found in comparisons.values()]
  assert all(folder.startswith('out/') for folder in folders)
  assert len(set(folders)) == len(folders) > 8


def _read_keys(path: pathlib.Path):
  """The runs in a published `results.csv`, which may have fewer columns."""
  lines = [line.split(',') for line in programs.read_lines(path)]
  assert lines[0][:5] == [
      'task',
      'aggregator',
      'attack',
      'byzantine_fraction',
      'seed',
  ]
  return [[a, k, float(f), int(s)] for _, a, k, f, s, *_ in lines[1:]]


@pytest.mark.parametrize('path', _PATHS, ids=lambda path: path.stem)
def test_comparison_makes_the_published_table(comparisons, path):
  match = re.search(r'results\.csv is (docs/\w+\.csv)', _comment(path))
  if match is None or not (programs.ROOT / match[1]).exists():
    pytest.skip('nothing is published')
  published = _read_keys(programs.ROOT / match[1])
  assert sorted(published) == sorted(comparisons[str(path)]['runs'])
