"""Tests of the report in a browser without a screen.

They need Chromium and its chromedriver, as from Debian's packages chromium and
chromium-driver, and are skipped where these are not installed.
"""

import contextlib
import json
import re
import shutil
import subprocess
import urllib.request

import pytest

from tests.binaries import programs
from tests.binaries import report_folder

_DRIVER, _BROWSER = shutil.which('chromedriver'), shutil.which('chromium')
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (_DRIVER and _BROWSER),
        reason='needs chromium and chromedriver on the PATH',
    ),
]
# A laptop's screen.
_WIDTH, _HEIGHT = 1366, 768
_TABLE = 'accuracy_40_percent'


class _Browser:
  """A session of a browser, by the JSON of the WebDriver protocol."""

  def __init__(self, url, *arguments):
    self._url = f'{url}/session'
    options = {
        'binary': _BROWSER,
        'args': [
            '--headless=new', '--disable-dev-shm-usage', '--no-sandbox',
            f'--window-size={_WIDTH},{_HEIGHT}', *arguments,
        ],
    }
    capabilities = {
        'goog:chromeOptions': options,
        'goog:loggingPrefs': {'browser': 'ALL'},
    }
    session = self.send('', capabilities={'alwaysMatch': capabilities})
    self._url += f'/{session["sessionId"]}'

  def send(self, path, method='POST', **body):
    request = urllib.request.Request(
        self._url + path,
        data=json.dumps(body).encode() if method == 'POST' else None,
        method=method,
        headers={'Content-Type': 'application/json'},
    )
    with _opener.open(request, timeout=120) as response:
      return json.load(response)['value']

  def run(self, script, *arguments):
    return self.send('/execute/sync', script=script, args=arguments)

  def click(self, selector):
    found = self.send('/element', using='css selector', value=selector)
    (element,) = found.values()
    self.send(f'/element/{element}/click')

  def press(self, key):
    keys = [{'type': kind, 'value': key} for kind in ('keyDown', 'keyUp')]
    source = {'type': 'key', 'id': 'keyboard', 'actions': keys}
    self.send('/actions', actions=[source])

  @contextlib.contextmanager
  def screen(self, width, *, mobile=False, media=''):
    """Another screen or medium for a while."""

    def emulate(command, **parameters):
      self.send(
          '/goog/cdp/execute', cmd=f'Emulation.{command}', params=parameters
      )

    emulate(
        'setDeviceMetricsOverride',
        width=width, height=_HEIGHT, deviceScaleFactor=1, mobile=mobile,
    )
    emulate('setEmulatedMedia', media=media)
    yield
    emulate('setEmulatedMedia', media='')
    emulate('clearDeviceMetricsOverride')


# The driver is on this machine; a proxy does not reach it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope='module', name='open_page')
def _make_page(tmp_path_factory):
  """A function that opens the page in a browser with these arguments."""
  folder = report_folder.write_large(
      tmp_path_factory.mktemp('report') / 'results',
      num_aggregators=8,
      num_attacks=30,
      seeds=2,
  )
  result = programs.run('binaries.report', folder)
  assert result.returncode == 0, result.stderr
  with subprocess.Popen(
      [_DRIVER, '--port=0'],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
  ) as process, contextlib.ExitStack() as stack:
    stack.callback(process.terminate)
    lines = iter(process.stdout.readline, '')
    started = (re.search(r'successfully on port (\d+)', line) for line in lines)
    url = f'http://127.0.0.1:{next(filter(None, started))[1]}'

    def open_page(*arguments):
      browser = _Browser(url, *arguments)
      stack.callback(browser.send, '', 'DELETE')
      browser.send('/url', url=(folder / 'report.html').as_uri())
      return browser

    yield open_page


@pytest.fixture(name='browser', scope='module')
def _shared_browser(open_page):
  return open_page()


@pytest.fixture(autouse=True)
def _reload(browser):
  browser.send('/refresh')


def _cells(browser, index, kind='textContent.trim()'):
  return browser.run(
      'return Array.from(document.querySelectorAll(`#${arguments[0]} tbody'
      f' tr`)).map(row => row.cells[arguments[1]].{kind} ?? null)',
      _TABLE,
      index,
  )


def _sort(browser, index):
  """Clicks on the head of a column; returns the marks of all."""
  browser.click(f'#{_TABLE} thead th:nth-child({index + 1}) button')
  return _sort_marks(browser)


def _sort_marks(browser):
  return browser.run(
      'return Array.from(document.querySelectorAll(`#${arguments[0]} thead'
      ' th`)).map(header => header.getAttribute("aria-sort"))',
      _TABLE,
  )


