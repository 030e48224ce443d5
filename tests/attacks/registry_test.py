"""Tests for the attacks by name."""

import collections
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

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


@pytest.mark.parametrize('name', ['none', 'label_flip', 'sign_flip'])
def test_has_no_success_rate(name):
  assert not registry.get_attack(name).has_success_rate


def test_label_flip_poisons_data_only():
  found = registry.get_attack('label_flip')
  assert found.update_poisoning is None
  clean = tf.data.Dataset.from_tensor_slices(
      collections.OrderedDict(x=np.zeros([3, 1]), y=np.array([0, 1, 4]))
  )
  poisoned = found.data_poisoning.poison(clean, 5, 0)
  assert [int(e['y']) for e in poisoned] == [4, 3, 0]


@pytest.mark.parametrize(
    'text, scale', [('sign_flip', 3.0), ('sign_flip:scale=0.5', 0.5)]
)
def test_sign_flip_poisons_updates_only(text, scale):
  found = registry.get_attack(text)
  assert found.data_poisoning is None
  process = found.update_poisoning.create(tff.TensorType(np.float32, [2]))
  output = process.next(
      process.initialize(),
      [np.array([1, 2], np.float32), np.array([3, 4], np.float32)],
      [True, False],
  )
  np.testing.assert_allclose(
      output.result, [[-scale, -2 * scale], [3, 4]], rtol=1e-6
  )


@pytest.mark.parametrize(
    'text, message',
    [
        (
            'flip',
            "unknown attack 'flip'; known: none, label_flip, sign_flip",
        ),
        ('none:scale=1', "attack 'none' has no option 'scale'; known: none"),
        (
            'sign_flip:scale=-1',
            "option 'scale' of attack 'sign_flip' must be positive; found '-1'",
        ),
    ],
)
def test_tells_what_is_wrong(text, message):
  with pytest.raises(ValueError) as error:
    registry.get_attack(text)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
