"""Tests of FLAME against HDBSCAN of scikit-learn and means in NumPy."""

import collections

import numpy as np
import pytest
from sklearn import cluster
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flame


def _cosine_distances(updates):
  updates = np.asarray(updates, np.float64)
  norms = np.linalg.norm(updates, axis=1)
  return 1 - (updates @ updates.T) / np.outer(norms, norms)


def _reference_cluster(distances):
  """The first component of more than half as links are added one by one."""
  n = len(distances)
  labels = np.arange(n)
  links = sorted((distances[i, j], i, j) for i in range(n) for j in range(i))
  for _, i, j in links:
    labels[labels == labels[i]] = labels[j]
    members = labels == labels[j]
    if members.sum() > n / 2:
      return members
  return np.ones([n], bool)


def _reference(updates):
  """The mean of the cluster, clipped to the median norm."""
  updates = np.asarray(updates, np.float64)
  norms = np.linalg.norm(updates, axis=1)
  members = _reference_cluster(_cosine_distances(updates))
  scales = np.minimum(1, np.median(norms) / norms)
  return (scales[:, np.newaxis] * updates)[members].mean(axis=0), members


def _cluster(distances, is_finite=None):
  if is_finite is None:
    is_finite = np.ones([len(distances)], np.bool_)
  return flame.majority_cluster(
      tf.constant(distances, tf.float64), tf.constant(is_finite)
  ).numpy()


def _flame(updates, is_finite=None, noise_multiplier=0.0, seed=(0, 0)):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  result = flame.flame(
      tf.constant(updates),
      tf.constant(is_finite),
      tf.constant(seed, tf.int64),
      noise_multiplier=noise_multiplier,
  )
  return flame.FlameResult(*(x.numpy() for x in result))


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


# The cluster.


def _line_distances(points):
  points = np.asarray(points, np.float64)
  return np.abs(points[:, np.newaxis] - points)


def test_cluster_by_hand():
  # More than half is 3 of 5 and 3 of 4.
  np.testing.assert_array_equal(
      _cluster(_line_distances([0, 10, 1, 5, 2])), [1, 0, 1, 0, 1]
  )
  # The pairs are linked first, but neither is more than half.
  np.testing.assert_array_equal(
      _cluster(_line_distances([0, 1, 5, 6.5, 9])), [0, 0, 1, 1, 1]
  )
  np.testing.assert_array_equal(
      _cluster(_line_distances([0, 1, 5, 6])), [1, 1, 1, 1]
  )
  # A chain is as long as its longest link.
  np.testing.assert_array_equal(
      _cluster(_line_distances([0, 1, 2, 3, 4, 5.5])), [1, 1, 1, 1, 1, 0]
  )


@pytest.mark.parametrize('n', [2, 3, 8, 9, 20])
def test_cluster_matches_linking_one_by_one(n):
  for seed in range(5):
    distances = _cosine_distances(_random_updates(n, d=4, seed=seed))
    np.testing.assert_array_equal(
        _cluster(distances), _reference_cluster(distances)
    )


@pytest.mark.parametrize('n', [9, 10, 25, 40])
def test_cluster_matches_hdbscan(n):
  for seed in range(5):
    distances = _cosine_distances(_random_updates(n, d=4, seed=seed) + 0.5)
    distances = np.maximum((distances + distances.T) / 2, 0)
    np.fill_diagonal(distances, 0)
    labels = cluster.HDBSCAN(
        min_cluster_size=n // 2 + 1,
        min_samples=1,
        metric='precomputed',
        allow_single_cluster=True,
        copy=True,
    ).fit_predict(distances)
    np.testing.assert_array_equal(_cluster(distances), labels == 0)


def test_cluster_of_what_is_finite():
  distances = _line_distances([0, 10, np.nan, 1, 5, 2, np.nan])
  is_finite = ~np.isin(np.arange(7), [2, 6])
  np.testing.assert_array_equal(
      _cluster(distances, is_finite), [1, 0, 0, 1, 0, 1, 0]
  )


@pytest.mark.parametrize('n', [0, 1, 3])
def test_cluster_of_none_one_or_equals(n):
  assert not _cluster(np.zeros([n, n]), np.zeros([n], bool)).any()
  assert _cluster(np.zeros([n, n])).all()


# The rule.


def test_by_hand():
  # Rows 0 to 2 have one direction and the median of the norms is 4; row 2 is
  # clipped to it.
  result = _flame([[1.0, 0], [3.0, 0], [8.0, 0], [0, 4.0], [0, -5.0]])
  assert result.norm_bound == 4
  np.testing.assert_allclose(result.weights, [1 / 3] * 3 + [0, 0])
  np.testing.assert_allclose(result.update, [8 / 3, 0.0], rtol=1e-6)


