"""Writes a report: a page that asks the network for nothing, and files."""

import base64
import itertools
import pathlib
import re
from typing import (
    Any,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

import jinja2
import markupsafe

from binaries import application
from binaries import output_folder
from binaries.reporting import figures
from binaries.reporting import findings
from binaries.reporting import results as results_lib
from binaries.reporting import tables

_PAGE_FILE, _FILES_FOLDER = 'report.html', 'report'
_TEMPLATE = 'report.html.jinja'

Part = Union[tables.Table, figures.Figure]


class Written(NamedTuple):
  """The page, the folder of its files, and what could not be read."""

  page: pathlib.Path
  files_folder: pathlib.Path
  problems: List[str]


def write(folder: pathlib.Path, page: Optional[pathlib.Path] = None) -> Written:
  """Writes the report on a folder of `binaries.compare`.

  The page, beside which the folder `report` is made, is by default
  `report.html` in the folder. UserError if the folder holds no results or the
  report cannot be written.
  """
  results = results_lib.read(folder)
  page = page or folder / _PAGE_FILE
  # Replacing a device would break it.
  if page.exists() and not page.is_file():
    raise application.UserError(f'--output={page} is no file; name one.')
  # Nor is what a comparison left replaced by it.
  if page.suffix != '.html':
    raise application.UserError(
        f'--output={page} does not end in .html; name a page.'
    )
  output_folder.make_folder(page.parent)
  files_folder = output_folder.make_folder(page.parent / _FILES_FOLDER)
  parts = make_parts(results)
  for part in itertools.chain(*parts.values()):
    _write_files(files_folder, part)
  output_folder.replace_file(page, make_page(results, parts))
  return Written(page, files_folder, results.problems)


def _write_files(folder: pathlib.Path, part: Part) -> None:
  """Writes a table or figure as CSV and Markdown, and PNG if it has colours."""
  if isinstance(part, figures.Figure):
    picture = f'![{part.alternative}]({part.name}.png)'
    text = f'{part.title}\n\n{picture}\n\n{part.caption}\n'
    png = part.png
  else:
    text = tables.format_markdown(part)
    png = part.scale and figures.draw_heat_map(part)
  data = part.data.to_csv(index=False)
  for suffix, content in (('csv', data), ('md', text), ('png', png)):
    if content:
      output_folder.replace_file(folder / f'{part.name}.{suffix}', content)


def make_parts(results: results_lib.Results) -> Dict[str, List[Part]]:
  """The tables and figures of each section, in the order of the page."""

  def by_fraction(make, *arguments):
    return [
        part
        for fraction in results.byzantine_fractions
        for part in make(results, fraction, *arguments)
    ]

  def measurements(measure):
    return by_fraction(tables.measurement_tables, measure)

  def curves(kind):
    return by_fraction(figures.curve_figures, kind)

  return {
      'accuracy': measurements(tables.ACCURACY),
      'oracle': by_fraction(tables.oracle_tables),
      'baseline': by_fraction(tables.baseline_tables),
      'success': measurements(tables.SUCCESS),
      'curves': curves(figures.ACCURACY),
      'weights': measurements(tables.WEIGHT) + curves(figures.WEIGHT),
      'detection': [
          *measurements(tables.DETECTION),
          *by_fraction(figures.roc_figures),
      ],
      'cost': [*tables.cost_tables(results), *figures.cost_figures(results)],
      'missing': [*tables.missing_tables(results)],
  }


def make_page(
    results: results_lib.Results, parts: Mapping[str, Sequence[Part]]
) -> str:
  """The page, of what `make_parts` returns."""
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
      autoescape=True,
      trim_blocks=True,
      lstrip_blocks=True,
      undefined=jinja2.StrictUndefined,
  )
  environment.filters.update(
      breakable=_breakable,
      base64=lambda content: base64.b64encode(content).decode('ascii'),
  )
  percents = [f'{tables.percent(f)} %' for f in results.byzantine_fractions]
  found = {
      f'{tables.percent(f)} % attackers': findings.find(results, f)
      for f in results.byzantine_fractions
  }
  nested, plain = {}, {}
  for name, value in results.run_info.items():
    (nested if isinstance(value, dict) else plain)[name] = value
  command = plain.pop('command', '')
  return environment.get_template(_TEMPLATE).render(
      title=f'Aggregators compared: {results.title}',
      completeness=findings.describe_completeness(results),
      problems=results.problems,
      findings={**found, 'Cost': findings.describe_cost(results)},
      facts_of_run={
          'task': results.task,
          'rounds': results.rounds,
          'aggregators': results.aggregators,
          'attacks': results.attacks,
          'fractions of attackers': percents,
          'seeds': results.seeds,
          **plain,
      },
      command=command,
      settings={'of all runs': results.settings, **nested},
      parts=parts,
      has_weights=not results.weights.empty,
      text_color=tables.text_color,
  )


def _breakable(value: Any) -> markupsafe.Markup:
  """The escaped text, which may be broken where names have their joints."""
  if isinstance(value, (list, tuple)):
    value = ', '.join(map(str, value))
  text = str(markupsafe.escape(value))
  return markupsafe.Markup(re.sub(r'([_:,+])(?=\S)', r'\1<wbr>', text))
