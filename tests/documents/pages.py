"""The documents of the repository, read for tests of what they say."""

import pathlib
import re
from typing import List, Tuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
# By their paths from the root.
NAMES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ('*.md', 'docs/*.md', 'examples/*/*.md')
    for path in ROOT.glob(pattern)
)
_BLOCK = re.compile(r'^( *)```(\S*)\n(.*?)^\1```$', re.MULTILINE | re.DOTALL)


def read(name: str) -> str:
  """The text of a document."""
  return (ROOT / name).read_text(encoding='utf-8')


def all_blocks(name: str) -> List[Tuple[str, str]]:
  """Language and content of each code block."""
  return [match.group(2, 3) for match in _BLOCK.finditer(read(name))]


def blocks(name: str, language: str) -> List[str]:
  """The code blocks of a language."""
  return [text for found, text in all_blocks(name) if found == language]


def prose(name: str) -> str:
  """What is outside of code blocks."""
  return _BLOCK.sub('', read(name))


def sides(diff: str) -> Tuple[str, str]:
  """What a block of changes is before and after them."""
  lines = diff.splitlines(keepends=True)
  return tuple(
      ''.join(line[1:] for line in lines if line[0] in f' {sign}')
      for sign in '-+'
  )


def tables(text: str) -> List[List[List[str]]]:
  """The cells of each table, without emphasis; the names of columns first."""
  found = re.findall(r'(?:^\|.*\|\n)+', text, re.MULTILINE)
  return [
      [
          [cell.strip(' *') for cell in line.strip('|').split('|')]
          for line in table.splitlines()
          if not line.startswith('| ---')
      ]
      for table in found
  ]
