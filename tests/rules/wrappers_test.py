"""Tests of the wrappers against what an inner rule must see."""

import fractions

import numpy as np
import pytest

from fedaot import rules
from fedaot.rules import rule as rule_lib
from tests.rules import tables


def _record(seen):
  """A rule that keeps the rows that it sees and returns their sum."""

  def record(cohort):
    seen.append(cohort.block(0, cohort.dimension))
    return rule_lib.Decision(combine=lambda block: block.sum(axis=0))

  return rule_lib.rule()(record)()


def _rows(wrap, updates, **options):
  """What the inner rule of `wrap(rule)` sees, and the measurements."""
  seen = []
  rule = wrap(_record(seen))
  result, measured = rule.measure(np.asarray(updates, np.float64), **options)
  np.testing.assert_allclose(result, seen[0].sum(axis=0), rtol=1e-12)
  return seen[0], measured


# Nearest neighbor mixing.


def _nnm(updates, f):
  return _rows(lambda inner: rules.nnm(inner, f), updates)


def test_mixing_by_hand():
  # f = 1 leaves 2 neighbors, the update itself and the nearest other one.
  rows, measured = _nnm([[0.0], [1.0], [9.0]], 1)
  np.testing.assert_allclose(rows, [[0.5], [0.5], [5.0]])
  assert not measured['cohort_too_small'] and measured['num_byzantine'] == 1
  # Of two at the same distance the first counts.
  np.testing.assert_allclose(_nnm([[4.0], [2.0], [0.0]], 1)[0], [[3], [3], [1]])


@pytest.mark.parametrize('n, f', [(7, 0), (7, 3), (21, 10), (4, 9), (2, 1)])
def test_mixing_matches_explicit_distances(n, f):
  updates = tables.random_updates(n, seed=n + f)
  nearest = np.argsort(tables.squared_distances(updates), kind='stable')
  rows, measured = _nnm(updates, f)
  np.testing.assert_allclose(
      rows, updates[nearest[:, : max(n - f, 1)]].mean(axis=1), atol=1e-6
  )
  assert measured['cohort_too_small'] == (2 * f >= n)


def test_huge_client_does_not_blur_those_far_from_it():
  updates = tables.random_updates(9)
  updates[4] = 9e14
  others = np.arange(9) != 4
  np.testing.assert_allclose(
      _nnm(updates, 3)[0][others], _nnm(updates[others], 2)[0], atol=1e-9
  )


# Bucketing.


def _buckets(n, s, seed=1, round_num=0):
  """The members of each bucket, from updates that are powers of two."""
  rows, measured = _rows(
      lambda inner: rules.bucketing(inner, s, seed=seed),
      2.0 ** np.arange(n)[:, np.newaxis],
      round_num=round_num,
  )
  assert measured['num_buckets'] == len(rows)
  buckets = []
  for (mean,) in rows:
    for size in range(1, s + 1):
      total = mean * size
      if total == round(total) and bin(round(total)).count('1') == size:
        members = [i for i in range(n) if round(total) >> i & 1]
    buckets.append(members)
  return buckets


@pytest.mark.parametrize(
    'n, s, sizes',
    [
        (6, 2, [2, 2, 2]),
        (7, 2, [2, 2, 2, 1]),
        (4, 1, [1, 1, 1, 1]),
        (4, 8, [4]),
        (1, 2, [1]),
    ],
)
def test_every_update_is_in_one_bucket(n, s, sizes):
  buckets = _buckets(n, s)
  assert [len(b) for b in buckets] == sizes
  assert sorted(sum(buckets, [])) == list(range(n))


def test_buckets_are_fixed_by_seed_and_round():
  assert _buckets(20, 2) == _buckets(20, 2)
  assert _buckets(20, 2) != _buckets(20, 2, seed=2)
  assert _buckets(20, 2) != _buckets(20, 2, round_num=1)


def test_every_pair_shares_a_bucket_equally_often():
  counts, rounds = np.zeros([6, 6]), 600
  for round_num in range(rounds):
    for i, j in _buckets(6, 2, round_num=round_num):
      counts[[i, j], [j, i]] += 1
  # One of five others; a standard deviation is about 0.016.
  np.testing.assert_allclose(
      counts[~np.eye(6, dtype=bool)] / rounds, 0.2, atol=0.08
  )


def test_few_byzantine_updates_spoil_few_buckets():
  updates = tables.random_updates(20)
  updates[:4] += 1e6
  # A fraction is one of clients: 4 of 20, in 10 buckets.
  for f in (4, 0.2):
    rule = rules.bucketing(rules.trimmed_mean(f), seed=2)
    result, measured = rule.measure(updates)
    assert np.linalg.norm(result) < 5
    assert measured['inner']['num_byzantine'] == 4


