"""Clipping updates to the cohort's median norm."""

from fedaot.rules import geometry
from fedaot.rules import rule


@rule.wrapper()
def median_norm_bounding(cohort):
  """Scales updates down to M, the median of the norms of the finite ones.

  The inner rule gets x_i min(1, M / ||x_i||): norm bounding (Sun, Kairouz,
  Suresh and McMahan, "Can You Really Backdoor Federated Learning?", 2019,
  arXiv:1911.07963) with a threshold that needs no tuning.

  Breakdown point: with f < n / 2 Byzantine updates M is among honest norms.
  That does not withstand attacks on the direction, which is left to the inner
  rule. Half of the honest updates are clipped as well. Cost: O(N^2 d).

  Returns:
    A `rule.Rule` that measures `clipping_norm` (M), `num_clipped`,
    `num_non_finite`, `weights` (if the inner rule does) and `inner`.
  """
  return bounding(cohort, geometry.median(cohort.norms, cohort.xp))


def bounding(cohort, bound):
  """The matrix that scales rows down to a norm, and measurements."""
  xp, norms = cohort.xp, cohort.norms
  scales = geometry.clipping_scales(norms, bound, xp)
  return scales[:, None] * xp.eye(cohort.size), {
      'clipping_norm': bound,
      'num_clipped': xp.sum(~geometry.is_at_most(norms, bound)),
  }
