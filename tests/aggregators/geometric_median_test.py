"""Tests of the geometric median against Weiszfeld's algorithm in NumPy."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import geometric_median


def _reference(updates, num_iterations=20000, nu=1e-9):
  """Smoothed Weiszfeld on vectors in float64, as in the paper."""
  updates = np.asarray(updates, np.float64)
  v = updates.mean(axis=0)
  for _ in range(num_iterations):
    total, total_weight = np.zeros_like(v), 0.0
    for x in updates:
      weight = 1.0 / max(nu, np.sqrt(np.sum((x - v) ** 2)))
      total += weight * x
      total_weight += weight
    step = np.linalg.norm(total / total_weight - v)
    v = total / total_weight
    if step < 1e-12:
      break
  return v


@functools.lru_cache(maxsize=None)
def _graph(d, **options):
  """The median as in a TFF computation, where N is not known beforehand."""
  return tf.function(
      lambda updates, is_finite: geometric_median.geometric_median(
          updates, is_finite, **options
      ),
      input_signature=[
          tf.TensorSpec([None, d], tf.float32),
          tf.TensorSpec([None], tf.bool),
      ],
      autograph=False,
  )


def _median(updates, is_finite=None, **options):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  result = _graph(updates.shape[1], **options)(updates, is_finite)
  return geometric_median.GeometricMedianResult(*(x.numpy() for x in result))


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def test_fermat_point_by_hand():
  # Around an equilateral triangle's center all directions cancel; in the right
  # triangle the point sees each side under 120 degrees.
  height = np.sqrt(3.0)
  result = _median([[-1.0, 0.0], [1.0, 0.0], [0.0, height]])
  np.testing.assert_allclose(result.update, [0.0, height / 3], atol=1e-6)
  np.testing.assert_allclose(result.weights, [1 / 3] * 3, rtol=1e-6)

  fermat = 1 / (3 + np.sqrt(3.0))
  result = _median([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(result.update, [fermat, fermat], atol=1e-5)
  # The weights are inverse distances.
  distances = np.array(
      [np.sqrt(2) * fermat] + 2 * [np.hypot(fermat, 1 - fermat)]
  )
  np.testing.assert_allclose(
      result.weights, (1 / distances) / (1 / distances).sum(), atol=1e-5
  )
  assert result.converged


def test_wide_angle_by_hand():
  """With an angle of more than 120 degrees the median is that corner."""
  result = _median([[-3.0, 0.5], [0.0, 0.0], [2.0, 0.1]])
  np.testing.assert_allclose(result.update, [0.0, 0.0], atol=1e-5)
  assert result.converged


def test_median_on_a_line():
  result = _median([[0.0], [1.0], [3.0], [19.0], [10.0]])
  np.testing.assert_allclose(result.update, [3.0], rtol=1e-5)


def test_diagonals_of_a_convex_quadrangle():
  corners = [[0.0, 0.0], [4.0, 1.0], [5.0, 6.0], [-1.0, 3.0]]
  # The point where (0, 0)-(5, 6) and (4, 1)-(-1, 3) meet.
  t = np.linalg.solve([[5.0, 5.0], [6.0, -2.0]], [4.0, 1.0])[0]
  np.testing.assert_allclose(
      _median(corners).update, [5 * t, 6 * t], rtol=1e-4
  )


@pytest.mark.parametrize('n', [3, 8, 11, 20])
@pytest.mark.parametrize('d', [1, 2, 6, 50])
def test_matches_iterating_on_vectors(n, d):
  updates = _random_updates(n, d=d, seed=n)
  if d == 1 and n % 2 == 0:
    # All points between the two middle ones are medians.
    middle = np.sort(updates[:, 0])[n // 2 - 1 : n // 2 + 1]
    assert middle[0] <= _median(updates).update[0] <= middle[1]
    return
  result = _median(updates)
  np.testing.assert_allclose(result.update, _reference(updates), atol=3e-5)
  np.testing.assert_allclose(
      result.update, result.weights @ updates, atol=1e-6
  )
  assert result.converged and 1 < result.num_iterations < 500


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_left_out(poison):
  updates = _random_updates(9)
  updates[0, 3] = poison
  updates[7] = poison
  is_finite = ~np.isin(np.arange(9), [0, 7])
  result = _median(updates, is_finite)
  expected = _median(updates[is_finite])
  np.testing.assert_array_equal(result.weights[[0, 7]], [0, 0])
  np.testing.assert_allclose(result.update, expected.update, atol=1e-6)
  assert result.num_iterations == expected.num_iterations


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _median(np.full([n, 3], np.nan), np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))
  assert result.num_iterations == 0 and result.converged


@pytest.mark.parametrize('x', [[2.0, -3.0], [0.0, 0.0], [1e-30, 0.0]])
def test_one_client(x):
  result = _median([[np.nan, 0.0], x], [False, True])
  np.testing.assert_array_equal(result.update, np.float32(x))
  np.testing.assert_array_equal(result.weights, [0, 1])
  assert result.converged


def test_two_clients_meet_halfway():
  np.testing.assert_allclose(
      _median([[0.0, 2.0], [4.0, 0.0]]).update, [2.0, 1.0], rtol=1e-6
  )


@pytest.mark.parametrize('scale', [0.0, 1.0, 1e8])
def test_all_equal(scale):
  updates = scale * np.tile(_random_updates(1, d=300), [6, 1])
  result = _median(updates)
  np.testing.assert_allclose(result.update, updates[0], rtol=1e-6)
  np.testing.assert_allclose(result.weights, [1 / 6] * 6, rtol=1e-6)
  assert result.converged


def test_equal_majority_wins():
  """The typical distance is zero here."""
  updates = _random_updates(9, d=300)
  updates[:5] = updates[0]
  result = _median(updates)
  np.testing.assert_allclose(result.update, updates[0], atol=2e-6)
  assert result.converged and result.num_iterations < 100


def test_permutation_of_clients():
  updates = _random_updates(10)
  order = np.random.default_rng(1).permutation(10)
  result, permuted = _median(updates), _median(updates[order])
  np.testing.assert_allclose(permuted.weights, result.weights[order], 1e-5)
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)


@pytest.mark.parametrize(
    'factor, rtol, atol', [(1e2, 1e-4, 3e-4), (1e4, 1e-3, 2e-2)]
)
def test_translation_by_many_times_the_spread(factor, rtol, atol):
  # Multiples of 1/256, so that the sum is exact.
  updates = np.round(_random_updates(10, d=300) * 256) / 256
  offset = np.round(_random_updates(1, d=300, seed=1) * factor)
  result, moved = _median(updates), _median(updates + offset)
  np.testing.assert_allclose(moved.weights, result.weights, rtol=rtol)
  np.testing.assert_allclose(moved.update - offset[0], result.update, atol=atol)
  assert moved.converged


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30), 2.0**-80])
def test_scale(scale):
  updates = _random_updates(10)
  np.testing.assert_allclose(
      _median(scale * updates).update,
      scale * _median(updates).update,
      rtol=1e-6,
  )


def test_rotation():
  updates = _random_updates(10)
  rotation, _ = np.linalg.qr(_random_updates(6, seed=2))
  np.testing.assert_allclose(
      _median(updates @ rotation).update,
      _median(updates).update @ rotation,
      atol=1e-5,
  )


@pytest.mark.parametrize('magnitude', [1e3, 1e8, 9e14])
@pytest.mark.parametrize('n, f', [(10, 1), (10, 4), (11, 5), (100, 45)])
def test_far_clients_act_by_their_direction_only(n, f, magnitude):
  """Seen from the honest ones they are at infinity, wherever they are."""
  honest = _random_updates(n - f) + 100.0
  direction = np.array([0.6, 0.8, 0.0, 0.0, 0.0, 0.0])
  attackers = np.tile(magnitude * direction, [f, 1])
  result = _median(np.concatenate([attackers, honest]))
  # The gradient of g vanishes: unit vectors to honest clients balance f more.
  differences = honest - _exact_sum(result.weights, attackers, honest)
  norms = np.linalg.norm(differences, axis=1, keepdims=True)
  balance = (differences / norms).sum(axis=0)
  toward = magnitude * direction - 100.0
  balance += f * toward / np.linalg.norm(toward)
  assert np.linalg.norm(balance) < 3e-3 * n
  assert result.converged


def _exact_sum(weights, attackers, honest):
  updates = np.concatenate([attackers, honest]).astype(np.float64)
  weights = weights.astype(np.float64)
  return weights @ updates / weights.sum()


_ATTACKS = {
    'zero': lambda honest: np.zeros_like(honest[0]),
    'minus': lambda honest: -10 * honest.mean(axis=0),
    'far': lambda honest: np.full_like(honest[0], 9e14),
    'a_little': lambda honest: honest.mean(axis=0) - honest.std(axis=0),
    'more': lambda honest: honest.mean(axis=0) + 3 * honest.std(axis=0),
    'inner_product': lambda honest: -0.1 * honest.mean(axis=0),
    'copy': lambda honest: honest[0],
    'farthest': lambda honest: honest[
        np.argmax(np.linalg.norm(honest - honest.mean(axis=0), axis=1))
    ],
}


@pytest.mark.parametrize('attack', list(_ATTACKS))
@pytest.mark.parametrize('n, f', [(10, 2), (15, 7), (30, 12)])
def test_robustness_bound(n, f, attack):
  for seed in range(3):
    honest = _random_updates(n - f, seed=seed) + 1.0
    attackers = np.tile(_ATTACKS[attack](honest), [f, 1])
    update = _median(np.concatenate([honest, attackers])).update
    mean = honest.mean(axis=0)
    variance = np.mean(np.sum((honest - mean) ** 2, axis=1))
    kappa = 4 * (1 + f / (n - 2 * f)) ** 2
    assert np.sum((update - mean) ** 2) <= kappa * variance


def test_stops_at_the_largest_number_of_iterations():
  updates = np.concatenate([np.full([4, 6], 9e14), _random_updates(6)])
  result = _median(updates, max_iterations=3)
  assert result.num_iterations == 3 and not result.converged
  assert np.linalg.norm(result.update) > 1e13
  result = _median(updates)
  assert result.converged and np.linalg.norm(result.update) < 20


def test_tolerance_and_smoothing():
  updates = _random_updates(10)
  rough = _median(updates, tolerance=0.1)
  assert rough.converged
  assert rough.num_iterations < _median(updates).num_iterations
  # Closer than nu, all weights are equal.
  weights = _median(updates, smoothing=0.99).weights
  assert np.isclose(weights, weights.max(), rtol=1e-6).sum() >= 3
  assert np.unique(_median(updates).weights).size == 10


# The factory.

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


# The finite ones on a line, whose median is that of the scalars.
_CLIENTS = [
    _client(9e14, 9e14, 2.0, 4.0),
    _client(1.0, 0.0, 2.0, 4.0),
    _client(1.0, 0.0, np.nan, 4.0),
    _client(2.0, 1.0, 2.0, 4.0),
    _client(4.0, 3.0, 2.0, 4.0),
    _client(1.0, 0.0, 2.0, np.inf),
    _client(0.0, -1.0, 2.0, 4.0),
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = geometric_median.geometric_median_factory(weighted=weighted)
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
    # Whatever weight a client claims has no effect.
    weights = [[1e9, 1.0, 1.0, 0.0, np.nan, 1.0, 1.0]]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(_VALUE_TYPE)
    weights = []

  assert process.state_type == tff.FederatedType((), tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(
          weights=tff.TensorType(np.float32, [None]),
          num_iterations=np.int32,
          converged=np.bool_,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  np.testing.assert_allclose(output.result['kernel'], [2.0, 1.0], atol=1e-4)
  scalar, (half,) = output.result['bias']
  np.testing.assert_allclose(scalar, 2.0, rtol=1e-6)
  assert scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  measured = output.measurements
  np.testing.assert_array_equal(
      np.round(measured['weights'], 3), [0, 0, 0, 1, 0, 0, 0]
  )
  assert measured['num_non_finite'] == 2
  assert measured['converged'] and 1 < measured['num_iterations'] < 1000


def test_process_without_clients():
  process = geometric_median.GeometricMedianFactory().create(
      tff.TensorType(np.float32, [2])
  )
  output = process.next(process.initialize(), [])
  np.testing.assert_array_equal(output.result, [0.0, 0.0])
  assert output.measurements['weights'].shape == (0,)


@pytest.mark.parametrize(
    'options, error, found',
    [
        ({'smoothing': -1e-3}, ValueError, '`smoothing`'),
        ({'smoothing': float('nan')}, ValueError, 'nan'),
        ({'tolerance': 1.0}, ValueError, '`tolerance`'),
        ({'tolerance': '1'}, TypeError, "'1'"),
        ({'smoothing': True}, TypeError, 'True'),
        ({'max_iterations': 0}, ValueError, 'found 0'),
        ({'max_iterations': 5.0}, TypeError, 'found 5.0'),
        ({'max_iterations': True}, TypeError, 'found True'),
    ],
)
def test_construction_errors(options, error, found):
  with pytest.raises(error) as raised:
    geometric_median.GeometricMedianFactory(**options)
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    geometric_median.GeometricMedianFactory().create(tff.TensorType(np.int32))
