"""Bucketing: the means of random buckets stand for the updates."""

import functools

from fedaot import checks
from fedaot.rules import rule


@rule.wrapper(bucket_size=functools.partial(checks.check_int, minimum=1))
def bucketing(cohort, bucket_size=2, *, seed=None):
  """Averages random buckets of s updates, so that they differ less.

  In each round the n updates are put in random order and cut into ceil(n / s)
  buckets of s, the last of which has the rest; the inner rule gets their means
  (Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous
  Datasets via Bucketing", ICLR 2022, arXiv:2006.09365).

  Breakdown point: f Byzantine updates spoil f buckets at most, so the inner
  rule must withstand f of ceil(n / s). A fraction that it is told is one of
  clients, not of buckets. Cost: that of mixing, O(N^2 / s) for Gram rules,
  O(N^2 d / s) for others.

  Args:
    bucket_size: s, 1 or more; 1 permutes the updates only.
    seed: Fixes the buckets of every round, to be kept from clients; None draws
      one.

  Returns:
    A `rule.Rule` that measures `num_buckets`, `num_non_finite`, `weights` (if
    the inner rule does) and `inner`.
  """
  xp, n = cohort.xp, cohort.size
  num_buckets = (n + bucket_size - 1) // bucket_size
  order = xp.sample((seed, cohort.round_num, 0), n, n)
  bucket = xp.argsort(order, kind='stable') // bucket_size
  rows = xp.arange(num_buckets)[:, None]
  is_member = xp.asarray(xp.equal(bucket, rows), dtype=xp.float64)
  matrix = is_member / xp.sum(is_member, axis=1)[:, None]
  return matrix, {'num_buckets': num_buckets}
