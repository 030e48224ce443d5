"""Coordinate-wise median."""

from fedaot.rules import rule


@rule.rule()
def coordinate_median(cohort):
  """The median of every coordinate.

  For an even number of updates it is the midpoint of the middle two (Yin, Chen,
  Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning: Towards
  Optimal Statistical Rates", ICML 2018, arXiv:1803.01498, option I).

  Breakdown point: with f < n / 2 Byzantine updates every coordinate lies
  between honest values of it. Cost: O(d N log N).

  Returns:
    A `rule.Rule` that measures `num_non_finite`.
  """
  xp, lower, upper = cohort.xp, (cohort.size - 1) // 2, cohort.size // 2
  num_middle = xp.asarray(upper - lower + 1, dtype=xp.float64)

  def combine(block):
    return xp.sum_of_middle(block, lower, upper + 1) / num_middle

  return rule.Decision(combine=combine)
