"""Coordinate-wise trimmed mean."""

from fedaot.rules import rule


@rule.rule()
def trimmed_mean(cohort, num_byzantine):
  """The mean of every coordinate without its f smallest and largest values.

  With x_(1) <= ... <= x_(n) the values of a coordinate, its result is

    (x_(f + 1) + ... + x_(n - f)) / (n - 2 f)

  (Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning:
  Towards Optimal Statistical Rates", ICML 2018, arXiv:1803.01498, option II).
  If 2 f >= n, it is the median, and `cohort_too_small` tells.

  Breakdown point: with f < n / 2 Byzantine updates every coordinate lies
  between honest values of it. Cost: O(d N log N).

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `num_byzantine`, `num_non_finite` and
    `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  num_dropped = xp.minimum(num_byzantine, (n - 1) // 2)
  num_kept = xp.asarray(n - 2 * num_dropped, dtype=xp.float64)

  def combine(block):
    # What is dropped never enters a sum, where it would cost precision.
    return xp.sum_of_middle(block, num_dropped, n - num_dropped) / num_kept

  return rule.Decision(
      combine=combine,
      measurements={'cohort_too_small': 2 * num_byzantine >= n},
  )
