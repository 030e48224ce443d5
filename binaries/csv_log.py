"""CSV files that grow by a row at a time and survive a crash in mid-row."""

import csv
import fcntl
import io
import os
import pathlib
from typing import Any, Callable, Dict, List, Mapping, Sequence

from binaries import application


class CsvLog:
  """A CSV file that is open for appending.

  Each row is handed to the operating system before `append` returns. Floats are
  written so that reading them gives the same float, None as an empty field.

  The file is locked: another process cannot open it for appending, too.
  """

  def __init__(
      self, path: pathlib.Path, columns: Sequence[str], *, keep: bool
  ):
    """Opens the file, which is made if there is none.

    Args:
      path: The file.
      columns: The names of the columns.
      keep: Whether to append to the rows in the file, after dropping a last
        line that a crash left unfinished, or to begin anew.

    Raises:
      UserError: If the file cannot be written, another process appends to it,
        or it is to be kept but has other columns.
    """
    self._path = path
    self._columns = tuple(columns)
    header = _format_row(self._columns).encode()
    try:
      # Unbuffered: what could not be written must not be tried again at exit.
      self._file = open(path, 'ab', buffering=0)
    except OSError as error:
      raise application.UserError(
          f'cannot write {path}: {error.strerror}.'
      ) from error
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      self._file.close()
      raise application.UserError(
          f'another program is writing {path}; wait until it has ended.'
      ) from error
    kept = _complete_lines(path) if keep else b''
    if kept and not kept.startswith(header):
      self._file.close()
      raise application.UserError(
          f'{path} has other columns than {", ".join(self._columns)}; choose'
          ' another --output_dir.'
      )
    try:
      if path.stat().st_size != len(kept):
        self._file.truncate(len(kept))
      if not kept:
        self._write(header)
    except OSError as error:
      self._file.close()
      raise application.UserError(
          f'cannot write {path}: {error.strerror}.'
      ) from error

  def append(self, row: Mapping[str, Any]) -> None:
    """Appends a row.

    Args:
      row: A value for each column.

    Raises:
      OSError: If the row cannot be written; the file is left without it.
    """
    fields = [_format(row[name]) for name in self._columns]
    self._write(_format_row(fields).encode())

  def rows(self) -> List[Dict[str, str]]:
    """The rows in the file, as `read_rows` gives them."""
    return read_rows(self._path)

  def keep_while(self, condition: Callable[[Dict[str, str]], bool]) -> None:
    """Drops the first row for which a condition fails and all after it.

    Args:
      condition: A function of a row, as `read_rows` gives it.

    Raises:
      OSError: If the file cannot be changed.
    """
    header, *lines = _complete_lines(self._path).splitlines(keepends=True)
    num_bytes = len(header)
    for line in lines:
      (fields,) = csv.reader([line.decode()])
      if not condition(dict(zip(self._columns, fields))):
        break
      num_bytes += len(line)
    self._file.truncate(num_bytes)

  def sync(self) -> None:
    """Waits until the rows are on the disk, where a power failure leaves them.

    Raises:
      OSError: If they cannot be written.
    """
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file, which also gives up the lock."""
    self._file.close()

  def __enter__(self) -> 'CsvLog':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def _write(self, line: bytes) -> None:
    """Appends a line as a whole or not at all."""
    size = os.fstat(self._file.fileno()).st_size
    written = 0
    try:
      # A disk that is about to be full takes a part.
      while written < len(line):
        written += self._file.write(line[written:])
    except OSError:
      self._file.truncate(size)
      raise


def read_rows(path: pathlib.Path) -> List[Dict[str, str]]:
  """Reads the rows that are completely written.

  Args:
    path: A file that a `CsvLog` wrote.

  Returns:
    The text by the column's name, for each row; none if there is no file.
  """
  text = _complete_lines(path).decode()
  return list(csv.DictReader(io.StringIO(text)))


def _complete_lines(path: pathlib.Path) -> bytes:
  """The file's content up to its last newline."""
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    return b''
  return content[: content.rfind(b'\n') + 1]


def _format_row(fields: Sequence[str]) -> str:
  line = io.StringIO()
  csv.writer(line, lineterminator='\n').writerow(fields)
  return line.getvalue()


def _format(value: Any) -> str:
  """The text of a value; NumPy's scalars are written like Python's."""
  if value is None:
    return ''
  if hasattr(value, 'item'):
    value = value.item()
  return repr(value) if isinstance(value, float) else str(value)
