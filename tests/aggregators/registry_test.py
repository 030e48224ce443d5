"""Tests for the aggregators by name."""

import importlib
import pathlib
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import adaptive_clipping
from fedaot_tff.aggregators import divide_and_conquer
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import krum
from fedaot_tff.aggregators import nearest_neighbor_mixing
from fedaot_tff.aggregators import registry

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_NAMES = (
    'mean',
    'tff_robust',
    'coordinate_median',
    'trimmed_mean',
    'krum',
    'multi_krum',
    'bulyan',
    'geometric_median',
    'centered_clipping',
    'minimum_diameter_averaging',
    'dnc',
    'sign_guard',
    'foolsgold',
    'flame',
    'fltrust',
    'holdout_finetuned_mean',
    'fedaot',
    'fedaot_no_holdout',
    'fedaot_frozen',
    'fedaot_no_holdout_frozen',
    'oracle',
)
_HOLDOUT_NAMES = (
    'fedaot', 'fedaot_frozen', 'fltrust', 'holdout_finetuned_mean',
)


def _make_holdout():
  spec = (
      tf.TensorSpec([None, 2], tf.float32),
      tf.TensorSpec([None], tf.int32),
  )
  model = tff.learning.models.FunctionalModel(
      initial_weights=((np.zeros([2, 2], np.float32),), ()),
      predict_on_batch_fn=tf.function(lambda weights, x, training: x),
      loss_fn=tf.function(lambda output, label, sample_weight=None: 0.0),
      input_spec=spec,
  )
  return holdout_lib.HoldOut(
      model, (np.eye(2, dtype=np.float32), np.array([0, 1], np.int32))
  )


def test_knows_the_aggregators():
  assert set(_NAMES) <= set(registry.aggregator_names())


