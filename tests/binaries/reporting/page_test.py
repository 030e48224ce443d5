"""Tests for page."""

import base64
import html.parser
import io
import re

from matplotlib import image
import pytest

from binaries.reporting import page as page_lib
from binaries.reporting import results as results_lib
from tests.binaries import report_folder

# Elements that have no end tag.
_VOID = ('meta', 'link', 'img', 'wbr')


class _Page(html.parser.HTMLParser):
  """What the tests ask of a page; nesting is checked on the way."""

  def __init__(self, folder):
    super().__init__()
    self._open = []
    self.tags = []
    self.text = ''
    results = results_lib.read(folder)
    self.source = page_lib.make_page(results, page_lib.make_parts(results))
    self.feed(self.source)
    assert not self._open

  def all(self, name):
    """The attributes of the tags of a name."""
    return [attributes for tag, attributes in self.tags if tag == name]

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in _VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if not {'style', 'script'} & set(self._open):
      self.text += data


@pytest.fixture(scope='module', name='large')
def _make_large(tmp_path_factory):
  folder = tmp_path_factory.mktemp('large')
  return _Page(
      report_folder.write_large(folder, num_aggregators=5, num_attacks=4)
  )


def test_nothing_outside_of_the_page_is_named(large):
  for _, attributes in large.tags:
    for name in ('src', 'href', 'srcset', 'data', 'action'):
      value = attributes.get(name, '#')
      assert value.startswith(('#', 'data:')), value
  assert not re.search(r'url\(|@import|https?://', large.source)
  assert "default-src 'none'" in large.source


def test_links_lead_to_sections_that_are_there_once(large):
  ids = [attributes['id'] for _, attributes in large.tags if 'id' in attributes]
  assert len(ids) == len(set(ids))
  links = [tag['href'][1:] for tag in large.all('a')]
  assert len(links) == 12
  assert set(links) <= set(ids)


def test_pictures_are_in_the_page_and_described(large):
  pictures = large.all('img')
  assert len(pictures) == 4
  for picture in pictures:
    kind, _, content = picture['src'].partition(',')
    assert kind == 'data:image/png;base64'
    assert image.imread(io.BytesIO(base64.b64decode(content))).size
    assert len(picture['alt']) > 30


def test_tables_have_headers_that_can_be_pressed(large):
  tables = [t for t in large.all('table') if 'sortable' in t.get('class', '')]
  # Accuracy, two differences, success, weights, detection, cost, missing runs.
  assert len(tables) == 8
  assert len(large.all('button')) == sum(
      int(table['style'].partition(':')[2]) for table in tables
  )
  assert {tag['scope'] for tag in large.all('th')} == {'col', 'row'}
  scrollers = [t for t in large.all('div') if t.get('class') == 'scroller']
  assert [t['tabindex'] for t in scrollers if t['aria-label']] == ['0'] * 8


def test_names_and_errors_are_shown_and_are_no_markup(large):
  assert len(large.all('script')) == 1 and not large.all('b')
  assert '<script>alert' not in large.source
  for text in (
      '<b>too many</b>',
      '<script>alert("x")</script>&',
      '(1/2 seeds)',
      '38 of 40 runs have a result, 1 failed, 1 unfinished.',
  ):
    assert text in large.text


def test_smallest_results(tmp_path):
  (tmp_path / 'results.csv').write_text(
      'aggregator,attack,byzantine_fraction,seed\nmean,none,0.4,0\n'
  )
  page = _Page(tmp_path)
  for text in (
      'The oracle is not among the aggregators.',
      'There is no result of a baseline.',
      'No run has measured an attack success rate.',
      'There are no metrics by round of finished runs.',
      'No aggregator has measured weights under an attack.',
      'No run has measured its time.',
      'All runs have a result.',
  ):
    assert text in page.text


def test_what_is_known_of_the_run_is_shown(tmp_path):
  info = {
      'command': "python -m binaries.compare '--x=a b'",
      'seed': 17,
      'versions': {'tensorflow': '2.14.1'},
      'machine': {'cpu': 'Some & CPU', 'cores': 2},
      'started': '2026-01-02',
  }
  report_folder.write(tmp_path, {('mean', 'none'): 0.5}, run_info=info)
  page = _Page(tmp_path)
  for text in (
      info['command'],
      'seed',
      '17',
      'Versions',
      'tensorflow',
      '2.14.1',
      'Machine',
      'Some & CPU',
      '2026-01-02',
  ):
    assert text in page.text


def test_problems_are_told_first_and_why_there_is_no_roc_curve(tmp_path):
  runs = {('fedaot', 'flip'): {'detection_auroc': 0.75}}
  report_folder.write(tmp_path, runs)
  (tmp_path / 'run.json').write_text('{')
  text = _Page(tmp_path).text
  assert 'run.json: ' in text
  # The heading of the first findings.
  assert text.index('Left out of this report:') < text.index('40 % attackers')
  assert 'no run has written its weights\n(weights.csv)' in text


@pytest.mark.parametrize('aggregator', ['mean', 'oracle', 'fedaot', 'krum'])
@pytest.mark.parametrize('attack', ['none', 'sign_flip'])
def test_a_run_alone_has_a_page(tmp_path, aggregator, attack):
  report_folder.write(tmp_path, {(aggregator, attack): 0.5})
  page_lib.write(tmp_path)
  assert aggregator in (tmp_path / 'report.html').read_text()
