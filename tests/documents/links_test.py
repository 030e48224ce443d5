"""What the documents point at is there; the site's links `make docs` checks."""

import re

import pytest

from tests.documents import pages

_OUTSIDE = [name for name in pages.NAMES if not name.startswith('docs/')]
_LINK = re.compile(r'\]\(\s*([^)\s]+)\s*\)')
_FOLDERS = (
    'benchmarks|binaries|deploy|docs|examples|fedaot|fedaot_tff|tasks|tests'
)
_PATH = re.compile(rf'(?<![\w/.])(?:{_FOLDERS})/[\w./-]*\w')


@pytest.mark.parametrize('name', _OUTSIDE)
def test_links(name):
  for link in _LINK.findall(pages.prose(name)):
    if re.match('https?://', link):
      continue
    path, _, anchor = link.partition('#')
    assert not anchor, f'{link}: nothing checks anchors here'
    assert ((pages.ROOT / name).parent / path).exists(), link


@pytest.mark.parametrize('name', pages.NAMES)
def test_paths(name):
  for path in _PATH.findall(pages.read(name)):
    assert (pages.ROOT / path).exists(), path
