"""Writes a report: the page, and its tables and figures as files."""

from collections.abc import Iterator
import pathlib
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from binaries import application
from binaries import output_folder
from binaries import report_figures
from binaries import report_page
from binaries import report_results
from binaries import report_tables

_PAGE_FILE = 'report.html'
_FILES_FOLDER = 'report'


class Written(NamedTuple):
  """What was written.

  Attributes:
    page: The page.
    files_folder: The folder of the tables and figures.
    problems: What of the results could not be read, in a sentence each.
  """

  page: pathlib.Path
  files_folder: pathlib.Path
  problems: List[str]


def write(folder: pathlib.Path, page: Optional[pathlib.Path] = None) -> Written:
  """Writes the report on a folder of `binaries.compare`.

  Args:
    folder: The folder.
    page: The page to write, beside which the folder `report` is made; by
      default `report.html` in the folder.

  Returns:
    What was written.

  Raises:
    UserError: If the folder holds no results or the report cannot be written.
  """
  results = report_results.read(folder)
  if page is None:
    page = folder / _PAGE_FILE
  if page.is_dir():
    raise application.UserError(
        f'--output={page} is a folder; name a file in it.'
    )
  output_folder.make_folder(page.parent)
  files_folder = output_folder.make_folder(page.parent / _FILES_FOLDER)
  sections = report_page.make_sections(results)
  try:
    for section in sections:
      for name, content in _make_files(section.parts):
        (files_folder / name).write_bytes(content)
    page.write_text(report_page.make_page(results, sections), encoding='utf-8')
  except OSError as error:
    raise application.UserError(
        f'cannot write {error.filename or page}: {error.strerror}.'
    ) from error
  return Written(page, files_folder, results.problems)


def _make_files(parts: Sequence[Any]) -> Iterator[Tuple[str, bytes]]:
  """The names and contents of the files of tables and figures."""
  for part in parts:
    if isinstance(part, report_figures.Figure):
      module, png = report_figures, part.png
    else:
      module, png = report_tables, None
      if part.scale is not None:
        png = report_figures.draw_heat_map(part)
    if png is not None:
      yield f'{part.name}.png', png
    yield f'{part.name}.csv', module.format_csv(part).encode()
    yield f'{part.name}.md', module.format_markdown(part).encode()
