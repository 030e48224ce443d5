"""Auror: leaves out who is in the smaller group on most telling coordinates."""

import functools

from fedaot import checks
from fedaot.rules import blocks
from fedaot.rules import geometry
from fedaot.rules import rule

_SHARE = functools.partial(checks.check_number, minimum=0, below=1)


def split_columns(block, xp):
  """The best two clusters of the values of each column, [b, n] and [b].

  Args:
    block: `[n, b]`.
    xp: The namespace.

  Returns:
    Whether a value is in the smaller cluster, `[b, n]`, nobody of two equally
    large ones, and the share of the variance that is between clusters, `[b]`.
  """
  n = xp.size(block)
  ordered = xp.asarray(xp.sorted_columns(block), dtype=xp.float64)
  # About the median, so that an offset costs no digits.
  center = ordered[:, n // 2][:, None]
  ordered = ordered - center
  place = xp.arange(n)
  num_below = xp.asarray(place + 1, dtype=xp.float64)
  num_above = xp.asarray(n - 1 - place, dtype=xp.float64)
  sums, total = xp.cumsum(ordered, axis=1), xp.sum(ordered, axis=1)[:, None]
  size = num_below + num_above
  # n times the variance between the clusters, if a value is the last below.
  gap = size * sums - num_below * total
  between = geometry.divide(gap**2, size * num_below * num_above, xp)
  last = xp.argmax(between, axis=1)[:, None]
  scatter = xp.sum(ordered**2, axis=1) - total[:, 0] ** 2 / size[0]
  share = geometry.divide(
      xp.amax(between, axis=1), xp.maximum(scatter, 0.0), xp
  )
  bound = xp.sum(xp.where(xp.equal(place, last), ordered, 0.0), axis=1)
  values = xp.asarray(xp.transpose(block), dtype=xp.float64) - center
  is_below = values <= bound[:, None]
  is_smaller = xp.where(2 * (last + 1) < n, is_below, ~is_below)
  return is_smaller & ~xp.equal(2 * (last + 1), n), share


@rule.rule(indicative_share=_SHARE, suspicious_share=_SHARE)
def auror(cohort, *, indicative_share=0.9, suspicious_share=0.5):
  """The mean without those in the smaller cluster of most telling coordinates.

  The values of each coordinate are parted into the two clusters of the least
  variance within. A coordinate is indicative if the clusters are far apart; an
  update in the smaller cluster of more than a share tau of the indicative
  coordinates is left out, and the others are averaged (Shen, Tople and Saxena,
  "Auror: Defending Against Poisoning Attacks in Collaborative Deep Learning
  Systems", ACSAC 2016). The paper calls clusters far apart by a threshold for
  the task on the distance of their centers; here the variance between clusters
  must be more than a share alpha of all, which is 64 % for normal numbers and
  75 % for uniform ones. If no coordinate is indicative, all updates
  are averaged; if all are left out, the aggregate is zero.

  Breakdown point: f < n / 2, for attackers that differ from the others in most
  of the indicative coordinates, and in the same way; others stay, at any
  distance. Cost: O(d N log N).

  Args:
    indicative_share: alpha, in [0, 1).
    suspicious_share: tau, in [0, 1).

  Returns:
    A `rule.Rule` that measures `weights`, `suspicion` (the share of the
    indicative coordinates with an update in the smaller cluster),
    `num_indicative` and `num_non_finite`.
  """
  xp = cohort.xp

  def add(counts, start, width):
    is_smaller, share = split_columns(cohort.block(start, width), xp)
    is_indicative = xp.asarray(share > indicative_share, dtype=xp.float64)
    is_smaller = xp.asarray(is_smaller, dtype=xp.float64)
    suspicious, indicative = counts
    return (
        suspicious + xp.matmul(is_indicative[None], is_smaller)[0],
        indicative + xp.sum(is_indicative),
    )

  zeros = xp.zeros([cohort.size])
  suspicious, indicative = blocks.fold(
      add, (zeros, xp.sum(zeros)), cohort.dimension, xp
  )
  suspicion = geometry.divide(suspicious, indicative, xp)
  return rule.Decision(
      geometry.mean_of(suspicion <= suspicious_share, xp),
      measurements={'num_indicative': xp.asarray(indicative, dtype=xp.int64)},
      row_measurements={'suspicion': suspicion},
  )
