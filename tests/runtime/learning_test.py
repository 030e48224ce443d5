"""Training and evaluation natively and in this process."""

import collections
import functools

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.attacks import registry
from fedaot_tff.learning import fed_avg
from tests import small_problem
from tests.runtime import both_contexts

_ITERATOR = tff.learning.LoopImplementation.DATASET_ITERATOR
_ROUNDS = 2


def _server_optimizer():
  return tff.learning.optimizers.build_adam(0.1)


def _weighted_fed_avg(model=None, **options):
  options.setdefault('loop_implementation', _ITERATOR)
  return tff.learning.algorithms.build_weighted_fed_avg(
      model or small_problem.model(),
      small_problem.client_optimizer(),
      _server_optimizer(),
      **options,
  )


def _fed_prox():
  return tff.learning.algorithms.build_weighted_fed_prox(
      small_problem.model(),
      0.1,
      small_problem.client_optimizer(),
      _server_optimizer(),
      loop_implementation=_ITERATOR,
  )


def _mime_lite():
  return tff.learning.algorithms.build_weighted_mime_lite(
      small_problem.model(),
      tff.learning.optimizers.build_sgdm(0.1, momentum=0.9),
      loop_implementation=_ITERATOR,
  )


def _fedaot(holdout):
  return fed_avg.build_fedaot_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      _server_optimizer(),
      holdout=small_problem.holdout() if holdout else None,
      seed=5,
  )


def _without_times(outputs):
  """States and metrics that do not tell how long something took."""
  return [(output.state, output.metrics) for output in outputs]


def _run(process, num_rounds=_ROUNDS, state=None):
  return _without_times(small_problem.run(process, num_rounds, state))


@pytest.mark.parametrize(
    'build',
    [
        _weighted_fed_avg,
        pytest.param(_fed_prox, marks=pytest.mark.slow),
        pytest.param(_mime_lite, marks=pytest.mark.slow),
        pytest.param(
            functools.partial(_fedaot, holdout=True), marks=pytest.mark.slow
        ),
        pytest.param(
            functools.partial(_fedaot, holdout=False), marks=pytest.mark.slow
        ),
    ],
)
def test_learning_processes(build):
  both_contexts.assert_runs_alike(_run, build(), tolerance=1e-5)


@pytest.mark.slow
def test_keras_model_whose_loop_reduces_datasets():
  process = _weighted_fed_avg(
      small_problem.keras_model_fn,
      loop_implementation=tff.learning.LoopImplementation.DATASET_REDUCE,
  )
  state = both_contexts.run_in(both_contexts.native(), process.initialize)
  both_contexts.assert_runs_alike(_run, process, 1, state, tolerance=1e-5)


@pytest.mark.slow
def test_evaluation():
  process = tff.learning.algorithms.build_fed_eval(
      small_problem.keras_model_fn, loop_implementation=_ITERATOR
  )
  state = both_contexts.run_in(both_contexts.native(), process.initialize)

  def evaluate():
    output = process.next(state, small_problem.client_datasets())
    return output.state, output.metrics

  both_contexts.assert_runs_alike(evaluate, tolerance=1e-6)


def test_state_of_one_context_goes_on_in_the_other():
  process = _weighted_fed_avg()
  native, in_process = both_contexts.native(), both_contexts.in_process()
  expected = both_contexts.run_in(native, _run, process, 2)
  for first, second in ((native, in_process), (in_process, native)):
    ((state, _),) = both_contexts.run_in(first, _run, process, 1)
    output = both_contexts.run_in(
        second, process.next, state, small_problem.client_datasets(1)
    )
    state = output.state
    both_contexts.assert_same(expected[-1][0], state, tolerance=1e-6)


_FAST_ATTACKS = ('alie',)
# With more steps its ascent takes another way after another rounding.
_OPTIONS = {
    'adaptive_fedaot': ':steps=1',
    # The examples have four features.
    'alternating_minimization': ':size=1',
    'optimized_trigger': ':size=1',
}


@pytest.mark.parametrize(
    'name',
    [
        name
        if name in _FAST_ATTACKS
        else pytest.param(name, marks=pytest.mark.slow)
        for name in registry.attack_names()
    ],
)
def test_attacks_on_updates(name):
  attack = registry.get_attack(name + _OPTIONS.get(name, ''))
  process = fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      _server_optimizer(),
      model_aggregator=tff.aggregators.MeanFactory(),
      update_poisoning=attack.update_poisoning,
      training_poisoning=attack.training_poisoning,
      seed=5,
  )

  def client_data(round_num):
    return [
        collections.OrderedDict(
            attacker_index=np.int32(index - 4 if index >= 4 else -1),
            dataset=dataset,
        )
        for index, dataset in enumerate(
            small_problem.client_datasets(round_num)
        )
    ]

  def run():
    return _without_times(
        small_problem.run(process, _ROUNDS, client_data_fn=client_data)
    )

  both_contexts.assert_runs_alike(run, tolerance=1e-5)
