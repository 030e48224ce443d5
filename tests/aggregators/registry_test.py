"""Tests for the aggregators by name."""

from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import rules
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry

_NAMES = (
    'mean',
    'tff_robust',
    'multi_krum',
    'holdout_finetuned_mean',
    *rules.RULES,
    'fedaot',
    'fedaot_no_holdout',
    'fedaot_frozen',
    'fedaot_no_holdout_frozen',
    'oracle',
)
_HOLDOUT_NAMES = {
    'fedaot',
    'fedaot_frozen',
    'fltrust',
    'holdout_finetuned_mean',
    *(name for name, make in rules.RULES.items() if make.needs_root),
}


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


@pytest.mark.parametrize('name', sorted(_HOLDOUT_NAMES))
def test_misses_the_holdout(name):
  with pytest.raises(ValueError, match=f"'{name}' needs a hold-out; "):
    registry.get_aggregator(name).create(registry.AggregatorContext())


_CONTEXT = registry.AggregatorContext(num_byzantine=0.4, seed=7)


@pytest.mark.parametrize(
    'text, expected',
    [
        ('coordinate_median', rules.coordinate_median()),
        ('trimmed_mean', rules.trimmed_mean(0.4)),
        ('krum', rules.krum(0.4)),
        ('krum:num_byzantine=0', rules.krum(0)),
        ('krum:num_selected=4', rules.krum(0.4, num_selected=4)),
        ('multi_krum', rules.krum(0.4, num_selected=None)),
        ('multi_krum:num_selected=3', rules.krum(0.4, num_selected=3)),
        ('bulyan:num_byzantine=2', rules.bulyan(2)),
        (
            'minimum_diameter_averaging:num_byzantine=0.1',
            rules.minimum_diameter_averaging(0.1),
        ),
        (
            'geometric_median:tolerance=1e-3,max_iterations=5',
            rules.geometric_median(tolerance=1e-3, max_iterations=5),
        ),
        (
            'centered_clipping:clipping_radius=2',
            rules.centered_clipping(clipping_radius=2),
        ),
        ('sign_guard:lower=0', rules.sign_guard(lower=0, seed=7)),
        ('dnc:num_iterations=2', rules.dnc(0.4, num_iterations=2, seed=7)),
        ('foolsgold:confidence=0.5', rules.foolsgold(confidence=0.5)),
        ('flame', rules.flame(seed=7)),
        ('nnm+krum', rules.nnm(rules.krum(0.4), 0.4)),
        ('nnm:num_byzantine=3+krum', rules.nnm(rules.krum(0.4), 3)),
        (
            'bucketing:bucket_size=4+krum:num_byzantine=1,num_selected=2',
            rules.bucketing(rules.krum(1, num_selected=2), 4, seed=7),
        ),
        # The first wrapper is the outermost.
        (
            'arc+nnm:num_byzantine=1+krum',
            rules.arc(rules.nnm(rules.krum(0.4), 1), 0.4),
        ),
    ],
)
def test_rules_get_what_they_need(text, expected):
  factory = registry.get_aggregator(text).create(_CONTEXT)
  assert repr(factory.rule) == repr(expected)


@pytest.mark.parametrize('name', ['fltrust', 'holdout_finetuned_mean'])
def test_hands_the_holdout_over(name):
  holdout = _make_holdout()
  factory = registry.get_aggregator(name).create(
      _CONTEXT._replace(holdout=holdout)
  )
  assert factory.holdout is holdout


def test_tells_wrappers_and_options():
  aggregator = registry.get_aggregator('arc+nnm:num_byzantine=1+krum')
  assert aggregator.name == 'krum'
  assert aggregator.wrappers == (
      ('arc', {}),
      ('nnm', {'num_byzantine': 1}),
  )


@pytest.mark.parametrize('name', registry.wrapper_names())
def test_wraps_other_factories(name):
  factory = registry.get_aggregator(f'{name}+mean').create(_CONTEXT)
  assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)


def test_plus_sign_of_a_number_wraps_nothing():
  aggregator = registry.get_aggregator('centered_clipping:clipping_radius=1e+2')
  assert aggregator.options == {'clipping_radius': 100.0}


def test_splits_a_list():
  assert registry.split_list('') == ()
  assert registry.split_list(
      'nnm:num_byzantine=3+krum:num_selected=2,num_byzantine=1, mean'
  ) == ('nnm:num_byzantine=3+krum:num_selected=2,num_byzantine=1', 'mean')
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
            "aggregator 'krum': num_byzantine must be >= 0 and < 1; found 1.5",
        ),
        (
            'krum:num_selected=1.5',
            "aggregator 'krum': num_selected must be an int; found 1.5",
        ),
        (
            'krum:num_selected=all',
            "aggregator 'krum': num_selected must be an int; found 'all'",
        ),
        ('krum:neighbors=byzfl', "aggregator 'krum' has no option 'neighbors'"),
        (
            'bucketing:bucket_size=0+krum',
            "wrapper 'bucketing': bucket_size must be >= 1; found 0",
        ),
        (
            'fedaot:sketch_dimension=1.5',
            "option 'sketch_dimension' of aggregator 'fedaot' must be an int",
        ),
        (
            'fedaot:sketch_dimension=1',
            "aggregator 'fedaot': sketch_dimension must be >= 2 and <= 1048576",
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
