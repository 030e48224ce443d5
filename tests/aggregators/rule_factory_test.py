"""Tests of the adapter: every rule in TFF, equal to itself on arrays."""

import collections
import inspect

import numpy as np
import pytest
from sklearn import datasets
import tensorflow_federated as tff

from fedaot import rules
import fedaot_tff
from fedaot_tff.aggregators import holdout_rules
from fedaot_tff.aggregators import registry
from fedaot_tff.aggregators import rule_factory
from tests import small_problem

# d = 4: enough for each dtype, in the order of `tf.nest.flatten`.
_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        kernel=tff.TensorType(np.float32, [2]),
        bias=(np.float64, [np.float16]),
    )
)
_SHAPES = [(), (), (2,)]
_WEIGHT_TYPE = tff.TensorType(np.float32)


def _client(row):
  """A row in the structure of an update."""
  return collections.OrderedDict(
      kernel=np.array(row[2:], np.float32),
      bias=(np.float64(row[0]), [np.float16(row[1])]),
  )


def _flat(result):
  scalar, (half,) = result['bias']
  assert scalar.dtype == np.float64 and half.dtype == np.float16
  return np.array([scalar, half, *result['kernel']])


# Halves, which all dtypes can hold, without ties in distances.
_TABLE = np.array(
    [
        [2.0, 4.0, 1.0, 0.5],
        [1.5, 4.5, 2.0, -1.0],
        [2.0, np.nan, 1.0, 0.0],
        [2.5, 3.5, 0.0, 1.0],
        [90.0, 5.0, -80.0, 70.0],
        [3.5, 3.0, 0.5, -0.5],
        [1e300, 4.0, 1.0, 0.5],
        [0.5, 5.0, 1.5, 2.5],
        [2.0, 2.0, 3.0, 1.5],
    ]
)
_CLIENTS = [_client(row) for row in _TABLE]
# Whatever positive weight a client claims has no effect.
_WEIGHTS = [1e9, 1.0, 1.0, np.inf, 1e-9, 1.0, 1.0, 2.0, 1.0]
# The first two and the last two have nothing to say.
_SOME_WEIGHTS = [np.nan, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, -1.0]

# Without random numbers, which frameworks draw differently.
_OPTIONS = {
    'num_byzantine': 2,
    'seed': 1,
    'num_sampled': 4,
    'coordinate_fraction': 1.0,
    'noise_multiplier': 0,
}


def _make(make, *inner):
  names = inspect.signature(make).parameters
  return make(*inner, **{k: v for k, v in _OPTIONS.items() if k in names})


def _factories(makers):
  return {
      make.__name__: getattr(rule_factory, name)
      for name, make in registry.FACTORIES.items()
      if make in makers.values() and not make.needs_root
  }


_FACTORIES = _factories(rules.RULES)
_WRAPPERS = _factories(rules.WRAPPERS)
_CASES = {
    **{name: _make(factory) for name, factory in _FACTORIES.items()},
    **{
        f'{wrapper}({name})': _make(factory, _make(_FACTORIES[name]))
        for wrapper, factory in _WRAPPERS.items()
        if wrapper != 'bucketing'
        for name in ('krum', 'coordinate_median')
    },
    'nnm(arc(centered_clipping))': _make(
        _WRAPPERS['nnm'],
        _make(_WRAPPERS['arc'], _make(_FACTORIES['centered_clipping'])),
    ),
}


def test_every_rule_is_there():
  assert fedaot_tff.divide_and_conquer_factory is _FACTORIES['dnc']
  assert fedaot_tff.adaptive_clipping_factory is _WRAPPERS['arc']
  assert set(_WRAPPERS) == set(rules.WRAPPERS)
  for name, factory in (_FACTORIES | _WRAPPERS).items():
    make = {**rules.RULES, **rules.WRAPPERS}[name]
    assert factory.__doc__ == make.__doc__
    assert inspect.signature(factory) == inspect.signature(make)
  for factory, make in registry.FACTORIES.items():
    assert factory in fedaot_tff.__all__ and factory in dir(fedaot_tff)
    module = holdout_rules if make.needs_root else rule_factory
    assert getattr(fedaot_tff, factory) is getattr(module, factory)


def _assert_equal_measurements(found, expected):
  assert set(found) == set(expected)
  for name, value in expected.items():
    if name == 'inner':
      _assert_equal_measurements(found[name], value)
      continue
    kind = np.asarray(value).dtype.kind
    assert (
        np.asarray(found[name]).dtype
        == {'f': np.float32, 'i': np.int32, 'b': np.bool_}[kind]
    ), name
    if name != 'num_iterations':
      np.testing.assert_allclose(
          found[name], value, rtol=1e-4, atol=1e-5, err_msg=name
      )


