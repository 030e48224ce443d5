"""A program of `binaries` with a runner that only seems to train.

`python -m tests.binaries.fake_program compare --aggregators=...` takes the same
way as `python -m binaries.compare`, but for TensorFlow, which it does without.

Accuracies are made up, and equal for equal settings. What goes wrong is set by
environment variables:

  FAKE_FAILURE=a      runs of aggregator a fail in round 2
  FAKE_CRASH=a        the process is killed in round 2 of the runs of a, having
                      written half a row to `metrics.csv` and its last words
  FAKE_ENDLESS=a      round 2 of runs of a never ends
  FAKE_MISSING=1      a package is missing that every run needs
  FAKE_NOT_FINITE=a   every second round of runs of a is not finite
  FAKE_SECONDS=s      a round takes s seconds

With FAKE_REPORTING=1, `compare` makes no tables and figures, which takes long.
"""

import asyncio
import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import types
from unittest import mock

from binaries import application


class FakeRunner:
  """Stands in for `runner.Runner`."""

  def __init__(self):
    if os.environ.get('FAKE_MISSING'):
      raise ModuleNotFoundError("No module named 'tensorflow'")

  def run(
      self,
      experiment,
      *,
      checkpoint_folder,
      checkpoint_every,
      last_checkpoint,
      release_managers,
      tensorboard_folder,
      report,
  ):
    """Yields what `Runner.run` yields, as far as it is looked at."""
    del tensorboard_folder
    if experiment.context == 'in_process':
      gpu = os.environ.get('CUDA_VISIBLE_DEVICES')
      report.note(f'context: in_process, nowhere on GPU {gpu}')
    random_numbers = random.Random(str(sorted(experiment.to_dict().items())))
    checkpoint_folder.mkdir(exist_ok=True)
    first_round = 1 + _restore(
        random_numbers, checkpoint_folder, last_checkpoint, report.warn
    )
    for record in self._rounds(
        experiment, random_numbers, first_round, checkpoint_folder.parent
    ):
      for manager in release_managers:
        asyncio.run(manager.release(record, record.round_num))
      yield record
      if record.round_num % checkpoint_every == 0:
        _save(random_numbers, checkpoint_folder, record.round_num)

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


def _save(random_numbers, folder: pathlib.Path, round_num: int) -> None:
  """Saves the state; takes long enough to be killed meanwhile."""
  unfinished = folder / f'round_{round_num}_temp1'
  unfinished.mkdir()
  state = json.dumps(random_numbers.getstate())
  with open(unfinished / 'state.json', 'w', encoding='utf-8') as file:
    for start in range(0, len(state), 1000):
      file.write(state[start : start + 1000])
      file.flush()
      time.sleep(0.001)
  unfinished.rename(folder / f'round_{round_num}')


def _restore(random_numbers, folder, last_checkpoint, warn) -> int:
  """Restores the newest state that can be read; returns its round or 0."""
  for path in folder.glob('round_*_temp1'):
    shutil.rmtree(path)
  rounds = [int(path.name[6:]) for path in folder.glob('round_*')]
  for round_num in sorted(rounds, reverse=True):
    path = folder / f'round_{round_num}'
    try:
      version, state, gauss = json.loads((path / 'state.json').read_text())
    except ValueError:
      warn(f'the checkpoint of round {round_num} cannot be read')
      state = None
    if state is not None and round_num <= last_checkpoint:
      random_numbers.setstate((version, tuple(state), gauss))
      return round_num
    shutil.rmtree(path)
  return 0


# The second is the name in the worker processes, which `compare` alone has.
if __name__ in ('__main__', '__mp_main__'):
  sys.modules['binaries.runner'] = types.SimpleNamespace(Runner=FakeRunner)
  if os.environ.get('FAKE_REPORTING'):
    for name in ('figures', 'page', 'results', 'tables'):
      sys.modules[f'binaries.reporting.{name}'] = mock.MagicMock()
if __name__ == '__mp_main__':
  importlib.import_module('binaries.compare')
elif __name__ == '__main__':
  program = importlib.import_module(f'binaries.{sys.argv[1]}')
  sys.argv = [f'{sys.argv[1]}.py', *sys.argv[2:]]
  application.run(program.main)
