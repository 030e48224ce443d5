"""What FedAOT's aggregation processes promise whatever the clients send.

What the rule itself promises is tested on arrays (tests/core), and that both
give the same numbers in fedaot_arrays_test.py.
"""

import collections
import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import config as config_lib
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import summaries
from tests import small_problem

_FEATURES = 5
_OUTPUTS = 4
_DIMENSION = (_FEATURES + 1) * _OUTPUTS
_SKETCH = 16
_CONFIG = config_lib.FedAOTConfig(
    sketch_dimension=_SKETCH, agreement_sketch_dimension=_SKETCH
)
_SEED = 7
_VALUE_TYPE = tff.to_type(
    (
        tff.TensorType(np.float32, [_FEATURES, _OUTPUTS]),
        tff.TensorType(np.float32, [_OUTPUTS]),
    )
)
_SERVER_LEARNING_RATE, _SERVER_MOMENTUM = 0.5, 0.5
_MODES = ('agreement', 'holdout')
# What a round changes in the state.
_LEARNED = dict(
    holdout=('reference', 'weighting', 'meta_optimizer'),
    agreement=(
        'reference',
        'weighting',
        'meta_optimizer',
        'camp_memory',
        'support',
        'age',
    ),
)
_for_both_modes = pytest.mark.parametrize('mode', _MODES)


def _unflatten(vector):
  vector = np.asarray(vector, np.float32)
  split = _FEATURES * _OUTPUTS
  return vector[:split].reshape(_FEATURES, _OUTPUTS), vector[split:]


def _flatten(value):
  return np.concatenate([np.ravel(v) for v in tf.nest.flatten(value)])


def _least_squares() -> tff.learning.models.FunctionalModel:
  spec = (
      tf.TensorSpec([None, _FEATURES], tf.float32),
      tf.TensorSpec([None, _OUTPUTS], tf.float32),
  )
  return small_problem.linear_model(
      *_unflatten(np.linspace(-1, 1, _DIMENSION)),
      spec,
      lambda output, label: tf.square(output - label),
  )


@functools.lru_cache(maxsize=None)
def _holdout():
  rng = np.random.default_rng(2)
  x = rng.normal(size=[60, _FEATURES])
  y = x @ rng.normal(size=[_FEATURES, _OUTPUTS]) + 0.1
  return holdout_lib.HoldOut(
      _least_squares(),
      (x, y),
      client_optimizer=tff.learning.optimizers.build_sgdm(0.1),
      batch_size=10,
      num_steps=3,
  )


def _factory(mode, **kwargs):
  settings = dict(config=_CONFIG, seed=_SEED)
  if mode == 'holdout':
    settings.update(
        holdout=_holdout(),
        server_optimizer=tff.learning.optimizers.build_sgdm(
            _SERVER_LEARNING_RATE, momentum=_SERVER_MOMENTUM
        ),
    )
  settings.update(kwargs)
  return fedaot.fedaot_factory(settings.pop('holdout', None), **settings)


# Compiling a process takes seconds, so the tests share them.


@functools.lru_cache(maxsize=None)
def _process(mode):
  return _factory(mode).unweighted.create(_VALUE_TYPE)


@functools.lru_cache(maxsize=None)
def _weighted_process(mode, max_example_ratio=None):
  config = dataclasses.replace(_CONFIG, max_example_ratio=max_example_ratio)
  return _factory(mode, config=config).create(
      _VALUE_TYPE, tff.TensorType(np.float32)
  )


@functools.lru_cache(maxsize=None)
def _warm_state(mode):
  """The state after two rounds, in which everything has been learned on."""
  rng = np.random.default_rng(3)
  state = _process(mode).initialize()
  for _ in range(2):
    state = _next(mode, state, _cohort(rng, 6)).state
  return state


def _next(mode, state, updates):
  return _process(mode).next(state, [_unflatten(u) for u in updates])


def _root_direction():
  """About the root update of hold-out mode's first round."""
  update = _holdout().root_update(
      _holdout().initial_model(),
      tf.range(60),
  )
  return _flatten(update)


@functools.lru_cache(maxsize=None)
def _center():
  return _root_direction()


