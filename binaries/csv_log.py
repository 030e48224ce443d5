"""CSV files that grow by a row at a time and survive a crash in mid-row."""

import csv
import fcntl
import io
import pathlib
from typing import Any, Dict, List, Mapping, Sequence

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
    header = _format_row(self._columns)
    try:
      self._file = open(path, 'a+', encoding='utf-8', newline='')
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
    if kept and not kept.startswith(header.encode()):
      self._file.close()
      raise application.UserError(
          f'{path} has other columns than {", ".join(self._columns)}; choose'
          ' another --output_dir.'
      )
    self._file.truncate(len(kept))
    if not kept:
      self._write(header)

  def append(self, row: Mapping[str, Any]) -> None:
    """Appends a row.

    Args:
      row: A value for each column.

    Raises:
      OSError: If the row cannot be written.
    """
    self._write(_format_row([_format(row[name]) for name in self._columns]))

  def rows(self) -> List[Dict[str, str]]:
    """The rows in the file, as `read_rows` gives them."""
    return read_rows(self._path)

  def close(self) -> None:
    """Closes the file, which also gives up the lock."""
    self._file.close()

  def __enter__(self) -> 'CsvLog':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def _write(self, line: str) -> None:
    self._file.write(line)
    self._file.flush()


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
