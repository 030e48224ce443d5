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
from typing import List, Sequence

from absl import flags

from binaries import application

_RESULTS_DIR = flags.DEFINE_string(
    'results_dir',
    None,
    'The folder that binaries.compare wrote; it can also be given without the'
    ' name of the flag.',
)
_OUTPUT = flags.DEFINE_string(
    'output',
    None,
    'The page to write; by default report.html in the folder of results.',
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
  from binaries.reporting import page  # pylint: disable=g-import-not-at-top

  path = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
  written = page.write(folder, path)
  for problem in written.problems:
    print(f'left out: {problem}', file=sys.stderr)
  print(f'See {written.page} and {written.files_folder}')
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


if __name__ == '__main__':
  sys.argv[1:] = name_folder(sys.argv[1:])
  application.run(main)
