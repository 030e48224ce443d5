"""Smallest maximum eigenvalue averaging (SMEA)."""

from fedaot.rules import geometry
from fedaot.rules import rule
from fedaot.rules.caf import top_projections

# Up to so many subsets are all tried.
_MAX_SUBSETS = 8192.0


def next_subset(is_member, xp):
  """The next subset of the same size, in colexicographic order."""
  place = xp.arange(xp.size(is_member))
  beyond = xp.concatenate([is_member[1:], is_member[:1] | True], axis=0)
  # The first run of members: its last moves up, the others to the bottom.
  last = xp.argmax(xp.asarray(is_member & ~beyond, dtype=xp.int64))
  num_below = xp.sum(xp.asarray(is_member & (place < last), dtype=xp.int64))
  return xp.where(
      place < last,
      place < num_below,
      xp.equal(place, last + 1) | (is_member & (place > last)),
  )


def best_of_all(products, num_left_out, num_subsets, xp):
  """The rows of the smallest top variance, of all subsets."""

  def step(left_out, best, least, num_tried):
    variance, _ = top_projections(
        products, xp.asarray(~left_out, dtype=xp.float64), xp
    )
    best = xp.where(variance < least, ~left_out, best)
    least = xp.minimum(variance, least)
    return next_subset(left_out, xp), best, least, num_tried + 1.0

  first = xp.arange(xp.size(products)) < num_left_out
  _, best, _, _ = xp.while_loop(
      lambda left_out, best, least, num_tried: num_tried < num_subsets,
      step,
      (first, ~first, xp.inf + 0.0 * products[0, 0], 0.0 * products[0, 0]),
  )
  return best


def best_by_steps(products, num_left_out, xp):
  """Leaves the farthest row along the direction of most variance out, again."""

  def step(left, num_steps):
    _, projections = top_projections(
        products, xp.asarray(left, dtype=xp.float64), xp
    )
    farthest = geometry.is_first(xp.where(left, -projections, xp.inf), 1, xp)
    return left & ~farthest, num_steps + 1

  everyone = xp.arange(xp.size(products)) >= 0
  left, _ = xp.while_loop(
      lambda left, num_steps: num_steps < num_left_out,
      step,
      (everyone, 0 * num_left_out),
  )
  return left


@rule.rule()
def smea(cohort, num_byzantine):
  """The mean of the n - f updates whose covariance has the least top variance.

  With n updates of which f may be Byzantine, it is the mean of

    argmin over S, |S| = n - f, of the largest eigenvalue of Cov(S)

  (Allouah, Guerraoui, Gupta, Pinot and Stephan, "On the
  Privacy-Robustness-Utility Trilemma in Distributed Learning", ICML 2023,
  arXiv:2302.04787). All subsets are tried if there are at most 8192, as for
  every f up to n = 15, or f = 4 of 22, 3 of 37, 2 of 128 updates. Otherwise
  `is_exact` is False: f times the update that is farthest from the mean of the
  rest, along its direction of most variance, is left out. If 2 f >= n, the
  largest minority is left out, and `cohort_too_small` tells.

  Breakdown point: f < n / 2. If exact, the squared distance to the honest mean
  is at most 4 f / (n - 2 f) times the top variance of the honest updates: in
  each direction a subset of n - 2 f of the n - f differs from its whole by no
  more than a quarter of that. Cost: O(N^2 d), and O(N^3) for each subset.

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `weights`, `is_exact`, `num_byzantine`,
    `num_non_finite` and `cohort_too_small`.
  """
  xp, n, products = cohort.xp, cohort.size, cohort.products
  f = xp.minimum(num_byzantine, (n - 1) // 2)
  place = xp.arange(n)
  factors = xp.where(place < f, (n - place) / (place + 1), 1.0)
  num_subsets = xp.floor(xp.prod(factors) + 0.5)
  is_exact = num_subsets <= _MAX_SUBSETS
  is_selected = xp.cond(
      is_exact,
      lambda: best_of_all(products, f, num_subsets, xp),
      lambda: best_by_steps(products, f, xp),
  )
  return rule.Decision(
      geometry.mean_of(is_selected, xp),
      measurements={
          'is_exact': is_exact,
          'cohort_too_small': 2 * num_byzantine >= n,
      },
  )
