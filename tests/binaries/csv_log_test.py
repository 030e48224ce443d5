"""Tests for csv_log."""

import csv
import math
import os
import pathlib
import resource

import pytest

from binaries import application
from binaries import csv_log

_COLUMNS = ('name', 'value')


def _write(path, rows, *, keep=True):
  with csv_log.CsvLog(path, _COLUMNS, keep=keep) as log:
    for name, value in rows:
      log.append({'name': name, 'value': value})


@pytest.mark.parametrize(
    'value, text',
    [
        (0.1 + 0.2, '0.30000000000000004'),
        (1.0, '1.0'),
        (math.nan, 'nan'),
        (-math.inf, '-inf'),
        (7, '7'),
        (True, 'True'),
        (None, ''),
        ('krum:num_byzantine=3', 'krum:num_byzantine=3'),
        ('a:x=1,y=2', '"a:x=1,y=2"'),
    ],
)
def test_format(tmp_path, value, text):
  path = tmp_path / 'log.csv'
  _write(path, [('a', value)])
  assert path.read_text() == f'name,value\na,{text}\n'


def test_numpy_scalar_is_written_with_all_of_its_digits(tmp_path):
  np = pytest.importorskip('numpy')
  path = tmp_path / 'log.csv'
  _write(path, [('a', np.float32(0.1)), ('b', np.int64(3))])
  first, second = csv_log.read_rows(path)
  assert np.float32(float(first['value'])) == np.float32(0.1)
  assert second['value'] == '3'


def test_rows_are_in_the_file_while_it_is_open(tmp_path):
  path = tmp_path / 'log.csv'
  with csv_log.CsvLog(path, _COLUMNS, keep=True) as log:
    assert path.read_text() == 'name,value\n'
    log.append({'name': 'a', 'value': 1})
    assert path.read_text() == 'name,value\na,1\n'
    assert log.rows() == [{'name': 'a', 'value': '1'}]


def test_commas_survive_the_round_trip(tmp_path):
  path = tmp_path / 'log.csv'
  _write(path, [('a:x=1,y=2', 'say "b"')])
  assert csv_log.read_rows(path) == [{'name': 'a:x=1,y=2', 'value': 'say "b"'}]


def test_keep_appends_and_otherwise_begins_anew(tmp_path):
  path = tmp_path / 'log.csv'
  _write(path, [('a', 1)])
  _write(path, [('b', 2)])
  assert [row['name'] for row in csv_log.read_rows(path)] == ['a', 'b']
  _write(path, [('c', 3)], keep=False)
  assert path.read_text() == 'name,value\nc,3\n'


@pytest.mark.parametrize('unfinished', ['b', 'b,', 'b,2', '"b'])
def test_unfinished_line_is_not_read_and_dropped(tmp_path, unfinished):
  path = tmp_path / 'log.csv'
  path.write_text(f'name,value\na,1\n{unfinished}')
  assert csv_log.read_rows(path) == [{'name': 'a', 'value': '1'}]
  _write(path, [('c', 3)])
  assert path.read_text() == 'name,value\na,1\nc,3\n'


@pytest.mark.parametrize('content', ['', 'na', 'name,value'])
def test_unfinished_header_is_written_anew(tmp_path, content):
  path = tmp_path / 'log.csv'
  path.write_text(content)
  assert csv_log.read_rows(path) == []
  _write(path, [('a', 1)])
  assert path.read_text() == 'name,value\na,1\n'


def test_missing_file_has_no_rows(tmp_path):
  assert csv_log.read_rows(tmp_path / 'log.csv') == []


def test_other_columns_are_refused_and_left_alone(tmp_path):
  path = tmp_path / 'log.csv'
  path.write_text('name,value,more\na,1,2\n')
  with pytest.raises(application.UserError, match='other columns than name, v'):
    csv_log.CsvLog(path, _COLUMNS, keep=True)
  assert path.read_text() == 'name,value,more\na,1,2\n'


def test_second_writer_is_refused_until_the_first_has_closed(tmp_path):
  path = tmp_path / 'log.csv'
  with csv_log.CsvLog(path, _COLUMNS, keep=True) as log:
    log.append({'name': 'a', 'value': 1})
    with pytest.raises(application.UserError, match='another program is'):
      csv_log.CsvLog(path, _COLUMNS, keep=False)
    assert len(log.rows()) == 1
  _write(path, [('b', 2)])
  assert len(csv_log.read_rows(path)) == 2


def test_path_that_cannot_be_written_is_a_user_error(tmp_path):
  with pytest.raises(application.UserError, match='cannot write .*directory'):
    csv_log.CsvLog(tmp_path, _COLUMNS, keep=True)


def test_rows_are_dropped_from_the_first_that_fails_a_condition(tmp_path):
  path = tmp_path / 'log.csv'
  rows = [('a:x=1,y=2', 1), ('b', 2), ('c', 3), ('d', 1)]
  for limit, names in ((9, 'abcd'), (3, 'ab'), (1, '')):
    _write(path, rows, keep=False)
    with csv_log.CsvLog(path, _COLUMNS, keep=True) as log:
      log.keep_while(lambda row, limit=limit: int(row['value']) < limit)
      assert ''.join(row['name'][0] for row in log.rows()) == names
      log.append({'name': 'e', 'value': 5})
      log.sync()
      assert ''.join(row['name'][0] for row in log.rows()) == f'{names}e'


def test_row_that_cannot_be_written_leaves_no_part(tmp_path):
  path = tmp_path / 'log.csv'
  with csv_log.CsvLog(path, _COLUMNS, keep=True) as log:
    log.append({'name': 'a', 'value': 1})
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3, limits[1]))
    try:
      with pytest.raises(OSError):
        log.append({'name': 'b' * 10, 'value': 2})
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.stat().st_size == size
    log.append({'name': 'c', 'value': 3})
  assert [row['name'] for row in csv_log.read_rows(path)] == ['a', 'c']


def test_header_that_cannot_be_written_is_a_user_error():
  if not os.path.exists('/dev/full'):
    pytest.skip('needs /dev/full')
  with pytest.raises(application.UserError, match='cannot write /dev/full'):
    csv_log.CsvLog(pathlib.Path('/dev/full'), _COLUMNS, keep=False)


def test_missing_value_is_an_error(tmp_path):
  with csv_log.CsvLog(tmp_path / 'log.csv', _COLUMNS, keep=True) as log:
    with pytest.raises(KeyError):
      log.append({'name': 'a'})


def test_file_is_plain_csv(tmp_path):
  path = tmp_path / 'log.csv'
  _write(path, [('a,b', 1)])
  with open(path, newline='') as file:
    assert list(csv.reader(file)) == [['name', 'value'], ['a,b', '1']]
  assert b'\r' not in path.read_bytes()
  assert os.listdir(tmp_path) == ['log.csv']
