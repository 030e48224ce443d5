"""FedRDF: the densest value of every coordinate, by a Fourier series."""

import math

from fedaot.rules import geometry
from fedaot.rules import rule

_NUM_TERMS = 8
# The deviation of the normal numbers that terms are smoothed by; the values
# have the range 1.
_BANDWIDTH = 0.05


def densities(ordered, xp):
  """An estimate of the density at each value, `[b, n]`, of rows in order."""
  ordered = xp.asarray(ordered, dtype=xp.float64)
  low = ordered[:, :1]
  places = geometry.divide(ordered - low, ordered[:, -1:] - low, xp)
  total = 1.0
  for k in range(1, _NUM_TERMS + 1):
    waves = xp.cos(k * math.pi * places)
    damping = math.exp(-0.5 * (k * math.pi * _BANDWIDTH) ** 2)
    total = total + 2.0 * damping * waves * xp.mean(waves, axis=1)[:, None]
  return total


@rule.rule()
def fedrdf(cohort):
  """The value of the highest density in every coordinate.

  With x_i the values of a coordinate, scaled to range from 0 to 1, the density
  is estimated by a cosine series,

    p(x) = 1 + 2 sum_{k=1..8} s_k a_k cos(k pi x),  a_k = mean_i cos(k pi x_i),

  s_k = exp(-(k pi 0.05)^2 / 2), and the result is the x_i of the largest p(x_i)
  (Marmol Campos, Gonzalez-Vidal, Hernandez-Ramos and Skarmeta, "FedRDF: A
  Robust and Dynamic Aggregation Function against Poisoning Attacks in Federated
  Learning", IEEE Transactions on Emerging Topics in Computing, 2025,
  arXiv:2402.10082). The number of terms and their smoothing are a choice of
  this package, and that of equally dense values the middle one is taken. The
  paper averages in rounds that a Kolmogorov-Smirnov test finds clean: this rule
  never does, as attackers might pass the test.

  Breakdown point: none proved. f < n / 2 values that are far against the
  scatter of the others are not chosen; nearer ones, all alike, may be denser
  than honest ones that scatter, and few are enough. Values are chosen one
  coordinate at a time, so that the aggregate is noisier than a mean of all.
  Cost: O(d N log N).

  Returns:
    A `rule.Rule` that measures `num_non_finite`.
  """
  xp = cohort.xp

  def combine(block):
    ordered = xp.sorted_columns(block)
    density = densities(ordered, xp)
    # Next to a far value others are all as dense, but for rounding.
    is_peak = density >= xp.amax(density, axis=1)[:, None] - 1e-9
    rank = xp.cumsum(xp.asarray(is_peak, dtype=xp.int64), axis=1)
    is_middle = is_peak & xp.equal(rank, (rank[:, -1:] + 1) // 2)
    return xp.sum(xp.where(is_middle, ordered, 0.0), axis=1)

  return rule.Decision(combine=combine)
