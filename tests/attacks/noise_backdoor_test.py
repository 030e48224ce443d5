"""Noise and backdoor by number; for the boosts see `hand_computed_test`."""

import numpy as np
import pytest

from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import noise_backdoor
from tests.attacks import hand_made
from tests.attacks import poisoned_data


@pytest.mark.parametrize('index', [0, 1, 2, 3])
def test_attackers_with_an_odd_index_train_on_the_backdoor(index):
  clean = poisoned_data.dataset(range(10), shape=[3, 3])
  arguments = dict(num_classes=10, attacker_index=index, seed=5)
  options = dict(target=2, fraction=0.4, size=2, value=7)
  poisoned = noise_backdoor.NoiseBackdoorData(**options).poison(
      clean, **arguments
  )
  expected = clean
  if index % 2 == 1:
    expected = backdoor.Backdoor(**options).poison(clean, **arguments)
  for found, wanted in zip(
      poisoned_data.arrays(poisoned), poisoned_data.arrays(expected)
  ):
    poisoned_data.assert_same_bits(found, wanted)


@pytest.mark.parametrize('index', [0, 1])
def test_every_attacker_refuses_a_target_that_is_no_class(index):
  with pytest.raises(ValueError, match='target .* <= 4; found 5'):
    noise_backdoor.NoiseBackdoorData(target=5).poison(
        poisoned_data.dataset([0], shape=[9]),
        num_classes=5,
        attacker_index=index,
        seed=0,
    )


@pytest.mark.parametrize('index', [0, 2])
@pytest.mark.parametrize(
    'options, scale', [({}, 100.0), ({'noise_scale': 0.5}, 0.5)]
)
def test_attackers_with_an_even_index_send_noise(index, options, scale):
  update = np.random.default_rng(0).normal(size=2000).astype(np.float32)
  sent = hand_made.poison(
      noise_backdoor.NoiseBackdoorUpdates(**options), update, index=index
  )
  ratio = np.linalg.norm(sent) / np.linalg.norm(update)
  np.testing.assert_allclose(ratio, scale, rtol=0.1)
  assert abs(np.corrcoef(sent, update)[0, 1]) < 0.1
