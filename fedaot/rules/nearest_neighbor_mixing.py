"""Nearest neighbor mixing: each update becomes its neighbors' mean."""

from fedaot.rules import geometry
from fedaot.rules import rule


@rule.wrapper()
def nnm(cohort, num_byzantine):
  """Replaces each update with the mean of the n - f nearest, itself included.

  Of two at the same distance the earlier one is the nearer (Allouah,
  Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing by Mixing: A Recipe
  for Optimal Byzantine ML under Heterogeneity", AISTATS 2023,
  arXiv:2302.01772). One at least is averaged; `cohort_too_small` tells if
  2 f >= n.

  Breakdown point: that of the inner rule, f < n / 2 at most. Around a rule that
  is (f, kappa)-robust the result is (f, 8 f / (n - f) (kappa + 1))-robust.
  Cost: O(N^2 d).

  Args:
    num_byzantine: f; by default the inner rule's.

  Returns:
    A `rule.Rule` that measures `num_byzantine`, `cohort_too_small`,
    `num_non_finite`, `weights` (if the inner rule does) and `inner`.
  """
  xp = cohort.xp
  num_near = xp.maximum(cohort.size - num_byzantine, 1)
  is_near = geometry.is_first(cohort.squared_distances, num_near, xp)
  matrix = xp.asarray(is_near, xp.float64) / xp.asarray(num_near, xp.float64)
  return matrix, {'cohort_too_small': 2 * num_byzantine >= cohort.size}
