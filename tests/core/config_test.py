"""The constants of FedAOT: defaults, bounds and their messages."""

import dataclasses
import math

import pytest

from fedaot import config as config_lib

_DEFAULTS = dict(
    projection_dimension=8192,
    max_norm=1e15,
    reference_decay=0.9,
    initial_slope=1.5,
    initial_log_sharpness=0.0,
    max_abs_z=10.0,
    meta_learning_rate=0.05,
    meta_beta_1=0.9,
    meta_beta_2=0.99,
    meta_epsilon=1e-3,
    meta_anchor=0.01,
    max_example_ratio=None,
    sketch_dimension=256,
    min_examples_to_split=50,
    copies_floor=0.25,
    copy_cosine=0.95,
    copy_temperature=0.02,
    profile_blocks=256,
    profile_smoothing=0.01,
    profile_floor=0.2,
    min_trust=0.05,
    full_trust_cosine=0.05,
    reference_support=0.5,
    root_norm_factor=1.5,
    holdout_clip_factor=2.0,
    holdout_margin=1.5,
    holdout_cosine_floor=0.02,
    holdout_norm_scale=0.5,
    holdout_log_sharpness=(-1.0, 1.5),
    agreement_sketch_dimension=1024,
    max_groups=2,
    agreement_clip_factor=2.0,
    agreement_margin=2.0,
    agreement_cosine_floor=0.05,
    agreement_norm_scale=0.2,
    reference_clip_factor=1.0,
    reference_trust_exponent=0.5,
    majority_cosine=0.85,
    majority_range=(0.5, 0.6),
    support_rate=0.3,
    support_range=(0.5, 0.56),
    reset_support=0.45,
    camp_range=(1.3, 1.6),
    camp_voices=20.0,
    camp_decay=0.9,
    concordance_quantile=0.7,
    concordance_range=(0.4, 0.6),
    concordant_share_range=(0.2, 0.6),
    norm_share=0.6,
    max_norm_bound_ratio=1.5,
    norm_tolerance=1.0,
    min_norm_ratio=0.01,
    agreement_log_sharpness=(0.0, 1.5),
    concentration_penalty=1.0,
)
_RANGES = [name for name, v in _DEFAULTS.items() if isinstance(v, tuple)]
_INTEGERS = [name for name, v in _DEFAULTS.items() if isinstance(v, int)]
_NUMBERS = [name for name in _DEFAULTS if name not in _RANGES]


def _message(error, **fields):
  """The message of the error that a config with these fields raises."""
  with pytest.raises(error) as info:
    config_lib.FedAOTConfig(**fields)
  message = str(info.value)
  assert '\n' not in message
  return message


def test_defaults():
  assert dataclasses.asdict(config_lib.FedAOTConfig()) == _DEFAULTS


def test_every_field_is_documented():
  lines = config_lib.FedAOTConfig.__doc__.splitlines()
  for name in _DEFAULTS:
    assert any(line.strip().startswith(f'{name}: ') for line in lines), name


def test_frozen_and_keeps_what_it_is_given():
  config = config_lib.FedAOTConfig(camp_decay=1, max_example_ratio=3.0)
  assert config.camp_decay == 1
  assert config.max_example_ratio == 3.0
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.camp_decay = 2.0


def test_replace_keeps_the_others_and_checks():
  config = config_lib.FedAOTConfig(camp_decay=0.5)
  other = dataclasses.replace(config, min_trust=0.1)
  assert (other.camp_decay, other.min_trust) == (0.5, 0.1)
  assert config.min_trust == 0.05
  with pytest.raises(ValueError, match='min_trust'):
    dataclasses.replace(config, min_trust=2.0)


@pytest.mark.parametrize('name', _NUMBERS)
@pytest.mark.parametrize('value', ['0.1', True, (0.1,), [1]])
def test_a_number_of_another_kind_is_a_type_error(name, value):
  message = _message(TypeError, **{name: value})
  assert message.startswith(f'{name} must be')
  assert repr(value) in message
  assert type(value).__name__ in message


@pytest.mark.parametrize('name', _NUMBERS)
def test_none_is_a_type_error_where_a_number_is_needed(name):
  if name == 'max_example_ratio':
    config_lib.FedAOTConfig(max_example_ratio=None)
  else:
    assert 'found None' in _message(TypeError, **{name: None})


@pytest.mark.parametrize('name', _INTEGERS)
def test_a_fraction_is_a_type_error_where_an_int_is_needed(name):
  assert f'{name} must be an int; found 64.0' in _message(
      TypeError, **{name: 64.0}
  )


@pytest.mark.parametrize('name', sorted(set(_NUMBERS) - set(_INTEGERS)))
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_a_value_error(name, value):
  message = _message(ValueError, **{name: value})
  assert message.startswith(f'{name} must be')
  assert repr(value) in message


