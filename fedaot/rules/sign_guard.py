"""SignGuard: filters by norm and by the signs of coordinates."""

import functools
import math

from fedaot import checks
from fedaot.rules import blocks
from fedaot.rules import geometry
from fedaot.rules import rule

_MAX_SHIFTS = 300
# Relative to the bandwidth; a point that moved less has arrived.
_SHIFT_TOLERANCE = 1e-3


def sign_shares(cohort, key, num_chosen):
  """The shares of positive, zero and negative numbers of each row, `[n, 3]`."""
  xp = cohort.xp
  if num_chosen < cohort.dimension:
    chosen = xp.sample(key, cohort.dimension, num_chosen)
    read = lambda start, width: cohort.columns(chosen[start : start + width])
  else:
    read = cohort.block

  def add(counts, start, width):
    rows = read(start, width)
    signs = xp.stack([rows > 0.0, xp.equal(rows, 0.0), rows < 0.0], axis=1)
    return counts + xp.sum(xp.asarray(signs, dtype=xp.float64), axis=2)

  zeros = xp.zeros([cohort.size, 3])
  return blocks.fold(add, zeros, num_chosen, xp) / num_chosen


def _distances(first, second, xp):
  """Euclidean distances of points, `[A, B]`."""
  differences = first[:, None, :] - second[None]
  return xp.sqrt(xp.sum(differences**2, axis=2))


def largest_cluster(points, xp):
  """Finds the largest cluster by mean shift with a flat kernel.

  The bandwidth is the mean over the points of the distance to the k-th nearest
  one, itself included, with k half the number of points, rounded down but at
  least 1. Modes within a bandwidth of one with more points around it are
  dropped, and each point belongs to the nearest mode that is left if that is no
  farther than a bandwidth. Of equally large clusters the one of the mode with
  more points around it is chosen.

  Args:
    points: Float64 `[n, k]`.
    xp: The namespace.

  Returns:
    Bool `[n]`.
  """
  n = xp.size(points)
  ordered = xp.sort(_distances(points, points, xp), axis=1)
  # The mean of equal points may be off by rounding.
  bandwidth = xp.mean(ordered[:, xp.maximum(n // 2, 1) - 1]) + 1e-9

  def is_near(modes):
    return _distances(modes, points, xp) <= bandwidth

  def shift(modes, is_moving, num_shifts):
    around = xp.asarray(is_near(modes), dtype=xp.float64)
    counts = xp.sum(around, axis=1)[:, None]
    means = geometry.divide(xp.matmul(around, points), counts, xp)
    moved = xp.sqrt(xp.sum((means - modes) ** 2, axis=1))
    means = xp.where(is_moving[:, None], means, modes)
    is_moving = is_moving & (moved > _SHIFT_TOLERANCE * bandwidth)
    return means, is_moving, num_shifts + 1

  modes, _, _ = xp.while_loop(
      lambda modes, is_moving, num: xp.any(is_moving) & (num < _MAX_SHIFTS),
      shift,
      (points, xp.ones([n], dtype=bool), 0),
  )
  density = xp.sum(xp.asarray(is_near(modes), dtype=xp.int64), axis=1)
  modes = xp.take(modes, xp.argsort(-density, kind='stable'), axis=0)
  is_close = _distances(modes, modes, xp) <= bandwidth

  def keep(i, is_kept):
    # Only modes that are kept, which all come before, drop others.
    is_dropped = xp.any(is_kept & xp.take(is_close, i, axis=0))
    is_own = xp.equal(xp.arange(n), i)
    return i + 1, is_kept | (is_own & ~is_dropped)

  _, is_kept = xp.while_loop(
      lambda i, is_kept: i < n, keep, (0 * n, xp.zeros([n], dtype=bool))
  )
  to_modes = xp.where(is_kept, _distances(points, modes, xp), xp.inf)
  nearest = xp.argmin(to_modes, axis=1)[:, None]
  belongs = xp.equal(xp.arange(n), nearest)
  belongs = belongs & (xp.amin(to_modes, axis=1) <= bandwidth)[:, None]
  sizes = xp.sum(xp.asarray(belongs, dtype=xp.int64), axis=0)
  return belongs[:, xp.argmax(sizes)]


def _check_upper(name, value):
  return (
      value
      if value == math.inf
      else checks.check_number(name, value, minimum=1)
  )


@rule.rule(
    lower=functools.partial(checks.check_number, minimum=0, maximum=1),
    upper=_check_upper,
    coordinate_fraction=functools.partial(
        checks.check_number, above=0, maximum=1
    ),
)
def sign_guard(
    cohort, *, lower=0.1, upper=3.0, coordinate_fraction=0.1, seed=None
):
  """The mean of the updates of usual norm and usual signs, clipped.

  With M the median of all norms, an update x is trusted if L M <= ||x|| <= R M,
  and if it is in the largest cluster of sign statistics: the shares of
  positive, zero and negative numbers among coordinates chosen at random, the
  same for all, clustered by mean shift. The trusted updates are scaled down to
  M where they are longer, and averaged (Xu, Huang, Song and Lan,
  "Byzantine-robust Federated Learning through Collaborative Malicious Gradient
  Filtering", ICDCS 2022, arXiv:2109.05872; the variant without a feature of
  similarity). Mean shift has a flat kernel and the bandwidth of scikit-learn's
  `estimate_bandwidth` with quantile 0.5, starts from every point, and leaves
  out points farther than a bandwidth from every mode.

  Breakdown point: fewer than half for the norms, so that trusted updates count
  with a norm among honest ones at most; none is proved for the signs.
  Cost: O(N^2 d), and O(N^2) for each of at most 300 shifts.

  Args:
    lower: L, in [0, 1].
    upper: R, 1 or more; may be infinite.
    coordinate_fraction: The share of coordinates whose signs are looked at, in
      (0, 1]; at least one is.
    seed: Fixes the coordinates of every round, to be kept from clients; None
      draws one.

  Returns:
    A `rule.Rule` that measures `weights` (the clipping counted), `norm_bound`
    (M), `num_norm_rejected` and `num_sign_rejected` (the finite updates that
    each filter rejects) and `num_non_finite`.
  """
  xp, norms = cohort.xp, cohort.norms
  bound = geometry.median(norms, xp)
  passes_norm = geometry.is_at_most(lower * bound, norms)
  passes_norm = passes_norm & geometry.is_at_most(norms, upper * bound)
  # 0.29 * 100 is a little less than 29 in floating point.
  num_chosen = max(1, int(coordinate_fraction * cohort.dimension + 1e-6))
  key = (seed, cohort.round_num, 0)
  passes_signs = largest_cluster(sign_shares(cohort, key, num_chosen), xp)
  mean = geometry.mean_of(passes_norm & passes_signs, xp)
  return rule.Decision(
      mean * geometry.clipping_scales(norms, bound, xp),
      measurements={
          'norm_bound': bound,
          'num_norm_rejected': xp.sum(~passes_norm),
          'num_sign_rejected': xp.sum(~passes_signs),
      },
  )
