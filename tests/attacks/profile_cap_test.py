"""The cap on each block's share of an update's energy."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import profile_cap
from fedaot_tff.learning import adversary
from tests.attacks import hand_made


def test_blocks_are_runs_within_tensors():
  # 520 coordinates make runs of 3.
  found = profile_cap.number_blocks([7, 1, 512])
  np.testing.assert_array_equal(
      found[:12], [0, 0, 0, 1, 1, 1, 2, 3, 4, 4, 4, 5]
  )
  np.testing.assert_array_equal(np.bincount(found)[-2:], [3, 2])
  assert len(found) == 520 and found.dtype == np.int32
  np.testing.assert_array_equal(profile_cap.number_blocks([2, 1]), [0, 1, 2])


@pytest.mark.parametrize(
    'found, caps, expected',
    [
        ([0.5, 0.5], [0.6, 0.6], [0.5, 0.5]),
        # What is left, .2, is two fifths.
        ([0.8, 0.2], [0.6, 0.6], [0.3, 0.2]),
        ([0.6, 0.3, 0.1], [0.4, 0.4, 0.4], [0.2, 0.2, 0.1]),
        # The second block was within its cap before the first was cut.
        ([0.8, 0.15, 0.05], [0.5, 0.3, 0.9], [0.125, 0.075, 0.05]),
        # A zero block stays zero, whatever its cap.
        ([1, 0], [0.5, 3], [0.5, 0]),
        ([0, 0], [1, 1], [0, 0]),
    ],
)
def test_energies_by_hand(found, caps, expected):
  energies = profile_cap.cap(np.float32(found), np.float32(caps))
  np.testing.assert_allclose(energies, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('seed', range(20))
def test_caps_bind_and_the_rest_keeps_its_proportions(seed):
  rng = np.random.default_rng(seed)
  found = rng.dirichlet(np.full(30, 0.2)).astype(np.float32)
  caps = np.float32(1.5 * rng.dirichlet(np.full(30, 2.0)))
  energies = profile_cap.cap(found, caps).numpy()
  share = energies / energies.sum()
  assert np.all(share <= caps * (1 + 1e-4))
  is_cut = energies < found * (1 - 1e-4)
  assert is_cut.any() and not is_cut.all()
  np.testing.assert_allclose(share[is_cut], caps[is_cut], rtol=1e-3)
  np.testing.assert_allclose(energies[~is_cut], found[~is_cut], rtol=1e-4)


def _reference(update, honest, block_of, multiple):
  """Cuts block after block until none is above its cap."""
  num = block_of.max() + 1

  def profile(row):
    energy = np.bincount(block_of, np.float64(row) ** 2, num)
    return energy / energy.sum()

  median = np.median([profile(row) for row in honest], axis=0)
  caps = multiple * (0.95 * median / median.sum() + 0.05 / num)
  energy = profile(update)
  for _ in range(10_000):
    energy = np.minimum(energy, caps * energy.sum())
  sent = update * np.sqrt(energy / profile(update))[block_of]
  return sent * np.linalg.norm(update) / np.linalg.norm(sent)


@pytest.mark.parametrize('multiple', [1.5, 3])
@pytest.mark.parametrize('num_honest', [1, 4, 5])
def test_matches_the_reference(num_honest, multiple):
  sizes = [900, 60, 40]
  rng = np.random.default_rng(num_honest)
  honest = hand_made.updates(num_honest, 1000, seed=num_honest)
  update = np.float32(rng.normal(size=1000) * rng.gamma(0.3, size=1000))
  block_of = profile_cap.number_blocks(sizes)
  poisoning = profile_cap.CappedUpdates(block_of, multiple)
  caps, _ = hand_made.agree(poisoning, honest)
  sent = poisoning.send(tf.constant(update), caps, hand_made.attacker())
  expected = _reference(update, honest, block_of, multiple)
  np.testing.assert_allclose(sent, expected, rtol=2e-3, atol=1e-5)
  assert np.linalg.norm(sent - update) > 0.1 * np.linalg.norm(update)


def test_blocks_are_those_of_the_tensors_of_an_update():
  process = profile_cap.ProfileCap(multiple=1).create(
      tff.to_type((tff.TensorType(np.float32, [2, 2]), np.float32)),
      adversary.Context(),
  )
  honest = (np.float32([[2, 1], [1, 2]]), np.float32(0.5))
  own = (np.float32([[3, 0.5], [1, 1]]), np.float32(-1))
  _, sent = process.next(
      process.initialize(),
      [honest, own],
      [np.int32(-1), np.int32(0)],
      honest,
      (),
  ).result
  # Of 5 blocks, those of 1.
  update = np.float32([3, 0.5, 1, 1, -1])
  expected = _reference(update, [[2, 1, 1, 2, 0.5]], np.arange(5), multiple=1.0)
  np.testing.assert_allclose(
      np.concatenate([np.ravel(t) for t in sent]), expected, rtol=1e-4
  )
