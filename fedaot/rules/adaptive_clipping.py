"""Adaptive robust clipping (ARC): the largest norms become the next largest."""

from fedaot.rules import rule
from fedaot.rules.median_norm_bounding import bounding


@rule.wrapper()
def arc(cohort, num_byzantine):
  """Scales the k updates of the largest norms down to the next largest norm.

  With N clients of which f may be Byzantine k is floor(2 (f / N) (N - f))
  (adaptive robust clipping, ARC; Allouah, Guerraoui, Gupta, Jellouli, Rizk and
  Stephan, "Adaptive Gradient Clipping for Robust Federated Learning", ICLR
  2025, arXiv:2405.14432). Updates that are not finite count in N, with the norm
  zero. If 2 f >= N, the largest f with 2 f < N takes its place;
  `cohort_too_small` tells.

  Breakdown point: that of the inner rule, f < N / 2. As k >= f, no norm is left
  above the largest honest one. Cost: O(N^2 d).

  Args:
    num_byzantine: f; by default the inner rule's.

  Returns:
    A `rule.Rule` that measures `clipping_norm`, `num_clipped`,
    `num_byzantine`, `cohort_too_small`, `num_non_finite`, `weights` (if the
    inner rule does) and `inner`.
  """
  xp = cohort.xp
  num_clients = xp.maximum(cohort.num_clients, 1)
  f = xp.minimum(num_byzantine, (num_clients - 1) // 2)
  num_clipped = 2 * f * (num_clients - f) // num_clients
  ordered = xp.sort(cohort.norms)
  place = cohort.size - 1 - num_clipped
  bound = xp.where(place < 0, 0.0, ordered[xp.maximum(place, 0)])
  matrix, measurements = bounding(cohort, bound)
  measurements['cohort_too_small'] = 2 * num_byzantine >= cohort.num_clients
  return matrix, measurements