@pytest.mark.parametrize('name', _CASES)
def test_equals_the_rule_on_arrays(name):
  factory = _CASES[name]
  assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
  process = factory.create(_VALUE_TYPE, _WEIGHT_TYPE)
  result_type = process.next.type_signature.result.result
  assert result_type == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  rule = factory.rule
  state = process.initialize()
  assert set(state) == {
      *(['round_num'] if rule.is_random else []),
      *(['reference'] if rule.remembers else []),
  }
  reference = None
  with np.errstate(over='ignore'):
    # The last has an offset that products about zero would drown in.
    tables = [_TABLE, _TABLE[::-1], np.zeros([0, 4]), _TABLE[2:3], _TABLE[:1]]
    tables.append(_TABLE + [0, 0, 2.0**19, 2.0**19])
    tables.extend([_TABLE, _TABLE[:2], _TABLE])
    # About 1e9, where float32 holds multiples of 64.
    tables.append(_TABLE * [1, 1, 128, 128] + [0, 0, 2.0**30, 2.0**30])
    tables = [table.astype(np.float32) for table in tables]
  for round_num, table in enumerate(tables):
    clients = [_client(row) for row in table]
    weights = _SOME_WEIGHTS if 6 <= round_num < 8 else _WEIGHTS
    weights = weights[: len(table)]
    output = process.next(state, clients, weights)
    expected, measurements = rule.measure(
        table,
        num_examples=weights,
        round_num=round_num,
        reference=reference,
        shapes=_SHAPES,
    )
    assert measurements['num_empty'] == {6: 4, 7: 2}.get(round_num, 0)
    # Half precision holds three digits.
    np.testing.assert_allclose(
        _flat(output.result), expected, rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        output.result['kernel'], expected[2:], rtol=1e-5, atol=1e-5
    )
    _assert_equal_measurements(output.measurements, measurements)
    state = output.state
    if rule.remembers:
      if len(table) > measurements['num_empty']:
        reference = expected
      np.testing.assert_allclose(state['reference'], reference, atol=1e-5)
      reference = np.asarray(state['reference'])
    if rule.is_random:
      assert state['round_num'] == round_num + 1


