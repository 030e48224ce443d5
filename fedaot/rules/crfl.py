"""CRFL's step of training: the mean, clipped, and noise."""

import functools

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule


@rule.rule(
    norm_bound=rule.optional(functools.partial(checks.check_number, above=0)),
    noise_multiplier=functools.partial(checks.check_number, minimum=0),
)
def crfl(cohort, *, norm_bound=None, noise_multiplier=0.001, seed=None):
  """The mean, scaled down to a norm rho, and Gaussian noise.

    mean / max(1, ||mean|| / rho) + lambda rho z,   z normal, [d]

  (Xie, Chen, Chen and Li, "CRFL: Certifiably Robust Federated Learning against
  Backdoor Attacks", ICML 2021, arXiv:2106.08283). The paper clips and noises
  the model instead, and certifies predictions that are a vote among noised
  models; a rule sees updates only. So this bounds how far a round takes the
  model, and certifies nothing. By default rho is the median norm of the
  updates, a choice of this package.

  Breakdown point: none for the direction, which one far update can decide; the
  norm is at most rho, for f < n / 2 an honest one. Cost: O(N^2 d).

  Args:
    norm_bound: rho, positive; None for the median norm.
    noise_multiplier: lambda, 0 or more; 0 adds no noise.
    seed: Fixes the noise of every round, to be kept from clients; None draws
      one.

  Returns:
    A `rule.Rule` that measures `weights` (the clipping counted),
    `norm_bound`, `mean_norm` (before clipping) and `num_non_finite`.
  """
  xp = cohort.xp
  mean = geometry.mean_of(cohort.norms >= 0, xp)
  products = cohort.products_about_zero[:-1, :-1]
  squared_norm = xp.sum(mean * xp.matmul(products, mean[:, None])[:, 0])
  mean_norm = xp.sqrt(xp.maximum(squared_norm, 0.0))
  bound = (
      geometry.median(cohort.norms, xp)
      if norm_bound is None
      else xp.asarray(norm_bound, dtype=xp.float64)
  )
  return rule.Decision(
      mean * geometry.clipping_scales(mean_norm, bound, xp),
      noise=cohort.noise(noise_multiplier, bound, seed),
      measurements={'norm_bound': bound, 'mean_norm': mean_norm},
  )
