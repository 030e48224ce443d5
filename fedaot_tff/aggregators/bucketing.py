"""Bucketing: a wrapper that averages random buckets of updates."""

import collections
import numbers
from typing import Any, Dict, Optional, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights


def random_buckets(
    is_finite: tf.Tensor, bucket_size: int, seed: tf.Tensor
) -> tf.Tensor:
  """Assigns updates to buckets at random.

  Args:
    is_finite: A `[N]` bool tensor; the other updates go to no bucket. n counts
      the finite ones.
    bucket_size: s, how many updates share a bucket; the last bucket has the
      rest.
    seed: A `[2]` int64 tensor that fixes the permutation.

  Returns:
    A `[ceil(n / s), N]` float32 tensor: 1 in row b and column i if update i is
    in bucket b, else 0.
  """
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  num_buckets = -(-num_finite // bucket_size)
  keys = tf.random.stateless_uniform(
      tf.shape(is_finite), seed, dtype=tf.float64, alg='philox'
  )
  # Keys are below 1, so that what is not finite comes last.
  order = tf.argsort(tf.where(is_finite, keys, 1.0), stable=True)
  buckets = tf.argsort(order) // bucket_size
  is_member = (
      tf.equal(buckets, tf.range(num_buckets)[:, tf.newaxis]) & is_finite
  )
  return tf.cast(is_member, tf.float32)


class BucketingFactory(flat_updates.GatheringFactory):
  """Bucketing before a rule on tables; see `bucketing_factory`."""

  counts_rounds = True

  def __init__(
      self,
      inner: flat_updates.GatheringFactory,
      bucket_size: int = 2,
      *,
      seed: Optional[int] = None,
  ):
    """Initializes `BucketingFactory`.

    Args:
      inner: The factory for the inner rule.
      bucket_size: See `bucketing_factory`.
      seed: See `bucketing_factory`.

    Raises:
      TypeError: See `bucketing_factory`.
      ValueError: See `bucketing_factory`.
    """
    if not isinstance(inner, flat_updates.GatheringFactory):
      raise TypeError(
          'Expected `inner` to be an unweighted factory for a rule on the table'
          ' of all updates, which can be given fewer rows than there are'
          f' clients, found {inner!r}.'
      )
    if isinstance(bucket_size, bool) or not isinstance(
        bucket_size, numbers.Integral
    ):
      raise TypeError(
          f'Expected `bucket_size` to be an int, found {bucket_size!r}.'
      )
    if bucket_size < 1:
      raise ValueError(
          f'Expected `bucket_size` to be 1 or more, found {bucket_size!r}.'
      )
    self._inner = inner
    self._bucket_size = int(bucket_size)
    self._seed = flat_updates.check_seed(seed)

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor, round_number: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Mixes and aggregates; see `flat_updates.GatheringFactory.rule`."""
    seed = tf.stack([tf.constant(self._seed, tf.int64), round_number])
    is_member = random_buckets(is_finite, self._bucket_size, seed)
    means = flat_updates.means_of_rows(updates, is_finite, is_member)
    update, inner = self._inner.rule(
        means,
        tf.fill([tf.shape(means)[0]], True),
        *([round_number] if self._inner.counts_rounds else []),
    )
    measurements = collections.OrderedDict(
        num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
        num_buckets=tf.shape(means)[0],
    )
    if 'weights' in inner:
      measurements['weights'] = flat_updates.weights_before_means(
          inner['weights'], is_member
      )
    return update, collections.OrderedDict(measurements, inner=inner)


def bucketing_factory(
    inner: flat_updates.GatheringFactory,
    bucket_size: int = 2,
    *,
    seed: Optional[int] = None,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory that averages buckets before a rule aggregates them.

  In each round the n updates are put in random order and cut into ceil(n / s)
  buckets of s, the last of which has the rest. The inner rule gets the means of
  the buckets in place of the updates, which differ less from each other: with s
  times less variance, if all buckets are full. (Karimireddy, He and Jaggi,
  "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
  2022, arXiv:2006.09365.)

  Breakdown point: f Byzantine updates spoil f buckets at most, so the inner
  rule must withstand f of ceil(n / s); a rule that breaks down at half of its
  rows withstands f < n / (2 s). Give the inner rule f itself, as an int: it
  would take a fraction of the buckets, of which s times as many are spoiled.

  The rule is given fewer rows than there are clients, so only factories for
  rules on the table of updates can be wrapped: a process that aggregates values
  at clients cannot leave clients out, and a bucket's mean at each of its
  clients would not be the same to rules that count neighbors, such as Krum.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more go
      to no bucket; n counts the other ones. The inner rule gets no rows if
      there are none.
    * With a bucket size of n or more the inner rule gets one row, the mean, and
      nothing is withstood.

  Cost with N clients and d coordinates, besides the inner rule's for ceil(N /
  s) rows: time O(N^2 d / s); memory `4 * N * d` bytes for the table and a
  second time that while averaging (three times that while gathering), and `4 *
  N * d / s` bytes for the means. Means are taken in float32.

  The state is the number of rounds so far, int64; the buckets of a round depend
  on that number, the seed and the order in which updates were gathered. The
  measurements are
    * `num_non_finite`, int32: the number of updates left out;
    * `num_buckets`, int32;
    * `weights`, float32 `[N]`, only if the inner rule measures its weights:
      those of the updates themselves;
    * `inner`: the inner measurements, of buckets.

  Args:
    inner: The factory for the inner rule.
    bucket_size: s, 1 or more; 1 permutes the updates only.
    seed: A nonnegative int below 2^63. It should be unknown to clients. None
      (default) draws one at random; give one to make runs repeatable.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `BucketingFactory`, wrapped if `weighted`.

  Raises:
    TypeError: If `inner` is not a `flat_updates.GatheringFactory`, or another
      argument is of another kind.
    ValueError: If `bucket_size` or `seed` is out of range.
  """
  return ignored_weights.accept_weights(
      BucketingFactory(inner, bucket_size, seed=seed), weighted
  )