def test_lookup_imports_no_tensorflow():
  source = """
import sys
from fedaot_tff.aggregators import registry
for name in registry.aggregator_names():
  registry.get_aggregator(name)
for text in ('median', 'krum:num_byzantine=x', 'fedaot:meta_learning_rate=-1'):
  try:
    registry.get_aggregator(text)
  except ValueError:
    continue
  raise AssertionError(text)
assert 'tensorflow' not in sys.modules
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


@pytest.mark.parametrize('name', registry.aggregator_names())
def test_creates_a_factory(name):
  aggregator = registry.get_aggregator(name)
  holdout = _make_holdout() if aggregator.needs_holdout else None
  factory = aggregator.create(
      registry.AggregatorContext(holdout=holdout, num_byzantine=0.2, seed=3)
  )
  assert isinstance(
      factory,
      (
          tff.aggregators.WeightedAggregationFactory,
          tff.aggregators.UnweightedAggregationFactory,
      ),
  )


@pytest.mark.parametrize('name', _NAMES)
def test_tells_what_an_aggregator_needs(name):
  aggregator = registry.get_aggregator(name)
  assert aggregator.name == name
  assert aggregator.needs_holdout == (name in _HOLDOUT_NAMES)
  assert aggregator.discard_attackers == (name == 'oracle')


@pytest.mark.parametrize('name', _HOLDOUT_NAMES)
def test_misses_the_holdout(name):
  with pytest.raises(ValueError, match=f"'{name}' needs a hold-out; "):
    registry.get_aggregator(name).create(registry.AggregatorContext())


def test_krum_takes_the_number_of_attackers_from_context_or_option():
  context = registry.AggregatorContext(num_byzantine=0.4)
  with mock.patch.object(krum, 'krum_factory') as factory:
    registry.get_aggregator('krum').create(context)
    factory.assert_called_with(0.4)
    registry.get_aggregator('krum:num_byzantine=0').create(context)
    factory.assert_called_with(0)
    registry.get_aggregator(
        'krum:num_byzantine=0.3,num_selected=4,neighbors=byzfl'
    ).create(context)
    factory.assert_called_with(0.3, num_selected=4, neighbors='byzfl')
    registry.get_aggregator('multi_krum').create(context)
    factory.assert_called_with(0.4, num_selected=None)
    registry.get_aggregator('multi_krum:num_selected=3').create(context)
    factory.assert_called_with(0.4, num_selected=3)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('trimmed_mean', ([0.4], {})),
        ('bulyan:num_byzantine=2', ([2], {})),
        ('minimum_diameter_averaging:num_byzantine=0.1', ([0.1], {})),
        (
            'geometric_median:tolerance=1e-3,max_iterations=5',
            ([], dict(tolerance=1e-3, max_iterations=5)),
        ),
        ('centered_clipping:clipping_radius=2', ([], dict(clipping_radius=2))),
        ('sign_guard:lower=0', ([], dict(lower=0, seed=7))),
        ('foolsgold:confidence=0.5', ([], dict(confidence=0.5))),
        ('flame', ([], dict(seed=7))),
        ('fltrust', (['holdout'], {})),
        ('holdout_finetuned_mean', (['holdout'], {})),
    ],
)
def test_rules_get_what_they_need(text, expected):
  name = text.partition(':')[0]
  module = importlib.import_module(f'fedaot_tff.aggregators.{name}')
  context = registry.AggregatorContext(
      holdout='holdout', num_byzantine=0.4, seed=7
  )
  arguments, options = expected
  with mock.patch.object(module, f'{name}_factory') as factory:
    registry.get_aggregator(text).create(context)
  factory.assert_called_once_with(*arguments, **options)


def test_dnc_is_divide_and_conquer():
  with mock.patch.object(
      divide_and_conquer, 'divide_and_conquer_factory'
  ) as factory:
    registry.get_aggregator('dnc:num_iterations=2').create(
        registry.AggregatorContext(num_byzantine=3, seed=7)
    )
  factory.assert_called_once_with(3, num_iterations=2, seed=7)


@pytest.mark.parametrize(
    'text, module_name, arguments, options',
    [
        ('nnm+krum', 'nearest_neighbor_mixing', [0.4], {}),
        ('nnm:num_byzantine=3+krum', 'nearest_neighbor_mixing', [3], {}),
        ('bucketing+krum', 'bucketing', [], dict(seed=7)),
        (
            'bucketing:bucket_size=4+krum:num_byzantine=1,num_selected=2',
            'bucketing',
            [],
            dict(bucket_size=4, seed=7),
        ),
        ('median_norm_bounding+mean', 'median_norm_bounding', [], {}),
        ('arc:num_byzantine=0.1+mean', 'adaptive_clipping', [0.1], {}),
    ],
)
def test_wrappers_get_what_they_wrap_and_need(
    text, module_name, arguments, options
):
  module = importlib.import_module(f'fedaot_tff.aggregators.{module_name}')
  context = registry.AggregatorContext(num_byzantine=0.4, seed=7)
  with mock.patch.object(module, f'{module_name}_factory') as factory:
    registry.get_aggregator(text).create(context)
  ((inner, *found), found_options) = factory.call_args
  assert (found, found_options) == (arguments, options)
  is_krum = isinstance(inner, krum.KrumFactory)
  assert is_krum == ('krum' in text)


def test_first_wrapper_is_the_outermost():
  aggregator = registry.get_aggregator('arc+nnm:num_byzantine=1+krum')
  assert aggregator.name == 'krum'
  assert aggregator.wrappers == (
      ('arc', {}), ('nnm', {'num_byzantine': 1}),
  )
  with mock.patch.object(
      adaptive_clipping, 'adaptive_clipping_factory'
  ) as outer, mock.patch.object(
      nearest_neighbor_mixing, 'nearest_neighbor_mixing_factory'
  ) as inner:
    factory = aggregator.create(registry.AggregatorContext(num_byzantine=2))
  assert factory is outer.return_value
  outer.assert_called_once_with(inner.return_value, 2)


@pytest.mark.parametrize('name', registry.wrapper_names())
def test_creates_wrapped_factories(name):
  factory = registry.get_aggregator(f'{name}+krum').create(
      registry.AggregatorContext(num_byzantine=1)
  )
  process = factory.create(tff.TensorType(np.float32, [2]))
  assert not process.is_weighted


def test_plus_sign_of_a_number_wraps_nothing():
  aggregator = registry.get_aggregator('geometric_median:tolerance=1e+2')
  assert aggregator.options == {'tolerance': 100.0}


def test_splits_a_list():
  assert registry.split_list('') == ()
  assert registry.split_list(
      'nnm:num_byzantine=3+krum:num_selected=2,neighbors=byzfl, mean'
  ) == ('nnm:num_byzantine=3+krum:num_selected=2,neighbors=byzfl', 'mean')
  names = registry.aggregator_names()
  assert registry.split_list('all') == names
  assert registry.split_list('nnm+krum,all') == ('nnm+krum', *names)


@pytest.mark.parametrize(
    'text, uses_holdout, meta_learning_rate, reference_decay',
    [
        ('fedaot', True, 0.05, 0.9),
        ('fedaot_no_holdout', False, 0.05, 0.9),
        ('fedaot_frozen', True, 0.0, 0.9),
        ('fedaot_no_holdout_frozen', False, 0.0, 0.9),
        ('fedaot:meta_learning_rate=0.1', True, 0.1, 0.9),
        ('fedaot_frozen:reference_decay=0.5', True, 0.0, 0.5),
    ],
)
def test_fedaot_variants(
    text, uses_holdout, meta_learning_rate, reference_decay
):
  context = registry.AggregatorContext(holdout=object(), seed=7)
  with mock.patch.object(fedaot, 'fedaot_factory') as factory:
    registry.get_aggregator(text).create(context)
  (holdout,), options = factory.call_args
  assert holdout is (context.holdout if uses_holdout else None)
  assert options['seed'] == 7
  assert options['config'].meta_learning_rate == meta_learning_rate
  assert options['config'].reference_decay == reference_decay


def test_oracle_of_nothing_is_zero():
  factory = registry.get_aggregator('oracle').create(
      registry.AggregatorContext()
  )
  process = factory.create(
      tff.TensorType(np.float32, [2]), tff.TensorType(np.float32)
  )
  output = process.next(
      process.initialize(), [np.ones(2, np.float32)] * 2, [0.0, 0.0]
  )
  np.testing.assert_array_equal(output.result, [0.0, 0.0])


@pytest.mark.parametrize(
    'text, message',
    [
        ('median', "unknown aggregator 'median'; known: mean, tff_robust, "),
        ('mean:a=2', "aggregator 'mean' has no option 'a'; known: none"),
        ('krum+mean', "unknown wrapper 'krum'; known: nnm, bucketing, "),
        ('nnm:a=2+mean', "wrapper 'nnm' has no option 'a'; known: num_byz"),
        ('nnm+', "unknown aggregator ''; known: "),
        (
            'arc+nnm:num_byzantine=1',
            "wrapper 'nnm:num_byzantine=1' needs an aggregator to wrap, as in"
            ' nnm:num_byzantine=1+mean',
        ),
        ('nnm+oracle', "aggregator 'oracle' cannot be wrapped"),
        (
            'krum:num_byzantine=1.5',
            "option 'num_byzantine' of aggregator 'krum' must be ",
        ),
        (
            'krum:neighbors=all',
            "option 'neighbors' of aggregator 'krum' must be one of ",
        ),
        (
            'fedaot:sketch_dimension=1.5',
            "option 'sketch_dimension' of aggregator 'fedaot' must be an int",
        ),
        (
            'fedaot:sketch_dimension=1',
            "aggregator 'fedaot': sketch_dimension must be >= 2; found 1",
        ),
        (
            'fedaot_frozen:meta_learning_rate=1',
            "aggregator 'fedaot_frozen' has no option 'meta_learning_rate'; ",
        ),
    ],
)
def test_tells_what_is_wrong(text, message):
  with pytest.raises(ValueError) as error:
    registry.get_aggregator(text)
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)
