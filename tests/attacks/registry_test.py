"""Tests for the attacks by name."""

import collections
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import registry

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_lookup_imports_no_tensorflow():
  source = """
import sys
from fedaot_tff.attacks import registry
for name in registry.attack_names():
  assert registry.get_attack(name).has_success_rate in (True, False)
try:
  registry.get_attack('sign_flip:scale=0')
except ValueError:
  assert 'tensorflow' not in sys.modules
else:
  raise AssertionError
"""
  result = subprocess.run(
      [sys.executable, '-c', source],
      cwd=_ROOT,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=60,
  )
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('name', registry.attack_names())
def test_makes_poisonings(name):
  found = registry.get_attack(name)
  assert found.name == name
  assert found.options == {}
  for poisoning, kind in (
      (found.data_poisoning, attack.DataPoisoning),
      (found.update_poisoning, attack.UpdatePoisoning),
  ):
    assert poisoning is None or isinstance(poisoning, kind)
  does_something = found.data_poisoning or found.update_poisoning
  assert bool(does_something) == (name != 'none')


def test_success_rates():
  with_success_rate = {
      name
      for name in registry.attack_names()
      if registry.get_attack(name).has_success_rate
  }
  assert with_success_rate == {
      'label_swap',
      'backdoor',
      'distributed_backdoor',
      'model_replacement',
      'noise_backdoor',
      'swap_scaling',
  }
  x, y = np.zeros([4, 6, 6, 1], np.float32), np.arange(4)
  for name in registry.attack_names():
    poisoning = registry.get_attack(name).data_poisoning
    if poisoning is not None:
      found = poisoning.success_examples(x, y, num_classes=4)
      assert (found is not None) == (name in with_success_rate), name


def test_all_stands_for_all_attacks():
  assert registry.split_list('all') == registry.attack_names()
  assert registry.split_list('none, alie:z=1.5 ,backdoor:size=2,target=1') == (
      'none',
      'alie:z=1.5',
      'backdoor:size=2,target=1',
  )


def test_label_flip_poisons_data_only():
  found = registry.get_attack('label_flip')
  assert found.update_poisoning is None
  clean = tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(x=np.zeros([3, 1]), y=np.array([0, 1, 4]))
  )
  poisoned = found.data_poisoning.poison(
      clean, num_classes=5, attacker_index=0, seed=0
  )
  assert [int(e['y']) for e in poisoned] == [4, 3, 0]


def _attacker():
  return attack.Attacker(
      index=tf.constant(1),
      seed=tf.constant([1, 2]),
      round_num=tf.constant(1),
      num_attackers=tf.constant(2),
      num_clients=tf.constant(10),
  )


@pytest.mark.parametrize(
    'text, expected',
    [
        ('sign_flip', [-3.0, -6.0]),
        ('sign_flip:scale=0.5', [-0.5, -1.0]),
        ('scaling', [10.0, 20.0]),
        ('scaling:factor=2', [2.0, 4.0]),
        ('swap_scaling:factor=7,first=1,second=3', [7.0, 14.0]),
        ('model_replacement', [5.0, 10.0]),
        ('model_replacement:boost=3,target=2', [3.0, 6.0]),
        ('noise_backdoor:boost=4,noise_scale=2', [4.0, 8.0]),
        ('zero', [0.0, 0.0]),
    ],
)
def test_options_reach_the_updates(text, expected):
  sent = registry.get_attack(text).update_poisoning.poison(
      tf.constant([1.0, 2.0]), _attacker()
  )
  np.testing.assert_allclose(sent, expected, rtol=1e-6)


def _options():
  """An allowed value for every option of every attack."""
  values = {
      'mode': 'agreement',
      'direction': 'sign',
      'attacks': 'alie/ipm',
      'attack': 'min_max',
      'first': '0',
      'second': '1',
      'fraction': '0.5',
      'memory': '0.5',
  }
  for name in registry.attack_names():
    options = registry.get_attack(name).known_options
    if options:
      own = {**values, 'target': 'first'} if name == 'mimic' else values
      yield name, ','.join(f'{key}={own.get(key, 2)}' for key in options)


@pytest.mark.parametrize('name, options', list(_options()))
def test_every_option_is_one_of_the_attack(name, options):
  found = registry.get_attack(f'{name}:{options}')
  assert found.data_poisoning or found.update_poisoning
  assert len(found.options) == options.count('=')


@pytest.mark.parametrize(
    'text, message',
    [
        (
            'flip',
            "unknown attack 'flip'; known: none, label_flip,",
        ),
        ('none:scale=1', "attack 'none' has no option 'scale'; known: none"),
        (
            'sign_flip:scale=-1',
            "option 'scale' of attack 'sign_flip' must be positive; found '-1'",
        ),
        (
            'switching:attacks=alie/label_flip',
            "option 'attacks' of attack 'switching' must be an attack on"
            ' updates alone, one of gaussian_noise, sign_flip,',
        ),
        (
            'intermittent:attack=backdoor',
            "option 'attack' of attack 'intermittent' must be an attack on"
            ' updates alone',
        ),
    ],
)
def test_tells_what_is_wrong(text, message):
  with pytest.raises(ValueError) as error:
    registry.get_attack(text)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