def test_weights_of_the_updates_themselves():
  updates = np.float64(tables.random_updates(9))
  rule = rules.bucketing(rules.krum(1, num_selected=2), 3, seed=2)
  weights = rule.measure(updates)[1]['weights']
  np.testing.assert_allclose(np.sort(weights), [0] * 3 + [1 / 6] * 6)


# Bounds of norms.


def test_median_norm_bounding_by_hand():
  updates = [[3.0, 4.0], [30.0, 40.0], [0.0, 1.0], [np.nan, 0.0]]
  rows, measured = _rows(rules.median_norm_bounding, updates)
  np.testing.assert_allclose(rows, [[3, 4], [3, 4], [0, 1]])
  assert measured['clipping_norm'] == 5 and measured['num_clipped'] == 1
  # The midpoint for an even number; what is no longer is left as it is.
  rows, measured = _rows(rules.median_norm_bounding, updates[1:3])
  assert measured['clipping_norm'] == 25.5
  np.testing.assert_array_equal(rows[1], [0, 1])


def test_bounding_zero_and_huge_updates():
  rows, measured = _rows(
      rules.median_norm_bounding, [[0.0, 0.0], [0.0, 0.0], [9e14, 0.0]]
  )
  np.testing.assert_array_equal(rows, np.zeros([3, 2]))
  assert measured['num_clipped'] == 1


@pytest.mark.parametrize('offset', [0.0, 1e6])
def test_bounded_updates_keep_their_distances(offset):
  """Also where products are not about the zero that norms are about."""
  updates = np.float64(tables.random_updates(12, d=30)) + offset
  norms = np.linalg.norm(updates, axis=1, keepdims=True)
  clipped = updates * np.minimum(1, np.median(norms) / norms)
  for inner in (rules.krum(2, num_selected=4), rules.geometric_median()):
    np.testing.assert_allclose(
        rules.median_norm_bounding(inner)(updates),
        inner(clipped),
        rtol=1e-9,
        atol=1e-9,
    )


def _arc(norms, f):
  updates = np.zeros([len(norms), 2])
  updates[:, 0] = norms
  rows, measured = _rows(lambda inner: rules.arc(inner, f), updates)
  bound = measured['clipping_norm']
  np.testing.assert_allclose(rows[:, 0], np.minimum(norms, bound))
  return bound, measured['cohort_too_small']


@pytest.mark.parametrize(
    'n, f, k',
    [
        (10, 0, 0),
        (10, 1, 1),  # 1.8
        (10, 2, 3),  # 3.2
        (10, 3, 4),  # 4.2
        (10, 4, 4),  # 4.8
        (5, 2, 2),  # 2.4
        (100, 10, 18),
        (1, 0, 0),
    ],
)
def test_arc_by_hand(n, f, k):
  norms = np.random.default_rng(0).permutation(n) + 1.0
  assert _arc(norms, f) == (n - k, False)


@pytest.mark.parametrize('n', [1, 2, 7, 18, 29])
def test_arc_matches_exact_arithmetic(n):
  norms = np.random.default_rng(n).exponential(size=[n])
  for f in range((n + 1) // 2):
    k = int(2 * fractions.Fraction(f, n) * (n - f))
    bound, too_small = _arc(norms, f)
    np.testing.assert_allclose(bound, np.sort(norms)[::-1][k], rtol=1e-12)
    assert not too_small


@pytest.mark.parametrize(
    'n, f, largest', [(1, 1, 0), (2, 1, 0), (4, 2, 1), (5, 3, 2), (10, 50, 4)]
)
def test_arc_falls_back_to_the_largest_number(n, f, largest):
  norms = np.arange(n) + 1.0
  assert _arc(norms, f) == (_arc(norms, largest)[0], True)


def test_arc_counts_what_is_not_finite_as_of_norm_zero():
  # N = 5 and f = 2: k = 2, so that the third largest of 3, 2, 1, 0, 0 counts.
  updates = [[3.0], [np.nan], [2.0], [np.inf], [1.0]]
  rows, measured = _rows(lambda inner: rules.arc(inner, 2), updates)
  np.testing.assert_allclose(rows, [[1], [1], [1]])
  assert measured['clipping_norm'] == 1
  # Without the third, one of the zeros does.
  rows, _ = _rows(lambda inner: rules.arc(inner, 2), updates[:4] + [[np.nan]])
  np.testing.assert_array_equal(rows, [[0], [0]])
