"""A program of `binaries` with a runner that only seems to train.

`python -m tests.binaries.fake_program compare --aggregators=...` takes the same
way as `python -m binaries.compare`, but for TensorFlow, which it does without.

Accuracies are made up, and equal for equal settings. What goes wrong is set by
environment variables:

  FAKE_FAILURE=a      runs of aggregator a fail in round 2
  FAKE_CRASH=a        the process is killed in round 2 of the runs of a, having
                      written half a row to `metrics.csv` and its last words
  FAKE_ENDLESS=a      round 2 of runs of a never ends
  FAKE_MISSING=p      package p is missing: tensorflow, ray or matplotlib
  FAKE_NOT_FINITE=a   every second round of runs of a is not finite
  FAKE_SECONDS=s      a round takes s seconds

With FAKE_REPORTING=1, `compare` makes no tables and figures, which takes long.
"""

import asyncio
import importlib
import os
import random
import signal
import sys
import time
import types
from unittest import mock

import numpy as np

from binaries import application


class FakeRunner:
  """Stands in for `runner.Runner`."""

  def __init__(self):
    if os.environ.get('FAKE_MISSING') == 'tensorflow':
      raise ModuleNotFoundError("No module named 'tensorflow'")

  def run(
      self,
      experiment,
      *,
      checkpoints,
      checkpoint_every,
      last_checkpoint,
      release_managers,
      tensorboard_folder,
      note,
  ):
    """Yields what `Runner.run` yields, as far as it is looked at."""
    del tensorboard_folder
    if experiment.context == 'in_process':
      gpu = os.environ.get('CUDA_VISIBLE_DEVICES')
      note(f'context: in_process, nowhere on GPU {gpu}')
    random_numbers = random.Random(str(sorted(experiment.to_dict().items())))
    first_round = 1
    restored = checkpoints.restore(
        _state_of(random_numbers), last_round=last_checkpoint
    )
    if restored is not None:
      first_round += restored.round_num
      random_numbers.setstate((3, tuple(restored.state.tolist()), None))
    for record in self._rounds(
        experiment, random_numbers, first_round, checkpoints.folder.parent
    ):
      for manager in release_managers:
        asyncio.run(manager.release(record, record.round_num))
      yield record
      if record.round_num % checkpoint_every == 0:
        checkpoints.save(_state_of(random_numbers), record.round_num)

  def _rounds(self, experiment, random_numbers, first_round, folder):
    aggregator = experiment.aggregator
    is_weighing = aggregator == 'fedaot'

    def is_set(name):
      return os.environ.get(name) == aggregator

    num_rounds = experiment.task_options['rounds']
    for round_num in range(first_round, num_rounds + 1):
      time.sleep(float(os.environ.get('FAKE_SECONDS', 0)))
      if round_num == 2:
        if is_set('FAKE_FAILURE'):
          raise ValueError('something is\nwrong')
        if is_set('FAKE_CRASH'):
          with open(folder / 'metrics.csv', 'a', encoding='utf-8') as file:
            file.write('2,0.1')
          print('last words', file=sys.stderr, flush=True)
          os.kill(os.getpid(), signal.SIGKILL)
        if is_set('FAKE_ENDLESS'):
          time.sleep(600)
      evaluated = (
          round_num % experiment.evaluate_every == 0 or round_num == num_rounds
      )
      accuracy = random_numbers.random()
      evaluation = {'accuracy': accuracy, 'loss': 1 - accuracy}
      yield make_record(
          {} if is_weighing else (),
          round_num=round_num,
          seconds=time.monotonic() % 1,
          model_is_finite=not is_set('FAKE_NOT_FINITE') or round_num % 2 == 1,
          num_attackers=int(20 * experiment.attacker_fraction),
          attacker_weight=random_numbers.random() if is_weighing else None,
          weights=(0.25, 0.75) if is_weighing else None,
          evaluation=evaluation if evaluated else None,
      )


def make_record(measurements=(), **fields) -> types.SimpleNamespace:
  """A `training.RoundRecord`, as far as it is looked at."""
  honest_mean = {'norm': 2.0, 'distance': 0.5}
  defaults = dict(
      metrics={'aggregator': measurements, 'honest_mean': honest_mean},
      model_is_finite=True,
      num_attackers=4,
      attacker_weight=None,
      detection_auroc=None,
      is_byzantine=(True, False),
      weights=None,
      evaluation=None,
      evaluation_seconds=0.0,
  )
  return types.SimpleNamespace(**{**defaults, **fields})


def _state_of(random_numbers) -> np.ndarray:
  """What a checkpoint holds."""
  return np.array(random_numbers.getstate()[1])


# Workers, which only `compare` has, import the program as well.
_IS_PROGRAM = __name__ == '__main__'
if _IS_PROGRAM or sys.argv[0].endswith('default_worker.py'):
  sys.modules['binaries.runner'] = types.SimpleNamespace(Runner=FakeRunner)
  if (missing := os.environ.get('FAKE_MISSING')) in ('ray', 'matplotlib'):
    sys.modules[missing] = None
  if os.environ.get('FAKE_REPORTING'):
    for name in ('figures', 'page', 'results', 'tables'):
      sys.modules[f'binaries.reporting.{name}'] = mock.MagicMock()
  if _IS_PROGRAM:
    sys.argv = [f'{sys.argv[1]}.py', *sys.argv[2:]]
    program = importlib.import_module(f'binaries.{sys.argv[0][:-3]}')
    application.run(program.main)
  else:
    importlib.import_module('binaries.compare')
