"""Tests for ray_workers; see also those for compare."""

import os
import pathlib
from unittest import mock

import pytest

from binaries import application
from binaries import cells
from binaries import experiment
from binaries import ray_workers
from binaries import run_record


def _run(name):
  """A run named by seed, aggregator and number of the attack: '0 mean 1'."""
  seed, aggregator, attack = name.split()
  settings = experiment.Experiment(
      seed=int(seed),
      aggregator=aggregator,
      attack=('none', 'sign_flip', 'zero', 'alie')[int(attack)],
  )
  return ray_workers._Run(cells.Cell(name, settings, pathlib.Path()), None)


class _Worker:
  """Takes runs as a worker does."""

  run = None

  def take(self, left, workers):
    self.run = ray_workers._take(left, self.run, workers)
    return self.run.cell.label


def test_worker_keeps_to_its_group_and_then_begins_another():
  left = [
      _run(name)
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
    ('cores', 'num_cores', 'expected'),
    [
        ({0, 1, 2, 3}, 2, [{0, 2}, {1, 3}]),
        ({1, 3, 5}, 1.5, [{1, 5}, {3}]),
        ({0, 1}, 0.6666, [{0}, {1}, {0}]),
        ({4}, 1, [{4}]),
        # On a cluster, those of a larger machine.
        ({0, 1, 2}, 4, [{0, 1, 2}]),
    ],
)
def test_workers_keep_to_their_cores(monkeypatch, cores, num_cores, expected):
  kept = []
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: cores)
  monkeypatch.setattr(os, 'sched_setaffinity', lambda pid, x: kept.append({*x}))
  for slot in range(len(expected)):
    ray_workers._keep_to_cores(slot, num_cores)
  assert kept == expected


class _Ray:
  """What is left of Ray where only shares are computed."""

  def __init__(self, nodes):
    self._nodes = nodes

  def nodes(self):
    return [{'Alive': True, 'Resources': node} for node in self._nodes]

  def remote(self, unused_class):
    return self

  def options(self, **options):
    self.shares = options['num_cpus'], options['num_gpus']
    return self


@pytest.mark.parametrize(
    ('nodes', 'num_workers', 'expected'),
    [
        ([{'CPU': 2.0}], 2, (1, 0)),
        ([{'CPU': 2.0}], 3, (0.6666, 0)),
        ([{'CPU': 3.0}], 2, (1.5, 0)),
        # No worker is on two machines.
        ([{'CPU': 2.0}] * 3, 2, (2, 0)),
        ([{'CPU': 8.0}, {'CPU': 2.0}, {}], 3, (2.6666, 0)),
        ([{'CPU': 8.0}, {'CPU': 4.0}], 3, (4, 0)),
        # Nor is a GPU divided unequally.
        ([{'CPU': 6.0, 'GPU': 2.0}], 3, (2, 0.5)),
        ([{'CPU': 6.0, 'GPU': 5.0}], 2, (3, 2)),
        ([{'CPU': 6.0, 'GPU': 1.0}], 7, (0.8571, 0.1428)),
        # All go where GPUs are.
        ([{'CPU': 8.0}, {'CPU': 2.0, 'GPU': 2.0}], 2, (1, 1)),
    ],
)
def test_cores_and_gpus_are_divided(nodes, num_workers, expected):
  ray = _Ray(nodes)
  ray_workers._starter(ray, num_workers, 'in_process')
  assert ray.shares == expected
  ray_workers._starter(ray, num_workers, 'native')
  assert ray.shares[1] == 0


def test_cluster_without_cores_is_a_user_error():
  with pytest.raises(application.UserError, match='has no cores'):
    ray_workers._starter(_Ray([{}]), 2, 'native')


def test_other_checkout_is_a_user_error():
  worker = ray_workers._Worker(mock.MagicMock())
  versions = dict(run_record.versions())
  worker.place('node', 'host', versions, [worker])
  versions['sources'] = '0123'
  with pytest.raises(application.UserError, match="host has sources='0123'"):
    worker.place('node', 'host', versions, [worker])
