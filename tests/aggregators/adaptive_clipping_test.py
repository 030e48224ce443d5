"""Tests of adaptive robust clipping against sorting in NumPy."""

import fractions
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import adaptive_clipping


def _reference_bound(norms, f):
  """The (k + 1)-th largest norm, k in exact arithmetic."""
  n = len(norms)
  k = math.floor(2 * fractions.Fraction(f, n) * (n - f))
  return sorted(norms, reverse=True)[k]


def _bound(norms, num_byzantine):
  bound = adaptive_clipping.adaptive_bound(
      tf.constant(np.asarray(norms, np.float32)), tf.constant(num_byzantine)
  )
  return bound.norm.numpy(), bool(bound.cohort_too_small)


@pytest.mark.parametrize(
    'n, f, k',
    [
        (10, 0, 0),
        (10, 1, 1),  # 1.8
        (10, 2, 3),  # 3.2
        (10, 3, 4),  # 4.2
        (10, 4, 4),  # 4.8
        (5, 2, 2),  # 2.4
        (3, 1, 1),  # 1.33
        (100, 10, 18),
        (1, 0, 0),
    ],
)
def test_by_hand(n, f, k):
  norms = np.random.default_rng(0).permutation(n) + 1.0
  assert _bound(norms, f) == (n - k, False)


@pytest.mark.parametrize('n', range(1, 30))
def test_matches_exact_arithmetic(n):
  norms = np.random.default_rng(n).exponential(size=[n]).astype(np.float32)
  for f in range((n + 1) // 2):
    assert _bound(norms, f) == (_reference_bound(norms, f), False)


def test_large_cohort():
  norms = np.arange(100000, dtype=np.float32)
  assert _bound(norms, 40000)[0] == 100000 - 48000 - 1


@pytest.mark.parametrize('n, f', [(9, 4), (10, 4), (20, 7), (3, 1)])
def test_no_norm_is_left_above_the_largest_honest_one(n, f):
  honest = np.random.default_rng(n).uniform(1.0, 2.0, [n - f])
  for attack in (1e20, 0.0, 1.5):
    bound, _ = _bound(np.append(honest, [attack] * f), f)
    assert np.float32(honest.min()) <= bound <= np.float32(honest.max())


@pytest.mark.parametrize(
    'n, f, largest', [(1, 1, 0), (2, 1, 0), (4, 2, 1), (5, 3, 2), (10, 50, 4)]
)
def test_small_cohort_falls_back_to_the_largest_number(n, f, largest):
  norms = np.arange(n) + 1.0
  assert _bound(norms, f) == (_reference_bound(norms, largest), True)


def test_empty_cohort():
  assert _bound([], 0) == (0.0, True)
  assert _bound([], 3) == (0.0, True)


def test_equal_norms_and_scale():
  assert _bound([2.0] * 7, 2)[0] == 2.0
  norms = np.random.default_rng(0).exponential(size=[9]).astype(np.float32)
  assert _bound(norms * 1024, 3)[0] == 1024 * _bound(norms, 3)[0]


def _reference_clipped(updates, f):
  """The updates that the inner factory must see."""
  updates = np.asarray(updates, np.float64)
  updates = np.where(
      np.isfinite(updates).all(axis=1, keepdims=True), updates, 0.0
  )
  norms = [np.linalg.norm(x) for x in updates]
  bound = _reference_bound(norms, f)
  return [
      x * min(1.0, bound / norm) if norm > 0 else x
      for x, norm in zip(updates, norms)
  ]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  updates = np.random.default_rng(1).normal(size=[10, 5]).astype(np.float32)
  updates[3] = 9e14
  updates[8, 2] = np.nan
  clipped = _reference_clipped(updates, 3)
  inner = tff.aggregators.UnweightedMeanFactory()
  if weighted:
    inner = tff.aggregators.MeanFactory()
  factory = adaptive_clipping.adaptive_clipping_factory(inner, 0.3)
  value_type = tff.TensorType(np.float32, [5])
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    process = factory.create(value_type, tff.TensorType(np.float32))
    weights = np.arange(10, dtype=np.float32) + 1.0
    arguments = [list(weights)]
  else:
    assert isinstance(factory, tff.aggregators.UnweightedAggregationFactory)
    process = factory.create(value_type)
    weights, arguments = np.ones([10]), []
  output = process.next(process.initialize(), list(updates), *arguments)
  np.testing.assert_allclose(
      output.result, np.average(clipped, axis=0, weights=weights), rtol=1e-5
  )
  measured = output.measurements
  assert list(measured) == [
      'inner',
      'clipping_norm',
      'num_clipped',
      'num_non_finite',
      'num_byzantine',
      'cohort_too_small',
  ]
  np.testing.assert_allclose(
      measured['clipping_norm'], np.linalg.norm(clipped[3]), rtol=1e-6
  )
  assert measured['num_clipped'] == 4
  assert measured['num_non_finite'] == 1
  assert measured['num_byzantine'] == 3
  assert not measured['cohort_too_small']


def test_process_without_clients():
  process = adaptive_clipping.adaptive_clipping_factory(
      tff.aggregators.SumFactory(), 1
  ).create(tff.TensorType(np.float32, [2]))
  output = process.next(process.initialize(), [])
  np.testing.assert_array_equal(output.result, [0.0, 0.0])
  assert output.measurements['clipping_norm'] == 0.0
  assert output.measurements['cohort_too_small']


@pytest.mark.parametrize(
    'num_byzantine, error, found',
    [
        ('3', TypeError, "'3'"),
        (None, TypeError, 'None'),
        (True, TypeError, 'True'),
        (-1, ValueError, '-1'),
        (1.0, ValueError, '1.0'),
        (-0.1, ValueError, '-0.1'),
        (float('nan'), ValueError, 'nan'),
    ],
)
def test_construction_errors(num_byzantine, error, found):
  with pytest.raises(error) as raised:
    adaptive_clipping.adaptive_clipping_factory(
        tff.aggregators.SumFactory(), num_byzantine
    )
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)


def test_accepts_numpy_numbers():
  for num_byzantine in (np.int64(2), np.float64(0.25)):
    adaptive_clipping.adaptive_clipping_factory(
        tff.aggregators.SumFactory(), num_byzantine
    )


def test_rejects_what_is_no_factory():
  with pytest.raises(TypeError, match="'mean'"):
    adaptive_clipping.adaptive_clipping_factory('mean', 1)


def test_rejects_integer_updates():
  factory = adaptive_clipping.adaptive_clipping_factory(
      tff.aggregators.SumFactory(), 1
  )
  with pytest.raises(TypeError, match='tf.int32'):
    factory.create(tff.TensorType(np.int32))
