"""Robust learning rate (RLR): against the mean where signs disagree."""

import functools

from fedaot import checks
from fedaot.rules import rule


@rule.rule(
    threshold=rule.optional(functools.partial(checks.check_int, minimum=1))
)
def robust_learning_rate(cohort, num_byzantine, *, threshold=None):
  """The mean of every coordinate, negated where too few signs agree.

  With updates x_i of which at least theta more are of one sign than of the
  other, a coordinate's result is their mean, elsewhere minus the mean:

    mean  if |sum_i sign(x_i)| >= theta,  else -mean

  (Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated
  Learning with Robust Learning Rate", AAAI 2021, arXiv:2007.03767). So the
  model is driven away from what few want. If theta > n, it is n, and
  `cohort_too_small` tells.

  Breakdown point: none. f < theta attackers cannot bring a coordinate forward
  that the others are undecided on; the mean is theirs as far as they like, and
  they may have a sign negated that fewer than theta + f agree on. A wrapper
  such as `median_norm_bounding` bounds norms first. Cost: O(N d).

  Args:
    num_byzantine: f.
    threshold: theta, 1 or more; None for f + 1.

  Returns:
    A `rule.Rule` that measures `num_byzantine`, `num_non_finite` and
    `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  threshold = num_byzantine + 1 if threshold is None else threshold

  def combine(block):
    rows = xp.asarray(block, dtype=xp.float64)
    agreement = xp.abs(xp.sum(xp.sign(rows), axis=0))
    # Sums of signs are whole numbers.
    is_agreed = agreement >= xp.asarray(
        xp.minimum(threshold, n), dtype=xp.float64
    )
    mean = xp.mean(rows, axis=0)
    return xp.where(is_agreed, mean, -mean)

  return rule.Decision(
      combine=combine, measurements={'cohort_too_small': threshold > n}
  )
