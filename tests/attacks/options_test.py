"""Options that attacks refuse when they are made."""

import math

import pytest

from fedaot_tff.attacks import adaptive_fedaot
from fedaot_tff.attacks import alie
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import fang
from fedaot_tff.attacks import gaussian_noise
from fedaot_tff.attacks import ipm
from fedaot_tff.attacks import label_noise
from fedaot_tff.attacks import mimic
from fedaot_tff.attacks import multiples
from fedaot_tff.attacks import noise_backdoor
from fedaot_tff.attacks import perturbed_mean
from fedaot_tff.attacks import random_nan_inf
from fedaot_tff.attacks import reference_mimic


@pytest.mark.parametrize(
    'kind, name, kinds, values',
    [
        (adaptive_fedaot.AdaptiveFedAOT, 'mode', [], ['x']),
        (adaptive_fedaot.AdaptiveFedAOT, 'steps', [], [0]),
        (adaptive_fedaot.AdaptiveFedAOT, 'jitter', [], [-0.1]),
        (adaptive_fedaot.AdaptiveFedAOT, 'max_scale', ['2'], [0]),
        (alie.Alie, 'z', ['1'], [math.nan]),
        (backdoor.Backdoor, 'target', [1.0], [-1]),
        (backdoor.Backdoor, 'fraction', ['1'], [0]),
        (backdoor.Backdoor, 'size', [2.5], [0]),
        (backdoor.Backdoor, 'value', [None], [math.inf]),
        # The trigger has nine pixels.
        (backdoor.Backdoor, 'num_parts', [2.0], [0, 10]),
        (fang.FangKrum, 'threshold', [], [0]),
        (fang.FangTrimmedMean, 'factor', ['2'], [1.0]),
        (gaussian_noise.GaussianNoise, 'scale', [], [0]),
        (gaussian_noise.GaussianNoise, 'stddev', [], [-1.0]),
        (ipm.Ipm, 'epsilon', [], [0]),
        (label_noise.LabelNoise, 'fraction', [True], [0, 1.1]),
        (mimic.Mimic, 'warmup_rounds', [1.0], [0]),
        (mimic.Mimic, 'target', [], ['last']),
        (multiples.ModelReplacement, 'boost', [], [0]),
        (multiples.Scaling, 'factor', [], [-10.0]),
        (multiples.SignFlip, 'scale', ['3'], [0]),
        (noise_backdoor.NoiseBackdoorUpdates, 'boost', [True], [0]),
        (noise_backdoor.NoiseBackdoorUpdates, 'noise_scale', ['3'], [0]),
        (perturbed_mean.MinMax, 'direction', [None], ['std']),
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
      message = f'^{name} must .*found {value!r}'
      with pytest.raises(error, match=message) as info:
        kind(**{name: value})
      assert '\n' not in str(info.value)
