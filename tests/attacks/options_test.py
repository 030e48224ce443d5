"""Options that attacks refuse when they are made."""

import math
import re

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.attacks import adaptive_fedaot
from fedaot_tff.attacks import alie
from fedaot_tff.attacks import alternating_minimization
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import edge_case
from fedaot_tff.attacks import fang
from fedaot_tff.attacks import gaussian_noise
from fedaot_tff.attacks import ipm
from fedaot_tff.attacks import label_noise
from fedaot_tff.attacks import mimic
from fedaot_tff.attacks import multiples
from fedaot_tff.attacks import neurotoxin
from fedaot_tff.attacks import noise_backdoor
from fedaot_tff.attacks import optimized_trigger
from fedaot_tff.attacks import perturbed_mean
from fedaot_tff.attacks import profile_cap
from fedaot_tff.attacks import random_nan_inf
from fedaot_tff.attacks import reference_mimic
from fedaot_tff.attacks import schedule
from fedaot_tff.learning import adversary


@pytest.mark.parametrize(
    'kind, name, kinds, values',
    [
        (adaptive_fedaot.AdaptiveFedAOT, 'mode', [], ['x']),
        (adaptive_fedaot.AdaptiveFedAOT, 'steps', [], [0]),
        (adaptive_fedaot.AdaptiveFedAOT, 'jitter', [], [-0.1]),
        (adaptive_fedaot.AdaptiveFedAOT, 'max_scale', ['2'], [0]),
        (alie.Alie, 'z', ['1'], [math.nan, 1e39, -1e39]),
        (alternating_minimization.AlternatingMinimization, 'boost', [], [0]),
        (alternating_minimization.AlternatingMinimization, 'rho', [], [-1.0]),
        (optimized_trigger.OptimizedTrigger, 'target', [1.0], [-1]),
        (optimized_trigger.OptimizedTrigger, 'fraction', ['1'], [0]),
        (optimized_trigger.OptimizedTrigger, 'size', [2.5], [0]),
        (optimized_trigger.OptimizedTrigger, 'value', [None], [math.inf]),
        (optimized_trigger.OptimizedTrigger, 'passes', [2.5], [0]),
        (backdoor.Backdoor, 'target', [1.0], [-1, 2**31]),
        (backdoor.Backdoor, 'fraction', ['1'], [0]),
        (backdoor.Backdoor, 'size', [2.5], [0]),
        (backdoor.Backdoor, 'value', [None], [math.inf, 10**400]),
        # The trigger has nine pixels.
        (backdoor.Backdoor, 'num_parts', [2.0], [0, 10]),
        (edge_case.EdgeCase, 'target', [1.0], [-1]),
        (edge_case.EdgeCase, 'fraction', ['1'], [0]),
        (edge_case.EdgeCase, 'tail_share', ['1'], [0, 1.1]),
        (fang.FangKrum, 'threshold', [], [0]),
        (fang.FangTrimmedMean, 'factor', ['2'], [1.0]),
        (gaussian_noise.GaussianNoise, 'scale', [], [0]),
        (gaussian_noise.GaussianNoise, 'stddev', [], [-1.0, 1e39]),
        (ipm.Ipm, 'epsilon', [], [0]),
        (label_noise.LabelNoise, 'fraction', [True], [0, 1.1]),
        (mimic.Mimic, 'warmup_rounds', [1.0], [0, 10**26]),
        (mimic.Mimic, 'target', [], ['last']),
        (multiples.ModelReplacement, 'boost', [], [0]),
        (multiples.Scaling, 'factor', [], [-10.0]),
        (multiples.SignFlip, 'scale', ['3'], [0, 1e39]),
        (neurotoxin.Neurotoxin, 'top', ['1'], [-0.1, 1.0]),
        (noise_backdoor.NoiseBackdoorUpdates, 'boost', [True], [0]),
        (noise_backdoor.NoiseBackdoorUpdates, 'noise_scale', ['3'], [0]),
        (perturbed_mean.MinMax, 'direction', [None], ['std']),
        (profile_cap.ProfileCap, 'multiple', ['3'], [0.9]),
        (random_nan_inf.RandomNanInf, 'fraction', [], [1.1]),
        (reference_mimic.ReferenceMimic, 'poison', [], [-1.0]),
        (reference_mimic.ReferenceMimic, 'scale', [], [0.0]),
        (reference_mimic.ReferenceMimic, 'jitter', ['1'], [-0.1]),
        (reference_mimic.ReferenceMimic, 'memory', [], [1.0, -0.1]),
    ],
)
def test_refuses_a_wrong_option(kind, name, kinds, values):
  for error, wrong in ((TypeError, kinds), (ValueError, values)):
    for value in wrong:
      message = f'^{name} must .*found {re.escape(repr(value))}'
      with pytest.raises(error, match=message) as info:
        kind(**{name: value})
      assert '\n' not in str(info.value)


@pytest.mark.parametrize('seed', [10**26, -1, 2**63])
@pytest.mark.parametrize(
    'make', [alie.Alie, gaussian_noise.GaussianNoise, schedule.Switching]
)
def test_refuses_a_wrong_seed_when_it_is_created(make, seed):
  with pytest.raises(ValueError, match=f'^seed must .*found {seed}') as info:
    make().create(tff.TensorType(np.float32, [2]), adversary.Context(seed=seed))
  assert '\n' not in str(info.value)


def test_attacks_in_turn_are_a_sequence():
  for value in (3, None, {'alie'}):
    with pytest.raises(TypeError, match='^attacks must be a Sequence;'):
      schedule.Switching(attacks=value)
