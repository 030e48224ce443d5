"""Covariance-bound agnostic filter (CAF)."""

from fedaot.rules import geometry
from fedaot.rules import rule


def top_projections(products, weights, xp):
  """Variance of weighted rows along their direction of most, and projections.

  Args:
    products: Inner products of rows about any point, `[n, n]`.
    weights: c, nonnegative and not all zero, `[n]`.
    xp: The namespace.

  Returns:
    The largest eigenvalue of the covariance of the rows x_i with weights c_i,
    and (v . (x_i - mean))^2 for its eigenvector v, `[n]`, times a constant.
  """
  shares = weights / xp.sum(weights)
  to_mean = xp.matmul(products, shares[:, None])
  centered = products - to_mean - xp.transpose(to_mean)
  centered = centered + xp.sum(shares[:, None] * to_mean)
  roots = xp.sqrt(shares)
  # What shares eigenvalues with the covariance, but is no larger than [n, n].
  variances, directions = xp.eigh(roots[:, None] * centered * roots)
  combination = (roots * directions[:, -1])[:, None]
  return variances[-1], xp.matmul(centered, combination)[:, 0] ** 2


@rule.rule()
def caf(cohort, num_byzantine):
  """The weighted mean of the smallest top variance that a filter meets.

  With weights c_i, 1 at first, it takes the mean mu of the updates x_i, the
  largest eigenvalue of their covariance and its eigenvector v, and scales

    c_i <- c_i (1 - t_i / max over j of t_j),   t_i = (v . (x_i - mu))^2,

  the maximum over updates of c_j > 0, as long as the weights add up to more
  than n - 2 f. The aggregate is the mean of the smallest largest eigenvalue
  met (Allouah, Guerraoui and Stephan, "Towards Trustworthy Federated Learning
  with Untrusted Participants", ICML 2025; there covariance-bound agnostic
  filter). If 2 f >= n, the largest f with 2 f < n takes its place, and
  `cohort_too_small` tells.

  Breakdown point: f < n / 2. No bound on the honest covariance need be known.
  Cost: O(N^2 d), and O(N^3) for each of at most N steps.

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `weights`, `top_variance` (the eigenvalue of
    the aggregate), `num_byzantine`, `num_non_finite` and `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  f = xp.minimum(num_byzantine, (n - 1) // 2)
  num_left = xp.asarray(n - 2 * f, dtype=xp.float64)
  products = cohort.products

  def step(weights, best, least, num_steps):
    variance, projections = top_projections(products, weights, xp)
    best = xp.where(variance < least, weights, best)
    projections = xp.where(weights > 0.0, projections, 0.0)
    # Each step takes all weight from an update, so that n are enough.
    weights = weights * (
        1.0 - geometry.divide(projections, xp.amax(projections), xp)
    )
    return weights, best, xp.minimum(variance, least), num_steps + 1

  ones = xp.ones_like(products[0])
  _, best, least, _ = xp.while_loop(
      lambda weights, best, least, num_steps: (
          xp.equal(num_steps, 0)
          | ((xp.sum(weights) > num_left) & (num_steps < n))
      ),
      step,
      (ones, ones, xp.inf + 0.0 * ones[0], 0 * n),
  )
  return rule.Decision(
      best / xp.sum(best),
      measurements={
          'top_variance': xp.maximum(least, 0.0),
          'cohort_too_small': 2 * num_byzantine >= n,
      },
  )
