"""Tests for csv_log."""

import math
import os
import re
import resource
import zlib

import numpy as np
import pytest

from binaries import application
from binaries import csv_log

_COLUMNS = ('name', 'value')
_SETTINGS = {'rounds': 2, 'alpha': 0.5}


def _row(name, value):
  return {'name': name, 'value': value}


@pytest.fixture(name='path')
def _path(tmp_path):
  return tmp_path / 'log.csv'


@pytest.mark.parametrize(
    'value, text',
    [
        (0.1 + 0.2, '0.30000000000000004'),
        (-math.inf, '-inf'),
        (np.int64(7), '7'),
        (np.float32(0.1), '0.10000000149011612'),
        (np.bool_(True), 'True'),
        (None, ''),
        ('say "b"', '"say ""b"""'),
    ],
)
def test_format(path, value, text):
  header, row = 'name,value,checksum', f'a,{text}'
  settings = '{"alpha": 0.5, "rounds": 2}'
  checksum = zlib.crc32(f'{settings}{header}\n{row}\n'.encode())
  expected = f'{header}\n{row},{checksum}\n'
  rows = [_row('a', value)]
  assert csv_log.format_rows(_COLUMNS, rows, _SETTINGS) == expected
  csv_log.CsvLog(path, _COLUMNS, _SETTINGS).append(_row('a', value))
  assert path.read_bytes() == expected.encode()


def test_log_begins_with_its_rows_and_grows(path):
  path.write_text('of another\n1\n')
  log = csv_log.CsvLog(path, _COLUMNS, _SETTINGS, [_row('a', '1')])
  rows = csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS)
  assert rows == [_row('a', '1')]
  log.append(_row('b:x=1,y=2', 'say "b"'))
  # While it is open.
  assert csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS) == [
      _row('a', '1'),
      _row('b:x=1,y=2', 'say "b"'),
  ]
  log.sync()
  log.close()
  assert os.listdir(path.parent) == ['log.csv']


@pytest.mark.parametrize('unfinished', ['', 'b', 'b,2', '"b'])
def test_unfinished_line_is_not_read(path, unfinished):
  path.write_text(f'name,value\na,1\n{unfinished}')
  assert csv_log.read_rows(path) == [_row('a', '1')]


@pytest.mark.parametrize(
    'change, line',
    [
        (lambda lines: [*lines[:2], lines[2].replace('b', 'd'), lines[3]], 3),
        (lambda lines: [*lines[:3], lines[3].replace('3', '')], 4),
        (lambda lines: [*lines[:3], lines[3].replace(',', ',1', 1)], 4),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], 3),
        (lambda lines: [*lines[:2], lines[3], lines[2]], 3),
        (lambda lines: [lines[0].replace('name', 'Name'), *lines[1:]], 2),
        (lambda lines: [line + '\r' for line in lines], 2),
        (lambda lines: [lines[0][:-1], *lines[1:]], None),
    ],
    ids=[
        'letter',
        'emptied',
        'digit',
        'removed',
        'copied',
        'swapped',
        'header',
        'line_ends',
        'no_checksums',
    ],
)
def test_changed_file_is_an_error(path, change, line):
  csv_log.CsvLog(
      path, _COLUMNS, _SETTINGS, [_row('a', 1), _row('b', 2), _row('c', 3)]
  )
  changed = change(path.read_text().splitlines())
  path.write_text('\n'.join([*changed, '']))
  message = f'line {line} is not as it was' if line else 'other columns than'
  with pytest.raises(
      application.UserError, match=f'{re.escape(str(path))}.* {message}'
  ):
    csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS)


@pytest.mark.parametrize(
    'settings',
    [{'rounds': 3}, {'alpha': 0.1}, {'alpha': None}, {'more': 0}],
    ids=str,
)
def test_file_of_another_run_is_an_error(path, settings):
  csv_log.CsvLog(path, _COLUMNS, {**_SETTINGS, **settings}, [_row('a', '1')])
  with pytest.raises(application.UserError, match='line 2 .*of another run'):
    csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS)
  assert csv_log.read_rows(path, _COLUMNS) == [_row('a', '1')]


def test_end_that_is_missing_is_no_error(path):
  rows = [_row('a', '1'), _row('b', '2')]
  log = csv_log.CsvLog(path, _COLUMNS, _SETTINGS, rows)
  log.append(_row('c', '3'))
  path.write_text(path.read_text()[:-2])
  assert csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS) == rows


def test_file_without_a_complete_line_has_no_rows(path):
  assert csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS) == []
  path.write_text('name,value')
  assert csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS) == []


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_read(path, make):
  make(path)
  with pytest.raises(application.UserError, match='It is no file; restore'):
    csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS)


def test_other_columns_are_refused(path):
  path.write_text('name,value,more\na,1,2\n')
  with pytest.raises(application.UserError, match='other columns than name, v'):
    csv_log.read_rows(path, _COLUMNS, settings=_SETTINGS)
  assert csv_log.read_rows(path)[0]['more'] == '2'


def test_path_that_cannot_be_written_is_a_user_error(tmp_path):
  with pytest.raises(application.UserError, match='cannot write .*directory'):
    csv_log.CsvLog(tmp_path, _COLUMNS, _SETTINGS)


def test_row_that_cannot_be_written_leaves_no_part(path):
  log = csv_log.CsvLog(path, _COLUMNS, _SETTINGS, [_row('a', 1)])
  size = path.stat().st_size
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3, limits[1]))
  try:
    with pytest.raises(OSError):
      log.append(_row('b' * 10, 2))
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert path.stat().st_size == size
  log.append(_row('c', 3))
  assert [row['name'] for row in csv_log.read_rows(path)] == ['a', 'c']
