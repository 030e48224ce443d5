"""An attack that does not hurt is not the attack: mnist5k, 40 % attackers.

Plain federated averaging classifies 91.2 % of the test images correctly after
30 rounds without attackers (seed 0). The margins below are what each attack
must cost it, in accuracy, or the success rate that it must reach.
"""

import pytest

from binaries import experiment
from binaries import runner
from fedaot_tff.attacks import registry

_CLEAN_ACCURACY = 0.912

_MIN_ACCURACY_LOSS = {
    'label_flip': 0.1,
    'multi_label_flip': 0.02,
    'label_swap': 0.1,
    'label_noise': 0.02,
    'gaussian_noise': 0.2,
    'sign_flip': 0.5,
    'scaling': 0.3,
    'zero': 0.01,
    'random_nan_inf': 0.5,
    'alie': 0.01,
    'ipm': 0.5,
    'min_max': 0.04,
    'min_sum': 0.05,
    'fang_trimmed_mean': 0.4,
    'fang_krum': 0.1,
    'mimic': 0.02,
    'reference_mimic': 0.4,
    'swap_scaling': 0.5,
    'switching': 0.3,
    'intermittent': 0.5,
    'optimal_alie': 0.2,
    'optimal_ipm': 0.5,
    'fltrust_adaptive': 0.01,
    'adaptive_fedaot': 0.02,
    'adaptive_fedaot_jittered': 0.01,
}
_MIN_SUCCESS_RATE = {
    'backdoor': 0.9,
    'alternating_minimization': 0.9,
    'optimized_trigger': 0.9,
    'capped_backdoor': 0.6,
    'distributed_backdoor': 0.9,
    'edge_case': 0.25,
    'model_replacement': 0.9,
    'neurotoxin': 0.9,
    'noise_backdoor': 0.9,
}


def test_every_attack_has_its_margin():
  assert {*_MIN_ACCURACY_LOSS, *_MIN_SUCCESS_RATE} == {
      *registry.attack_names()
  } - {'none'}


@pytest.fixture(name='shared_runner', scope='module')
def _shared_runner():
  return runner.Runner()


def _final_evaluation(shared_runner, attack):
  rows = shared_runner.run(
      experiment.Experiment(
          aggregator='mean',
          attack=attack,
          byzantine_fraction=0.4,
          evaluate_every=30,
          task_options={'rounds': 30},
      )
  )
  *_, last = rows
  return last.evaluation


@pytest.mark.slow
def test_learns_without_attackers(shared_runner):
  accuracy = _final_evaluation(shared_runner, 'none')['accuracy']
  assert accuracy == pytest.approx(_CLEAN_ACCURACY, abs=0.005)


@pytest.mark.slow
@pytest.mark.parametrize('attack', sorted(_MIN_ACCURACY_LOSS))
def test_costs_accuracy(shared_runner, attack):
  accuracy = _final_evaluation(shared_runner, attack)['accuracy']
  assert accuracy <= _CLEAN_ACCURACY - _MIN_ACCURACY_LOSS[attack]


@pytest.mark.slow
@pytest.mark.parametrize('attack', sorted(_MIN_SUCCESS_RATE))
def test_succeeds(shared_runner, attack):
  success_rate = _final_evaluation(shared_runner, attack)['attack_success_rate']
  assert success_rate > _MIN_SUCCESS_RATE[attack]
