"""Tests for the attacks by name."""

import importlib
import inspect

import numpy as np
import pytest

from fedaot_tff.attacks import mimic
from fedaot_tff.attacks import perturbed_mean
from fedaot_tff.attacks import registry


def test_all_stands_for_all_attacks():
  assert registry.split_list('all') == registry.attack_names()
  assert registry.split_list('none, alie:z=1.5 ,backdoor:size=2,target=1') == (
      'none',
      'alie:z=1.5',
      'backdoor:size=2,target=1',
  )


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
  assert np.count_nonzero(x) == x.sum() == num_pixels


@pytest.mark.parametrize('name', registry.attack_names())
def test_every_option_is_an_argument(name):
  entry = registry._ENTRIES[name]  # pylint: disable=protected-access
  known = set()
  for path in filter(None, (entry.data, entry.training, entry.update)):
    module, _, part = path.partition('.')
    module = importlib.import_module(f'fedaot_tff.attacks.{module}')
    known.update(inspect.signature(getattr(module, part)).parameters)
  assert known >= {*entry.options, *entry.defaults}


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
        ('flip', "unknown attack 'flip'; known: none, label_flip,"),
        (
            'switching:attacks=alie/label_flip',
            "option 'attacks' of attack 'switching' must be one of"
            ' gaussian_noise, sign_flip,',
        ),
        (
            'intermittent:attack=model_replacement',
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
