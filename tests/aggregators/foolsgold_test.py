"""Tests of FoolsGold against the paper's algorithm by loops in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import foolsgold


def _reference_rates(updates, is_finite, confidence=1.0):
  """Learning rates by loops over pairs of finite updates."""
  updates = np.asarray(updates, np.float64)
  finite = np.flatnonzero(is_finite)
  n = len(updates)
  cosines = np.zeros([n, n])
  for i in finite:
    for j in finite:
      if i != j:
        cosines[i, j] = (updates[i] @ updates[j]) / (
            np.linalg.norm(updates[i]) * np.linalg.norm(updates[j])
        )
  v = np.maximum(cosines.max(axis=1), 0)
  rates = np.zeros([n])
  for i in finite:
    pardoned = [
        cosines[i, j] * (v[i] / v[j] if v[j] > v[i] else 1.0) for j in range(n)
    ]
    rates[i] = 1 - max(pardoned)
  rates = rates / rates.max()
  with np.errstate(divide='ignore'):
    return np.clip(confidence * (np.log(rates / (1 - rates)) + 0.5), 0, 1)


def _foolsgold(updates, is_finite=None, **options):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  result = foolsgold.foolsgold(
      tf.constant(updates), tf.constant(is_finite), **options
  )
  return foolsgold.FoolsGoldResult(*(x.numpy() for x in result))


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


def test_copies_have_no_weight_by_hand():
  # Row 2 is orthogonal to the others, which are copies up to their length.
  result = _foolsgold([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
  np.testing.assert_array_equal(result.learning_rates, [0, 0, 1])
  np.testing.assert_array_equal(result.update, [0.0, 5.0])


def test_pardoning_by_hand():
  # Cosines: 0.6 of rows 0 and 1, 0.8 of rows 1 and 2, 0 of rows 0 and 2. Row 0
  # is pardoned by 0.6 / 0.8: 0.45, so that the novelties are 0.55, 0.2 and 0.2.
  result = _foolsgold([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
  a = 0.2 / 0.55
  assert np.log(a / (1 - a)) + 0.5 < 0
  np.testing.assert_array_equal(result.learning_rates, [1, 0, 0])


@pytest.mark.parametrize('n', [2, 3, 8, 9])
@pytest.mark.parametrize('confidence', [1.0, 0.4])
@pytest.mark.parametrize('offset', [0.0, 0.3, 100.0])
def test_matches_loops(n, confidence, offset):
  updates = _random_updates(n, d=40, seed=n) + np.float32(offset)
  rates = _reference_rates(updates, np.ones([n], bool), confidence)
  result = _foolsgold(updates, confidence=confidence)
  np.testing.assert_allclose(result.learning_rates, rates, atol=1e-5)
  weights = rates / rates.sum()
  np.testing.assert_allclose(result.weights, weights, atol=1e-5)
  np.testing.assert_allclose(
      result.update, weights @ updates.astype(np.float64), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_has_no_weight(poison):
  updates = _random_updates(9) + np.float32(0.5)
  updates[0, 3] = poison
  updates[7] = poison
  is_finite = ~np.isin(np.arange(9), [0, 7])
  result = _foolsgold(updates, is_finite)
  rates = _reference_rates(updates, is_finite)
  np.testing.assert_allclose(result.learning_rates, rates, atol=1e-5)
  np.testing.assert_allclose(
      result.update,
      rates[is_finite] @ updates[is_finite] / rates.sum(),
      atol=1e-5,
  )
  assert result.weights[0] == 0 and result.weights[7] == 0


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _foolsgold(np.full([n, 3], np.nan), np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))


def test_one_client_and_all_equal():
  updates = _random_updates(1)
  np.testing.assert_allclose(_foolsgold(updates).update, updates[0])
  result = _foolsgold(np.tile(updates, [7, 1]))
  np.testing.assert_allclose(result.weights, [1 / 7] * 7, rtol=1e-6)
  np.testing.assert_allclose(result.update, updates[0], rtol=1e-6)


def test_zero_updates_resemble_nobody():
  result = _foolsgold([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
  np.testing.assert_array_equal(result.learning_rates, [1, 1, 1])


def test_sybils_lose_against_different_clients():
  honest = _random_updates(4, d=100)
  sybils = np.full([16, 100], 3.0) + 1e-3 * _random_updates(16, d=100, seed=1)
  result = _foolsgold(np.concatenate([sybils, honest]))
  np.testing.assert_allclose(result.weights[:16], np.zeros([16]))
  np.testing.assert_allclose(result.weights[16:], [0.25] * 4, rtol=1e-6)


def test_permutation_of_clients():
  updates = _random_updates(8) + np.float32(0.3)
  order = np.random.default_rng(1).permutation(8)
  result, permuted = _foolsgold(updates), _foolsgold(updates[order])
  np.testing.assert_allclose(permuted.weights, result.weights[order], atol=1e-6)
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
def test_scale_and_rotation(scale):
  updates = _random_updates(8) + np.float32(0.3)
  result = _foolsgold(updates)
  np.testing.assert_allclose(
      _foolsgold(scale * updates).update, scale * result.update, rtol=1e-5
  )
  rotation, _ = np.linalg.qr(_random_updates(6, seed=3))
  np.testing.assert_allclose(
      _foolsgold(updates @ rotation).update, result.update @ rotation, atol=1e-5
  )


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


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = foolsgold.foolsgold_factory(weighted=weighted)
  types, weights = [_VALUE_TYPE], []
  if weighted:
    types.append(tff.TensorType(np.float32))
    weights.append([1e9, 1.0, 0.0, np.nan])
  process = factory.create(*types)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  clients = [
      _client(1.0, 0.0, 0.0, 0.0),
      _client(2.0, 0.0, 0.0, 0.0),
      _client(0.0, 0.0, 4.0, 0.0),
      _client(0.0, np.nan, 1.0, 4.0),
  ]
  output = process.next(process.initialize(), clients, *weights)
  np.testing.assert_allclose(output.result['kernel'], [0.0, 0.0])
  scalar, (half,) = output.result['bias']
  assert scalar == 4.0 and scalar.dtype == np.float64
  assert half == 0.0 and half.dtype == np.float16
  np.testing.assert_array_equal(output.measurements['weights'], [0, 0, 1, 0])
  assert output.measurements['num_non_finite'] == 1
  output = process.next(output.state, [], *([[]] if weighted else []))
  np.testing.assert_array_equal(output.result['kernel'], [0.0, 0.0])


@pytest.mark.parametrize(
    'confidence, error',
    [('1', TypeError), (True, TypeError), (0, ValueError), (-1.0, ValueError),
     (float('nan'), ValueError), (float('inf'), ValueError)],
)
def test_construction_errors(confidence, error):
  with pytest.raises(error, match=repr(confidence)):
    foolsgold.foolsgold_factory(confidence=confidence)