@pytest.mark.parametrize(
    'name, value, bounds',
    [
        ('sketch_dimension', 1, '>= 2'),
        ('projection_dimension', 1, '>= 2'),
        ('max_norm', 0.0, '> 0 and <= 1e+16'),
        ('max_norm', 2e16, '> 0 and <= 1e+16'),
        ('reference_decay', -0.1, '>= 0 and <= 1'),
        ('reference_decay', 1.1, '>= 0 and <= 1'),
        ('initial_slope', 0, '> 0'),
        ('initial_log_sharpness', 6.0, '<= 5'),
        ('max_abs_z', 0.0, '> 0'),
        ('meta_learning_rate', -0.01, '>= 0'),
        ('meta_beta_1', 1.0, '<= 0.9999'),
        ('meta_beta_2', 1.0, '<= 0.9999'),
        ('meta_epsilon', 0.0, '> 0'),
        ('meta_anchor', 1.5, '<= 1'),
        ('copies_floor', 0.0, '> 0'),
        ('max_example_ratio', 0.9, '>= 1'),
        ('min_examples_to_split', 1, '>= 2'),
        ('copy_cosine', 1.1, '>= -1 and <= 1'),
        ('copy_temperature', 0.0, '> 0'),
        ('min_trust', 0.0, '> 0 and <= 1'),
        ('full_trust_cosine', 0.0, '> 0 and <= 1'),
        ('reference_support', 1.5, '>= 0 and <= 1'),
        ('root_norm_factor', -1.2, '> 0'),
        ('holdout_clip_factor', 0.0, '> 0'),
        ('holdout_cosine_floor', -0.05, '> 0'),
        ('holdout_norm_scale', 0.0, '> 0'),
        ('agreement_clip_factor', 0.0, '> 0'),
        ('agreement_cosine_floor', 0.0, '> 0'),
        ('agreement_norm_scale', 0.0, '> 0'),
        ('agreement_sketch_dimension', 1, '>= 2'),
        ('max_groups', 0, '>= 1 and <= 3'),
        ('max_groups', 4, '>= 1 and <= 3'),
        ('reference_clip_factor', 0.0, '> 0'),
        ('reference_trust_exponent', 1.1, '>= 0 and <= 1'),
        ('support_rate', 1.1, '>= 0 and <= 1'),
        ('reset_support', -0.1, '>= 0 and <= 1'),
        ('camp_decay', 1.1, '>= 0 and <= 1'),
        ('concordance_quantile', 1.1, '>= 0 and <= 1'),
        ('norm_share', 0.0, '> 0 and <= 1'),
        ('max_norm_bound_ratio', 0.9, '>= 1'),
        ('norm_tolerance', -0.5, '>= 0'),
        ('min_norm_ratio', 0.0, '> 0 and <= 1'),
        ('profile_floor', 0.0, '> 0'),
        ('concentration_penalty', -1.0, '>= 0'),
    ],
)
def test_a_number_out_of_bounds_is_a_value_error(name, value, bounds):
  message = _message(ValueError, **{name: value})
  assert message.startswith(f'{name} must be ')
  assert bounds in message
  assert message.endswith(f'found {value!r}.')


@pytest.mark.parametrize('name', _RANGES)
@pytest.mark.parametrize(
    'value, error, expected',
    [
        (1.0, TypeError, 'a pair of numbers; found 1.0.'),
        (None, TypeError, 'a pair of numbers; found None.'),
        ((0.0,), TypeError, 'a pair of numbers; found (0.0,).'),
        ((0, 1, 2), TypeError, 'a pair of numbers; found (0, 1, 2).'),
        (('a', 'b'), TypeError, "a number; found 'a' of type str."),
        ((False, True), TypeError, 'a number; found False of type bool.'),
        ((1.0, 0.0), ValueError, 'in ascending order; found (1.0, 0.0).'),
        ((-math.inf, 1.0), ValueError, 'finite; found -inf.'),
        ((0.0, math.inf), ValueError, 'finite; found inf.'),
        ((0.0, math.nan), ValueError, 'finite; found nan.'),
    ],
)
def test_a_wrong_range_is_told(name, value, error, expected):
  assert _message(error, **{name: value}) == f'{name} must be {expected}'


@pytest.mark.parametrize('start', [-0.5, 2.0])
def test_the_start_must_be_inside_of_both_ranges(start):
  message = _message(ValueError, initial_log_sharpness=start)
  assert message.startswith('initial_log_sharpness must be inside')
  assert message.endswith(f'found {start}.')
  config_lib.FedAOTConfig(
      initial_log_sharpness=start,
      holdout_log_sharpness=(-3.0, 3.0),
      agreement_log_sharpness=(-3, 3),
  )
