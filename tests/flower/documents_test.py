"""The examples of Flower in the documents run as they are written."""

import os
import pathlib
import re
import shlex
import subprocess
import sys

import flwr.serverapp.strategy
import numpy as np
import pytest
import torch

import fedaot.flower
from fedaot.flower import FedAOT
from tests.documents import pages
from tests.flower import messages


def _run(example, **names):
  """The names that there are after it."""
  exec(example, names)
  return names


@pytest.mark.parametrize('name', ['README.md', 'examples/flower/README.md'])
def test_swap_of_the_readme(name):
  (diff,) = pages.blocks(name, 'diff')
  for source, kind in zip(
      pages.sides(diff), (flwr.serverapp.strategy.FedAvg, FedAOT)
  ):
    names = _run(source, flwr=flwr, fedaot=fedaot)
    assert type(names['strategy']) is kind


def test_swap_of_the_page(monkeypatch):
  (diff,) = pages.blocks('docs/flower.md', 'diff')
  for source, kind in zip(
      pages.sides(diff), (flwr.serverapp.strategy.FedAvg, FedAOT)
  ):
    monkeypatch.setattr(
        kind, 'start', lambda self, grid, initial_arrays, num_rounds: self
    )
    assert type(_run(source, grid=None, arrays=None)['result']) is kind


def test_holdout_rules_and_restart(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  clean, others, restart = pages.blocks('docs/flower.md', 'python')
  rng = np.random.default_rng(0)
  x, y = np.float32(rng.standard_normal((40, 3))), rng.integers(2, size=40)
  net = torch.nn.Linear(3, 2)
  start = {n: v.detach().numpy() for n, v in net.state_dict().items()}
  names = _run(clean, FedAOT=FedAOT, Net=lambda: net, x=x, y=y)
  replies = [messages.reply(i, start) for i in range(1, 11)]
  messages.train(names['strategy'], start, replies)
  made = _run(others, holdout=names['strategy']._holdout)['strategy']
  assert isinstance(made, fedaot.flower.Robust)
  saved, loaded = restart.split('# After the restart')
  names = _run(
      saved,
      np=np,
      strategy=names['strategy'],
      Array=flwr.app.Array,
      ArrayRecord=flwr.app.ArrayRecord,
  )
  names['evaluate'](1, messages.record(start))
  exec('#' + loaded, names)
  for name, array in names['arrays'].items():
    np.testing.assert_array_equal(array.numpy(), start[name])


@pytest.mark.slow  # Each takes seconds to load.
def test_options_of_flowers_programs():
  """Of the example; its settings are in its pyproject.toml."""
  folder, found = pages.ROOT / 'examples' / 'flower', set()
  settings = (folder / 'pyproject.toml').read_text(encoding='utf-8')
  commands = ''.join(pages.blocks('examples/flower/README.md', 'sh'))
  for command in commands.replace('\\\n', '').splitlines():
    words = shlex.split(command, comments=True)
    if words[0] == 'sh':
      assert (folder / words[1]).exists()
    options = {word.split('=')[0] for word in words if word[:2] == '--'}
    found.update((words[0], option) for option in options if words[0] != 'pip')
    for value in re.findall("--run-config '([^']*)'", command):
      for key in re.findall(r'([\w-]+)=', value):
        assert f'\n{key} = ' in settings
  for program in {program for program, _ in found}:
    run = subprocess.run(
        [
            pathlib.Path(sys.executable).with_name(program),
            *['run'] * (program == 'flwr'),
            '--help',
        ],
        env={**os.environ, 'COLUMNS': '200'},
        capture_output=True,
        text=True,
    )
    assert {o for p, o in found if p == program} <= set(run.stdout.split())
