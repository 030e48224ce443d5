"""Tests for worker_pool."""

import multiprocessing
import os
import pathlib

import pytest

from binaries import experiment
from binaries import worker_pool
from tests.binaries import programs


def _cells(*names):
  """Cells named by seed, aggregator and number of the attack: '0 mean 1'."""
  cells = []
  for name in names:
    seed, aggregator, attack = name.split()
    settings = experiment.Experiment(
        seed=int(seed),
        aggregator=aggregator,
        attack=('none', 'sign_flip', 'zero', 'alie')[int(attack)],
    )
    cells.append(worker_pool.Cell(name, settings, pathlib.Path(), 0))
  return cells


def _take(schedule, group):
  taken = schedule.take(group)
  return taken and (taken[0], taken[1].label)


def test_worker_keeps_to_its_group_and_then_begins_another():
  schedule = worker_pool.Schedule(
      _cells('0 mean 0', '0 mean 1', '0 krum 0', '1 krum 0', '1 krum 1')
  )
  assert _take(schedule, None) == (0, '0 mean 0')
  assert _take(schedule, None) == (1, '0 krum 0')
  assert _take(schedule, 1) == (2, '1 krum 0')
  assert _take(schedule, 0) == (0, '0 mean 1')
  assert schedule
  assert _take(schedule, 2) == (2, '1 krum 1')
  assert not schedule
  assert _take(schedule, 0) is None


def test_idle_worker_steals_the_last_cell_of_the_longest_group():
  schedule = worker_pool.Schedule(
      _cells('0 mean 0', '0 mean 1', '0 krum 0', '0 krum 1', '0 krum 2')
  )
  _take(schedule, None)
  _take(schedule, None)
  assert _take(schedule, None) == (1, '0 krum 2')
  # It is a member of the group now.
  assert _take(schedule, 1) == (1, '0 krum 1')
  assert _take(schedule, 1) == (0, '0 mean 1')
  assert _take(schedule, 1) is None


def test_every_cell_is_taken_once():
  names = [f'{s} {a} {k}' for s in (0, 1) for a in ('mean', 'krum')
           for k in range(4)]
  schedule = worker_pool.Schedule(_cells(*names))
  groups = [None, None, None]
  taken = []
  while schedule:
    for i, group in enumerate(groups):
      found = schedule.take(group)
      if found is not None:
        groups[i] = found[0]
        taken.append(found[1].label)
  assert sorted(taken) == sorted(names)


@pytest.mark.skipif(
    not hasattr(os, 'sched_getaffinity'), reason='cores cannot be assigned'
)
@pytest.mark.parametrize(
    ('cores', 'num_workers', 'expected'),
    [
        ({0, 1, 2, 3}, 2, [{0, 1}, {2, 3}]),
        ({1, 3, 5}, 2, [{1}, {3, 5}]),
        ({0, 1}, 3, [{0}, {1}, {0}]),
        ({4}, 1, [{4}]),
    ],
)
def test_cores_are_divided(monkeypatch, cores, num_workers, expected):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: cores)
  assert worker_pool._divide_cores(num_workers) == expected  # pylint: disable=protected-access


_LISTED_GPUS = '''\
GPU-aaaa-1
GPU-cccc-3
'''


@pytest.mark.parametrize(
    ('visible', 'listed', 'expected'),
    [
        ('3, 1', '', ['3', '1', '3']),
        ('3', _LISTED_GPUS, [None] * 3),
        ('-1', _LISTED_GPUS, [None] * 3),
        ('', _LISTED_GPUS, [None] * 3),
        (None, _LISTED_GPUS, ['GPU-aaaa-1', 'GPU-cccc-3', 'GPU-aaaa-1']),
        (None, '', [None] * 3),
        (None, 'No devices\nwere found', [None] * 3),
        (None, None, [None] * 3),
    ],
)
def test_gpus_are_divided(monkeypatch, tmp_path, visible, listed, expected):
  if visible is None:
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  else:
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
  monkeypatch.setenv('PATH', str(tmp_path))
  if listed is not None:
    program = tmp_path / 'nvidia-smi'
    program.write_text(
        f"#!/bin/sh\n[ $1 = --query-gpu=uuid ] && echo '{listed}'"
    )
    program.chmod(0o755)
  (cell,) = _cells('0 mean 0')
  in_process = cell._replace(
      experiment=experiment.Experiment(context='in_process')
  )
  assert worker_pool._divide_gpus(3, [in_process]) == expected  # pylint: disable=protected-access
  assert worker_pool._divide_gpus(3, [cell]) == [None] * 3  # pylint: disable=protected-access


def test_settings_reach_another_process_unchanged():
  settings = experiment.Experiment(
      aggregator='krum', task_options={'rounds': 7, 'model': 'cnn'}, seed=3
  )
  pickled = multiprocessing.reduction.ForkingPickler.dumps(
      worker_pool._settings(settings)  # pylint: disable=protected-access
  )
  unpickled = multiprocessing.reduction.ForkingPickler.loads(pickled)
  assert experiment.Experiment(**unpickled) == settings


def test_tensorflow_is_not_needed():
  loaded = programs.loaded_packages('binaries.worker_pool')
  assert not any('tensorflow' in name for name in loaded)
