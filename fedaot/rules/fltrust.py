"""FLTrust: updates weighted by their likeness to the server's own."""

from fedaot.rules import geometry
from fedaot.rules import rule


@rule.rule(needs_root=True)
def fltrust(cohort):
  """The mean weighted by likeness to the server's own update g_0.

  With the reference g_0, which the server trained on clean examples, the trust
  scores and the aggregate of updates g_i are

    TS_i = max(cos(g_i, g_0), 0),
    g = 1 / (sum_i TS_i) * sum_i TS_i * ||g_0|| / ||g_i|| * g_i

  (Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via
  Trust Bootstrapping", NDSS 2021, arXiv:2012.13495). A zero update has no
  trust; if none has any, the aggregate is zero, which `num_trusted` tells.

  Breakdown point: none in the number of attackers. Whatever they send, the
  aggregate is not longer than g_0 and has no negative product with it; an
  attacker of a direction similar to g_0 is trusted. Cost: O(N^2 d).

  Returns:
    A `rule.Rule` that measures `weights` (the coefficients),
    `trust_scores`, `num_trusted` and `num_non_finite`.
  """
  xp, products = cohort.xp, cohort.products_about_zero
  lengths = xp.sqrt(xp.maximum(xp.diagonal(products), 0.0))
  norms, root_norm = lengths[:-1], lengths[-1]
  scores = trust_scores(products[-1, :-1], norms, root_norm, xp)
  shares = geometry.divide(scores, xp.sum(scores), xp)
  return rule.Decision(
      shares * geometry.divide(root_norm, norms, xp),
      measurements={'num_trusted': xp.sum(scores > 0)},
      row_measurements={'trust_scores': scores},
  )


def trust_scores(products, norms, root_norm, xp):
  """TS_i, from an update's product with g_0 and both norms."""
  cosines = geometry.divide(geometry.divide(products, norms, xp), root_norm, xp)
  # Rounding, in float32 as well, must neither give a cosine above 1 nor make an
  # orthogonal update the only one that is trusted.
  return xp.where(cosines > 1e-6, xp.minimum(cosines, 1.0), 0.0)
