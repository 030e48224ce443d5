"""LASA: every tensor's mean of those of usual norm and signs, sparsified."""

import functools
import math

from fedaot import checks
from fedaot.rules import blocks
from fedaot.rules import geometry
from fedaot.rules import rule

_ABOVE_ZERO = functools.partial(checks.check_number, above=0)


def is_usual(values, bound, xp):
  """Whether values are within so many standard deviations of their median."""
  deviation = xp.sqrt(xp.mean((values - xp.mean(values)) ** 2))
  distances = xp.abs(values - geometry.median(values, xp))
  # Rounding must not tell equal values apart.
  slack = 1e-9 * xp.amax(xp.abs(values))
  return (distances < bound * deviation) | (distances <= slack)


@rule.rule(
    sparsity=functools.partial(checks.check_number, minimum=0, below=1),
    norm_bound=_ABOVE_ZERO,
    sign_bound=_ABOVE_ZERO,
)
def lasa(cohort, *, sparsity=0.3, norm_bound=1.0, sign_bound=1.0):
  """The mean of sparsified updates, of others for each tensor.

  Updates are scaled down to their median norm where they are longer, and all
  but their largest entries, a share rho of them, become zero. Of each tensor
  (layer) those are averaged whose

    norm m and share of signs p = sum_j sign(x_j) / sum_j |sign(x_j)|

  are both usual: |m - median(m)| < lambda_n std(m), and likewise p with
  lambda_s; all of them where none is (Xu, Zhang and Hu, "Achieving
  Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified Model
  Aggregation", WACV 2025, arXiv:2409.01435). Tensors are those of the structure
  in TFF, on arrays those of `shapes`, by default the whole update.

  Breakdown point: none proved but for its filters' medians, f < n / 2; no
  update counts with more than the median norm. One far value makes the
  deviation large, so that others pass. Cost: O(N d log d), and the size of
  another table to sort.

  Args:
    sparsity: rho, in [0, 1).
    norm_bound: lambda_n > 0.
    sign_bound: lambda_s > 0.

  Returns:
    A `rule.Rule` that measures `num_averaged` (`[tensors]`), `norm_bound` (the
    median norm) and `num_non_finite`.
  """
  xp, norms = cohort.xp, cohort.norms
  median_norm = geometry.median(norms, xp)
  scales = geometry.clipping_scales(norms, median_norm, xp)[:, None]
  # 0.29 * 100 is a little less than 29 in floating point.
  num_dropped = int(sparsity * cohort.dimension + 1e-6)
  magnitudes = xp.sort(xp.abs(cohort.block(0, cohort.dimension)), axis=1)
  least = magnitudes[:, num_dropped : num_dropped + 1]

  def sparsified(block):
    rows = xp.where(xp.abs(block) >= least, block, xp.zeros_like(block))
    return xp.asarray(rows, dtype=xp.float64) * scales

  def trusted(shape, begin):
    def add(sums, start, width):
      rows = sparsified(cohort.block(begin + start, width))
      signs = xp.sign(rows)
      columns = xp.stack([rows**2, signs, xp.abs(signs)], axis=1)
      return sums + xp.sum(columns, axis=2)

    sums = xp.zeros([cohort.size, 3])
    sums = blocks.fold(add, sums, math.prod(shape), xp)
    shares = geometry.divide(sums[:, 1], sums[:, 2], xp)
    both = is_usual(xp.sqrt(sums[:, 0]), norm_bound, xp)
    both = both & is_usual(shares, sign_bound, xp)
    return both | ~xp.any(both)

  chosen = [trusted(shape, begin) for shape, begin in cohort.tensors]

  def combine(is_chosen):
    factors = geometry.mean_of(is_chosen, xp)[None]
    return lambda block: xp.matmul(factors, sparsified(block))[0]

  counts = [xp.sum(xp.asarray(c, dtype=xp.int64)) for c in chosen]
  return rule.Decision(
      combine=[combine(is_chosen) for is_chosen in chosen],
      measurements={
          'num_averaged': xp.stack(counts, axis=0),
          'norm_bound': median_norm,
      },
  )
