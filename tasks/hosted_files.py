"""The files of the federated data sets that TensorFlow Federated hosts.

Each is one SQLite file with an example a row, in the folder `data_dir` or
`~/.tff`, which is hosted compressed with LZMA. TensorFlow is not imported.
"""

import contextlib
import os
import pathlib
import sqlite3
from typing import Optional, Sequence

from tasks import data_files

_DEFAULT_DIR = os.path.join('~', '.tff')

# No page of the file is the root of a view or a virtual table, which may have
# rows without end.
_FIND_TABLE = (
    "SELECT 1 FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND"
    ' name = ? COLLATE NOCASE'
)


def file_path(url: str, data_dir: Optional[str]) -> str:
  """Returns where a loader looks for its file, by default in `~/.tff`."""
  folder = data_files.find_folder(data_dir) or os.path.expanduser(_DEFAULT_DIR)
  return os.path.join(folder, os.path.basename(url)[: -len('.lzma')])


def find_problem(path: str, splits: Sequence[str]) -> str:
  """What is wrong with a file, as far as can be told at a glance, or ''."""
  uri = pathlib.Path(os.path.abspath(path)).as_uri() + '?mode=ro'
  try:
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
      for name in ('examples', 'client_metadata'):
        if not connection.execute(_FIND_TABLE, (name,)).fetchall():
          return f'it has no ordinary table {name!r}'
      connection.execute(
          'SELECT split_name, client_id, serialized_example_proto FROM examples'
          ' LIMIT 1'
      ).fetchall()
      for split in splits:
        if not connection.execute(
            'SELECT client_id FROM client_metadata WHERE split_name = ?'
            ' LIMIT 1',
            (split,),
        ).fetchall():
          return f'it has no clients in the split {split!r}'
      (page_size,) = connection.execute('PRAGMA page_size').fetchone()
  except sqlite3.Error as error:
    return data_files.one_line(error)
  # Of a truncated file SQLite overlooks that the last page is not whole.
  return 'it is truncated' if os.path.getsize(path) % page_size else ''
