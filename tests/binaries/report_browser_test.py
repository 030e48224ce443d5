"""Tests of the report in a browser without a screen.

They need Chromium and its chromedriver, as from Debian's packages chromium and
chromium-driver, and are skipped where these are not installed.
"""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.binaries import programs
from tests.binaries import report_folder

_DRIVER = shutil.which('chromedriver')
_BROWSER = next(
    filter(
        None,
        map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')),
    ),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (_DRIVER and _BROWSER),
        reason='needs chromium and chromedriver on the PATH',
    ),
]
# A laptop's screen.
_WIDTH, _HEIGHT = 1366, 768
_ENTER, _TAB = '\ue007', '\ue004'


class _Browser:
  """A session of a browser, by the JSON of the WebDriver protocol."""

  def __init__(self, url, *arguments):
    self._url = url
    arguments = [
        '--headless=new',
        '--disable-gpu',
        '--disable-dev-shm-usage',
        f'--window-size={_WIDTH},{_HEIGHT}',
        *arguments,
    ]
    if os.geteuid() == 0:
      arguments.append('--no-sandbox')
    session = self._send(
        'POST',
        '/session',
        capabilities={
            'alwaysMatch': {
                'goog:chromeOptions': {'binary': _BROWSER, 'args': arguments},
                'goog:loggingPrefs': {'browser': 'ALL'},
            }
        },
    )
    self._session = f'/session/{session["sessionId"]}'

  def open(self, path):
    self._send('POST', f'{self._session}/url', url=path.as_uri())

  def run(self, script, *arguments):
    return self._send(
        'POST',
        f'{self._session}/execute/sync',
        script=script,
        args=list(arguments),
    )

  def find(self, selector):
    found = self._send(
        'POST',
        f'{self._session}/element',
        using='css selector',
        value=selector,
    )
    return next(iter(found.values()))

  def click(self, selector):
    self._send('POST', f'{self._session}/element/{self.find(selector)}/click')

  def press(self, key):
    self._send(
        'POST',
        f'{self._session}/actions',
        actions=[{
            'type': 'key',
            'id': 'keyboard',
            'actions': [
                {'type': 'keyDown', 'value': key},
                {'type': 'keyUp', 'value': key},
            ],
        }],
    )

  def console(self):
    return self._send('POST', f'{self._session}/se/log', type='browser')

  def send_devtools(self, command, **parameters):
    self._send(
        'POST',
        f'{self._session}/goog/cdp/execute',
        cmd=f'Emulation.{command}',
        params=parameters,
    )

  def close(self):
    self._send('DELETE', self._session)

  def _send(self, method, path, **body):
    request = urllib.request.Request(
        self._url + path,
        data=json.dumps(body).encode() if method == 'POST' else None,
        method=method,
        headers={'Content-Type': 'application/json'},
    )
    try:
      with _opener.open(request, timeout=120) as response:
        return json.load(response)['value']
    except urllib.error.HTTPError as error:
      raise AssertionError(error.read().decode()[:500]) from error


# The driver is on this machine; a proxy does not reach it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope='module', name='page')
def _make_page(tmp_path_factory):
  folder = report_folder.write_large(
      tmp_path_factory.mktemp('report') / 'results',
      num_aggregators=8,
      num_attacks=30,
      seeds=2,
  )
  result = programs.run('binaries.report', folder)
  assert result.returncode == 0, result.stderr
  return folder / 'report.html'


@pytest.fixture(scope='module', name='driver_url')
def _start_driver():
  process = subprocess.Popen(
      [_DRIVER, '--port=0'],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
  )
  try:
    port = None
    for line in process.stdout:
      match = re.search(r'started successfully on port (\d+)', line)
      if match:
        port = match[1]
        break
    assert port, 'chromedriver did not start'
    yield f'http://127.0.0.1:{port}'
  finally:
    process.terminate()
    process.wait(timeout=30)
    process.stdout.close()


@pytest.fixture(scope='module', name='browser')
def _start_browser(driver_url, page):
  browser = _Browser(driver_url)
  try:
    browser.open(page)
    yield browser
  finally:
    browser.close()


@pytest.fixture(autouse=True)
def _reload(browser, page):
  browser.open(page)


def _column(browser, table, index):
  return browser.run(
      'return Array.from(document.querySelectorAll(`#${arguments[0]} tbody'
      ' tr`)).map(row => row.cells[arguments[1]].textContent.trim())',
      table,
      index,
  )


def _values(browser, table, index):
  return browser.run(
      'return Array.from(document.querySelectorAll(`#${arguments[0]} tbody'
      ' tr`)).map(row => row.cells[arguments[1]].dataset.value ?? null)',
      table,
      index,
  )


def _sort_marks(browser, table):
  return browser.run(
      'return Array.from(document.querySelectorAll(`#${arguments[0]} thead'
      ' th`)).map(header => header.getAttribute("aria-sort"))',
      table,
  )


_TABLE = 'accuracy_40_percent'


