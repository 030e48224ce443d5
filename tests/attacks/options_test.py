"""Options that attacks refuse when they are made."""

import math

import pytest

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
    'kind, name, value, error',
    [
        (alie.Alie, 'z', '1', TypeError),
        (alie.Alie, 'z', math.nan, ValueError),
        (backdoor.Backdoor, 'target', -1, ValueError),
        (backdoor.Backdoor, 'target', 1.0, TypeError),
        (backdoor.Backdoor, 'fraction', 0, ValueError),
        (backdoor.Backdoor, 'fraction', '1', TypeError),
        (backdoor.Backdoor, 'size', 0, ValueError),
        (backdoor.Backdoor, 'size', 2.5, TypeError),
        (backdoor.Backdoor, 'value', None, TypeError),
        (backdoor.Backdoor, 'value', math.inf, ValueError),
        (backdoor.Backdoor, 'num_parts', 0, ValueError),
        (backdoor.Backdoor, 'num_parts', 2.0, TypeError),
        # More than the trigger has pixels.
        (backdoor.Backdoor, 'num_parts', 10, ValueError),
        (fang.FangKrum, 'threshold', 0, ValueError),
        (fang.FangTrimmedMean, 'factor', '2', TypeError),
        (fang.FangTrimmedMean, 'factor', 1.0, ValueError),
        (gaussian_noise.GaussianNoise, 'scale', 0, ValueError),
        (gaussian_noise.GaussianNoise, 'stddev', -1.0, ValueError),
        (ipm.Ipm, 'epsilon', 0, ValueError),
        (label_noise.LabelNoise, 'fraction', True, TypeError),
        (label_noise.LabelNoise, 'fraction', 0, ValueError),
        (label_noise.LabelNoise, 'fraction', 1.1, ValueError),
        (mimic.Mimic, 'warmup_rounds', 0, ValueError),
        (mimic.Mimic, 'warmup_rounds', 1.0, TypeError),
        (mimic.Mimic, 'target', 'last', ValueError),
        (multiples.ModelReplacement, 'boost', 0, ValueError),
        (multiples.Scaling, 'factor', -10.0, ValueError),
        (multiples.SignFlip, 'scale', '3', TypeError),
        (multiples.SignFlip, 'scale', 0, ValueError),
        (noise_backdoor.NoiseBackdoorUpdates, 'boost', True, TypeError),
        (noise_backdoor.NoiseBackdoorUpdates, 'boost', 0, ValueError),
        (noise_backdoor.NoiseBackdoorUpdates, 'noise_scale', '3', TypeError),
        (noise_backdoor.NoiseBackdoorUpdates, 'noise_scale', 0, ValueError),
        (perturbed_mean.MinMax, 'direction', None, TypeError),
        (perturbed_mean.MinSum, 'direction', 'std', ValueError),
        (random_nan_inf.RandomNanInf, 'fraction', 1.1, ValueError),
        (reference_mimic.ReferenceMimic, 'poison', -1.0, ValueError),
        (reference_mimic.ReferenceMimic, 'scale', 0.0, ValueError),
        (reference_mimic.ReferenceMimic, 'jitter', '1', TypeError),
        (reference_mimic.ReferenceMimic, 'jitter', -0.1, ValueError),
        (reference_mimic.ReferenceMimic, 'memory', 1.0, ValueError),
        (reference_mimic.ReferenceMimic, 'memory', -0.1, ValueError),
    ],
)
def test_refuses_a_wrong_option(kind, name, value, error):
  with pytest.raises(error, match=f'^{name} must .*found {value!r}') as info:
    kind(**{name: value})
  assert '\n' not in str(info.value)
