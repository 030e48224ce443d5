"""Tests of centered clipping against loops over clients in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import centered_clipping


def _reference(updates, center, radius, num_iterations=1):
  """The iterations as in the paper, in float64."""
  updates = np.asarray(updates, np.float64)
  v = np.asarray(center, np.float64)
  for _ in range(num_iterations):
    finite = [x for x in updates if np.all(np.abs(x) < 1e15)]
    tau = radius
    if tau is None:
      tau = np.median([np.linalg.norm(x - v) for x in finite])
    total = np.zeros_like(v)
    for x in finite:
      distance = np.linalg.norm(x - v)
      total += (x - v) * (min(1.0, tau / distance) if distance else 1.0)
    v = v + total / len(updates)
  return v


def _clip(update, center, radius):
  clipped = centered_clipping.clip_difference(
      tf.constant(update, tf.float32),
      tf.constant(center, tf.float32),
      tf.constant(radius, tf.float32),
  )
  return centered_clipping.ClippedDifference(*(x.numpy() for x in clipped))


def _random_updates(n, d=5, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


# A single update.


def test_difference_by_hand():
  clipped = _clip([4.0, 1.0], [1.0, -3.0], 2.5)
  np.testing.assert_allclose(clipped.difference, [1.5, 2.0], rtol=1e-6)
  assert clipped.is_clipped and clipped.is_finite


@pytest.mark.parametrize('radius', [5.0, 6.0, 1e30])
def test_keeps_what_is_within_the_radius(radius):
  clipped = _clip([4.0, 1.0], [1.0, -3.0], radius)
  np.testing.assert_array_equal(clipped.difference, [3.0, 4.0])
  assert not clipped.is_clipped


@pytest.mark.parametrize('radius', [0.0, 1.0])
def test_update_at_the_center(radius):
  clipped = _clip([4.0, 1.0], [4.0, 1.0], radius)
  np.testing.assert_array_equal(clipped.difference, [0.0, 0.0])
  assert not clipped.is_clipped


def test_zero_radius():
  np.testing.assert_array_equal(_clip([4.0], [1.0], 0.0).difference, [0.0])


def test_far_update_has_the_length_of_the_radius():
  clipped = _clip([9e14] * 1000, [1.0] * 1000, 3.0)
  np.testing.assert_allclose(np.linalg.norm(clipped.difference), 3.0, rtol=1e-5)


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_adds_zero(poison):
  clipped = _clip([1.0, poison], [5.0, 2.0], 1.0)
  np.testing.assert_array_equal(clipped.difference, [0.0, 0.0])
  assert not clipped.is_finite and not clipped.is_clipped


@pytest.mark.parametrize('offset', [100.0, 1e4])
def test_difference_under_a_shared_offset(offset):
  # Multiples of 1/256, so that the sums are exact.
  update, center = np.round(_random_updates(2, d=300) * 256) / 256
  np.testing.assert_array_equal(
      _clip(update + offset, center + offset, 2.0).difference,
      _clip(update, center, 2.0).difference,
  )


def test_rotation_and_scale():
  update, center = _random_updates(2)
  rotation, _ = np.linalg.qr(_random_updates(5, seed=2))
  expected = _clip(update, center, 1.0).difference
  np.testing.assert_allclose(
      _clip(update @ rotation, center @ rotation, 1.0).difference,
      expected @ rotation,
      atol=1e-6,
  )
  np.testing.assert_array_equal(
      _clip(-8 * update, -8 * center, 8.0).difference, -8 * expected
  )


# The process.


_CONFIGURATIONS = [(0.75, 1), (None, 1), (0.75, 3), (None, 2)]


@pytest.fixture(scope='module', name='processes')
def _processes():
  """Processes for vectors of length 5 by radius and number of iterations."""
  return {
      (radius, num_iterations): centered_clipping.CenteredClippingFactory(
          radius, num_iterations=num_iterations
      ).create(tff.TensorType(np.float32, [5]))
      for radius, num_iterations in _CONFIGURATIONS
  }


@pytest.mark.parametrize('configuration', _CONFIGURATIONS)
def test_rounds_match_loops_over_clients(processes, configuration):
  """The center is the aggregate of the round before; cohorts vary."""
  process = processes[configuration]
  state, center = process.initialize(), np.zeros([5])
  for round_num, n in enumerate([6, 7, 1, 4]):
    updates = _random_updates(n, seed=round_num) + np.float32(1.0)
    if n > 5:
      updates[1] = 9e14
      updates[3, 2] = np.nan
      updates[4] = np.inf
    output = process.next(state, list(updates))
    center = _reference(updates, center, *configuration)
    np.testing.assert_allclose(output.result, center, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(output.state['center'], output.result)
    assert output.measurements['num_non_finite'] == (2 if n > 5 else 0)
    state, center = output.state, output.result


def test_measurements_by_hand(processes):
  units = np.eye(5, dtype=np.float32)
  updates = [units[0], 3 * units[1], 5 * units[2], np.nan * units[3]]
  output = processes[None, 1].next(processes[None, 1].initialize(), updates)
  assert output.measurements['clipping_radius'] == 3.0
  assert output.measurements['num_clipped'] == 1
  assert output.measurements['num_non_finite'] == 1
  np.testing.assert_allclose(output.result, [0.25, 0.75, 0.75, 0, 0], 1e-6)
  output = processes[0.75, 1].next(processes[0.75, 1].initialize(), updates)
  assert output.measurements['clipping_radius'] == 0.75
  assert output.measurements['num_clipped'] == 3


def test_permutation_of_clients(processes):
  updates = _random_updates(8)
  for configuration in [(0.75, 3), (None, 2)]:
    process = processes[configuration]
    np.testing.assert_allclose(
        process.next(process.initialize(), list(updates[::-1])).result,
        process.next(process.initialize(), list(updates)).result,
        atol=1e-6,
    )


def test_scale_with_the_default_radius(processes):
  process, updates = processes[None, 2], _random_updates(7)
  np.testing.assert_allclose(
      process.next(process.initialize(), list(-4 * updates)).result,
      -4 * process.next(process.initialize(), list(updates)).result,
      rtol=1e-6,
  )


@pytest.mark.parametrize('configuration', [(0.75, 3), (None, 2)])
def test_lost_round_keeps_the_center(processes, configuration):
  process = processes[configuration]
  output = process.next(process.initialize(), list(_random_updates(4)))
  assert np.abs(output.result).max() > 0
  for clients in ([], [np.full([5], np.nan, np.float32)] * 2):
    lost = process.next(output.state, clients)
    np.testing.assert_array_equal(lost.result, output.result)
    np.testing.assert_array_equal(lost.state['center'], output.result)
    assert lost.measurements['num_clipped'] == 0
    assert lost.measurements['num_non_finite'] == len(clients)


def test_all_equal_converge_to_the_update(processes):
  """In one round if nothing is clipped."""
  update = _random_updates(1)[0]
  process = processes[None, 1]
  output = process.next(process.initialize(), [update] * 6)
  np.testing.assert_allclose(output.result, update, rtol=1e-6)


def test_far_minority_moves_it_little(processes):
  process = processes[None, 2]
  honest = _random_updates(7)
  mean = honest.mean(axis=0)
  state, far = process.initialize(), np.full([5], 9e14, np.float32)
  for _ in range(3):
    output = process.next(state, list(honest) + [far] * 3)
    state = output.state
  assert np.linalg.norm(output.result - mean) < 3 * np.linalg.norm(
      honest - mean, axis=1
  ).max()


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


@pytest.mark.parametrize('weighted', [False, True])
def test_structures_of_mixed_dtypes(weighted):
  factory = centered_clipping.centered_clipping_factory(5.0, weighted=weighted)
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
    # Whatever weight a client claims has no effect.
    weights = [[1e9, 0.0, np.nan]]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(_VALUE_TYPE)
    weights = []

  assert process.state_type == tff.FederatedType(
      collections.OrderedDict(center=tff.TensorType(np.float32, [4])),
      tff.SERVER,
  )
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  assert output_type.measurements == tff.FederatedType(
      collections.OrderedDict(
          clipping_radius=np.float32,
          num_clipped=np.int32,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(
      process.initialize(),
      [
          _client(3.0, 0.0, 0.0, 4.0),
          _client(0.0, 6.0, 8.0, 0.0),
          _client(0.0, 0.0, 1e300, 1.0),
      ],
      *weights,
  )
  np.testing.assert_allclose(output.result['kernel'], [1.0, 1.0], rtol=1e-6)
  scalar, (half,) = output.result['bias']
  np.testing.assert_allclose(scalar, 4 / 3, rtol=1e-6)
  assert scalar.dtype == np.float64
  np.testing.assert_allclose(half, 4 / 3, rtol=1e-3)
  assert half.dtype == np.float16
  assert output.measurements['num_clipped'] == 1
  assert output.measurements['num_non_finite'] == 1


@pytest.mark.parametrize(
    'arguments, options, error, found',
    [
        (['1'], {}, TypeError, "'1'"),
        ([True], {}, TypeError, 'True'),
        ([0.0], {}, ValueError, '0.0'),
        ([-1], {}, ValueError, '-1'),
        ([float('nan')], {}, ValueError, 'nan'),
        ([float('inf')], {}, ValueError, 'inf'),
        ([1e-60], {}, ValueError, '1e-60'),
        ([], {'num_iterations': 0}, ValueError, 'found 0'),
        ([], {'num_iterations': 1.0}, TypeError, 'found 1.0'),
        ([], {'num_iterations': True}, TypeError, 'found True'),
    ],
)
def test_construction_errors(arguments, options, error, found):
  with pytest.raises(error) as raised:
    centered_clipping.CenteredClippingFactory(*arguments, **options)
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)


def test_accepts_numpy_numbers():
  centered_clipping.CenteredClippingFactory(
      np.float32(0.5), num_iterations=np.int64(2)
  )


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    centered_clipping.CenteredClippingFactory().create(tff.TensorType(np.int32))
