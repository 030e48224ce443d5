"""Tests for csv_log."""

import math
import os
import resource

import numpy as np
import pytest

from binaries import application
from binaries import csv_log

_COLUMNS = ('name', 'value')


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
  expected = f'name,value\na,{text}\n'
  assert csv_log.format_rows(_COLUMNS, [_row('a', value)]) == expected
  csv_log.CsvLog(path, _COLUMNS).append(_row('a', value))
  assert path.read_bytes() == expected.encode()


def test_log_begins_with_its_rows_and_grows(path):
  path.write_text('of another\n1\n')
  log = csv_log.CsvLog(path, _COLUMNS, [_row('a', '1')])
  assert path.read_text() == 'name,value\na,1\n'
  log.append(_row('b:x=1,y=2', 'say "b"'))
  # While it is open.
  assert csv_log.read_rows(path, _COLUMNS) == [
      _row('a', '1'), _row('b:x=1,y=2', 'say "b"')
  ]
  log.sync()
  log.close()
  assert os.listdir(path.parent) == ['log.csv']


@pytest.mark.parametrize('unfinished', ['', 'b', 'b,2', '"b'])
def test_unfinished_line_is_not_read(path, unfinished):
  path.write_text(f'name,value\na,1\n{unfinished}')
  assert csv_log.read_rows(path) == [_row('a', '1')]


def test_file_without_a_complete_line_has_no_rows(path):
  assert csv_log.read_rows(path, _COLUMNS) == []
  path.write_text('name,value')
  assert csv_log.read_rows(path, _COLUMNS) == []


def test_other_columns_are_refused(path):
  path.write_text('name,value,more\na,1,2\n')
  with pytest.raises(application.UserError, match='other columns than name, v'):
    csv_log.read_rows(path, _COLUMNS)


def test_path_that_cannot_be_written_is_a_user_error(tmp_path):
  with pytest.raises(application.UserError, match='cannot write .*directory'):
    csv_log.CsvLog(tmp_path, _COLUMNS)


def test_row_that_cannot_be_written_leaves_no_part(path):
  log = csv_log.CsvLog(path, _COLUMNS, [_row('a', 1)])
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
