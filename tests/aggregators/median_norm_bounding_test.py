"""Tests of clipping to the cohort's median norm against NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import coordinate_median
from fedaot_tff.aggregators import median_norm_bounding


def _struct(*numbers):
  a, b, c, d = numbers
  return collections.OrderedDict(
      kernel=tf.constant([a, b], tf.float32),
      bias=(tf.constant(c, tf.float64), [tf.constant(d, tf.float16)]),
  )


def _clip(struct, bound):
  clipped = median_norm_bounding.clip_update(struct, tf.constant(bound))
  tf.nest.assert_same_structure(clipped, struct)
  for before, after in zip(tf.nest.flatten(struct), tf.nest.flatten(clipped)):
    assert before.dtype == after.dtype and before.shape == after.shape
  scalar, (half,) = clipped['bias']
  return np.array([*clipped['kernel'], scalar, half], np.float64)


def test_clips_the_update_as_one_vector():
  # The norm is 10.
  np.testing.assert_allclose(
      _clip(_struct(1.0, 5.0, 5.0, 7.0), 2.5), [0.25, 1.25, 1.25, 1.75], 1e-6
  )


@pytest.mark.parametrize('bound', [10.0, 11.0, 1e30])
def test_keeps_what_is_within_the_bound_bit_for_bit(bound):
  numbers = [1.0, 5.0, 5.0, 7.0]
  np.testing.assert_array_equal(_clip(_struct(*numbers), bound), numbers)
  # A third has no finite binary fraction.
  third = _struct(1 / 3, 0.0, 1 / 3, 0.0)
  np.testing.assert_array_equal(
      _clip(third, bound)[[0, 2]], [np.float32(1 / 3), 1 / 3]
  )


def test_zero_bound_and_zero_update():
  np.testing.assert_array_equal(
      _clip(_struct(3.0, 0.0, 4.0, 0.0), 0.0), [0] * 4
  )
  for bound in (0.0, 1.0):
    np.testing.assert_array_equal(
        _clip(_struct(0.0, 0.0, 0.0, 0.0), bound), [0] * 4
    )


def test_clips_half_precision_by_a_factor_it_cannot_hold():
  clipped = _clip(_struct(9e14, 0.0, 0.0, 6e4), 9e6)
  np.testing.assert_allclose(clipped[0], 9e6, rtol=1e-6)
  np.testing.assert_allclose(clipped[3], 6e-4, rtol=1e-3)


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30, 1e300])
@pytest.mark.parametrize('bound', [0.0, 1.0, 1e20])
def test_what_is_not_finite_becomes_zero(poison, bound):
  np.testing.assert_array_equal(
      _clip(_struct(1.0, 2.0, poison, 3.0), bound), [0] * 4
  )


def _reference_clipped(updates, is_finite):
  """The updates that the inner factory must see."""
  updates = np.asarray(updates, np.float64)
  bound = np.median(np.linalg.norm(updates[is_finite], axis=1))
  clipped = np.zeros_like(updates)
  for i in np.flatnonzero(is_finite):
    norm = np.linalg.norm(updates[i])
    clipped[i] = updates[i] * min(1.0, bound / norm)
  return clipped, bound


def _run(factory, updates, weights=None):
  updates = [np.asarray(x, np.float32) for x in updates]
  value_type = tff.TensorType(np.float32, [len(updates[0])])
  if weights is None:
    process = factory.create(value_type)
    return process.next(process.initialize(), updates)
  process = factory.create(value_type, tff.TensorType(np.float32))
  return process.next(process.initialize(), updates, weights)


def test_weighted_mean():
  updates = np.random.default_rng(0).normal(size=[7, 5]).astype(np.float32)
  updates[2] = 9e14
  updates[4, 1] = np.nan
  updates[5] *= 100.0
  is_finite = np.arange(7) != 4
  clipped, bound = _reference_clipped(updates, is_finite)
  weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
  factory = median_norm_bounding.median_norm_bounding_factory(
      tff.aggregators.MeanFactory()
  )
  assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
  output = _run(factory, updates, weights)
  np.testing.assert_allclose(
      output.result, np.average(clipped, axis=0, weights=weights), rtol=1e-5
  )
  measured = output.measurements
  assert list(measured) == [
      'inner',
      'clipping_norm',
      'num_clipped',
      'num_non_finite',
  ]
  np.testing.assert_allclose(measured['clipping_norm'], bound, rtol=1e-6)
  assert measured['num_clipped'] == 3
  assert measured['num_non_finite'] == 1


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


def test_unweighted_inner_with_state_and_measurements():
  """And mixed dtypes."""
  inner = tff.aggregators.add_measurements(
      tff.aggregators.SumFactory(),
      server_measurement_fn=lambda result: collections.OrderedDict(
          copied=result
      ),
  )
  factory = median_norm_bounding.median_norm_bounding_factory(inner)
  assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
  process = factory.create(_VALUE_TYPE)
  assert process.state_type == inner.create(_VALUE_TYPE).state_type
  output = process.next(
      process.initialize(),
      [
          _client(0.0, 2.0, 0.0, 0.0),
          _client(3.0, 0.0, 4.0, 0.0),
          _client(0.0, 0.0, 6.0, 8.0),
          _client(0.0, 0.0, 1e300, 8.0),
      ],
  )
  # The median norm is 5.
  np.testing.assert_allclose(output.result['kernel'], [3.0, 2.0], rtol=1e-6)
  scalar, (half,) = output.result['bias']
  np.testing.assert_allclose(scalar, 7.0, rtol=1e-6)
  assert scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  np.testing.assert_array_equal(
      output.measurements['inner']['copied']['kernel'], output.result['kernel']
  )
  assert output.measurements['clipping_norm'] == 5.0
  assert output.measurements['num_clipped'] == 1
  assert output.measurements['num_non_finite'] == 1


def test_wraps_a_gathering_rule():
  output = _run(
      median_norm_bounding.median_norm_bounding_factory(
          coordinate_median.coordinate_median_factory(weighted=True)
      ),
      [[3.0, 4.0], [0.0, np.inf], [1.0, 0.0]],
      [1.0, 1.0, 1.0],
  )
  # The median norm is 3. The medians of (1.8, 0, 1) and (2.4, 0, 0).
  np.testing.assert_allclose(output.result, [1.0, 0.0], rtol=1e-6)
  assert output.measurements['clipping_norm'] == 3.0
  assert output.measurements['inner']['num_non_finite'] == 0


def test_without_clients_or_finite_updates():
  factory = median_norm_bounding.median_norm_bounding_factory(
      tff.aggregators.SumFactory()
  )
  process = factory.create(tff.TensorType(np.float32, [2]))
  for clients in ([], [np.array([0.0, np.inf], np.float32)] * 2):
    output = process.next(process.initialize(), clients)
    np.testing.assert_array_equal(output.result, [0.0, 0.0])
    assert output.measurements['clipping_norm'] == 0.0
    assert output.measurements['num_non_finite'] == len(clients)


@pytest.mark.parametrize('inner', [None, 'mean', tff.aggregators.MeanFactory])
def test_rejects_what_is_no_factory(inner):
  with pytest.raises(TypeError) as raised:
    median_norm_bounding.median_norm_bounding_factory(inner)
  assert repr(inner) in str(raised.value)
  assert '\n' not in str(raised.value)


def test_rejects_integer_updates():
  factory = median_norm_bounding.median_norm_bounding_factory(
      tff.aggregators.SumFactory()
  )
  with pytest.raises(TypeError, match='tf.int32'):
    factory.create(tff.TensorType(np.int32))
