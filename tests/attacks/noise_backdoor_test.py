"""Noise and backdoor."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import backdoor
from fedaot_tff.attacks import gaussian_noise
from fedaot_tff.attacks import noise_backdoor
from tests import small_problem
from tests.attacks import poisoned_data


def _attacker(index, seed=(3, 4)):
  return attack.Attacker(
      index=tf.constant(index),
      seed=tf.constant(seed),
      round_num=tf.constant(1),
      num_attackers=tf.constant(4),
      num_clients=tf.constant(8),
  )


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
  assert poisoned.element_spec == clean.element_spec
  for found, wanted in zip(
      poisoned_data.arrays(poisoned), poisoned_data.arrays(expected)
  ):
    poisoned_data.assert_same_bits(found, wanted)


@pytest.mark.parametrize('index', [0, 1])
def test_every_attacker_refuses_a_target_that_is_no_class(index):
  with pytest.raises(ValueError, match='target .* below 5; found 5'):
    noise_backdoor.NoiseBackdoorData(target=5).poison(
        poisoned_data.dataset([0], shape=[9]),
        num_classes=5,
        attacker_index=index,
        seed=0,
    )


@pytest.mark.parametrize('index', [1, 3])
@pytest.mark.parametrize('options, boost', [({}, 3.0), ({'boost': 0.5}, 0.5)])
def test_attackers_with_an_odd_index_boost(index, options, boost):
  update = np.array([1.5, -2.25, 0.0], np.float32)
  sent = noise_backdoor.NoiseBackdoorUpdates(**options).poison(
      tf.constant(update), _attacker(index)
  )
  np.testing.assert_array_equal(sent, boost * update)


@pytest.mark.parametrize('index', [0, 2])
@pytest.mark.parametrize(
    'options, scale', [({}, 100.0), ({'noise_scale': 0.5}, 0.5)]
)
def test_attackers_with_an_even_index_send_noise(index, options, scale):
  update = tf.random.stateless_normal([2000], [1, 2])
  sent = noise_backdoor.NoiseBackdoorUpdates(**options).poison(
      update, _attacker(index)
  )
  np.testing.assert_array_equal(
      sent, gaussian_noise.noise_like(update, scale, tf.constant([3, 4]))
  )
  ratio = tf.norm(sent) / tf.norm(update)
  np.testing.assert_allclose(ratio, scale, rtol=0.1)
  cosine = tf.reduce_sum(sent * update) / (tf.norm(sent) * tf.norm(update))
  assert abs(cosine) < 0.1


def test_the_process_tells_the_roles_apart():
  process = noise_backdoor.NoiseBackdoorUpdates().create(
      tff.TensorType(np.float32, [100])
  )
  rng = np.random.default_rng(0)
  updates = [rng.normal(size=[100]).astype(np.float32) for _ in range(4)]
  output = process.next(
      process.initialize(),
      updates,
      [0, attack.HONEST, 1, 2],
      np.zeros([100], np.float32),
      (),
  )
  small_problem.assert_bit_identical(output.result[1], updates[1])
  np.testing.assert_array_equal(output.result[2], 3 * updates[2])
  for i in (0, 3):
    ratio = np.linalg.norm(output.result[i]) / np.linalg.norm(updates[i])
    np.testing.assert_allclose(ratio, 100, rtol=0.3)
  assert np.any(
      output.result[0] / np.linalg.norm(updates[0])
      != output.result[3] / np.linalg.norm(updates[3])
  )


@pytest.mark.parametrize('name', ['noise_scale', 'boost'])
@pytest.mark.parametrize(
    'value, error', [('3', TypeError), (True, TypeError), (0, ValueError)]
)
def test_refuses_wrong_options(name, value, error):
  with pytest.raises(error, match=f'{name} .* found {value!r}') as info:
    noise_backdoor.NoiseBackdoorUpdates(**{name: value})
  assert '\n' not in str(info.value)
