"""FoolsGold: less weight for updates that resemble each other."""

import functools

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule


@rule.rule(confidence=functools.partial(checks.check_number, above=0))
def foolsgold(cohort, *, confidence=1.0):
  """The mean of the updates, those like another one with less weight.

  With c_ij the cosine of updates i and j (zero for i = j) and v_i = max(0,
  max over j of c_ij), the similarities of an update with one that resembles
  some other more are pardoned in part,

    c'_ij = c_ij v_i / v_j  where v_j > v_i, else c_ij;

  the learning rate of an update is

    a_i = 1 - max(0, max over j of c'_ij),  divided by the largest of them,
    r_i = kappa (ln(a_i / (1 - a_i)) + 1/2),  cut off at 0 and 1

  (Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil
  Settings", RAID 2020; arXiv:1808.04866). Unlike the paper it compares the
  updates of one round, for clients are not known again, and it averages them,
  where the paper adds them up. If every update has a copy, all weigh the same.

  Breakdown point: none. It means to withstand any number of clients that send
  much the same; a single one has the weight of an honest client, whatever its
  norm, and honest clients that are alike lose theirs. Cost: O(N^2 d).

  Args:
    confidence: kappa > 0; the larger, the more all or nothing.

  Returns:
    A `rule.Rule` that measures `weights` (r_i over their sum),
    `learning_rates` (r_i) and `num_non_finite`.
  """
  xp = cohort.xp
  is_own = xp.eye(cohort.size, dtype=bool)
  # Opposite directions are as good as orthogonal ones.
  cosines = xp.maximum(xp.where(is_own, 0.0, geometry.cosines(cohort)), 0.0)
  most_similar = xp.amax(cosines, axis=1)
  own, other = most_similar[:, None], most_similar
  pardon = xp.where(own < other, geometry.divide(own, other, xp), 1.0)
  novelty = 1.0 - xp.amax(cosines * pardon, axis=1)
  largest = xp.amax(novelty)
  novelty = xp.where(largest > 0.0, geometry.divide(novelty, largest, xp), 1.0)
  # Beyond these the cut-off has long taken effect.
  inside = xp.clip(novelty, 1e-300, 1.0 - 1e-16)
  logits = xp.log(inside) - xp.log1p(-inside)
  rates = xp.clip(confidence * (logits + 0.5), 0.0, 1.0)
  rates = xp.where(novelty <= 0.0, 0.0, xp.where(novelty >= 1.0, 1.0, rates))
  return rule.Decision(
      geometry.divide(rates, xp.sum(rates), xp),
      row_measurements={'learning_rates': rates},
  )