def test_console_has_no_errors_and_nothing_is_loaded(browser):
  _sort(browser, 3)
  assert browser.send('/se/log', type='browser') == []
  urls = browser.run(
      'return performance.getEntriesByType("resource").map(e => e.name)'
  )
  assert [url for url in urls if not url.startswith('data:')] == []
  # Names from the results are no markup.
  assert browser.run('return document.scripts.length') == 1
  (header,) = browser.run(
      'return [document.querySelector(`#${arguments[0]} thead th:nth-child(6)`)'
      '.textContent]',
      _TABLE,
  )
  assert header == '<script>alert("x")</script>&'


def test_click_sorts_numbers_down_then_up_and_missing_values_last(browser):
  for direction in ('descending', 'ascending'):
    assert _sort(browser, 3)[3] == direction
    found = _cells(browser, 3, 'dataset.value')
    values = [float(value) for value in found if value is not None]
    assert len(values) == 8
    assert values == sorted(values, reverse=direction == 'descending')
  assert 'ascending' in browser.run(
      'return document.getElementById("status").textContent'
  )
  browser.run(
      'const cell = document.querySelector(`#${arguments[0]} tbody tr`)'
      '.cells[1]; delete cell.dataset.value; cell.textContent = "failed"',
      _TABLE,
  )
  for _ in range(2):
    _sort(browser, 1)
    assert _cells(browser, 1)[-1] == 'failed'


def test_names_sort_by_alphabet_and_rows_stay_together(browser):
  before = dict(zip(_cells(browser, 0), _cells(browser, 5)))
  assert _sort(browser, 0) == ['ascending'] + [None] * 32
  names = _cells(browser, 0)
  assert names == sorted(names)
  assert dict(zip(names, _cells(browser, 5))) == before


def test_keyboard_sorts(browser):
  browser.run(
      'document.querySelector(`#${arguments[0]} thead button`).focus()', _TABLE
  )
  for key in ('\ue004', '\ue007'):  # Tab and Enter.
    browser.press(key)
  assert _sort_marks(browser)[:3] == [None, 'descending', None]


def test_figures_are_drawn_and_have_alternative_text(browser):
  images = browser.run(
      'return Array.from(document.images).map('
      'i => [i.alt, i.complete && i.naturalWidth])'
  )
  # Accuracies of 30 attacks and weights of 29 in figures of six, ROC curves and
  # times.
  assert len(images) == 5 + 5 + 1 + 1
  for alternative, width in images:
    assert len(alternative) > 30
    assert width > 300


def test_wide_table_scrolls_alone_and_keeps_its_first_column(browser):
  page_width, scrolls, before, after, scrolled = browser.run(
      'const box = document.querySelector(`#${arguments[0]} .scroller`);'
      'const cell = box.querySelector("tbody th");'
      'const before = cell.getBoundingClientRect().left;'
      'box.scrollLeft = 600;'
      'return [document.documentElement.scrollWidth,'
      ' box.scrollWidth > box.clientWidth, before,'
      ' cell.getBoundingClientRect().left, box.scrollLeft]',
      _TABLE,
  )
  assert page_width <= _WIDTH
  assert scrolls and scrolled == 600
  assert after == pytest.approx(before, abs=1)


def test_text_is_readable_and_the_page_no_wider_than_a_phone(browser):
  with browser.screen(390, mobile=True):
    assert browser.run('return document.documentElement.scrollWidth') <= 390
  sizes = browser.run(
      'return Array.from(document.querySelectorAll("td, th")).map('
      'cell => parseFloat(getComputedStyle(cell).fontSize))'
  )
  assert min(sizes) >= 12


def test_dark_scheme_keeps_contrast(open_page):
  dark, *colors = open_page('--force-dark-mode').run(
      'const style = getComputedStyle(document.body);'
      'return [matchMedia("(prefers-color-scheme: dark)").matches,'
      ' style.backgroundColor, style.color]'
  )
  assert dark
  page, text = (
      sum(map(int, re.findall(r'\d+', color)[:3])) for color in colors
  )
  assert page < 150 < 600 < text


def test_wide_table_fits_on_printed_paper(browser):
  # A4 on its side less its margins, at 96 pixels an inch.
  paper = int(277 / 25.4 * 96)
  with browser.screen(paper, media='print'):
    width, content, size, sticky = browser.run(
        'const table = document.querySelector(`#${arguments[0]} table`);'
        'const cells = Array.from(table.querySelectorAll("td, th"));'
        'return [table.getBoundingClientRect().width,'
        ' Math.max(...cells.map(c => c.scrollWidth - c.clientWidth)),'
        ' parseFloat(getComputedStyle(table.querySelector("td")).fontSize),'
        ' getComputedStyle(table.querySelector("th")).position]',
        _TABLE,
    )
  assert width <= paper
  assert content <= 1
  # Five points.
  assert size >= 5 / 72 * 96
  assert sticky == 'static'