def _cohort(rng, num_clients):
  """Honest updates [N, d] but for a boosted and an opposed one."""
  center = _center()
  noise = 0.6 * np.linalg.norm(center) / np.sqrt(_DIMENSION)
  updates = center + noise * rng.normal(size=[num_clients, _DIMENSION])
  if num_clients > 3:
    updates[0] *= 7
    updates[1] *= -1
  return updates.astype(np.float32)


def _assert_close(found, expected, atol=1e-5):
  tf.nest.map_structure(
      lambda f, e: np.testing.assert_allclose(f, e, atol=atol, rtol=1e-4),
      found,
      expected,
  )


def _clipped(updates, norm_bound):
  """The updates as they enter the sum: their norms are bounded."""
  norms = np.linalg.norm(updates.astype(np.float64), axis=1)
  scale = np.minimum(1, 2 * norm_bound / np.maximum(norms, 1e-20))
  return scale[:, None] * updates


# --- Types -------------------------------------------------------------------


def _num_statistics(mode):
  return dict(agreement=3, holdout=5)[mode]


def _theta_type(mode, *names):
  shapes = ([_num_statistics(mode)], [_num_statistics(mode)], [])
  return collections.OrderedDict(
      (name, tff.TensorType(np.float32, shape))
      for name, shape in zip(names, shapes)
  )


def _expected_state_type(mode):
  weighting = _theta_type(mode, 'raw_slope', 'margin', 'log_sharpness')
  state = collections.OrderedDict(
      round=np.int32,
      seed=tff.TensorType(np.int64, [2]),
      # In a projection as long as an update, in whole sketches.
      reference=tff.TensorType(
          np.float32, [1, _SKETCH] if mode == 'agreement' else [2 * _SKETCH]
      ),
      weighting=weighting,
      meta_optimizer=collections.OrderedDict(
          step=np.float32, first_moment=weighting, second_moment=weighting
      ),
  )
  if mode == 'agreement':
    state.update(
        camp_memory=tff.TensorType(np.float32, [1, _SKETCH]),
        support=np.float32,
        age=np.float32,
        previous=collections.OrderedDict(
            sketches=tff.TensorType(np.float32, [None, 1, _SKETCH]),
            z=tff.TensorType(np.float32, [None, 3]),
            log_base=tff.TensorType(np.float32, [None]),
            finite=tff.TensorType(np.float32, [None]),
        ),
    )
  else:
    state['mirror'] = collections.OrderedDict(
        weights=_VALUE_TYPE,
        non_trainable=(),
        optimizer=collections.OrderedDict(
            learning_rate=np.float32,
            momentum=np.float32,
            accumulator=_VALUE_TYPE,
        ),
        client_hparams=collections.OrderedDict(learning_rate=np.float32),
    )
  return tff.to_type(state)


def _expected_measurements_type(mode):
  measurements = collections.OrderedDict(
      weights=tff.TensorType(np.float32, [None]),
      statistics=tff.TensorType(np.float32, [None, _num_statistics(mode)]),
      z=tff.TensorType(np.float32, [None, _num_statistics(mode)]),
      norms=tff.TensorType(np.float32, [None]),
      norm_bound=np.float32,
      num_clients=np.int32,
      num_non_finite=np.int32,
      num_empty=np.int32,
      num_attenuated=np.int32,
      num_clipped=np.int32,
      effective_clients=np.float32,
      weighting=_theta_type(mode, 'slope', 'margin', 'log_sharpness'),
      meta_objective=np.float32,
      meta_gradient_norm=np.float32,
  )
  if mode == 'holdout':
    for name in ('root_norm', 'holdout_loss_before', 'holdout_loss_after'):
      measurements[name] = np.float32
  return tff.to_type(measurements)


@_for_both_modes
@pytest.mark.parametrize('weighted', [False, True])
def test_type_signatures(mode, weighted):
  process = _weighted_process(mode) if weighted else _process(mode)
  assert process.is_weighted == weighted
  state_type = tff.FederatedType(_expected_state_type(mode), tff.SERVER)
  tff.test.assert_types_identical(
      process.initialize.type_signature,
      tff.FunctionType(None, state_type),
  )
  parameter = collections.OrderedDict(
      state=state_type, value=tff.FederatedType(_VALUE_TYPE, tff.CLIENTS)
  )
  if weighted:
    parameter['weight'] = tff.FederatedType(np.float32, tff.CLIENTS)
  result_type = tff.templates.MeasuredProcessOutput(
      state_type,
      tff.FederatedType(_VALUE_TYPE, tff.SERVER),
      tff.FederatedType(_expected_measurements_type(mode), tff.SERVER),
  )
  assert process.next.type_signature.is_equivalent_to(
      tff.FunctionType(parameter, tff.to_type(result_type))
  )


