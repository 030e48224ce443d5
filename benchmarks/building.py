"""What a grid's cells cost before their rounds, one after the other.

  python -m benchmarks.building --task=mnist5k --model=mlp

Prints the CPU seconds of the imports, of loading the task, and of each cell's
first round less those of its second: what is built for it and not shared.
"""

import os
import time

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

# pylint: disable=wrong-import-position
from absl import app
from absl import flags
from absl import logging

from binaries import experiment as experiment_lib
from binaries import runner as runner_lib
from tasks import registry

_TASK = flags.DEFINE_string('task', 'mnist5k', 'The task.')
_MODEL = flags.DEFINE_string('model', 'mlp', 'Its model.')
_CELLS = flags.DEFINE_list(
    'cells',
    [
        'mean/none',
        'mean/label_flip',
        'mean/sign_flip',
        'krum/none',
        'krum/sign_flip',
        'fedaot/none',
        'fedaot/label_flip',
        'fedaot/sign_flip',
        'fedaot_no_holdout/none',
    ],
    'AGGREGATOR/ATTACK each.',
)


def main(argv):
  del argv
  logging.set_verbosity(logging.WARNING)
  print(f'{"imports":32} {time.process_time():6.2f} s')
  start = time.process_time()
  registry.load_task(_TASK.value, model=_MODEL.value)
  print(f'{"task":32} {time.process_time() - start:6.2f} s')
  runner = runner_lib.Runner()
  for cell in _CELLS.value:
    aggregator, attack = cell.split('/')
    ends = [time.process_time()]
    rounds = runner.run(
        experiment_lib.Experiment(
            task=_TASK.value,
            task_options={'rounds': 3, 'model': _MODEL.value},
            aggregator=aggregator,
            attack=attack,
            byzantine_fraction=0.4,
            evaluate_every=3,
        )
    )
    for _ in range(2):
      next(rounds)
      ends.append(time.process_time())
    first, second = ends[1] - ends[0], ends[2] - ends[1]
    print(f'{cell:32} {first - second:6.2f} s')


if __name__ == '__main__':
  app.run(main)