@pytest.mark.parametrize('name', ['krum', 'centered_clipping', 'nnm(krum)'])
def test_unweighted(name):
  factory = _CASES[name].unweighted
  assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
  process = factory.create(_VALUE_TYPE)
  output = process.next(process.initialize(), _CLIENTS)
  with np.errstate(over='ignore'):
    expected = factory.rule(_TABLE.astype(np.float32))
  np.testing.assert_allclose(
      output.result['kernel'], expected[2:], rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize(
    'mean', [tff.aggregators.MeanFactory, tff.aggregators.UnweightedMeanFactory]
)
def test_no_mean_takes_a_rule_for_its_sum(mean):
  with pytest.raises(TypeError, match='found .*RuleFactory') as error:
    mean(value_sum_factory=rule_factory.krum_factory(1))
  assert '\n' not in str(error.value)


def test_wrapping_an_unweighted_factory_is_unweighted():
  inner = rule_factory.krum_factory(2).unweighted
  for factory in _WRAPPERS.values():
    wrapped = factory(inner)
    assert isinstance(wrapped, rule_factory.UnweightedRuleFactory)
    assert repr(inner.rule) in repr(wrapped.rule)


_RANDOM = {
    'dnc': rule_factory.divide_and_conquer_factory(3, num_sampled=1, seed=2),
    'sign_guard': rule_factory.sign_guard_factory(
        coordinate_fraction=0.03, seed=2
    ),
    'flame': rule_factory.flame_factory(noise_multiplier=0.1, seed=2),
    'bucketing': rule_factory.bucketing_factory(
        rule_factory.krum_factory(2), seed=2
    ),
}


@pytest.mark.parametrize('name', _RANDOM)
def test_seed_and_round_fix_what_is_drawn(name):
  process = _RANDOM[name].create(tff.TensorType(np.float32, [40]), _WEIGHT_TYPE)
  updates = np.random.default_rng(0).normal(size=[15, 40]).astype(np.float32)

  def run(num_rounds):
    results, state = [], process.initialize()
    for _ in range(num_rounds):
      output = process.next(state, list(updates), [1.0] * 15)
      state = output.state
      results.append(output.result)
    return np.array(results)

  first, again = run(4), run(2)
  np.testing.assert_array_equal(first[:2], again)
  assert np.any(first != first[0])
  # What is drawn is another thing, but of the same kind as on arrays.
  on_arrays = [_RANDOM[name].rule(updates, round_num=r) for r in range(4)]
  np.testing.assert_allclose(
      np.linalg.norm(first, axis=1).mean(),
      np.linalg.norm(on_arrays, axis=1).mean(),
      rtol=0.5,
  )


def test_draws_of_tensorflow():
  """A sample without repetition, uniform; normal numbers."""
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.namespace import TENSORFLOW

  counts = np.zeros([20])
  for round_num in range(300):
    sample = TENSORFLOW.sample((7, round_num, 0), 20, 5).numpy()
    assert len(set(sample)) == 5
    counts[sample] += 1
  # The mean is 75, a standard deviation 7.5.
  assert counts.min() > 40 and counts.max() < 110
  assert set(TENSORFLOW.sample((7, 0, 0), 6, 6).numpy()) == set(range(6))
  keys = [(7, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1)]
  draws = np.stack([TENSORFLOW.normal(key, 5000) for key in keys])
  np.testing.assert_allclose(draws.std(axis=1), 1, atol=0.05)
  assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize(
    'value_type, found',
    [
        (tff.TensorType(np.int32, [2]), 'tf.int32'),
        (tff.TensorType(np.float32, [None]), 'fix every dimension'),
    ],
)
def test_refuses_what_cannot_be_flattened(value_type, found):
  mixed = rule_factory.bucketing_factory(tff.aggregators.MeanFactory())
  for factory in (rule_factory.krum_factory(1), mixed):
    with pytest.raises(TypeError, match=found):
      factory.create(value_type, _WEIGHT_TYPE)


def test_refuses_a_rule_that_needs_the_servers_update():
  factory = rule_factory.RuleFactory(rules.fltrust())
  with pytest.raises(ValueError, match='reference must be given: .*fltrust'):
    factory.create(_VALUE_TYPE, _WEIGHT_TYPE)


# In TFF's builders and wrappers.


def _one():
  return collections.OrderedDict(one=tff.federated_value(1.0, tff.SERVER))


_STOCK_WRAPPERS = {
    'plain': lambda inner: inner,
    'clipping': lambda inner: tff.aggregators.clipping_factory(1.0, inner),
    'zeroing': lambda inner: tff.aggregators.zeroing_factory(1e3, inner),
    'concat': tff.aggregators.concat_factory,
    'measurements': lambda inner: tff.aggregators.add_measurements(
        inner,
        client_measurement_fn=(
            (lambda value, weight: _one())
            if isinstance(inner, tff.aggregators.WeightedAggregationFactory)
            else lambda value: _one()
        ),
    ),
    'debug': tff.learning.add_debug_measurements,
}


@pytest.mark.parametrize('wrapper', _STOCK_WRAPPERS)
@pytest.mark.parametrize('weighted', [True, False])
def test_goes_into_stock_builders(wrapper, weighted):
  factory = rule_factory.krum_factory(1)
  build = (
      tff.learning.algorithms.build_weighted_fed_avg
      if weighted
      else tff.learning.algorithms.build_unweighted_fed_avg
  )
  process = build(
      small_problem.model(),
      small_problem.client_optimizer(),
      tff.learning.optimizers.build_sgdm(1.0),
      model_aggregator=_STOCK_WRAPPERS[wrapper](
          factory if weighted else factory.unweighted
      ),
  )
  if wrapper != 'plain':
    return  # Building is what may fail.
  output = small_problem.run(process, 1, process.initialize())[0]
  weights = output.metrics['aggregator']['weights']
  np.testing.assert_array_equal(np.sort(weights)[-2:], [0, 1])


# Wrappers around factories that are not ours.

# Mixed with f = 2 of n = 5: kernel[0] is 2, 2, 2, 4, 4 in the order of the
# finite clients.
_LINE = [_client([2.0, 4.0, x, 0.0]) for x in (1, 2, 5, 3, 4, 5)]
_LINE[2]['bias'] = (np.float64(np.nan), [np.float16(4.0)])
_MIXED_KERNELS = [2.0, 2.0, 3.0, 4.0, 4.0]


def test_mixing_before_a_mean_with_weights():
  """Each client keeps its own row and weight; what is not finite the mean."""
  process = rule_factory.nearest_neighbor_mixing_factory(
      tff.aggregators.MeanFactory(), 2
  ).create(_VALUE_TYPE, _WEIGHT_TYPE)
  weights = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
  output = process.next(process.initialize(), _LINE, weights)
  expected = np.average(
      _MIXED_KERNELS[:2] + [np.mean(_MIXED_KERNELS)] + _MIXED_KERNELS[2:],
      weights=weights,
  )
  np.testing.assert_allclose(output.result['kernel'], [expected, 0], rtol=1e-6)
  np.testing.assert_allclose(output.result['bias'][0], 2.0)
  assert output.result['bias'][1][0].dtype == np.float16
  assert output.measurements['num_non_finite'] == 1
  assert output.measurements['num_byzantine'] == 2
  assert 'mean_value' in output.measurements['inner']


def test_bounding_before_a_mean():
  process = rule_factory.median_norm_bounding_factory(
      tff.aggregators.UnweightedMeanFactory()
  ).create(tff.TensorType(np.float32, [2]))
  clients = np.float32([[3, 4], [30, 40], [0, 1], [np.inf, 0]])
  output = process.next(process.initialize(), list(clients))
  # Of (3, 4), (3, 4) and (0, 1); the fourth gets their mean.
  np.testing.assert_allclose(output.result, [2.0, 3.0], rtol=1e-6)
  assert output.measurements['clipping_norm'] == 5
  assert output.measurements['num_clipped'] == 1
  lost = process.next(output.state, [clients[3]] * 2)
  np.testing.assert_array_equal(lost.result, [0, 0])


@pytest.mark.parametrize('bucket_size', [1, 2])
def test_bucketing_before_a_mean_draws_anew_each_round(bucket_size):
  process = rule_factory.bucketing_factory(
      tff.aggregators.MeanFactory(), bucket_size, seed=1
  ).create(tff.TensorType(np.float32, [1]), _WEIGHT_TYPE)
  values = 2.0 ** np.arange(6)
  clients = [np.array([value], np.float32) for value in values]
  state, seen = process.initialize(), set()
  for round_num in range(6):
    assert state['round_num'] == round_num
    # The first client has all the weight: the result is its bucket's mean.
    output = process.next(state, clients, [1.0] + [1e-30] * 5)
    state = output.state
    seen.add(float(output.result[0]))
  pairs = {1.0} if bucket_size == 1 else {(1 + v) / 2 for v in values[1:]}
  assert seen <= pairs and len(seen) >= min(len(pairs), 2)


def test_wraps_a_factory_with_a_state():
  norm = tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
      initial_estimate=2.5, target_quantile=0.5, learning_rate=1.0
  )
  inner = tff.aggregators.clipping_factory(
      norm, tff.aggregators.UnweightedMeanFactory()
  )
  value_type = tff.TensorType(np.float32, [1])
  process = rule_factory.nearest_neighbor_mixing_factory(inner, 1).create(
      value_type
  )
  assert process.state_type == inner.create(value_type).state_type
  clients = [np.array([x], np.float32) for x in (1.0, 2.0, 9.0)]
  output = process.next(process.initialize(), clients)
  # Mixed: 1.5, 1.5 and 5.5, of which the last is clipped.
  np.testing.assert_allclose(output.result, [5.5 / 3], rtol=1e-6)
  # Two of three norms are below the quantile's estimate, which falls.
  assert output.measurements['inner']['clipping_norm'] < 2.6