@pytest.mark.parametrize('n', [2, 5, 10, 21])
@pytest.mark.parametrize('offset', [0.0, 0.5, 100.0])
def test_matches_reference(n, offset):
  updates = _random_updates(n, d=20, seed=n) + np.float32(offset)
  expected, members = _reference(updates)
  result = _flame(updates)
  np.testing.assert_array_equal(result.weights > 0, members)
  np.testing.assert_allclose(result.weights.sum(), 1.0, rtol=1e-6)
  np.testing.assert_allclose(result.update, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_left_out(poison):
  updates = _random_updates(9) + np.float32(0.5)
  updates[0, 3] = poison
  updates[7] = poison
  is_finite = ~np.isin(np.arange(9), [0, 7])
  expected, members = _reference(updates[is_finite])
  result = _flame(updates, is_finite, noise_multiplier=1e-8)
  np.testing.assert_array_equal(result.weights[is_finite] > 0, members)
  assert result.weights[0] == 0 and result.weights[7] == 0
  np.testing.assert_allclose(result.update, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _flame(np.full([n, 3], np.nan), np.zeros([n], bool), 0.1)
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))


def test_one_client_all_equal_and_all_zero():
  updates = _random_updates(1)
  np.testing.assert_allclose(_flame(updates).update, updates[0], rtol=1e-6)
  np.testing.assert_allclose(
      _flame(np.tile(updates, [6, 1])).update, updates[0], rtol=1e-5
  )
  np.testing.assert_array_equal(_flame(np.zeros([3, 2])).update, [0.0, 0.0])


def test_huge_or_opposite_minority_is_left_out():
  honest = _random_updates(11, d=50) * np.float32(0.1) + 1
  directions = np.sign(_random_updates(5, d=50, seed=1))
  updates = np.concatenate([9e14 * directions, -honest[:5], honest])
  result = _flame(updates)
  np.testing.assert_allclose(result.weights, [0] * 10 + [1 / 11] * 11)
  # Nothing but the median norm is theirs.
  assert np.linalg.norm(result.update) <= np.linalg.norm(honest, axis=1).max()


def test_permutation_scale_and_rotation():
  updates = _random_updates(9) + np.float32(0.3)
  result = _flame(updates)
  order = np.random.default_rng(1).permutation(9)
  permuted = _flame(updates[order])
  np.testing.assert_array_equal(permuted.weights, result.weights[order])
  np.testing.assert_allclose(permuted.update, result.update, atol=1e-6)
  np.testing.assert_allclose(
      _flame(-1024.0 * updates).update, -1024.0 * result.update, rtol=1e-5
  )
  rotation, _ = np.linalg.qr(_random_updates(6, seed=3))
  np.testing.assert_allclose(
      _flame(updates @ rotation).update, result.update @ rotation, atol=1e-5
  )


def test_noise_has_the_size_of_the_median_norm():
  updates = np.full([3, 10000], 0.05, np.float32)  # Of norm 5.
  noise = _flame(updates, noise_multiplier=0.1).update - 0.05
  np.testing.assert_allclose(np.std(noise), 0.5, rtol=0.05)
  np.testing.assert_allclose(np.mean(noise), 0.0, atol=0.03)
  again = _flame(updates, noise_multiplier=0.1).update - 0.05
  np.testing.assert_array_equal(again, noise)
  for seed in ([0, 1], [1, 0]):
    other = _flame(updates, noise_multiplier=0.1, seed=seed).update - 0.05
    assert abs(np.corrcoef(noise, other)[0, 1]) < 0.1


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
  factory = flame.flame_factory(
      noise_multiplier=0.01, seed=4, weighted=weighted
  )
  types, weights = [_VALUE_TYPE], []
  if weighted:
    types.append(tff.TensorType(np.float32))
    weights.append([1e9, 1.0, 0.0, np.nan])
  process = factory.create(*types)
  assert process.state_type == tff.FederatedType(np.int64, tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)
  clients = [
      _client(2.0, 0.0, 0.0, 0.0),
      _client(4.0, 0.0, 0.0, 0.0),
      _client(0.0, 0.0, 0.0, 4.0),
      _client(0.0, np.nan, 1.0, 4.0),
  ]
  state = process.initialize()
  kernels = []
  for _ in range(2):
    output = process.next(state, clients, *weights)
    state = output.state
    np.testing.assert_allclose(output.result['kernel'], [3.0, 0.0], atol=0.3)
    kernels.append(output.result['kernel'])
  assert not np.array_equal(*kernels)
  scalar, (half,) = output.result['bias']
  assert scalar.dtype == np.float64 and half.dtype == np.float16
  np.testing.assert_array_equal(
      output.measurements['weights'], [0.5, 0.5, 0, 0]
  )
  assert output.measurements['norm_bound'] == 4.0
  assert output.measurements['num_non_finite'] == 1
  output = process.next(state, [], *([[]] if weighted else []))
  np.testing.assert_array_equal(output.result['kernel'], [0.0, 0.0])


@pytest.mark.parametrize(
    'options, error, found',
    [
        ({'noise_multiplier': '1'}, TypeError, "'1'"),
        ({'noise_multiplier': True}, TypeError, 'True'),
        ({'noise_multiplier': -0.1}, ValueError, '-0.1'),
        ({'noise_multiplier': float('nan')}, ValueError, 'nan'),
        ({'noise_multiplier': float('inf')}, ValueError, 'inf'),
        ({'seed': -1}, ValueError, '-1'),
        ({'seed': '1'}, TypeError, "'1'"),
    ],
)
def test_construction_errors(options, error, found):
  with pytest.raises(error, match=found):
    flame.flame_factory(**options)
