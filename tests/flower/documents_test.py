"""The examples of Flower in the documents run as they are written."""

import flwr.serverapp.strategy
import numpy as np
import torch

import fedaot.flower
from fedaot.flower import FedAOT
from tests.documents import pages
from tests.flower import messages


def _run(example, **names):
  """The names that there are after it."""
  exec(example, names)
  return names


def test_swap_of_the_readme():
  (diff,) = pages.blocks('README.md', 'diff')
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
