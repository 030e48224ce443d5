"""Tests of nearest neighbor mixing against explicit distances in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import coordinate_median
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import krum
from fedaot_tff.aggregators import nearest_neighbor_mixing


def _reference(updates, num_byzantine, is_finite=None):
  """Each row's mean over its nearest rows, by loops over finite updates."""
  updates = np.asarray(updates, np.float64)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  finite = np.flatnonzero(is_finite)
  mixed = np.zeros(updates.shape)
  for i in finite:
    nearest = sorted(finite, key=lambda j: np.sum((updates[i] - updates[j])**2))
    mixed[i] = np.mean(
        [updates[j] for j in nearest[: max(len(finite) - num_byzantine, 1)]],
        axis=0,
    )
  return mixed


def _mix(updates, num_byzantine, is_finite=None):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  return nearest_neighbor_mixing.nearest_neighbor_mixing(
      tf.constant(updates), tf.constant(is_finite), tf.constant(num_byzantine)
  ).numpy()


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def test_by_hand():
  # f = 1 leaves 2 neighbors, the update itself and the nearest other one.
  np.testing.assert_allclose(
      _mix([[0.0], [1.0], [9.0]], 1), [[0.5], [0.5], [5.0]]
  )
  # Of two at the same distance the first counts.
  np.testing.assert_allclose(
      _mix([[4.0], [2.0], [0.0]], 1), [[3.0], [3.0], [1.0]]
  )


@pytest.mark.parametrize('n, f', [(7, 0), (7, 3), (10, 4), (21, 10), (1, 0)])
def test_matches_explicit_distances(n, f):
  updates = _random_updates(n, seed=n + f)
  np.testing.assert_allclose(
      _mix(updates, f), _reference(updates, f), atol=1e-6
  )


def test_without_byzantine_clients_all_become_the_mean():
  updates = _random_updates(5)
  np.testing.assert_allclose(
      _mix(updates, 0), np.tile(updates.mean(axis=0), [5, 1]), atol=1e-6
  )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_nobodys_neighbor(poison):
  updates = _random_updates(9)
  updates[0, 3] = poison
  updates[7] = poison
  is_finite = ~np.isin(np.arange(9), [0, 7])
  mixed = _mix(updates, 2, is_finite)
  np.testing.assert_allclose(
      mixed, _reference(updates, 2, is_finite), atol=1e-6
  )
  np.testing.assert_array_equal(mixed[~is_finite], np.zeros([2, 6]))


def test_huge_client_does_not_blur_those_far_from_it():
  updates = _random_updates(9)
  updates[4] = 9e14
  others = np.arange(9) != 4
  np.testing.assert_allclose(
      _mix(updates, 3)[others], _reference(updates, 3)[others], atol=1e-6
  )


@pytest.mark.parametrize('n', [0, 1, 4])
def test_without_finite_updates(n):
  np.testing.assert_array_equal(
      _mix(np.full([n, 3], np.nan), 1, np.zeros([n], bool)), np.zeros([n, 3])
  )


@pytest.mark.parametrize(
    'n, f, too_small',
    [(3, 1, False), (2, 1, True), (4, 2, True), (5, 2, False), (4, 9, True)],
)
def test_small_cohort(n, f, too_small):
  updates = _random_updates(n)
  neighbors = nearest_neighbor_mixing.nearest_neighbors(
      tf.constant(updates), tf.fill([n], True), tf.constant(f)
  )
  assert neighbors.cohort_too_small == too_small
  np.testing.assert_array_equal(
      tf.reduce_sum(neighbors.is_near, axis=1), [max(n - f, 1)] * n
  )
  np.testing.assert_array_equal(tf.linalg.diag_part(neighbors.is_near), [1] * n)


def test_permutation_of_clients():
  updates = _random_updates(10)
  order = np.random.default_rng(1).permutation(10)
  np.testing.assert_allclose(
      _mix(updates[order], 3), _mix(updates, 3)[order], atol=1e-6
  )


def test_translation_by_a_hundred_times_the_spread():
  updates = _random_updates(10, d=300)
  offset = _random_updates(1, d=300, seed=1) * 100
  np.testing.assert_allclose(
      _mix(updates + offset, 3), _mix(updates, 3) + offset, atol=2e-4
  )


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
def test_scale(scale):
  updates = _random_updates(10)
  np.testing.assert_array_equal(
      _mix(scale * updates, 3), scale * _mix(updates, 3)
  )


def test_rotation():
  updates = _random_updates(10)
  rotation, _ = np.linalg.qr(_random_updates(6, seed=3))
  np.testing.assert_allclose(
      _mix(updates @ rotation, 3), _mix(updates, 3) @ rotation, atol=1e-5
  )


