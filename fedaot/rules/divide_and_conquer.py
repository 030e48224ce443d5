"""Divide and conquer (DnC): spectral outliers in samples of coordinates."""

import functools

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule


def outlier_scores(rows, xp):
  """Squared projections of centered rows on the direction of most variance."""
  rows = xp.asarray(rows, dtype=xp.float64)
  centered = rows - xp.mean(rows, axis=0)
  # The projections are the top left singular vector times its singular value:
  # an eigenproblem of the rows' products is enough.
  variances, directions = xp.eigh(xp.matmul(centered, xp.transpose(centered)))
  # Of several directions of most variance all count, lest rounding choose one.
  is_top = variances >= (1.0 - 1e-9) * variances[-1]
  return xp.sum(xp.where(is_top, variances, 0.0) * directions**2, axis=1)


@rule.rule(
    num_iterations=functools.partial(checks.check_int, minimum=1),
    num_sampled=functools.partial(checks.check_int, minimum=1),
    filter_fraction=functools.partial(checks.check_number, above=0),
)
def dnc(
    cohort,
    num_byzantine,
    *,
    num_iterations=5,
    num_sampled=10000,
    filter_fraction=1.0,
    seed=None,
):
  """The mean of the updates that are no outliers in any sample of coordinates.

  Each iteration draws b coordinates at random, takes the mean mu and the top
  right singular vector v of the centered updates x_i in these coordinates, and
  keeps the n - c f updates of the smallest outlier scores

    s(i) = (v . (x_i - mu))^2,

  summed over v where several directions have most variance.

  The result is the mean of the updates that every iteration kept (Shejwalkar
  and Houmansadr, "Manipulating the Byzantine", NDSS 2021). Of equal scores the
  earlier update is kept. c f is rounded up, and one update is kept at least. If
  every update is an outlier somewhere, those kept most often are averaged;
  `cohort_too_small` tells, also if 2 f >= n. For d <= b there is one iteration.

  Breakdown point: f < n / 2 is needed for an honest majority; attackers that
  do not collude in one direction may be kept at any distance.
  Cost: O(N d + T (N^2 b + N^3)) for T iterations.

  Args:
    num_byzantine: f.
    num_iterations: T.
    num_sampled: b.
    filter_fraction: c > 0.
    seed: Fixes the coordinates of every round, to be kept from clients; None
      draws one.

  Returns:
    A `rule.Rule` that measures `weights`, `num_byzantine`, `num_non_finite`
    and `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  # 1.1 * 50 is a little more than 55 in floating point.
  num_filtered = xp.ceil(
      filter_fraction * xp.asarray(num_byzantine, xp.float64) - 1e-6
  )
  num_kept = xp.maximum(xp.asarray(n, xp.float64) - num_filtered, 1.0)
  num_sampled = min(num_sampled, cohort.dimension)
  # Of all coordinates there is but one sample.
  num_samples = num_iterations if num_sampled < cohort.dimension else 1
  counts = 0
  for i in range(num_samples):
    if num_sampled < cohort.dimension:
      key = (seed, cohort.round_num, i)
      chosen = xp.sample(key, cohort.dimension, num_sampled)
      scores = outlier_scores(cohort.columns(chosen), xp)
    else:
      scores = outlier_scores(cohort.block(0, cohort.dimension), xp)
    is_kept = geometry.is_first(
        scores, xp.asarray(num_kept, dtype=xp.int64), xp
    )
    counts = counts + xp.asarray(is_kept, dtype=xp.int64)
  most = xp.amax(counts)
  return rule.Decision(
      geometry.mean_of(xp.equal(counts, most), xp),
      measurements={
          'cohort_too_small': (2 * num_byzantine >= n) | (most < num_samples)
      },
  )