def test_console_has_no_errors_and_nothing_is_loaded(browser):
  browser.click(f'#{_TABLE} thead th:nth-child(4) button')
  assert browser.console() == []
  urls = browser.run(
      'return performance.getEntriesByType("resource").map(e => e.name)'
  )
  assert [url for url in urls if not url.startswith('data:')] == []


def test_click_sorts_numbers_down_then_up_and_missing_values_last(browser):
  index = 3
  button = f'#{_TABLE} thead th:nth-child({index + 1}) button'
  browser.click(button)
  values = [float(v) for v in _values(browser, _TABLE, index) if v is not None]
  assert len(values) == 8
  assert values == sorted(values, reverse=True)
  assert _sort_marks(browser, _TABLE)[index] == 'descending'
  browser.click(button)
  values = [float(v) for v in _values(browser, _TABLE, index) if v is not None]
  assert values == sorted(values)
  assert _sort_marks(browser, _TABLE)[index] == 'ascending'
  assert 'ascending' in browser.run(
      'return document.getElementById("status").textContent'
  )
  browser.run(
      'const cell = document.querySelector(`#${arguments[0]} tbody tr`)'
      '.cells[1]; delete cell.dataset.value; cell.textContent = "failed"',
      _TABLE,
  )
  for _ in range(2):
    browser.click(f'#{_TABLE} thead th:nth-child(2) button')
    assert _column(browser, _TABLE, 1)[-1] == 'failed'


def test_names_sort_by_alphabet_and_rows_stay_together(browser):
  before = dict(
      zip(_column(browser, _TABLE, 0), _column(browser, _TABLE, 5))
  )
  browser.click(f'#{_TABLE} thead th:nth-child(1) button')
  names = _column(browser, _TABLE, 0)
  assert names == sorted(names)
  assert dict(zip(names, _column(browser, _TABLE, 5))) == before
  assert _sort_marks(browser, _TABLE) == ['ascending'] + [None] * 32


def test_keyboard_sorts(browser):
  browser.run(
      'document.querySelector(`#${arguments[0]} thead button`).focus()', _TABLE
  )
  browser.press(_TAB)
  browser.press(_ENTER)
  assert _sort_marks(browser, _TABLE)[:3] == [None, 'descending', None]


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
  page_width, scrolls, left_before, left_after, box = browser.run(
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
  assert scrolls
  assert box == 600
  assert left_after == pytest.approx(left_before, abs=1)


def test_nothing_but_tables_and_figures_is_wider_than_a_phone(browser):
  browser.send_devtools(
      'setDeviceMetricsOverride',
      width=390,
      height=844,
      deviceScaleFactor=1,
      mobile=True,
  )
  try:
    width = browser.run('return document.documentElement.scrollWidth')
  finally:
    browser.send_devtools('clearDeviceMetricsOverride')
  assert width <= 390


def test_text_of_cells_is_readable(browser):
  sizes = browser.run(
      'return Array.from(document.querySelectorAll("td, th")).map('
      'cell => parseFloat(getComputedStyle(cell).fontSize))'
  )
  assert min(sizes) >= 12


def test_names_from_the_results_are_no_markup(browser):
  assert browser.run('return document.scripts.length') == 1
  header = browser.run(
      'return document.querySelector(`#${arguments[0]} thead th:nth-child(6)`)'
      '.textContent',
      _TABLE,
  )
  assert header == '<script>alert("x")</script>&'


def test_dark_scheme_keeps_contrast(driver_url, page):
  browser = _Browser(driver_url, '--force-dark-mode')
  try:
    browser.open(page)
    dark, page_color, text_color = browser.run(
        'const style = getComputedStyle(document.body);'
        'return [matchMedia("(prefers-color-scheme: dark)").matches,'
        ' style.backgroundColor, style.color]'
    )
  finally:
    browser.close()
  assert dark
  brightness = [
      sum(map(int, re.findall(r'\d+', color)[:3]))
      for color in (page_color, text_color)
  ]
  assert brightness[0] < 150 < 600 < brightness[1]


def test_wide_table_fits_on_printed_paper(browser):
  # A4 on its side less its margins, at 96 pixels an inch.
  paper = int(277 / 25.4 * 96)
  browser.send_devtools(
      'setDeviceMetricsOverride',
      width=paper,
      height=718,
      deviceScaleFactor=1,
      mobile=False,
  )
  browser.send_devtools('setEmulatedMedia', media='print')
  try:
    width, content, size, sticky = browser.run(
        'const table = document.querySelector(`#${arguments[0]} table`);'
        'const cells = Array.from(table.querySelectorAll("td, th"));'
        'return [table.getBoundingClientRect().width,'
        ' Math.max(...cells.map(c => c.scrollWidth - c.clientWidth)),'
        ' parseFloat(getComputedStyle(table.querySelector("td")).fontSize),'
        ' getComputedStyle(table.querySelector("th")).position]',
        _TABLE,
    )
  finally:
    browser.send_devtools('setEmulatedMedia', media='')
    browser.send_devtools('clearDeviceMetricsOverride')
  assert width <= paper
  assert content <= 1
  # Five points.
  assert size >= 5 / 72 * 96
  assert sticky == 'static'
