"""A report as one page of HTML that asks the network for nothing."""

import base64
import dataclasses
import html
import json
import re
import shlex
from typing import Any, List, Mapping, Sequence, Tuple, Union

from binaries import comparison as comparison_lib
from binaries import report_figures
from binaries import report_findings
from binaries import report_results
from binaries import report_tables

# What a browser may load: what is in the page.
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"
    " 'unsafe-inline'"
)
_KNOWN_RUN_INFO = ('command', 'seed', 'versions', 'machine', 'flags')


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page.

  Attributes:
    name: Its anchor.
    title: Its heading.
    text: Its first paragraph, may be empty.
    parts: Its tables and figures.
  """

  name: str
  title: str
  text: str
  parts: Sequence[Union[report_tables.Table, report_figures.Figure]]


def make_sections(results: report_results.Results) -> List[Section]:
  """The tables and figures of a report.

  Args:
    results: The results.

  Returns:
    The sections, the same for any results; what the results have no values for
    is said in the section's text.
  """
  fractions = results.comparison.byzantine_fractions

  def tables(make):
    made = [make(results, fraction) for fraction in fractions]
    return [table for table in made if table is not None]

  def figures(make):
    return [f for fraction in fractions for f in make(results, fraction)]

  def section(name, title, parts, without):
    return Section(name, title, '' if parts else without, parts)

  roc = figures(report_figures.roc_figures)
  detection = section(
      'detection',
      'Detection of attackers',
      tables(report_tables.detection_table) + roc,
      'No aggregator has measured weights under an attack.',
  )
  if detection.parts and not roc:
    detection = dataclasses.replace(
        detection,
        text=(
            'There are no ROC curves, as no run has written its weights'
            f' ({report_results.WEIGHTS_FILE}).'
        ),
    )
  cost = report_tables.cost_table(results)
  missing = report_tables.missing_table(results)
  return [
      section(
          'accuracy', 'Accuracy', tables(report_tables.accuracy_table), ''
      ),
      section(
          'oracle',
          'Difference to the oracle',
          tables(report_tables.oracle_table),
          'The oracle is not among the aggregators.',
      ),
      section(
          'baseline',
          'Difference to the best baseline',
          tables(report_tables.baseline_table),
          'There is no result of a baseline.',
      ),
      section(
          'success',
          'Attack success',
          tables(report_tables.success_table),
          'No run has measured an attack success rate.',
      ),
      section(
          'curves',
          'Learning curves',
          figures(report_figures.accuracy_figures),
          'There are no metrics by round of finished runs.',
      ),
      section(
          'weights',
          'Weight on attackers',
          tables(report_tables.weight_table)
          + figures(report_figures.weight_figures),
          'No aggregator has measured weights under an attack.',
      ),
      detection,
      section(
          'cost',
          'Cost',
          ([cost] if cost else []) + list(report_figures.cost_figures(results)),
          'No run has measured its time.',
      ),
      section(
          'missing',
          'Unfinished and failed runs',
          [missing] if missing else [],
          'All runs have a result.',
      ),
  ]


def make_page(
    results: report_results.Results, sections: Sequence[Section]
) -> str:
  """The page.

  Args:
    results: The results.
    sections: What `make_sections` returns.
  """
  comparison = results.comparison
  title = f'Aggregators compared: {comparison.title}'
  links = [
      ('findings', 'Findings'),
      ('run', 'What was run'),
      *((section.name, section.title) for section in sections),
      ('settings', 'Settings'),
  ]
  body = [
      f'<header><h1>{_escape(title)}</h1>',
      f'<p>{_escape(report_findings.describe_completeness(results))}</p>',
      '<nav aria-label="Sections"><ul>',
      *(f'<li><a href="#{n}">{_escape(t)}</a></li>' for n, t in links),
      '</ul></nav></header><main>',
      _format_findings(results),
      _format_run(results),
      *map(_format_section, sections),
      _format_settings(results),
      '</main><p id="status" role="status" class="hidden"></p>',
  ]
  return _PAGE.format(
      title=_escape(title),
      policy=_escape(_POLICY),
      style=_STYLE,
      body='\n'.join(body),
      script=_SCRIPT,
  )


def reconstruct_command(results: report_results.Results) -> str:
  """A command that repeats a comparison, from its axes and settings."""
  comparison = results.comparison
  axes = {
      'aggregators': comparison.aggregators,
      'attacks': comparison.attacks,
      'byzantine_fractions': comparison.byzantine_fractions,
      'seeds': comparison.seeds,
  }
  flags = [f'--{n}={",".join(map(str, values))}' for n, values in axes.items()]
  flags += [
      f'--{name}={_format_value(value)}'
      for name, value in results.settings.items()
      if value is not None
  ]
  return ' '.join(
      map(shlex.quote, ['python', '-m', 'binaries.compare', *flags])
  )


def _format_findings(results: report_results.Results) -> str:
  """What is best where, and what could not be read."""
  parts = ['<section id="findings"><h2>Findings</h2>']
  if results.problems:
    parts.append('<div class="problems"><p>Left out of this report:</p>')
    parts.append(_format_list(results.problems))
    parts.append('</div>')
  for fraction, sentences in report_findings.find(results).items():
    percent = comparison_lib.percent(fraction)
    parts.append(f'<h3>{percent} % attackers</h3>')
    parts.append(_format_list(sentences))
  cost = report_findings.describe_cost(results.comparison)
  if cost:
    parts.append('<h3>Cost</h3>')
    parts.append(_format_list(cost))
  return '\n'.join([*parts, '</section>'])


def _format_list(texts: Sequence[str]) -> str:
  return f'<ul>{"".join(f"<li>{_escape(t)}</li>" for t in texts)}</ul>'


def _format_run(results: report_results.Results) -> str:
  """What was compared, and with which command."""
  comparison = results.comparison
  command = results.run_info.get('command')
  title = 'Command'
  if not command:
    title = 'Command (reconstructed from the settings)'
    command = reconstruct_command(results)
  elif isinstance(command, (list, tuple)):
    command = ' '.join(shlex.quote(str(part)) for part in command)
  facts = [
      ('task', comparison.task),
      ('rounds', str(comparison.rounds)),
      ('aggregators', ', '.join(comparison.aggregators)),
      ('attacks', ', '.join(comparison.attacks)),
      (
          'fractions of attackers',
          ', '.join(
              f'{comparison_lib.percent(f)} %'
              for f in comparison.byzantine_fractions
          ),
      ),
      ('seeds', ', '.join(map(str, comparison.seeds))),
      *(
          (name, _format_value(value))
          for name, value in results.run_info.items()
          if not isinstance(value, dict) and name not in _KNOWN_RUN_INFO
      ),
  ]
  parts = ['<section id="run"><h2>What was run</h2>', _format_facts(facts)]
  parts.append(f'<p>{title}:</p>')
  parts.append(f'<pre tabindex="0"><code>{_escape(str(command))}</code></pre>')
  for name in _ordered_run_info(results.run_info):
    value = results.run_info[name]
    parts.append(f'<h3>{_escape(name.capitalize())}</h3>')
    if isinstance(value, dict):
      parts.append(
          _format_facts([(str(k), _format_value(v)) for k, v in value.items()])
      )
    else:
      parts.append(f'<p>{_escape(_format_value(value))}</p>')
  return '\n'.join([*parts, '</section>'])


def _ordered_run_info(run_info: Mapping[str, Any]) -> List[str]:
  """The names in `run.json` that get a heading of their own."""
  known = [n for n in _KNOWN_RUN_INFO[1:] if n in run_info]
  return known + [
      name
      for name, value in run_info.items()
      if isinstance(value, dict) and name not in _KNOWN_RUN_INFO
  ]


def _format_facts(facts: Sequence[Tuple[str, str]]) -> str:
  rows = ''.join(
      f'<tr><th scope="row">{_break(name)}</th><td>{_break(value)}</td></tr>'
      for name, value in facts
  )
  return f'<table class="facts">{rows}</table>'


def _format_settings(results: report_results.Results) -> str:
  """The settings that all runs share."""
  text = '<p>The folder has no settings.json.</p>'
  if results.settings:
    text = '<p>All runs share these.</p>' + _format_facts(
        [(name, _format_value(v)) for name, v in results.settings.items()]
    )
  return f'<section id="settings"><h2>Settings</h2>{text}</section>'


def _format_section(section: Section) -> str:
  """A section."""
  parts = [
      f'<section id="{section.name}"><h2>{_escape(section.title)}</h2>',
      f'<p>{_escape(section.text)}</p>' if section.text else '',
  ]
  for part in section.parts:
    if isinstance(part, report_tables.Table):
      parts.append(_format_table(part))
    else:
      parts.append(_format_figure(part))
  return '\n'.join([*parts, '</section>'])


def _format_figure(drawn: report_figures.Figure) -> str:
  """A figure with its picture in the page."""
  picture = base64.b64encode(drawn.png).decode('ascii')
  return (
      f'<figure id="{_escape(drawn.name)}"><h3>{_escape(drawn.title)}</h3>'
      f'<img alt="{_escape(drawn.alternative)}"'
      f' src="data:image/png;base64,{picture}">'
      f'<figcaption>{_escape(drawn.caption)}'
      f' {_format_files(drawn.name)}</figcaption></figure>'
  )


def _format_files(name: str) -> str:
  return (
      f'<span class="files">Also in report/: {_escape(name)}'
      f' (.png, .csv, .md).</span>'
  )


def _format_table(table: report_tables.Table) -> str:
  """A table whose rows sort, in a box that scrolls sideways."""
  title = _escape(table.title)
  header = ''.join(
      '<th scope="col"><button type="button">'
      f'{_break(label)}<span class="arrow" aria-hidden="true"></span>'
      '</button></th>'
      for label in table.header
  )
  rows = ''.join(
      f'<tr><th scope="row">{_break(name)}</th>'
      f'{"".join(_format_cell(cell, table.scale) for cell in cells)}</tr>'
      for name, cells in table.rows
  )
  footer = ''
  if table.footer:
    name, cells = table.footer
    cells = ''.join(_format_cell(cell, None) for cell in cells)
    footer = (
        f'<tfoot><tr><th scope="row">{_break(name)}</th>{cells}</tr></tfoot>'
    )
  files = ''
  if table.scale is None:
    files = f'Also in report/: {table.name} (.csv, .md).'
  return (
      f'<div class="table" id="{_escape(table.name)}"><h3>{title}</h3>'
      f'<div class="scroller" role="region" tabindex="0" aria-label="{title}">'
      f'<table class="sortable{" matrix" if table.scale else ""}"'
      f' style="--columns:{len(table.header)}">'
      f'<thead><tr>{header}</tr></thead><tbody>{rows}</tbody>{footer}</table>'
      f'</div>{_format_legend(table.scale)}'
      f'<p class="caption">{_escape(table.caption)}'
      f' {_format_files(table.name) if table.scale else _escape(files)}</p>'
      '</div>'
  )


def _format_cell(cell: report_tables.Cell, scale: Any) -> str:
  """A cell; the text has the contrast that its colour needs."""
  attributes = ''
  if cell.value is not None:
    attributes += f' data-value="{cell.value!r}"'
    if scale is not None:
      background = scale.color(cell.value)
      color = report_tables.text_color(background)
      attributes += f' style="background:{background};color:{color}"'
  if cell.note:
    attributes += f' title="{_escape(cell.note)}"'
  classes = ['best'] if cell.best else []
  if cell.value is None:
    classes.append('text')
  if classes:
    attributes += f' class="{" ".join(classes)}"'
  text = _break(cell.text)
  if cell.best:
    text = f'<strong>{text}</strong><span class="hidden"> best</span>'
  if cell.spread:
    text += f' <span class="spread">{_escape(cell.spread)}</span>'
  return f'<td{attributes}>{text}</td>'


def _format_legend(scale: Any) -> str:
  """What the colours of a table stand for."""
  if scale is None or scale.high <= scale.low:
    return ''
  steps = [scale.low + (scale.high - scale.low) * i / 8 for i in range(9)]
  stops = ','.join(map(scale.color, steps))
  low, high = (
      f'{value:.4g}'.replace('-', '−') for value in (scale.low, scale.high)
  )
  return (
      f'<p class="legend">Colour: {low} <span class="ramp" style="background:'
      f'linear-gradient(to right,{stops})"></span> {high}</p>'
  )


def _format_value(value: Any) -> str:
  if isinstance(value, str):
    return value
  if isinstance(value, (list, tuple)) and not any(
      isinstance(item, (list, tuple, dict)) for item in value
  ):
    return ','.join(map(_format_value, value))
  if isinstance(value, dict):
    return json.dumps(value)
  return str(value)


def _escape(text: str) -> str:
  return html.escape(text, quote=True)


def _break(text: str) -> str:
  """The escaped text, which may be broken where names have their joints."""
  return re.sub(r'([_:,+])(?=\S)', r'\1<wbr>', _escape(text))


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""

_STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --text: #1b1b1b; --soft: #555555; --line: #c8c8c8;
  --head: #f0f1f3; --link: #00527a; --warning: #fff3d6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #17191c; --text: #ececec; --soft: #b4b8be; --line: #4a4e55;
    --head: #25282d; --link: #7cc4ee; --warning: #43370f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1rem 1.5rem 4rem; max-width: 110rem;
  background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans',
    'DejaVu Sans', sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }
h2 {
  font-size: 1.3rem; margin: 2.5rem 0 0.75rem; padding-top: 0.5rem;
  border-top: 2px solid var(--line);
}
h3 { font-size: 1.05rem; margin: 1.5rem 0 0.5rem; }
p, li { max-width: 75rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; padding: 0;
  list-style: none; }
pre { padding: 0.75rem; background: var(--head); white-space: pre-wrap;
  overflow-wrap: anywhere; font-size: 0.85rem; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 1px; }
.problems { padding: 0.25rem 1rem; background: var(--warning); }
.scroller { position: relative; overflow-x: auto; max-width: 100%;
  width: fit-content; border: 1px solid var(--line); }
table { border-collapse: separate; border-spacing: 0; font-size: 0.85rem;
  line-height: 1.3; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.5rem; border-bottom: 1px solid var(--line);
  border-right: 1px solid var(--line); text-align: left; }
.facts { border: 1px solid var(--line); border-width: 1px 0 0 1px; }
.facts th { vertical-align: top; font-weight: 600; background: var(--head); }
.sortable thead th { background: var(--head); vertical-align: bottom;
  padding: 0; }
.sortable button { all: unset; box-sizing: border-box; cursor: pointer;
  width: 100%; padding: 0.3rem 0.5rem; font-weight: 600; }
.sortable button:hover { text-decoration: underline; }
.sortable button:focus-visible { outline: 3px solid var(--link);
  outline-offset: -3px; }
.sortable tr > :first-child { position: sticky; left: 0; z-index: 1;
  background: var(--head); min-width: 9rem; max-width: 16rem;
  overflow-wrap: anywhere; }
.sortable tbody th { font-weight: 600; }
.matrix td { text-align: right; min-width: 3.6rem; }
.matrix .text { text-align: center; color: var(--soft); font-size: 0.75rem; }
.best { box-shadow: inset 0 0 0 2px var(--page), inset 0 0 0 4px currentColor;
}
.spread { display: block; font-size: 0.72rem; white-space: nowrap; }
.arrow::after { content: '\\2195'; padding-left: 0.25em; opacity: 0.55; }
[aria-sort='ascending'] .arrow::after { content: '\\25B2'; opacity: 1; }
[aria-sort='descending'] .arrow::after { content: '\\25BC'; opacity: 1; }
.legend, .caption, figcaption { color: var(--soft); font-size: 0.85rem;
  margin: 0.4rem 0; }
.ramp { display: inline-block; width: 10rem; height: 0.8rem;
  vertical-align: middle; border: 1px solid var(--line); }
figure { margin: 0 0 1.5rem; }
img { display: block; max-width: 100%; height: auto; background: #ffffff;
  padding: 0.4rem; border: 1px solid var(--line); }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }
@page { size: A4 landscape; margin: 10mm; }
@media print {
  :root { --page: #ffffff; --text: #000000; --soft: #333333; --line: #999999;
    --head: #f0f1f3; --link: #000000; --warning: #fff3d6; }
  body { padding: 0; font-size: 10pt; }
  nav, .arrow { display: none; }
  .scroller { overflow: visible; width: auto; border: 0; }
  .sortable tr > :first-child { position: static; min-width: 0; }
  .matrix { table-layout: fixed;
    width: min(100%, calc(var(--columns) * 20mm + 30mm));
    font-size: min(8pt, calc(250mm / var(--columns) / 4.2)); }
  .matrix tr > :first-child { width: 11%; }
  .matrix th, .matrix td { min-width: 0; overflow-wrap: anywhere; }
  .matrix th, .matrix td, .matrix button { padding: 0.15em 0.25em; }
  .matrix .spread, .matrix .text { font-size: 0.8em; white-space: normal; }
  .best { box-shadow: inset 0 0 0 1px var(--page),
    inset 0 0 0 2px currentColor; }
  table, tr, figure, .table { break-inside: avoid; }
  td, .ramp { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  img { max-height: 170mm; }
}
"""

