"""Tests of the report in Chromium without a screen; skipped where it is not."""

import html
import json
import re
import shutil
import subprocess

import pytest

from tests.binaries import programs
from tests.binaries import report_folder

_BROWSER = next(
    filter(
        None,
        map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')),
    ),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _BROWSER, reason='needs chromium on the PATH'),
]
# What scripts use: the table, and clicks on a column with what they leave.
_TABLE = """
const table = document.querySelector('#accuracy_40_percent table');
const column = (index) => [...table.tBodies[0].rows].map(r => r.cells[index]);
const click = (index) => {
  const headers = [...table.tHead.rows[0].cells];
  headers[index].querySelector('button').click();
  return {
    texts: column(index).map(cell => cell.textContent.trim()),
    values: column(index).map(cell => Number(cell.dataset.value)),
    sixth: column(5).map(cell => cell.textContent),
    sorts: headers.map(header => header.getAttribute('aria-sort')),
    status: document.getElementById('status').textContent,
  };
};
"""


@pytest.fixture(scope='module', name='page')
def _make_page(tmp_path_factory):
  folder = report_folder.write_large(
      tmp_path_factory.mktemp('report') / 'results',
      num_aggregators=8,
      num_attacks=30,
  )
  result = programs.run('binaries.report', folder)
  assert result.returncode == 0, result.stderr
  return folder / 'report.html'


def _evaluate(page, script, *flags, width=1366, media='screen'):
  """What the body of a function returns in the page; errors of it fail."""
  copy = page.with_name('with_script.html')
  copy.write_text(
      page.read_text()
      .replace(f'@media {media}', '@media all')
      .replace(
          '</body>',
          "<script>addEventListener('load', () => { document.title ="
          f' JSON.stringify((() => {{ {_TABLE} {script} }})()); }});</script>'
          '</body>',
      )
  )
  result = subprocess.run(
      [
          _BROWSER,
          '--headless=new',
          '--disable-gpu',
          '--no-sandbox',
          '--disable-dev-shm-usage',
          '--enable-logging=stderr',
          f'--window-size={width},768',
          '--virtual-time-budget=5000',
          '--dump-dom',
          *flags,
          copy.as_uri(),
      ],
      capture_output=True,
      text=True,
      timeout=120,
      check=True,
  )
  assert 'CONSOLE' not in result.stderr, result.stderr
  title = re.search('<title>(.*?)</title>', result.stdout, re.DOTALL)[1]
  return json.loads(html.unescape(title))


def test_nothing_is_loaded_and_names_are_no_markup(page):
  urls, num_scripts, header = _evaluate(
      page,
      'return [performance.getEntriesByType("resource").map(e => e.name),'
      ' document.scripts.length, table.tHead.rows[0].cells[5].textContent];',
  )
  assert [url for url in urls if not url.startswith('data:')] == []
  # One is the test's.
  assert num_scripts == 2
  assert header == '<script>alert("x")</script>&'


def test_clicks_sort_numbers_down_then_up_and_missing_last(page):
  down, up, *others = _evaluate(
      page,
      'const found = [click(3), click(3)];'
      'const cell = table.tBodies[0].rows[0].cells[1];'
      'delete cell.dataset.value; cell.textContent = "failed";'
      'return [...found, click(1), click(1)];',
  )
  assert len(down['values']) == 8
  assert down['values'] == sorted(down['values'], reverse=True)
  assert down['sorts'][3] == 'descending'
  assert up['values'] == sorted(up['values'])
  assert up['sorts'] == [None] * 3 + ['ascending'] + [None] * 29
  assert 'ascending' in up['status']
  assert [sort['texts'][-1] for sort in others] == ['failed'] * 2


def test_names_sort_by_alphabet_and_rows_stay_together(page):
  before, after = _evaluate(
      page,
      'return [[...table.tBodies[0].rows].map('
      'r => [r.cells[0].textContent, r.cells[5].textContent]), click(0)];',
  )
  assert after['texts'] == sorted(after['texts'])
  assert dict(zip(after['texts'], after['sixth'])) == dict(before)


def test_wide_table_scrolls_alone_and_keeps_its_first_column(page):
  page_width, scrolled, before, after, size = _evaluate(
      page,
      'const box = table.parentElement;'
      'const cell = table.tBodies[0].rows[0].cells[0];'
      'const left = () => cell.getBoundingClientRect().left;'
      'const before = left(); box.scrollLeft = 600;'
      'return [document.documentElement.scrollWidth, box.scrollLeft, before,'
      ' left(), Math.min(...[...document.querySelectorAll("td, th")].map('
      'cell => parseFloat(getComputedStyle(cell).fontSize)))];',
  )
  assert page_width <= 1366 and scrolled == 600
  assert after == pytest.approx(before, abs=1)
  assert size >= 12


def test_nothing_but_tables_and_figures_is_wider_than_a_small_window(page):
  width, window = _evaluate(
      page,
      'return [document.documentElement.scrollWidth, innerWidth];',
      width=500,
  )
  assert width <= window <= 500


def test_dark_scheme_keeps_contrast(page):
  colors = _evaluate(
      page,
      'const style = getComputedStyle(document.body);'
      'return [style.backgroundColor, style.color];',
      '--force-dark-mode',
  )
  background, text = (
      sum(map(int, re.findall(r'\d+', color)[:3])) for color in colors
  )
  assert background < 150 < 600 < text


def test_wide_table_fits_on_printed_paper(page):
  # A4 on its side less its margins, at 96 pixels an inch.
  paper = int(277 / 25.4 * 96)
  width, content, size, position = _evaluate(
      page,
      'const cells = [...table.querySelectorAll("td, th")];'
      'const style = (name) => getComputedStyle(table.querySelector(name));'
      'return [table.getBoundingClientRect().width,'
      ' Math.max(...cells.map(c => c.scrollWidth - c.clientWidth)),'
      ' parseFloat(style("td").fontSize), style("th").position];',
      width=paper,
      media='print',
  )
  assert width <= paper
  assert content <= 1
  # Five points.
  assert size >= 5 / 72 * 96
  assert position == 'static'
