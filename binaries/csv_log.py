"""CSV files that grow by a row at a time and survive a crash in mid-row.

The last field of a row is the CRC-32 of the settings of the run and the file
up to it, without the other checksums, so that a file that was changed, or is of
another run, is noticed, and where.
"""

import csv
import io
import json
import os
import pathlib
import re
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)
import zlib

from binaries import application
from binaries import output_folder

_CHECKSUM = 'checksum'


class CsvLog:
  """A CSV file that is open for appending.

  Each row is handed to the operating system before `append` returns.
  """

  def __init__(
      self,
      path: pathlib.Path,
      columns: Sequence[str],
      settings: Mapping[str, Any],
      rows: Iterable[Mapping[str, Any]] = (),
  ):
    """Replaces the file by one with these rows, as `replace_file` does."""
    text, self._checksum = _format(columns, rows, settings)
    output_folder.replace_file(path, text)
    self._columns = columns
    # Unbuffered: what could not be written must not be tried again at exit.
    self._file = open(path, 'ab', buffering=0)

  def append(self, row: Mapping[str, Any]) -> None:
    """Appends a row; OSError if it fails, and the file is left without it."""
    text, checksum = _seal([row[n] for n in self._columns], self._checksum)
    line = text.encode()
    size = os.fstat(self._file.fileno()).st_size
    written = 0
    try:
      # A disk that is about to be full takes a part.
      while written < len(line):
        written += self._file.write(line[written:])
    except OSError:
      self._file.truncate(size)
      raise
    self._checksum = checksum

  def sync(self) -> None:
    """Waits until a power failure would leave the rows on the disk."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def read_rows(
    path: pathlib.Path,
    columns: Sequence[str] = (),
    parse: Callable[[Dict[str, str]], Any] = dict,
    *,
    settings: Optional[Mapping[str, Any]] = None,
) -> List[Any]:
  """The rows that are completely written, parsed; [] for no file.

  `parse` is given a row as texts by column. UserError, which names the line, if
  it raises ValueError or, given the settings of the run, a row is not as it was
  written; also if there are rows with other columns than those asked for. If
  none are, all are taken, and there need be no checksums.
  """
  try:
    content = output_folder.read_file(path)
  except FileNotFoundError:
    return []
  except OSError as error:
    raise damaged(path, error.strerror) from error
  # A crash can leave a last line that is unfinished.
  complete = content[: content.rfind(b'\n') + 1].decode(errors='replace')
  if found := re.search('[\0\ufffd]', complete):
    line = complete.count('\n', 0, found.start()) + 1
    raise damaged(path, f'line {line}: it has bytes that are no text')
  if settings is not None:
    _verify(path, complete, settings)
  reader = csv.DictReader(io.StringIO(complete))
  rows = []
  try:
    for row in reader:
      if columns and reader.fieldnames != [*columns, _CHECKSUM]:
        raise application.UserError(
            f'{path} has other columns than {", ".join(columns)}; choose'
            ' another --output_dir.'
        )
      # What `DictReader` makes of a field too many and of one too few.
      if None in row or None in row.values():
        raise ValueError(f'it does not have {len(reader.fieldnames)} fields')
      row.pop(_CHECKSUM, None)
      rows.append(parse(row))
  except (csv.Error, ValueError) as error:
    what = f'line {reader.line_num}: {application.describe_error(error)}'
    raise damaged(path, what) from error
  return rows


def _verify(path: pathlib.Path, text: str, settings: Mapping[str, Any]) -> None:
  """UserError unless the rows of a file with checksums have the right ones."""
  header, *rows = text.split('\n')[:-1] or ['']
  if header.rstrip('\r').endswith(f',{_CHECKSUM}'):
    checksum = _first_checksum(f'{header}\n', settings)
    for number, row in enumerate(rows, start=2):
      values, _, found = row.rpartition(',')
      checksum = zlib.crc32(f'{values}\n'.encode(), checksum)
      if found != str(checksum):
        what = f'line {number} is not as it was written, or of another run'
        raise damaged(path, what)


def damaged(path: pathlib.Path, what: str) -> application.UserError:
  """The error of a file that is not as it was written."""
  return application.UserError(
      f'cannot read {path}: {what}; restore the file or remove it.'
  )


def format_rows(
    columns: Sequence[str],
    rows: Iterable[Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> str:
  """The text of a CSV file; None is an empty field, floats keep all digits."""
  return _format(columns, rows, settings)[0]


def _format(columns, rows, settings) -> Tuple[str, int]:
  """The text of a file and its checksum."""
  header = _format_row([*columns, _CHECKSUM])
  lines, checksum = [header], _first_checksum(header, settings)
  for row in rows:
    line, checksum = _seal([row[name] for name in columns], checksum)
    lines.append(line)
  return ''.join(lines), checksum


def _first_checksum(header: str, settings: Mapping[str, Any]) -> int:
  return zlib.crc32(f'{json.dumps(settings, sort_keys=True)}{header}'.encode())


def _seal(values: Sequence[Any], checksum: int) -> Tuple[str, int]:
  """The line of a row and the new checksum, of the one before the row."""
  line = _format_row(values)
  checksum = zlib.crc32(line.encode(), checksum)
  return f'{line[:-1]},{checksum}\n', checksum


def _format_row(values: Iterable[Any]) -> str:
  line = io.StringIO()
  csv.writer(line, lineterminator='\n').writerow(
      # NumPy's scalars as Python's.
      [v.item() if hasattr(v, 'item') else v for v in values]
  )
  return line.getvalue()
