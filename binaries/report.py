"""Makes a report of what `binaries.compare` found, a page for a browser.

Reads the folder that `binaries.compare` wrote, which may still be incomplete,
and writes

  report.html  one file that needs no network: what is best where, accuracies,
               differences to the oracle and to the best baseline, attack
               success, learning curves, weights on attackers, detection, cost,
               unfinished and failed runs, and settings
  report/      beside it, each table and figure as PNG, CSV and Markdown

Example:

  python -m binaries.report out/compare
"""

import pathlib
import sys
from typing import Any, Iterator, List, Sequence, Tuple

from absl import flags

from binaries import application
from binaries import output_folder

_PAGE_FILE = 'report.html'
_FILES_FOLDER = 'report'

_RESULTS_DIR = flags.DEFINE_string(
    'results_dir',
    None,
    'The folder that binaries.compare wrote; it can also be given without the'
    ' name of the flag.',
)
_OUTPUT = flags.DEFINE_string(
    'output',
    None,
    f'The page to write; by default {_PAGE_FILE} in the folder of results.',
)


def main() -> int:
  """Runs the program; returns its exit code."""
  if not _RESULTS_DIR.value:
    raise application.UserError(
        'name the folder of results, as in: python -m binaries.report'
        ' out/compare'
    )
  folder = pathlib.Path(_RESULTS_DIR.value)

  # Takes a second and may be missing; flag errors come first.
  from binaries import report_page  # pylint: disable=g-import-not-at-top
  from binaries import report_results  # pylint: disable=g-import-not-at-top

  results = report_results.read(folder)
  path = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else folder / _PAGE_FILE
  if path.is_dir():
    raise application.UserError(
        f'--output={path} is a folder; name a file in it.'
    )
  output_folder.make_folder(path.parent)
  files_folder = output_folder.make_folder(path.parent / _FILES_FOLDER)
  sections = report_page.make_sections(results)
  try:
    for section in sections:
      for name, content in _make_files(section.parts):
        (files_folder / name).write_bytes(content)
    path.write_text(report_page.make_page(results, sections), encoding='utf-8')
  except OSError as error:
    raise application.UserError(
        f'cannot write {error.filename or path}: {error.strerror}.'
    ) from error
  for problem in results.problems:
    print(f'left out: {problem}', file=sys.stderr)
  print(f'See {path} and {files_folder}')
  return 0


def name_folder(argv: Sequence[str]) -> List[str]:
  """Turns the argument without a flag into --results_dir.

  Args:
    argv: The arguments of the program.

  Returns:
    The arguments, in which only a second such argument is left as it was.
  """
  named = []
  takes_value = False
  for argument in argv:
    if (
        argument
        and not takes_value
        and not argument.startswith('-')
        and not any(a.startswith('--results_dir=') for a in named)
    ):
      argument = f'--results_dir={argument}'
    name = argument.lstrip('-')
    takes_value = (
        argument.startswith('-')
        and name in flags.FLAGS
        and not flags.FLAGS[name].boolean
    )
    named.append(argument)
  return named


def _make_files(parts: Sequence[Any]) -> Iterator[Tuple[str, bytes]]:
  """The names and contents of the files of tables and figures."""
  # pylint: disable=g-import-not-at-top
  from binaries import report_figures
  from binaries import report_tables

  # pylint: enable=g-import-not-at-top
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


if __name__ == '__main__':
  sys.argv[1:] = name_folder(sys.argv[1:])
  application.run(main)
