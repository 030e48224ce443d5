"""Writes a report: a page that asks the network for nothing, and files."""

import base64
import itertools
import json
import pathlib
import re
import shlex
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence
from typing import Union

import jinja2
import markupsafe

from binaries import application
from binaries import output_folder
from binaries.reporting import color_scale
from binaries.reporting import figures
from binaries.reporting import findings
from binaries.reporting import panels
from binaries.reporting import results as results_lib
from binaries.reporting import tables

_PAGE_FILE = 'report.html'
_FILES_FOLDER = 'report'
_TEMPLATE = 'report.html.jinja'
# What of `run.json` is shown elsewhere, or under a heading of its own.
_COMMAND = 'command'
_HEADINGS = ('seed', 'versions', 'machine', 'flags')

Part = Union[tables.Table, figures.Figure]


class Written(NamedTuple):
  """The page, the folder of its files, and what could not be read."""

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
  results = results_lib.read(folder)
  page = page or folder / _PAGE_FILE
  if page.is_dir():
    raise application.UserError(
        f'--output={page} is a folder; name a file in it.'
    )
  output_folder.make_folder(page.parent)
  files_folder = output_folder.make_folder(page.parent / _FILES_FOLDER)
  parts = make_parts(results)
  try:
    for part in itertools.chain(*parts.values()):
      _write_files(files_folder, part)
    page.write_text(make_page(results, parts), encoding='utf-8')
  except OSError as error:
    raise application.UserError(
        f'cannot write {error.filename or page}: {error.strerror}.'
    ) from error
  return Written(page, files_folder, results.problems)


def _write_files(folder: pathlib.Path, part: Part) -> None:
  """Writes a table or figure as CSV and Markdown, and PNG if it has colours."""
  if isinstance(part, figures.Figure):
    text, png = figures.format_markdown(part), part.png
  else:
    text = tables.format_markdown(part)
    png = part.scale and figures.draw_heat_map(part)
  part.data.to_csv(folder / f'{part.name}.csv', index=False)
  (folder / f'{part.name}.md').write_text(text, encoding='utf-8')
  if png:
    (folder / f'{part.name}.png').write_bytes(png)


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

  return {
      'accuracy': measurements(tables.ACCURACY),
      'oracle': by_fraction(tables.oracle_tables),
      'baseline': by_fraction(tables.baseline_tables),
      'success': measurements(tables.SUCCESS),
      'curves': by_fraction(figures.curve_figures, panels.ACCURACY),
      'weights': [
          *measurements(tables.WEIGHT),
          *by_fraction(figures.curve_figures, panels.WEIGHT),
      ],
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
      number=lambda value: f'{value:.3g}'.replace('-', '−'),
  )
  run_info = results.run_info
  command = run_info.get(_COMMAND)
  if isinstance(command, list):
    command = shlex.join(map(str, command))
  return environment.get_template(_TEMPLATE).render(
      title=f'Aggregators compared: {results.title}',
      completeness=findings.describe_completeness(results),
      problems=results.problems,
      findings=[
          *(
              (
                  f'{tables.percent(fraction)} % attackers',
                  findings.find(results, fraction),
              )
              for fraction in results.byzantine_fractions
          ),
          ('Cost', findings.describe_cost(results)),
      ],
      facts_of_run=_describe_run(results),
      command=command or reconstruct_command(results),
      is_reconstructed=not command,
      run_info={
          name: _format_values(run_info[name])
          for name in dict.fromkeys([*_HEADINGS, *run_info])
          if name in run_info
          and (name in _HEADINGS or isinstance(run_info[name], dict))
      },
      settings=_format_values(results.settings),
      parts=parts,
      has_weights=not results.weights.empty,
      text_color=color_scale.text_color,
  )


def reconstruct_command(results: results_lib.Results) -> str:
  """A command that repeats a comparison, from its axes and settings."""
  flags = {
      'aggregators': results.aggregators,
      'attacks': results.attacks,
      'byzantine_fractions': results.byzantine_fractions,
      'seeds': results.seeds,
      **results.settings,
  }
  return shlex.join([
      *('python', '-m', 'binaries.compare'),
      *(
          f'--{name}={_format_value(value)}'
          for name, value in flags.items()
          if value is not None
      ),
  ])


def _describe_run(results: results_lib.Results) -> Dict[str, str]:
  """What was compared, and what `run.json` tells in a word each."""
  percents = [f'{tables.percent(f)} %' for f in results.byzantine_fractions]
  return {
      'task': results.task,
      'rounds': str(results.rounds),
      'aggregators': ', '.join(results.aggregators),
      'attacks': ', '.join(results.attacks),
      'fractions of attackers': ', '.join(percents),
      'seeds': ', '.join(map(str, results.seeds)),
      **{
          name: _format_value(value)
          for name, value in results.run_info.items()
          if not isinstance(value, dict) and name not in (_COMMAND, *_HEADINGS)
      },
  }


def _format_values(value: Any) -> Union[str, Dict[str, str]]:
  """The values of a dictionary, or a value, as text."""
  if isinstance(value, dict):
    return {str(name): _format_value(item) for name, item in value.items()}
  return _format_value(value)


def _format_value(value: Any) -> str:
  """A value as a flag takes it; what no flag takes, as JSON."""
  if isinstance(value, (list, tuple)) and not any(
      isinstance(item, (list, tuple, dict)) for item in value
  ):
    return ','.join(map(_format_value, value))
  return json.dumps(value) if isinstance(value, dict) else str(value)


def _breakable(text: str) -> markupsafe.Markup:
  """The escaped text, which may be broken where names have their joints."""
  return markupsafe.Markup(
      re.sub(r'([_:,+])(?=\S)', r'\1<wbr>', str(markupsafe.escape(text)))
  )
