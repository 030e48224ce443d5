"""The notebook runs, and shows what its text says."""

import pathlib
import re

import nbclient
import nbformat

_ROOT = pathlib.Path(__file__).resolve().parents[1]


def test_first_steps(monkeypatch):
  monkeypatch.setenv('PYTHONPATH', str(_ROOT))
  path = _ROOT / 'examples' / 'first_steps.ipynb'
  notebook = nbformat.read(path, as_version=4)
  nbclient.NotebookClient(notebook, timeout=120).execute()
  printed = ''.join(
      output.get('text', '')
      for cell in notebook.cells
      for output in cell.get('outputs', ())
  )
  accuracies = {
      name.strip(): float(value)
      for name, value in re.findall(r'^(.+?) +(\d+\.\d)%$', printed, re.M)
  }
  # The last of two of a name: a majority of attackers.
  assert accuracies['mean, no attack'] > 90
  assert accuracies['mean'] < 30
  assert accuracies['FedAOT'] > 90
