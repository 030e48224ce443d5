"""A program of `binaries` with a runner that only seems to train.

`python -m tests.binaries.fake_program compare --aggregators=...` takes the same
way as `python -m binaries.compare`, but for TensorFlow, which it does without.

Accuracies are made up, and equal for equal settings. What goes wrong is set by
environment variables:

  FAKE_FAILURE=a      runs of aggregator a fail in round 2
  FAKE_CRASH=a        the process is killed in round 2 of the runs of a, having
                      written half a row
  FAKE_ENDLESS=a      round 2 of runs of a never ends
  FAKE_NOT_FINITE=a   the model is not finite from round 2 of runs of a on
"""

import importlib
import os
import pathlib
import random
import signal
import sys
import time
import types

from binaries import application


class FakeRunner:
  """Stands in for `runner.Runner`."""

  def run(self, experiment):
    """Yields what `Runner.run` yields, as far as it is looked at."""
    random_numbers = random.Random(str(sorted(experiment.to_dict().items())))
    aggregator = experiment.aggregator
    num_rounds = experiment.task_options['rounds']
    for round_num in range(1, num_rounds + 1):
      if round_num == 2:
        if os.environ.get('FAKE_FAILURE') == aggregator:
          raise ValueError('something is\nwrong')
        if os.environ.get('FAKE_CRASH') == aggregator:
          _append('metrics.csv', '2,0.1')
          _append('results.csv', 'mnist5k,me')
          os.kill(os.getpid(), signal.SIGKILL)
        if os.environ.get('FAKE_ENDLESS') == aggregator:
          time.sleep(600)
      evaluated = (
          round_num % experiment.evaluate_every == 0 or round_num == num_rounds
      )
      accuracy = random_numbers.random()
      evaluation = {'accuracy': accuracy, 'loss': 1 - accuracy}
      yield types.SimpleNamespace(
          round_num=round_num,
          seconds=time.monotonic() % 1,
          metrics={
              'aggregator': {} if aggregator == 'fedaot' else (),
              'honest_mean': {'norm': 1.0, 'distance': 0.5},
          },
          model_is_finite=(
              os.environ.get('FAKE_NOT_FINITE') != aggregator or round_num < 2
          ),
          num_attackers=int(20 * experiment.attacker_fraction),
          attacker_weight=(
              random_numbers.random() if aggregator == 'fedaot' else None
          ),
          detection_auroc=None,
          is_byzantine=(True, False),
          weights=(0.25, 0.75) if aggregator == 'fedaot' else None,
          evaluation=evaluation if evaluated else None,
          evaluation_seconds=0.0,
      )


def _append(name: str, text: str) -> None:
  """Appends to the file of that name that was written last."""
  (output_dir,) = [
      pathlib.Path(argument.partition('=')[2])
      for argument in sys.argv
      if argument.startswith('--output_dir=')
  ]
  paths = sorted(output_dir.rglob(name), key=lambda path: path.stat().st_mtime)
  if paths:
    with open(paths[-1], 'a', encoding='utf-8') as file:
      file.write(text)


if __name__ == '__main__':
  sys.modules['binaries.runner'] = types.SimpleNamespace(Runner=FakeRunner)
  program = importlib.import_module(f'binaries.{sys.argv[1]}')
  sys.argv = [f'{sys.argv[1]}.py', *sys.argv[2:]]
  application.run(program.main)