def test_duplicated_and_equal_clients():
  updates = _random_updates(4)
  np.testing.assert_allclose(
      _mix(np.concatenate([updates] * 3), 9),
      np.concatenate([updates] * 3),
      atol=1e-6,
  )
  equal = np.tile(_random_updates(1), [6, 1])
  np.testing.assert_allclose(_mix(equal, 2), equal, rtol=1e-6)


# Before a rule on tables.


def _apply(factory, updates, is_finite=None, *round_number):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  return factory.rule(
      tf.constant(updates), tf.constant(is_finite), *round_number
  )


def _attacked(attack, honest, num_byzantine):
  mean, std = honest.mean(axis=0), honest.std(axis=0)
  direction = np.sign(_random_updates(1, honest.shape[1], seed=9)[0])
  vector = {
      'zero': 0 * mean,
      'sign_flip': -mean,
      'large_sign_flip': -10 * mean,
      'inner_product': -0.5 * mean,
      'a_little_is_enough': mean - 1.5 * std,
      'far': mean + 100 * std * direction,
      'very_far': mean + 1e6 * direction,
      'copy': honest[0],
      'extreme': honest.max(axis=0),
  }[attack]
  copies = np.tile(vector.astype(np.float32), [num_byzantine, 1])
  return np.concatenate([copies, honest])


@pytest.mark.parametrize(
    'attack',
    [
        'zero',
        'sign_flip',
        'large_sign_flip',
        'inner_product',
        'a_little_is_enough',
        'far',
        'very_far',
        'copy',
        'extreme',
    ],
)
@pytest.mark.parametrize('n, f', [(10, 1), (11, 3), (20, 4)])
def test_robustness_inequality(attack, n, f):
  """The distance to the honest mean is bounded by the honest variance."""
  factory = nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
      coordinate_median.coordinate_median_factory(), f
  )
  kappa_of_median = 4 * (1 + f / (n - 2 * f)) ** 2
  kappa = 8 * f / (n - f) * (kappa_of_median + 1)
  for seed in range(5):
    honest = _random_updates(n - f, d=30, seed=seed) + 0.5
    update, _ = _apply(factory, _attacked(attack, honest, f))
    mean = honest.mean(axis=0)
    variance = np.mean(np.sum((honest - mean) ** 2, axis=1))
    assert np.sum((update - mean) ** 2) <= kappa * variance


def test_inner_rule_on_tables():
  updates = _random_updates(9)
  updates[2] = np.nan
  is_finite = np.arange(9) != 2
  factory = nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
      krum.krum_factory(3, num_selected=2), 3
  )
  update, measurements = _apply(factory, updates, is_finite)
  mixed = _reference(updates, 3, is_finite)
  expected = krum.krum(
      tf.constant(mixed, tf.float32), is_finite, 3, num_selected=2
  )
  np.testing.assert_allclose(update, expected.update, atol=1e-6)
  np.testing.assert_array_equal(
      measurements['inner']['weights'], expected.weights
  )
  assert measurements['num_byzantine'] == 3
  assert measurements['num_non_finite'] == 1
  assert not measurements['cohort_too_small']
  # The update is a weighted mean of the clients' own updates.
  weights = measurements['weights'].numpy()
  np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
  np.testing.assert_allclose(
      weights[is_finite] @ updates[is_finite], update, atol=1e-6
  )


def test_nested_and_counting_rounds():
  class RoundFactory(flat_updates.GatheringFactory):
    counts_rounds = True

    def rule(self, updates, is_finite, round_number):
      return tf.cast(round_number, tf.float32) * updates[0], (
          collections.OrderedDict()
      )

  updates = _random_updates(7)
  factory = nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
      nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
          RoundFactory(), 2
      ),
      1,
  )
  assert factory.counts_rounds
  update, measurements = _apply(
      factory, updates, None, tf.constant(3, tf.int64)
  )
  np.testing.assert_allclose(
      update, 3 * _reference(_reference(updates, 1), 2)[0], atol=1e-5
  )
  assert 'weights' not in measurements
  process = factory.create(tff.TensorType(np.float32, [6]))
  state = process.initialize()
  for round_number in range(2):
    output = process.next(state, list(updates))
    state = output.state
    np.testing.assert_allclose(
        output.result, update * round_number / 3, atol=1e-5
    )


# Processes.

_VALUE_TYPE = tff.to_type(
    collections.OrderedDict(
        kernel=tff.TensorType(np.float32, [2]),
        bias=(np.float64, [np.float16]),
    )
)


