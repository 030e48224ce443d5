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

  def combine(block):
    ordered = cohort.xp.sorted_columns(block)
    lower, upper = (cohort.size - 1) // 2, cohort.size // 2
    # Halves first: half precision could not hold the sum of large values.
    return 0.5 * ordered[:, lower] + 0.5 * ordered[:, upper]

  return rule.Decision(combine=combine)
