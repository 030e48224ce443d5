"""Tests for worker_pool; see also those for compare."""

import os
import pathlib

import pytest

from binaries import experiment
from binaries import gpus
from binaries import worker_pool


def _cell(name):
  """A cell named by seed, aggregator and number of the attack: '0 mean 1'."""
  seed, aggregator, attack = name.split()
  settings = experiment.Experiment(
      seed=int(seed),
      aggregator=aggregator,
      attack=('none', 'sign_flip', 'zero', 'alie')[int(attack)],
  )
  return worker_pool.Cell(name, settings, pathlib.Path())


class _Worker:
  """Takes cells as a worker does."""

  cell = None

  def take(self, left, workers):
    self.cell = worker_pool._take(left, self.cell, workers)
    return self.cell.label


def test_worker_keeps_to_its_group_and_then_begins_another():
  left = [
      _cell(name)
      for name in (
          '0 mean 0',
          '0 mean 1',
          '0 krum 0',
          '0 krum 1',
          '1 krum 0',
          '1 krum 1',
      )
  ]
  workers = [_Worker(), _Worker()]
  taken = [workers[i].take(left, workers) for i in (0, 1, 1, 1, 0, 0)]
  assert taken == [
      '0 mean 0',
      '0 krum 0',
      '0 krum 1',
      '1 krum 0',
      '0 mean 1',
      # Nobody is idle while there is a cell to run.
      '1 krum 1',
  ]
  assert not left


@pytest.mark.parametrize(
    ('cores', 'num_workers', 'expected'),
    [
        ({0, 1, 2, 3}, 2, [{0, 2}, {1, 3}]),
        ({1, 3, 5}, 2, [{1, 5}, {3}]),
        ({0, 1}, 3, [{0}, {1}, {0}]),
        ({4}, 1, [{4}]),
    ],
)
def test_cores_are_divided(monkeypatch, cores, num_workers, expected):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: cores)
  assert worker_pool._divide_cores(num_workers) == expected


@pytest.mark.parametrize(
    ('visible', 'context', 'expected'),
    [
        (['3', '1'], 'in_process', ['3', '1', '3']),
        (['3', '1'], 'native', [None] * 3),
        (['3'], 'in_process', [None] * 3),
        ([], 'in_process', [None] * 3),
    ],
)
def test_gpus_are_divided(monkeypatch, visible, context, expected):
  monkeypatch.setattr(gpus, 'visible_gpus', lambda: visible)
  assert worker_pool._divide_gpus(3, context) == expected
  assert worker_pool._divide_gpus(1, context) == [None]
