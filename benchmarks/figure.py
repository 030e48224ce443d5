"""A table and a figure of saved benchmarks.

  python -m benchmarks.figure docs/speed.png out/benchmarks/*/*_rules.json

Draws bars of the milliseconds a client, and writes a row a benchmark to a file
of the same name that ends in .csv.
"""

import json
import pathlib
import re
import sys

from matplotlib import figure
import pandas as pd


def read(paths) -> pd.DataFrame:
  """Group, name and noted figures of all benchmarks in files."""
  rows = []
  for path in paths:
    content = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    for benchmark in content['benchmarks']:
      # The group tells N and d.
      name = re.sub(r'(^|-)\d+-\d+(-|$)', '', benchmark['param'])
      labels = {'group': benchmark['group'], 'name': name}
      rows.append({**labels, **benchmark['extra_info']})
  return pd.DataFrame(rows)


def draw(table: pd.DataFrame) -> figure.Figure:
  """Bars of the milliseconds a client, a panel a group."""
  groups = table.groupby('group', sort=False)
  drawn = figure.Figure(figsize=(8, 0.3 * len(table) + 1), layout='constrained')
  panels = drawn.subplots(
      len(groups),
      squeeze=False,
      height_ratios=[len(rows) for _, rows in groups],
  )
  for panel, (group, rows) in zip(panels[:, 0], groups):
    bars = panel.barh(rows['name'], rows['ms_per_client'])
    panel.bar_label(bars, fmt='%.2f', padding=3)
    panel.margins(x=0.1)
    panel.invert_yaxis()
    panel.set_title(group)
    panel.spines[['top', 'right']].set_visible(False)
  panel.set_xlabel('milliseconds a client')
  return drawn


def main():
  if len(sys.argv) < 3:
    sys.exit('usage: python -m benchmarks.figure OUTPUT.png SAVED.json ...')
  table, output = read(sys.argv[2:]), pathlib.Path(sys.argv[1])
  draw(table).savefig(output, dpi=150)
  table.to_csv(output.with_suffix('.csv'), index=False, float_format='%.4g')


if __name__ == '__main__':
  main()
