"""MoNNA: the mean of the updates nearest to one that is trusted."""

from fedaot.rules import geometry
from fedaot.rules import rule


@rule.rule(needs_root=True)
def monna(cohort, num_byzantine):
  """The mean of the n - f updates nearest to the server's own, the pivot.

  The nearest-neighbor averaging of Farhadkhani, Guerraoui, Gupta, Hoang, Pinot
  and Stephan, "Robust Collaborative Learning with Linear Gradient Overhead",
  ICML 2023, where each peer's own update is its pivot. Here the reference is,
  which does not count in the mean. An update of the table may be the pivot:
  `monna(f)(updates, reference=updates[0])` trusts the first client. Of equally
  near updates the earlier is averaged. At least one is; `cohort_too_small`
  tells if f >= n.

  Breakdown point: none in the number of attackers, if the pivot is trusted: for
  any f < n no update that is averaged is farther from it than the farthest
  honest one. Cost: O(N^2 d).

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `weights`, `num_byzantine`, `num_non_finite`
    and `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  distances = xp.diagonal(cohort.products_about_reference)
  is_near = geometry.is_first(distances, xp.maximum(n - num_byzantine, 1), xp)
  return rule.Decision(
      geometry.mean_of(is_near, xp),
      measurements={'cohort_too_small': num_byzantine >= n},
  )