@_for_both_modes
def test_factories_are_of_tff(mode):
  assert isinstance(
      _factory(mode).unweighted,
      tff.aggregators.UnweightedAggregationFactory,
  )
  assert isinstance(_factory(mode), tff.aggregators.WeightedAggregationFactory)


def test_nested_structure_of_mixed_precisions():
  bfloat16 = tf.bfloat16.as_numpy_dtype
  value_type = tff.to_type(
      collections.OrderedDict(
          half=tff.TensorType(np.float16, [2]),
          brain=tff.TensorType(bfloat16, [3]),
          inner=[
              tff.TensorType(np.float64, [2, 2]),
              collections.OrderedDict(b=np.float32, a=np.float32),
          ],
      )
  )
  process = _factory('agreement').unweighted.create(value_type)
  rng = np.random.default_rng(0)

  def draw(center, *shape):
    return center + rng.normal(size=shape)

  values = [
      collections.OrderedDict(
          half=draw(3, 2).astype(np.float16),
          brain=draw(-3, 3).astype(bfloat16),
          inner=[
              draw(5, 2, 2),
              collections.OrderedDict(
                  b=np.float32(draw(2)), a=np.float32(draw(-2))
              ),
          ],
      )
      for _ in range(5)
  ]
  output = process.next(process.initialize(), values)
  result = output.result
  assert list(result) == ['half', 'brain', 'inner']
  assert list(result['inner'][1]) == ['b', 'a']
  tf.nest.assert_same_structure(result, values[0])
  dtypes = tf.nest.map_structure(lambda v: np.asarray(v).dtype, values[0])
  assert tf.nest.map_structure(lambda v: np.asarray(v).dtype, result) == dtypes

  table = np.array(
      [
          np.concatenate(
              [np.ravel(v).astype(np.float64) for v in tf.nest.flatten(value)]
          )
          for value in values
      ]
  )
  measurements = output.measurements
  np.testing.assert_allclose(
      measurements['norms'], np.linalg.norm(table, axis=1), rtol=1e-5
  )
  expected = measurements['weights'].astype(np.float64) @ _clipped(
      table, measurements['norm_bound']
  )
  found = [np.ravel(v).astype(np.float64) for v in tf.nest.flatten(result)]
  np.testing.assert_allclose(np.concatenate(found), expected, rtol=0.01)
  # Half precision is rounded once, at the end; double precision sums as such.
  np.testing.assert_allclose(
      found[1], expected[3:5].astype(np.float16), rtol=2e-3
  )
  np.testing.assert_allclose(found[2], expected[5:9], rtol=1e-6)
  state = process.next(output.state, values).state
  assert state['round'] == 2

  broken = values[:1] + [
      tf.nest.map_structure(np.zeros_like, values[1]) for _ in range(3)
  ]
  broken[1]['inner'][0] = np.full([2, 2], 1e300)
  broken[2]['half'] = np.array([np.inf, 0], np.float16)
  broken[3]['brain'] = np.array([np.nan, 0, 0], bfloat16)
  output = process.next(state, broken)
  np.testing.assert_array_equal(output.measurements['weights'], [1, 0, 0, 0])
  tf.nest.map_structure(np.testing.assert_array_equal, output.result, values[0])


def test_lone_tensor():
  process = _factory('agreement').unweighted.create(
      tff.TensorType(np.float32, [3])
  )
  value = np.array([1.0, -2.0, 2.0], np.float32)
  output = process.next(process.initialize(), [value] * 3)
  np.testing.assert_allclose(output.result, value, rtol=1e-5)
  np.testing.assert_allclose(output.measurements['norms'], [3, 3, 3])


# --- Cohorts -----------------------------------------------------------------


