"""Tests of Krum against explicit pairwise distances in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import krum


def _reference_scores(updates, is_finite, num_byzantine, offset=2):
  """Scores as in the paper, by loops over pairs of finite updates."""
  updates = np.asarray(updates, np.float64)
  finite = np.flatnonzero(is_finite)
  scores = np.full([len(updates)], np.inf)
  for i in finite:
    distances = sorted(
        np.sum((updates[i] - updates[j]) ** 2) for j in finite if j != i
    )
    num_neighbors = max(len(finite) - num_byzantine - offset, 1)
    scores[i] = sum(distances[:num_neighbors])
  return scores


def _reference_weights(scores, num_selected):
  num_selected = min(num_selected, np.isfinite(scores).sum())
  weights = np.zeros([len(scores)])
  weights[np.argsort(scores, kind='stable')[:num_selected]] = 1 / num_selected
  return weights


def _krum(updates, num_byzantine, is_finite=None, **options):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  result = krum.krum(
      tf.constant(updates),
      tf.constant(is_finite),
      tf.constant(num_byzantine),
      **options,
  )
  return krum.KrumResult(*(x.numpy() for x in result))


def _distances(updates, is_finite=None):
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  return krum.squared_distances(
      tf.constant(updates, tf.float32), tf.constant(is_finite)
  ).numpy()


def _explicit_distances(updates):
  updates = np.asarray(updates, np.float64)
  return np.sum((updates[:, np.newaxis] - updates) ** 2, axis=-1)


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


# Distances of honest updates.


def test_distances_by_hand():
  np.testing.assert_array_equal(
      _distances([[0, 0], [3, 4], [0, 1]]),
      [[0, 25, 1], [25, 0, 18], [1, 18, 0]],
  )


@pytest.mark.parametrize('d', [1, 4, 5, 11])
def test_blocks_of_columns_add_up(d, monkeypatch):
  monkeypatch.setattr(krum, '_BLOCK_COLUMNS', 5)
  updates = _random_updates(7, d=d)
  np.testing.assert_allclose(
      _distances(updates), _explicit_distances(updates), rtol=1e-12
  )


@pytest.mark.parametrize('offset', [1e2, 1e4])
def test_distances_under_a_shared_offset(offset):
  updates = _random_updates(9, d=5000) + np.float32(offset)
  np.testing.assert_allclose(
      _distances(updates), _explicit_distances(updates), rtol=1e-6
  )


def test_distances_next_to_a_huge_client():
  """One client near the bound of what is finite does not blur the others."""
  updates = _random_updates(9, d=50)
  updates[4] = 9e14
  honest = np.arange(9) != 4
  np.testing.assert_allclose(
      _distances(updates)[honest][:, honest],
      _explicit_distances(updates[honest]),
      rtol=1e-10,
  )


def test_distances_to_what_is_not_finite():
  distances = _distances([[0, 0], [np.nan, 1], [3, 4]], [True, False, True])
  inf = np.inf
  np.testing.assert_array_equal(
      distances, [[0, inf, 25], [inf, 0, inf], [25, inf, 0]]
  )


# The rule.


def test_by_hand():
  # Squared distances on a line; f = 1 leaves 5 - 1 - 2 = 2 neighbors:
  # scores 1 + 9, 1 + 4, 4 + 9, 49 + 81, 16 + 49 in the order of the rows.
  updates = [[0.0], [1.0], [3.0], [19.0], [10.0]]
  result = _krum(updates, 1)
  np.testing.assert_array_equal(result.update, [1.0])
  np.testing.assert_array_equal(result.weights, [0, 1, 0, 0, 0])
  assert not result.cohort_too_small

  result = _krum(updates, 1, num_selected=3)
  np.testing.assert_allclose(result.update, [4 / 3], rtol=1e-6)
  np.testing.assert_allclose(result.weights, [1 / 3, 1 / 3, 1 / 3, 0, 0])

  # n - f = 4: all but the update of the largest score.
  result = _krum(updates, 1, num_selected=None)
  np.testing.assert_allclose(result.update, [3.5], rtol=1e-6)
  np.testing.assert_allclose(result.weights, [0.25, 0.25, 0.25, 0, 0.25])
  # A NaN lowers n, and at least one update is selected.
  is_finite = [True, True, True, False, True]
  result = _krum(updates, 1, is_finite, num_selected=None)
  np.testing.assert_allclose(result.weights, [1 / 3, 1 / 3, 1 / 3, 0, 0])
  result = _krum(updates, 9, num_selected=None)
  assert np.count_nonzero(result.weights) == 1


def test_number_of_neighbors_by_hand():
  # The pair at 0 and 0.1 wins with one neighbor, the middle 10 of the rest
  # with two. With n = 5 and f = 2, n - f - 2 = 1 and n - f - 1 = 2.
  updates = [[0.0], [0.1], [9.0], [10.0], [11.0]]
  np.testing.assert_allclose(_krum(updates, 2).update, [0.0])
  np.testing.assert_allclose(
      _krum(updates, 2, neighbors='byzfl').update, [10.0]
  )
  np.testing.assert_allclose(_krum(updates, 1).update, [10.0])


@pytest.mark.parametrize('neighbors, offset', [('published', 2), ('byzfl', 1)])
@pytest.mark.parametrize(
    'n, f, m', [(7, 0, 1), (7, 2, 1), (10, 3, 4), (20, 8, 12), (21, 5, 21)]
)
def test_matches_explicit_distances(n, f, m, neighbors, offset):
  updates = _random_updates(n, seed=n + f)
  weights = _reference_weights(
      _reference_scores(updates, np.ones([n], bool), f, offset), m
  )
  result = _krum(updates, f, num_selected=m, neighbors=neighbors)
  np.testing.assert_allclose(result.weights, weights, rtol=1e-6)
  np.testing.assert_allclose(result.update, weights @ updates, atol=1e-6)
  assert not result.cohort_too_small


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('m', [1, 3, 20])
def test_what_is_not_finite_is_left_out(m, poison):
  updates = _random_updates(12)
  updates[0, 3] = poison
  updates[7] = poison
  is_finite = ~np.isin(np.arange(12), [0, 7])
  scores = _reference_scores(updates, is_finite, 3)
  np.testing.assert_allclose(
      krum.krum_scores(
          krum.squared_distances(tf.constant(updates), is_finite), is_finite, 5
      ),
      scores,
      rtol=1e-10,
  )
  weights = _reference_weights(scores, m)
  result = _krum(updates, 3, is_finite, num_selected=m)
  np.testing.assert_allclose(result.weights, weights, rtol=1e-6)
  np.testing.assert_allclose(
      result.update, weights[is_finite] @ updates[is_finite], atol=1e-6
  )


def test_identical_clients_that_are_not_finite_do_not_win():
  updates = np.concatenate([np.full([6, 6], np.nan), _random_updates(5)])
  is_finite = np.arange(11) >= 6
  result = _krum(updates, 1, is_finite)
  assert result.weights[:6].sum() == 0 and result.weights.sum() == 1


@pytest.mark.parametrize('n', [0, 1, 4])
def test_zero_without_finite_updates(n):
  result = _krum(np.full([n, 3], np.nan), 1, np.zeros([n], bool))
  np.testing.assert_array_equal(result.update, np.zeros([3]))
  np.testing.assert_array_equal(result.weights, np.zeros([n]))
  assert result.cohort_too_small


@pytest.mark.parametrize('m', [1, 3])
def test_only_one_finite_update(m):
  updates = [[np.nan, 0.0], [2.0, -3.0], [np.inf, 1.0]]
  result = _krum(updates, 0, [False, True, False], num_selected=m)
  np.testing.assert_array_equal(result.update, [2.0, -3.0])
  np.testing.assert_array_equal(result.weights, [0, 1, 0])
  assert result.cohort_too_small


@pytest.mark.parametrize(
    'n, f, neighbors, too_small',
    [
        (3, 0, 'published', False),
        (4, 3, 'published', True),
        (5, 2, 'published', False),
        (5, 3, 'published', True),
        (5, 3, 'byzfl', False),
        (5, 4, 'byzfl', True),
        (5, 50, 'published', True),
    ],
)
def test_small_cohort_falls_back_to_one_neighbor(n, f, neighbors, too_small):
  updates = _random_updates(n, seed=n)
  updates[0] += 10.0  # Of equal scores the first would win.
  result = _krum(updates, f, neighbors=neighbors)
  assert result.cohort_too_small == too_small
  scores = _reference_scores(
      updates, np.ones([n], bool), f, {'published': 2, 'byzfl': 1}[neighbors]
  )
  np.testing.assert_allclose(
      result.update, updates[np.argmin(scores)], rtol=1e-6
  )


def test_non_finite_updates_make_the_cohort_small():
  updates = _random_updates(6)
  assert not _krum(updates, 2).cohort_too_small
  assert _krum(updates, 2, np.arange(6) >= 2).cohort_too_small


def test_permutation_of_clients():
  updates = _random_updates(10)
  order = np.random.default_rng(1).permutation(10)
  result = _krum(updates, 3, num_selected=4)
  permuted = _krum(updates[order], 3, num_selected=4)
  np.testing.assert_array_equal(permuted.weights, result.weights[order])
  np.testing.assert_allclose(permuted.update, result.update, rtol=1e-6)


def test_translation_by_a_hundred_times_the_spread():
  # Multiples of 1/256, so that the sum is exact.
  updates = np.round(_random_updates(10, d=300) * 256) / 256
  offset = np.round(_random_updates(1, d=300, seed=1) * 100)
  result = _krum(updates, 3)
  moved = _krum(updates + offset, 3)
  np.testing.assert_array_equal(moved.weights, result.weights)
  np.testing.assert_array_equal(moved.update, result.update + offset[0])


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
def test_scale(scale):
  updates = _random_updates(10)
  np.testing.assert_array_equal(
      _krum(scale * updates, 3).update, scale * _krum(updates, 3).update
  )


def test_duplicated_clients():
  """Copies are each other's neighbors at distance zero."""
  updates = _random_updates(6)
  updates[4] = updates[1]
  updates[5] = updates[1]
  result = _krum(updates, 2)
  np.testing.assert_array_equal(result.update, updates[1])
  doubled = np.concatenate([updates[:4], updates[:4]])
  scores = _reference_scores(doubled, np.ones([8], bool), 2)
  result = _krum(doubled, 2, num_selected=2)
  np.testing.assert_allclose(result.update, updates[np.argmin(scores)], 1e-6)


