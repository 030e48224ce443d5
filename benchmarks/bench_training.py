"""The time of a round of a whole training, next to one with the mean.

A round is what `binaries.train` does without attackers: choosing the cohort and
its data, local training, aggregation and the server's update; no evaluation,
files or checkpoints. Choose a task with `-k mnist5k`.
"""

import functools

import pytest

from binaries import experiment as experiment_lib
from binaries import runner as runner_lib

# More than are asked for, so that neither the last one comes nor an evaluation.
_ROUNDS = 10_000


@pytest.mark.parametrize('task', ['mnist5k', 'digits', 'breast_cancer'])
def test_training(benchmark, aggregator, task, context, time_in_turns):
  runner = runner_lib.Runner()

  def start_training(name):
    experiment = experiment_lib.Experiment(
        task=task,
        task_options={'rounds': _ROUNDS},
        aggregator=name,
        byzantine_fraction=0.1,
        evaluate_every=_ROUNDS,
        context=context,
    )
    return functools.partial(next, runner.run(experiment))

  benchmark.group = f'{context}, training on {task}'
  time_in_turns(start_training(aggregator), start_training('mean'))