@_for_both_modes
def test_result_is_the_weighted_mean_of_the_clipped_updates(mode):
  """With more clients than one block of the gathered table holds."""
  rng = np.random.default_rng(20)
  updates = _cohort(rng, 70)
  output = _next(mode, _warm_state(mode), updates)
  measurements = output.measurements
  assert measurements['num_clients'] == 70
  weights = measurements['weights'].astype(np.float64)
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
  # Weights are in the order of the clients.
  norms = np.linalg.norm(updates, axis=1)
  np.testing.assert_allclose(measurements['norms'], norms, rtol=1e-5)
  clipped = _clipped(updates, measurements['norm_bound'])
  np.testing.assert_allclose(
      _flatten(output.result), weights @ clipped, atol=1e-5
  )
  np.testing.assert_allclose(
      measurements['effective_clients'], 1 / np.sum(weights**2), rtol=1e-4
  )
  assert measurements['num_attenuated'] == np.sum(weights < 0.5 / 70)
  assert measurements['num_clipped'] == np.sum(
      np.linalg.norm(clipped, axis=1) < 0.9999 * norms
  )
  assert 1 <= measurements['num_clipped'] < 70
  theta = _warm_state(mode)['weighting']
  _assert_close(
      measurements['weighting'],
      collections.OrderedDict(
          slope=np.log1p(np.exp(theta['raw_slope'])),
          margin=theta['margin'],
          log_sharpness=theta['log_sharpness'],
      ),
  )


def test_holdout_objective_judges_the_model_after_the_update():
  rng = np.random.default_rng(21)
  state = _warm_state('holdout')
  output = _next('holdout', state, _cohort(rng, 70))
  seed = tf.constant([_SEED, 0], tf.int64)
  for data in (2, 2):
    seed = tf.random.experimental.stateless_fold_in(seed, data)
  split = _holdout().split(seed, 50)
  weights = holdout_lib.GlobalModel(
      tf.nest.map_structure(tf.constant, output.state['mirror']['weights'])
  )
  loss, gradient = _holdout().loss_and_gradient(weights, split.evaluation)
  gradient = _flatten(gradient)
  measurements = output.measurements
  np.testing.assert_allclose(
      measurements['holdout_loss_after'], loss, rtol=1e-4
  )
  np.testing.assert_allclose(
      measurements['meta_objective'],
      -gradient
      @ _flatten(output.result)
      / (np.linalg.norm(gradient) * measurements['norm_bound']),
      rtol=1e-3,
  )


def test_mirror_follows_the_server_optimizer():
  rng = np.random.default_rng(22)
  state = _process('holdout').initialize()
  weights = _flatten(_least_squares().initial_weights[0])
  np.testing.assert_array_equal(_flatten(state['mirror']['weights']), weights)
  velocity = 0.0
  for _ in range(3):
    output = _next('holdout', state, _cohort(rng, 5))
    state = output.state
    velocity = _SERVER_MOMENTUM * velocity + _flatten(output.result)
    weights = weights - _SERVER_LEARNING_RATE * velocity
    np.testing.assert_allclose(
        _flatten(state['mirror']['weights']), weights, atol=1e-5
    )


def _assert_all_finite(output):
  for leaf in tf.nest.flatten(
      (output.state, output.result, output.measurements)
  ):
    assert np.all(np.isfinite(leaf))


def _learned(state):
  """What a round without a usable update must leave as it is."""
  return {
      name: value
      for name, value in state.items()
      if name not in ('round', 'mirror')
  }


def _assert_nothing_learned(mode, output, num_clients):
  before = _warm_state(mode)
  assert not np.any(_flatten(output.result))
  measurements = output.measurements
  assert measurements['num_clients'] == num_clients
  assert measurements['num_non_finite'] == num_clients
  np.testing.assert_array_equal(measurements['weights'], [0] * num_clients)
  for name in (
      'effective_clients',
      'num_attenuated',
      'num_clipped',
      'meta_objective',
      'meta_gradient_norm',
  ):
    assert measurements[name] == 0, name
  assert output.state['round'] == before['round'] + 1
  tf.nest.map_structure(
      np.testing.assert_array_equal, _learned(output.state), _learned(before)
  )
  _assert_all_finite(output)


