"""CSV files that grow by a row at a time and survive a crash in mid-row."""

import csv
import io
import os
import pathlib
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from binaries import application
from binaries import output_folder


class CsvLog:
  """A CSV file that is open for appending.

  Each row is handed to the operating system before `append` returns.
  """

  def __init__(
      self,
      path: pathlib.Path,
      columns: Sequence[str],
      rows: Iterable[Mapping[str, Any]] = (),
  ):
    """Replaces the file by one with these rows, as `replace_file` does."""
    output_folder.replace_file(path, format_rows(columns, rows))
    self._columns = columns
    # Unbuffered: what could not be written must not be tried again at exit.
    self._file = open(path, 'ab', buffering=0)

  def append(self, row: Mapping[str, Any]) -> None:
    """Appends a row; OSError if it fails, and the file is left without it."""
    line = _format_row(row[name] for name in self._columns).encode()
    size = os.fstat(self._file.fileno()).st_size
    written = 0
    try:
      # A disk that is about to be full takes a part.
      while written < len(line):
        written += self._file.write(line[written:])
    except OSError:
      self._file.truncate(size)
      raise

  def sync(self) -> None:
    """Waits until a power failure would leave the rows on the disk."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def read_rows(
    path: pathlib.Path, columns: Sequence[str] = ()
) -> List[Dict[str, str]]:
  """The rows that are completely written, as texts by column; [] for no file.

  UserError if there are rows with other columns than those asked for.
  """
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    return []
  # A crash can leave a last line that is unfinished.
  complete = content[: content.rfind(b'\n') + 1].decode()
  rows = list(csv.DictReader(io.StringIO(complete)))
  if columns and rows and tuple(rows[0]) != tuple(columns):
    raise application.UserError(
        f'{path} has other columns than {", ".join(columns)}; choose another'
        ' --output_dir.'
    )
  return rows


def format_rows(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> str:
  """The text of a CSV file; None is an empty field, floats keep all digits."""
  lines = [columns, *([row[name] for name in columns] for row in rows)]
  return ''.join(map(_format_row, lines))


def _format_row(values: Iterable[Any]) -> str:
  line = io.StringIO()
  csv.writer(line, lineterminator='\n').writerow(
      # NumPy's scalars as Python's.
      [v.item() if hasattr(v, 'item') else v for v in values]
  )
  return line.getvalue()
