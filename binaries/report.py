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
from typing import Optional

from absl import flags

from binaries import application

_OUTPUT = flags.DEFINE_string(
    'output',
    None,
    'The page to write; by default report.html in the folder of results.',
)


def main(results_dir: Optional[str] = None) -> int:
  """Runs the program; returns its exit code."""
  if results_dir is None:
    raise application.UserError(
        'name the folder of results, as in: python -m binaries.report'
        ' out/compare'
    )

  # Takes a second and may be missing; flag errors come first.
  from binaries.reporting import page  # pylint: disable=g-import-not-at-top

  path = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
  written = page.write(pathlib.Path(results_dir), path)
  for problem in written.problems:
    print(f'left out: {problem}', file=sys.stderr)
  print(f'See {written.page} and {written.files_folder}')
  return 0


if __name__ == '__main__':
  application.run(main, max_arguments=1)