@_for_both_modes
def test_a_round_without_a_usable_update_changes_nothing(mode):
  updates = np.ones([3, _DIMENSION], np.float32)
  updates[0, 3] = np.nan
  updates[1] *= -np.inf
  updates[2, 0] = 1e16
  _assert_nothing_learned(mode, _next(mode, _warm_state(mode), updates), 3)


@_for_both_modes
def test_an_empty_cohort_changes_nothing(mode):
  _assert_nothing_learned(mode, _next(mode, _warm_state(mode), []), 0)


def test_weighted_process_takes_an_empty_cohort():
  process = _weighted_process('agreement', 2.0)
  output = process.next(process.initialize(), [], [])
  assert not np.any(_flatten(output.result))
  _assert_all_finite(output)


@_for_both_modes
def test_unusable_updates_are_as_if_left_out(mode):
  rng = np.random.default_rng(30)
  state = _warm_state(mode)
  good = _cohort(rng, 6)
  bad = _cohort(rng, 4)
  bad[0, 2] = np.nan
  bad[1] *= np.inf
  bad[2] *= 1e30
  bad[3, -1] = -np.inf
  is_good = np.array([0, 1, 1, 0, 1, 1, 0, 0, 1, 1], bool)
  mixed = np.empty([10, _DIMENSION], np.float32)
  mixed[is_good], mixed[~is_good] = good, bad
  alone = _next(mode, state, good)
  together = _next(mode, state, mixed)
  _assert_close(together.result, alone.result)
  found, expected = together.measurements, alone.measurements
  np.testing.assert_array_equal(found['weights'][~is_good], 0)
  np.testing.assert_array_equal(found['norms'][~is_good], 0)
  for name in ('weights', 'z', 'statistics', 'norms'):
    _assert_close(found[name][is_good], expected[name], atol=2e-4)
  assert found['num_clients'] == 10
  assert found['num_non_finite'] == 4
  for name, value in expected.items():
    if name not in ('num_clients', 'num_non_finite') and np.ndim(value) == 0:
      _assert_close(found[name], value, atol=1e-4)
  # The next round agrees too: what was kept of this one is the same.
  cohort = _cohort(rng, 5)
  after_alone = _next(mode, alone.state, cohort)
  after_together = _next(mode, together.state, cohort)
  _assert_close(after_together.result, after_alone.result, atol=5e-5)
  _assert_close(
      after_together.state['weighting'],
      after_alone.state['weighting'],
      atol=1e-4,
  )


@_for_both_modes
def test_equal_updates_have_equal_weights(mode):
  rng = np.random.default_rng(32)
  updates = _cohort(rng, 8)
  updates[5] = updates[2]
  updates[7] = updates[2]
  output = _next(mode, _warm_state(mode), updates)
  weights = output.measurements['weights']
  np.testing.assert_allclose(weights[[5, 7]], weights[2], rtol=1e-3)
  assert len(np.unique(np.round(weights, 7))) > 3
  np.testing.assert_allclose(
      _flatten(output.result),
      weights @ _clipped(updates, output.measurements['norm_bound']),
      atol=1e-5,
  )


# --- Example counts ----------------------------------------------------------


@_for_both_modes
def test_reported_positive_counts_have_no_influence(mode):
  rng = np.random.default_rng(40)
  updates = [_unflatten(u) for u in _cohort(rng, 6)]
  state = _warm_state(mode)
  expected = _process(mode).next(state, updates)
  for counts in ([1.0] * 6, [1e9, 1.0, np.inf, 1e-9, 3.0, 7.0]):
    found = _weighted_process(mode).next(state, updates, counts)
    _assert_close(found.result, expected.result)
    _assert_close(found.measurements, expected.measurements)
    _assert_close(found.state, expected.state)


@_for_both_modes
def test_capped_example_counts_by_hand(mode):
  # Equal updates differ in their counts alone. The median of 10, 20, 30 and
  # 1e9 is 25, so that the cap is 50.
  updates = [_unflatten(_center())] * 4
  output = _weighted_process(mode, 2.0).next(
      _warm_state(mode), updates, [10.0, 20.0, 30.0, 1e9]
  )
  np.testing.assert_allclose(
      output.measurements['weights'],
      np.array([10, 20, 30, 50]) / 110,
      rtol=1e-4,
  )
  clipped = _clipped(_center()[None], output.measurements['norm_bound'])
  np.testing.assert_allclose(_flatten(output.result), clipped[0], rtol=1e-4)


