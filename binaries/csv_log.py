"""CSV files that grow by a row at a time and survive a crash in mid-row."""

import csv
import io
import os
import pathlib
from typing import Any, Callable, Dict, Iterable, List, Mapping, Sequence

from binaries import application
from binaries import output_folder


class CsvLog:
  """A CSV file that is open for appending.

  Each row is handed to the operating system before `append` returns.

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
    header = format_rows(self._columns, ()).encode()
    try:
      # Unbuffered: what could not be written must not be tried again at exit.
      self._file = open(path, 'ab', buffering=0)
      try:
        output_folder.lock(self._file.fileno(), path)
        kept = _complete_lines(path) if keep else b''
        if kept and not kept.startswith(header):
          raise application.UserError(
              f'{path} has other columns than {", ".join(self._columns)};'
              ' choose another --output_dir.'
          )
        if path.stat().st_size != len(kept):
          self._file.truncate(len(kept))
        if not kept:
          self._write(header)
      except BaseException:
        self._file.close()
        raise
    except OSError as error:
      raise application.UserError(
          f'cannot write {path}: {error.strerror}.'
      ) from error

  def append(self, row: Mapping[str, Any]) -> None:
    """Appends a row, a value for each column.

    Raises:
      OSError: If the row cannot be written; the file is left without it.
    """
    self._write(_format_row(row[name] for name in self._columns).encode())

  def rows(self) -> List[Dict[str, str]]:
    """The rows in the file, as `read_rows` gives them."""
    return read_rows(self._path)

  def keep_while(self, condition: Callable[[Dict[str, str]], bool]) -> None:
    """Drops the first row for which a condition fails and all after it.

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
  """The rows that are completely written, as texts by column; [] for no file."""
  return list(csv.DictReader(io.StringIO(_complete_lines(path).decode())))


def format_rows(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> str:
  """The text of a CSV file.

  Floats are written so that reading them gives the same float, None as an
  empty field.
  """
  lines = [columns, *([row[name] for name in columns] for row in rows)]
  return ''.join(map(_format_row, lines))


def _complete_lines(path: pathlib.Path) -> bytes:
  """The file's content up to its last newline."""
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    return b''
  return content[: content.rfind(b'\n') + 1]


def _format_row(values: Iterable[Any]) -> str:
  line = io.StringIO()
  # NumPy's scalars are written like Python's, which `csv` writes by their repr.
  csv.writer(line, lineterminator='\n').writerow(
      [v.item() if hasattr(v, 'item') else v for v in values]
  )
  return line.getvalue()
