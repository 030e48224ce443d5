"""Tests for the attacks by name."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from fedaot_tff.attacks import mimic
from fedaot_tff.attacks import perturbed_mean
from fedaot_tff.attacks import registry
from tests.attacks import hand_made

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_lookup_imports_no_tensorflow():
  source = """
import sys
from fedaot_tff.attacks import registry
for name in registry.attack_names():
  assert registry.get_attack(name).name == name
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


def test_all_stands_for_all_attacks():
  assert registry.split_list('all') == registry.attack_names()
  assert registry.split_list('none, alie:z=1.5 ,backdoor:size=2,target=1') == (
      'none',
      'alie:z=1.5',
      'backdoor:size=2,target=1',
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
  sent = hand_made.poison(
      registry.get_attack(text).update_poisoning,
      [1.0, 2.0],
      index=1,
      num_clients=10,
  )
  np.testing.assert_allclose(sent, expected, rtol=1e-6)


@pytest.mark.parametrize(
    'text, num_pixels',
    [
        ('backdoor', 9),
        ('backdoor:size=2,target=3', 4),
        # Success is measured with the whole trigger.
        ('distributed_backdoor', 16),
        ('distributed_backdoor:size=5,num_parts=2', 25),
    ],
)
def test_options_reach_the_data(text, num_pixels):
  x, _ = registry.get_attack(text).data_poisoning.success_examples(
      np.zeros([1, 6, 6], np.float32), np.array([1]), num_classes=4
  )
  assert np.count_nonzero(x) == num_pixels


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
  # pylint: disable-next=protected-access
  for name, entry in registry._ENTRIES.items():
    if entry.options:
      own = {**values, 'target': 'first'} if name == 'mimic' else values
      yield name, ','.join(f'{k}={own.get(k, 2)}' for k in entry.options)


@pytest.mark.parametrize('name, options', list(_options()))
def test_every_option_is_one_of_the_attack(name, options):
  found = registry.get_attack(f'{name}:{options}')
  assert found.data_poisoning or found.update_poisoning
  assert len(found.options) == options.count('=')


@pytest.mark.parametrize(
    'text, kinds',
    [
        ('min_max:direction={}', perturbed_mean.DIRECTIONS),
        ('mimic:target={}', mimic.TARGETS),
    ],
)
def test_every_kind_can_be_chosen(text, kinds):
  for kind in kinds:
    assert registry.get_attack(text.format(kind)).update_poisoning


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
            "option 'scale' of attack 'sign_flip' must be > 0; found -1.0",
        ),
        (
            'switching:attacks=alie/label_flip',
            "option 'attacks' of attack 'switching' must be one of"
            ' gaussian_noise, sign_flip,',
        ),
        (
            'intermittent:attack=backdoor',
            "option 'attack' of attack 'intermittent' must be one of"
            ' gaussian_noise, sign_flip,',
        ),
    ],
)
def test_tells_what_is_wrong(text, message):
  with pytest.raises(ValueError) as error:
    registry.get_attack(text)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