@_for_both_modes
def test_example_counts_multiply_the_weights(mode):
  rng = np.random.default_rng(41)
  updates = _cohort(rng, 5)
  values = [_unflatten(u) for u in updates]
  counts = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
  state = _warm_state(mode)
  plain = _process(mode).next(state, values).measurements['weights']
  output = _weighted_process(mode, 2.0).next(state, values, counts.tolist())
  weights = output.measurements['weights']
  expected = plain * counts
  np.testing.assert_allclose(weights, expected / expected.sum(), atol=1e-4)
  np.testing.assert_allclose(
      _flatten(output.result),
      weights @ _clipped(updates, output.measurements['norm_bound']),
      atol=1e-5,
  )


@_for_both_modes
def test_clients_without_a_valid_count_are_left_out(mode):
  rng = np.random.default_rng(42)
  updates = _cohort(rng, 8)
  # An equal update with a valid count is not affected.
  updates[1] = updates[4]
  counts = [np.nan, -5.0, 0.0, np.inf, 10.0, 20.0, 30.0, 10.0]
  values = [_unflatten(u) for u in updates]
  process = _weighted_process(mode, 2.0)
  found = process.next(_warm_state(mode), values, counts)
  expected = process.next(_warm_state(mode), values[4:], counts[4:])
  np.testing.assert_array_equal(found.measurements['weights'][:4], 0)
  _assert_close(
      found.measurements['weights'][4:], expected.measurements['weights']
  )
  _assert_close(found.result, expected.result)
  _assert_close(
      found.state['weighting'], expected.state['weighting'], atol=1e-4
  )
  assert found.measurements['num_non_finite'] == 1
  assert found.measurements['num_empty'] == 3


@_for_both_modes
@pytest.mark.parametrize('poison', [0.0, 1.0, np.nan])
def test_clients_without_a_weight_do_not_vote(mode, poison):
  rng = np.random.default_rng(43)
  weights = [0.0, 3.0, 0.0, 0.0, np.nan, 5.0, -1.0, 1e9, 0.0, 0.5]
  votes = np.flatnonzero(np.array(weights) > 0)
  updates = _cohort(rng, 10)
  updates[np.delete(np.arange(10), votes)] *= poison
  values = [_unflatten(u) for u in updates]
  process, state = _weighted_process(mode), _warm_state(mode)
  found = process.next(state, values, weights)
  expected = process.next(state, [values[i] for i in votes], [1.0] * 4)
  _assert_close(found.result, expected.result)
  _assert_close(
      found.measurements['weights'][votes], expected.measurements['weights']
  )
  for name in _LEARNED[mode]:
    _assert_close(found.state[name], expected.state[name], atol=1e-4)
  for name, number in (
      ('num_clients', 10),
      ('num_empty', 6),
      ('num_non_finite', 0),
  ):
    assert found.measurements[name] == number
  nobody = process.next(state, values, [0.0] * 10)
  assert not np.any(_flatten(nobody.result))
  assert nobody.measurements['num_empty'] == 10
  for name in ('seed', *_LEARNED[mode]):
    tf.nest.map_structure(
        np.testing.assert_array_equal, nobody.state[name], state[name]
    )


# --- Construction ------------------------------------------------------------


def test_seed_is_secret_unless_given():
  def draw_seed():
    process = fedaot.fedaot_factory().unweighted.create(
        tff.TensorType(np.float32, [2])
    )
    return tuple(process.initialize()['seed'])

  assert draw_seed() != draw_seed()
  for mode in _MODES:
    assert tuple(_warm_state(mode)['seed']) == (_SEED, 0)
  fedaot.fedaot_factory(seed=np.int64(2**62))


