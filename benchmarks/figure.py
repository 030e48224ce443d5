"""A table and a figure of saved benchmarks.

  python -m benchmarks.figure docs/speed out/benchmarks/*/*_rules.json

Writes a row a benchmark to the first argument's name with .csv, and bars of the
milliseconds a client to that with .png.
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
    panel.invert_yaxis()
    panel.set_title(group)
    panel.spines[['top', 'right']].set_visible(False)
  panel.set_xlabel('milliseconds a client')
  return drawn


def main():
  if len(sys.argv) < 3:
    sys.exit('usage: python -m benchmarks.figure OUTPUT SAVED.json ...')
  table = read(sys.argv[2:])
  table.to_csv(f'{sys.argv[1]}.csv', index=False, float_format='%.4g')
  draw(table).savefig(f'{sys.argv[1]}.png', dpi=150)


if __name__ == '__main__':
  main()
