"""Tests of bucketing against means of the buckets in NumPy."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import bucketing
from fedaot_tff.aggregators import coordinate_median
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import krum
from fedaot_tff.aggregators import nearest_neighbor_mixing


class _TableFactory(flat_updates.GatheringFactory):
  """Measures the table that it is given."""

  def rule(self, updates, is_finite):
    return tf.reduce_sum(updates, axis=0), collections.OrderedDict(
        table=updates, is_finite=is_finite
    )


def _buckets(is_finite, bucket_size, seed=(0, 0)):
  """The members of each bucket."""
  is_member = bucketing.random_buckets(
      tf.constant(is_finite), bucket_size, tf.constant(seed, tf.int64)
  ).numpy()
  assert set(np.unique(is_member)) <= {0.0, 1.0}
  return [np.flatnonzero(row) for row in is_member]


def _apply(factory, updates, is_finite=None, round_number=0):
  updates = np.asarray(updates, np.float32)
  if is_finite is None:
    is_finite = np.ones([len(updates)], np.bool_)
  return factory.rule(
      tf.constant(updates),
      tf.constant(is_finite),
      tf.constant(round_number, tf.int64),
  )


def _random_updates(n, d=6, seed=0):
  return np.random.default_rng(seed).normal(size=[n, d]).astype(np.float32)


@pytest.mark.parametrize(
    'n, s, sizes',
    [
        (6, 2, [2, 2, 2]),
        (7, 2, [2, 2, 2, 1]),
        (7, 3, [3, 3, 1]),
        (4, 1, [1, 1, 1, 1]),
        (4, 9, [4]),
        (1, 2, [1]),
        (0, 2, []),
    ],
)
def test_every_update_is_in_one_bucket(n, s, sizes):
  buckets = _buckets(np.ones([n], bool), s)
  assert [len(b) for b in buckets] == sizes
  np.testing.assert_array_equal(
      np.sort(np.concatenate(buckets + [np.zeros([0], int)])), np.arange(n)
  )


def test_what_is_not_finite_is_in_no_bucket():
  is_finite = np.array([True, False, True, True, False, True, True])
  buckets = _buckets(is_finite, 2)
  assert [len(b) for b in buckets] == [2, 2, 1]
  np.testing.assert_array_equal(
      np.sort(np.concatenate(buckets)), np.flatnonzero(is_finite)
  )
  assert not _buckets(np.zeros([3], bool), 2)


def test_buckets_are_fixed_by_seed_and_round():
  def order(seed):
    return np.concatenate(_buckets(np.ones([50], bool), 1, seed)).tolist()

  assert order([3, 1]) == order([3, 1])
  for other in (order([3, 2]), order([4, 1]), list(range(50))):
    assert order([3, 1]) != other


def test_every_pair_shares_a_bucket_equally_often():
  n, s, rounds = 6, 2, 1500
  seeds = tf.constant(
      [[7, round_number] for round_number in range(rounds)], tf.int64
  )

  @tf.function
  def together(seeds):
    def in_round(seed):
      is_member = bucketing.random_buckets(tf.ones([n], tf.bool), s, seed)
      return tf.matmul(is_member, is_member, transpose_a=True)

    return tf.reduce_sum(
        tf.map_fn(in_round, seeds, fn_output_signature=tf.float32), axis=0
    )

  counts = together(seeds).numpy()
  np.testing.assert_array_equal(np.diag(counts), [rounds] * n)
  shares = counts[~np.eye(n, dtype=bool)] / rounds
  # One of five others; a standard deviation is about 0.01.
  np.testing.assert_allclose(shares, 0.2, atol=0.05)


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('n, s', [(10, 2), (11, 3), (5, 9)])
def test_inner_rule_gets_the_means_of_buckets(n, s, poison):
  updates = _random_updates(n)
  updates[1, 2] = poison
  updates[4] = poison
  is_finite = ~np.isin(np.arange(n), [1, 4])
  factory = bucketing.BucketingFactory(_TableFactory(), s, seed=5)
  _, measurements = _apply(factory, updates, is_finite, round_number=3)
  buckets = _buckets(is_finite, s, [5, 3])
  np.testing.assert_allclose(
      measurements['inner']['table'],
      [np.mean(updates[b].astype(np.float64), axis=0) for b in buckets],
      atol=1e-6,
  )
  assert measurements['inner']['is_finite'].numpy().tolist() == [True] * len(
      buckets
  )
  assert measurements['num_buckets'] == len(buckets)
  assert measurements['num_non_finite'] == 2


def test_buckets_of_one_leave_the_rule_as_it_is():
  updates = _random_updates(9)
  factory = bucketing.bucketing_factory(krum.krum_factory(2), 1, seed=1)
  update, measurements = _apply(factory, updates)
  expected = krum.krum(tf.constant(updates), tf.fill([9], True), 2)
  np.testing.assert_array_equal(update, expected.update)
  np.testing.assert_array_equal(measurements['weights'], expected.weights)


def test_weights_of_the_updates_themselves():
  updates = _random_updates(9)
  updates[3] = np.nan
  is_finite = np.arange(9) != 3
  factory = bucketing.bucketing_factory(
      krum.krum_factory(1, num_selected=2), 3, seed=1
  )
  update, measurements = _apply(factory, updates, is_finite)
  weights = measurements['weights'].numpy()
  np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
  assert weights[3] == 0 and len(measurements['inner']['weights']) == 3
  np.testing.assert_allclose(
      weights[is_finite] @ updates[is_finite], update, atol=1e-6
  )


def test_translation_and_scale():
  updates = _random_updates(11, d=50)
  offset = _random_updates(1, d=50, seed=1) * 100
  factory = bucketing.bucketing_factory(
      coordinate_median.coordinate_median_factory(), 2, seed=1
  )
  update, _ = _apply(factory, updates)
  moved, _ = _apply(factory, updates + offset)
  np.testing.assert_allclose(moved, update + offset[0], atol=1e-4)
  scaled, _ = _apply(factory, -1024.0 * updates)
  np.testing.assert_array_equal(scaled, -1024.0 * update)


def test_all_equal_in_any_order():
  updates = np.tile(_random_updates(1), [7, 1])
  factory = bucketing.bucketing_factory(
      coordinate_median.coordinate_median_factory(), 2, seed=1
  )
  for round_number in range(3):
    update, _ = _apply(factory, updates, round_number=round_number)
    np.testing.assert_allclose(update, updates[0], rtol=1e-6)


@pytest.mark.parametrize('attack', [9e14, -1e6, 0.0, 3.0])
def test_few_byzantine_updates_spoil_few_buckets(attack):
  """The median of buckets stays among the means of honest buckets."""
  honest = _random_updates(16)
  updates = np.concatenate([np.full([3, 6], attack, np.float32), honest])
  factory = bucketing.bucketing_factory(
      coordinate_median.coordinate_median_factory(), 2, seed=1
  )
  for round_number in range(5):
    update = _apply(factory, updates, round_number=round_number)[0].numpy()
    means = np.array([
        updates[b].mean(axis=0)
        for b in _buckets(np.ones([19], bool), 2, [1, round_number])
        if b.min() >= 3
    ])
    assert (update >= means.min(axis=0) - 1e-6).all()
    assert (update <= means.max(axis=0) + 1e-6).all()


def test_nested_around_and_inside_mixing():
  updates = _random_updates(9)
  inside = bucketing.bucketing_factory(
      nearest_neighbor_mixing.nearest_neighbor_mixing_factory(
          bucketing.BucketingFactory(_TableFactory(), 2, seed=1), 1
      ),
      2,
      seed=2,
  )
  _, measurements = _apply(inside, updates, round_number=4)
  means = np.array([
      updates[b].mean(axis=0) for b in _buckets(np.ones([9], bool), 2, [2, 4])
  ])
  mixed = nearest_neighbor_mixing.nearest_neighbor_mixing(
      tf.constant(means), tf.fill([5], True), 1
  ).numpy()
  np.testing.assert_allclose(
      measurements['inner']['inner']['inner']['table'],
      [
          mixed[b].mean(axis=0)
          for b in _buckets(np.ones([5], bool), 2, [1, 4])
      ],
      atol=1e-6,
  )


# The process.

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
  factory = bucketing.bucketing_factory(
      coordinate_median.coordinate_median_factory(),
      2,
      seed=3,
      weighted=weighted,
  )
  types = [_VALUE_TYPE]
  if weighted:
    assert isinstance(factory, tff.aggregators.WeightedAggregationFactory)
    types.append(tff.TensorType(np.float32))
  process = factory.create(*types)
  assert process.state_type == tff.FederatedType(np.int64, tff.SERVER)
  output_type = process.next.type_signature.result
  assert output_type.result == tff.FederatedType(_VALUE_TYPE, tff.SERVER)

  clients = [_client(2.0**i, 0.0, 1.0, 4.0) for i in range(6)]
  clients[4]['bias'] = (np.float64(np.nan), [np.float16(4.0)])
  weights = [[1e9, 1.0, 1.0, 0.0, np.nan, 1.0]] if weighted else []
  state = process.initialize()
  found = []
  for round_number in range(4):
    output = process.next(state, clients, *weights)
    state = output.state
    is_finite = np.arange(6) != 4
    members = _buckets(is_finite, 2, [3, round_number])
    expected = np.median(
        [np.mean(2.0 ** np.asarray(bucket)) for bucket in members]
    )
    np.testing.assert_allclose(output.result['kernel'], [expected, 0.0])
    found.append(expected)
  assert len(set(found)) > 1
  scalar, (half,) = output.result['bias']
  assert scalar == 1.0 and scalar.dtype == np.float64
  assert half == 4.0 and half.dtype == np.float16
  assert output.measurements['num_buckets'] == 3
  assert output.measurements['num_non_finite'] == 1

  output = process.next(state, [], *([[]] if weighted else []))
  np.testing.assert_array_equal(output.result['kernel'], [0.0, 0.0])
  assert output.measurements['num_buckets'] == 0


_MEDIAN = coordinate_median.CoordinateMedianFactory()


@pytest.mark.parametrize(
    'arguments, options, error, found',
    [
        ([None], {}, TypeError, 'None'),
        ([tff.aggregators.MeanFactory()], {}, TypeError, 'MeanFactory'),
        (
            [coordinate_median.coordinate_median_factory(weighted=True)],
            {},
            TypeError,
            'unweighted',
        ),
        ([_MEDIAN, 0], {}, ValueError, 'found 0'),
        ([_MEDIAN, 2.0], {}, TypeError, 'found 2.0'),
        ([_MEDIAN, True], {}, TypeError, 'found True'),
        ([_MEDIAN], {'seed': -1}, ValueError, 'found -1'),
        ([_MEDIAN], {'seed': 2**63}, ValueError, str(2**63)),
        ([_MEDIAN], {'seed': 0.5}, TypeError, 'found 0.5'),
    ],
)
def test_construction_errors(arguments, options, error, found):
  with pytest.raises(error) as raised:
    bucketing.bucketing_factory(*arguments, **options)
  assert found in str(raised.value)
  assert '\n' not in str(raised.value)
