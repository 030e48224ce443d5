"""Krum and multi-Krum: the updates closest to their neighbors."""

import functools
from typing import Any

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule


def krum_scores(squared_distances: Any, num_neighbors: Any, xp: Any) -> Any:
  """Sums the squared distances of each row to its nearest other rows."""
  num_rows = xp.size(squared_distances)
  is_own = xp.eye(num_rows, dtype=bool)
  nearest = xp.sort(xp.where(is_own, xp.inf, squared_distances), axis=1)
  counts = (xp.arange(num_rows) < num_neighbors) & xp.isfinite(nearest)
  return xp.sum(xp.where(counts, nearest, 0.0), axis=1)


@rule.rule(
    num_selected=rule.optional(functools.partial(checks.check_int, minimum=1))
)
def krum(cohort, num_byzantine, *, num_selected=1):
  """The mean of the m updates that are closest to their neighbors.

  With n updates x_i of which f may be Byzantine, those of the m smallest

    s(i) = sum over j in N(i) of ||x_i - x_j||^2

  are averaged, N(i) the n - f - 2 updates nearest to x_i, itself not counted
  (Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine Learning with
  Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017). Of equal
  scores the earlier update wins. One neighbor counts where n is too small for
  any, which `cohort_too_small` tells.

  Breakdown point: 2 f + 2 < n, and m <= n - f lest it must select a Byzantine
  update. Cost: O(N^2 d).

  Args:
    num_byzantine: f.
    num_selected: m; None for n - f, the most that the guarantee allows.

  Returns:
    A `rule.Rule` that measures `weights`, `num_byzantine`, `num_non_finite`
    and `cohort_too_small`.
  """
  xp, num_neighbors = cohort.xp, cohort.size - num_byzantine - 2
  scores = krum_scores(
      cohort.squared_distances, xp.maximum(num_neighbors, 1), xp
  )
  if num_selected is None:
    num_selected = xp.maximum(cohort.size - num_byzantine, 1)
  is_selected = geometry.is_first(scores, num_selected, xp)
  return rule.Decision(
      geometry.mean_of(is_selected, xp),
      measurements={'cohort_too_small': num_neighbors < 1},
  )