@pytest.mark.parametrize('inner', [None, tff.aggregators.MeanFactory])
@pytest.mark.parametrize('name', _WRAPPERS)
def test_wrappers_refuse_what_is_no_factory(name, inner):
  with pytest.raises(TypeError, match='inner must be a tff.aggregators.*found'):
    _WRAPPERS[name](inner)


def test_wrappers_of_other_factories_must_be_told_f():
  with pytest.raises(TypeError, match='num_byzantine'):
    rule_factory.adaptive_clipping_factory(tff.aggregators.MeanFactory())
  with pytest.raises(ValueError, match='num_byzantine .*found -1'):
    rule_factory.adaptive_clipping_factory(tff.aggregators.MeanFactory(), -1)


def test_flame_admits_by_definition_on_breast_cancer():
  """Clients' first gradients of a logistic regression on shares of the data."""
  x, y = datasets.load_breast_cancer(return_X_y=True)
  x = (x - x.mean(axis=0)) / x.std(axis=0)
  updates = np.float32(
      [
          share_x.T @ (0.5 - share_y)
          for share_x, share_y in zip(
              np.array_split(x, 10), np.array_split(y, 10)
          )
      ]
  )
  process = rule_factory.flame_factory(noise_multiplier=0).create(
      tff.TensorType(np.float32, [30]), _WEIGHT_TYPE
  )
  output = process.next(process.initialize(), list(updates), [1.0] * 10)
  units = np.float64(updates)
  units /= np.linalg.norm(units, axis=1, keepdims=True)
  distances = 0.5 * np.sum((units[:, np.newaxis] - units) ** 2, axis=-1)
  # Links one by one, the shortest first, until more than half are together.
  labels = np.arange(10)
  for i, j in np.argwhere(distances > 0)[np.argsort(distances[distances > 0])]:
    labels[labels == labels[i]] = labels[j]
    members = labels == labels[j]
    if members.sum() > 5:
      break
  np.testing.assert_array_equal(output.measurements['weights'] > 0, members)
