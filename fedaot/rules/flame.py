"""FLAME: majority cluster of directions, clipping to the median norm, noise."""

import functools

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule


def linkage_heights(distances, xp):
  """The smallest largest step of any path from row to row, `[n, n]`."""
  n = xp.size(distances)

  def link(k, steps):
    through = xp.take(steps, xp.reshape(k, [1]), axis=0)
    by_k = xp.maximum(xp.transpose(through), through)
    return k + 1, xp.minimum(steps, by_k)

  return xp.while_loop(lambda k, steps: k < n, link, (0 * n, distances))[1]


def majority_cluster(distances, xp):
  """The first group of more than half of the rows that single linkage forms.

  Args:
    distances: Symmetric `[n, n]` >= 0 with a zero diagonal.
    xp: The namespace.

  Returns:
    Bool `[n]`, true for at least floor(n / 2) + 1 rows.
  """
  steps, n = linkage_heights(distances, xp), xp.size(distances)
  # With itself counted, a row is among more than half from there on where it is
  # linked with as many others as half, rounded down.
  majority_at = xp.sort(steps, axis=1)[:, n // 2]
  # Cosines that are equal but for rounding are links of one length.
  return majority_at <= xp.amin(majority_at) + 1e-12


@rule.rule(noise_multiplier=functools.partial(checks.check_number, minimum=0))
def flame(cohort, *, noise_multiplier=0.001, seed=None):
  """The mean of the majority's direction, clipped to the median norm, noised.

  Of the updates, with 1 - cosine as the distance, the cluster of more than half
  is admitted; its updates are scaled down to the median norm S of all and
  averaged; Gaussian noise of standard deviation lambda S is added to each
  coordinate (Nguyen et al., "FLAME: Taming Backdoors in Federated Learning",
  USENIX Security 2022, arXiv:2101.02281). The paper's HDBSCAN of smallest
  cluster size floor(n / 2) + 1 has one branch, and with one neighbor for its
  density and a single cluster allowed it selects the first group of more than
  half that single linkage forms. The paper compares models, this updates.

  Breakdown point: none proved for the mean. With more than half honest and of
  similar directions, others are left out; what is admitted has a norm of at
  most S. A majority of attackers of one direction is admitted instead.
  Cost: O(N^2 d + N^3).

  Args:
    noise_multiplier: lambda, 0 or more; 0 adds no noise.
    seed: Fixes the noise of every round, to be kept from clients; None draws
      one.

  Returns:
    A `rule.Rule` that measures `weights` (the clipping counted),
    `norm_bound` (S) and `num_non_finite`.
  """
  xp, norms = cohort.xp, cohort.norms
  bound = geometry.median(norms, xp)
  admitted = majority_cluster(1.0 - geometry.cosines(cohort), xp)
  coefficients = geometry.mean_of(admitted, xp) * geometry.clipping_scales(
      norms, bound, xp
  )
  return rule.Decision(
      coefficients,
      noise=cohort.noise(noise_multiplier, bound, seed),
      measurements={'norm_bound': bound},
  )
