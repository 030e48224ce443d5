"""Mean around median (meamed)."""

from fedaot.rules import rule
from fedaot.rules.bulyan import mean_around_median


@rule.rule()
def meamed(cohort, num_byzantine):
  """The mean of every coordinate's n - f values closest to its median.

  Of two equally far values the smaller is averaged (Xie, Koyejo and Gupta,
  "Generalized Byzantine-tolerant SGD", 2018, arXiv:1802.10116). If 2 f >= n,
  the largest minority is left out, and `cohort_too_small` tells.

  Breakdown point: with f < n / 2 Byzantine updates the median lies between
  honest values, and no value that is averaged is farther from it than the
  farthest honest one. Cost: O(d N log N).

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `num_byzantine`, `num_non_finite` and
    `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  num_averaged = n - xp.minimum(num_byzantine, (n - 1) // 2)
  return rule.Decision(
      combine=lambda block: mean_around_median(block, num_averaged, xp),
      measurements={'cohort_too_small': 2 * num_byzantine >= n},
  )