_SCRIPT = """
'use strict';
for (const table of document.querySelectorAll('table.sortable')) {
  const headers = Array.from(table.tHead.rows[0].cells);
  headers.forEach((header, index) => {
    header.querySelector('button').addEventListener('click', () => {
      sortRows(table, headers, index);
    });
  });
}

function sortRows(table, headers, index) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const keys = new Map(rows.map((row) => [row, keyOf(row.cells[index])]));
  const numeric = rows.some((row) => typeof keys.get(row) === 'number');
  const previous = headers[index].getAttribute('aria-sort');
  let direction = numeric ? 'descending' : 'ascending';
  if (previous === direction) {
    direction = numeric ? 'ascending' : 'descending';
  }
  const sign = direction === 'ascending' ? 1 : -1;
  rows.sort((first, second) => {
    const a = keys.get(first);
    const b = keys.get(second);
    if (numeric && typeof a !== typeof b) {
      return typeof a === 'number' ? -1 : 1;
    }
    return sign * (typeof a === 'number' ? a - b : a.localeCompare(b));
  });
  body.append(...rows);
  headers.forEach((header) => header.removeAttribute('aria-sort'));
  headers[index].setAttribute('aria-sort', direction);
  document.getElementById('status').textContent =
      'Sorted by ' + headers[index].textContent + ', ' + direction + '.';
}

function keyOf(cell) {
  if (cell.dataset.value !== undefined) {
    return Number(cell.dataset.value);
  }
  return cell.textContent;
}
"""