@pytest.mark.parametrize(
    'arguments, error, expected',
    [
        (dict(seed='1'), TypeError, "seed must be an int; found '1'"),
        (dict(seed=1.0), TypeError, 'found 1.0'),
        (dict(seed=True), TypeError, 'found True'),
        (dict(seed=-1), ValueError, 'seed must be >= 0'),
        (dict(seed=2**63), ValueError, 'found 9223372036854775808'),
        (dict(holdout=(1, 2)), TypeError, 'holdout must be'),
        (dict(config={}), TypeError, 'found dict'),
        (dict(server_optimizer=0.1), TypeError, 'found float'),
        (
            dict(server_optimizer=tff.learning.optimizers.build_sgdm(1.0)),
            ValueError,
            'of use with a holdout only',
        ),
    ],
)
def test_wrong_arguments(arguments, error, expected):
  with pytest.raises(error) as info:
    fedaot.fedaot_factory(**arguments)
  assert expected in str(info.value)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize(
    'value_type',
    [
        tff.TensorType(np.int32, [2]),
        (np.float32, np.bool_),
        tff.TensorType(np.float32, [None]),
        tff.TensorType(np.float32, [0]),
        tff.SequenceType(np.float32),
        tff.FederatedType(np.float32, tff.CLIENTS),
        (),
    ],
)
def test_wrong_value_types(weighted, value_type):
  factory = _factory('agreement')
  weight_types = [tff.TensorType(np.float32)] if weighted else []
  factory = factory if weighted else factory.unweighted
  with pytest.raises(TypeError) as info:
    factory.create(tff.to_type(value_type), *weight_types)
  assert '\n' not in str(info.value)


@pytest.mark.parametrize(
    'weight_type',
    [
        tff.TensorType(np.float32, [1]),
        tff.TensorType(np.bool_),
        tff.TensorType(np.str_),
        tff.TensorType(np.complex64),
        tff.to_type((np.float32,)),
        tff.FederatedType(np.float32, tff.CLIENTS),
    ],
)
def test_wrong_weight_types(weight_type):
  with pytest.raises(TypeError, match='weight_type must be a scalar') as info:
    _factory('agreement').create(tff.TensorType(np.float32, [2]), weight_type)
  assert '\n' not in str(info.value)


def test_integer_example_counts():
  process = _factory(
      'agreement',
      config=dataclasses.replace(_CONFIG, max_example_ratio=1.0),
  ).create(tff.TensorType(np.float32, [2]), tff.TensorType(np.int64))
  values = [np.array([3.0, 4.0], np.float32)] * 3
  output = process.next(process.initialize(), values, [1, 2, 10**12])
  np.testing.assert_allclose(
      output.measurements['weights'], [0.2, 0.4, 0.4], rtol=1e-4
  )
  np.testing.assert_allclose(output.result, values[0], rtol=1e-4)


def test_updates_unlike_the_holdout_model():
  for value_type in (_VALUE_TYPE[0], (_VALUE_TYPE[1], _VALUE_TYPE[0])):
    with pytest.raises(ValueError, match='hold-out model') as info:
      _factory('holdout').unweighted.create(tff.to_type(value_type))
    assert "((5, 4), 'float32')" in str(info.value)
    assert '\n' not in str(info.value)


def test_a_short_projection_stands_for_updates_and_directions():
  config = config_lib.FedAOTConfig(
      sketch_dimension=_SKETCH, projection_dimension=_SKETCH
  )
  process = _factory('holdout', config=config).unweighted.create(_VALUE_TYPE)
  seed = tf.constant([_SEED, 0], tf.int64)
  fold_in = tf.random.experimental.stateless_fold_in
  signs = summaries.draw_signs(fold_in(seed, 0), _DIMENSION, _SKETCH)
  split = _holdout().split(fold_in(fold_in(seed, 2), 0), 50)
  root = _holdout().root_update(
      _holdout().initial_model(),
      split.training,
  )
  updates = _cohort(np.random.default_rng(8), 5)

  def project(tensors):
    flat = [tf.reshape(tensor, [-1]) for tensor in tensors]
    return summaries.project(flat, signs).numpy()

  output = process.next(process.initialize(), [_unflatten(u) for u in updates])

  projected = [project(_unflatten(u)) @ project(root) for u in updates]
  exact = updates @ _flatten(root)
  norms = np.linalg.norm(updates, axis=1) * np.linalg.norm(_flatten(root))
  root_cosines = output.measurements['statistics'][:, 1]
  _assert_close(root_cosines, projected / norms)
  assert np.max(np.abs(root_cosines - exact / norms)) > 1e-3
  reference = output.state['reference']
  assert reference.shape == (_SKETCH,)
  _assert_close(reference, 0.1 * project(output.result))