def _client(a, b, c, d):
  return collections.OrderedDict(
      kernel=np.array([a, b], np.float32),
      bias=(np.float64(c), [np.float16(d)]),
  )


# Mixed with f = 2 of n = 5: kernel[0] is 2, 2, 2, 4, 4 in the order of the
# finite clients.
_CLIENTS = [
    _client(1.0, 0.0, 2.0, 4.0),
    _client(2.0, 0.0, 2.0, 4.0),
    _client(5.0, 0.0, np.nan, 4.0),
    _client(3.0, 0.0, 2.0, 4.0),
    _client(4.0, 0.0, 2.0, 4.0),
    _client(5.0, 0.0, 2.0, 4.0),
]
_MIXED_KERNELS = [2.0, 2.0, 3.0, 4.0, 4.0]


@pytest.mark.parametrize('weighted', [False, True])
def test_process_on_tables(weighted):
  factory = nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
      coordinate_median.coordinate_median_factory(), 0.4, weighted=weighted
  )
  types, weights = [_VALUE_TYPE], []
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    types.append(tff.TensorType(np.float32))
    weights.append([1e9, 1.0, 1.0, 0.0, np.nan, 1.0])
  process = factory.create(*types)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert process.state_type == tff.FederatedType((), tff.SERVER)
  output = process.next(process.initialize(), _CLIENTS, *weights)
  np.testing.assert_allclose(output.result['kernel'], [3.0, 0.0])
  scalar, (half,) = output.result['bias']
  assert scalar == 2.0 and scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  assert output.measurements['num_byzantine'] == 2
  assert output.measurements['num_non_finite'] == 1
  assert output.measurements['inner']['num_non_finite'] == 1

  output = process.next(output.state, [], *([[]] if weighted else []))
  np.testing.assert_array_equal(output.result['kernel'], [0.0, 0.0])
  assert output.measurements['cohort_too_small']


def test_process_before_a_mean_with_weights():
  """Each client keeps its own row and weight; what is not finite the mean."""
  process = nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
      tff.aggregators.MeanFactory(), 2
  ).create(_VALUE_TYPE, tff.TensorType(np.float32))
  weights = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
  output = process.next(process.initialize(), _CLIENTS, weights)
  mean = np.mean(_MIXED_KERNELS)
  expected = np.average(
      _MIXED_KERNELS[:2] + [mean] + _MIXED_KERNELS[2:], weights=weights
  )
  np.testing.assert_allclose(output.result['kernel'], [expected, 0], rtol=1e-6)
  np.testing.assert_allclose(output.result['bias'][0], 2.0)
  assert output.result['bias'][1][0].dtype == np.float16
  assert output.measurements['num_non_finite'] == 1
  assert output.measurements['num_byzantine'] == 2
  assert 'mean_value' in output.measurements['inner']


def test_process_before_a_factory_with_a_state():
  norm = tff.aggregators.PrivateQuantileEstimationProcess.no_noise(
      initial_estimate=2.5, target_quantile=0.5, learning_rate=1.0
  )
  inner = tff.aggregators.clipping_factory(
      norm, tff.aggregators.UnweightedMeanFactory()
  )
  value_type = tff.TensorType(np.float32, [1])
  process = nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
      inner, 1
  ).create(value_type)
  assert process.state_type == inner.create(value_type).state_type
  clients = [np.array([x], np.float32) for x in (1.0, 2.0, 9.0)]
  output = process.next(process.initialize(), clients)
  # Mixed: 1.5, 1.5 and 5.5, of which the last is clipped.
  np.testing.assert_allclose(output.result, [5.5 / 3], rtol=1e-6)
  # Two of three norms are below the quantile's estimate, which falls.
  assert output.measurements['inner']['clipping_norm'] < 2.6

  output = process.next(output.state, [np.array([np.nan], np.float32)] * 2)
  np.testing.assert_array_equal(output.result, [0.0])
  assert output.measurements['num_non_finite'] == 2
  assert output.measurements['cohort_too_small']


@pytest.mark.parametrize(
    'inner, num_byzantine, error, found',
    [
        (None, 1, TypeError, 'None'),
        (tff.aggregators.MeanFactory, 1, TypeError, 'MeanFactory'),
        (tff.aggregators.MeanFactory(), '3', TypeError, "'3'"),
        (tff.aggregators.UnweightedMeanFactory(), -1, ValueError, '-1'),
        (coordinate_median.CoordinateMedianFactory(), 1.5, ValueError, '1.5'),
    ],
)
def test_construction_errors(inner, num_byzantine, error, found):
  with pytest.raises(error) as raised:
    nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
        inner, num_byzantine
    )
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)