@pytest.mark.parametrize('m', [1, 4])
def test_all_equal(m):
  updates = np.tile(_random_updates(1), [6, 1])
  np.testing.assert_allclose(
      _krum(updates, 1, num_selected=m).update, updates[0], rtol=1e-6
  )


def test_far_minority_is_not_selected():
  updates = np.concatenate(
      [np.full([4, 6], 9e14), _random_updates(8, d=6) + 100.0]
  )
  result = _krum(updates, 4, num_selected=8)
  np.testing.assert_allclose(result.weights, [0] * 4 + [1 / 8] * 8)


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


_CLIENTS = [
    _client(9e14, 9e14, 9e14, 1.0),
    _client(1.0, 0.0, 2.0, 4.0),
    _client(1.0, 0.0, np.nan, 4.0),
    _client(1.0, 0.5, 2.0, 4.0),
    _client(1.0, 0.25, 2.0, 4.0),
    _client(1.0, 0.0, 2.0, np.inf),
    _client(1.0, 3.0, 2.0, 4.0),
]


@pytest.mark.parametrize('weighted', [False, True])
def test_process(weighted):
  factory = krum.krum_factory(0.3, num_selected=2, weighted=weighted)
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
          cohort_too_small=np.bool_,
          num_byzantine=np.int32,
          num_non_finite=np.int32,
      ),
      tff.SERVER,
  )

  output = process.next(process.initialize(), _CLIENTS, *weights)
  # One neighbor counts: clients 1 and 3 tie at 1/16 with 4, which is closest to
  # both; the earliest two of the three are selected.
  np.testing.assert_allclose(output.result['kernel'], [1.0, 0.25])
  scalar, (half,) = output.result['bias']
  assert scalar == 2.0 and scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  np.testing.assert_array_equal(
      output.measurements['weights'], [0, 0.5, 0, 0.5, 0, 0, 0]
  )
  assert output.measurements['num_byzantine'] == 2
  assert output.measurements['num_non_finite'] == 2
  assert not output.measurements['cohort_too_small']


def test_process_without_clients():
  process = krum.KrumFactory(1).create(tff.TensorType(np.float32, [2]))
  output = process.next(process.initialize(), [])
  np.testing.assert_array_equal(output.result, [0.0, 0.0])
  assert output.measurements['weights'].shape == (0,)
  assert output.measurements['cohort_too_small']


@pytest.mark.parametrize(
    'arguments, options, error, found',
    [
        (['3'], {}, TypeError, "'3'"),
        ([1], {'num_selected': 0}, ValueError, 'found 0'),
        ([1], {'num_selected': 2.0}, TypeError, 'found 2.0'),
        ([1], {'num_selected': True}, TypeError, 'found True'),
        ([1], {'neighbors': 'all'}, ValueError, "'all'"),
    ],
)
def test_construction_errors(arguments, options, error, found):
  with pytest.raises(error) as raised:
    krum.KrumFactory(*arguments, **options)
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)


def test_accepts_numpy_numbers():
  krum.KrumFactory(np.int64(2), num_selected=np.int32(3))
  krum.KrumFactory(np.float64(0.25))


def test_rejects_integer_updates():
  with pytest.raises(TypeError, match='tf.int32'):
    krum.KrumFactory(1).create(tff.TensorType(np.int32))
