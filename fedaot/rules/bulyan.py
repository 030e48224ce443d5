"""Bulyan: a trimmed mean around the median of what Krum selects."""

from fedaot.rules import geometry
from fedaot.rules import rule
from fedaot.rules.krum import krum_scores


def select_by_krum(squared_distances, num_byzantine, num_selected, xp):
  """Selects rows by Krum one after the other, each among the rest."""

  def select(num_left, is_left):
    both = is_left & is_left[:, None]
    scores = krum_scores(
        xp.where(both, squared_distances, xp.inf),
        xp.maximum(num_left - num_byzantine - 2, 1),
        xp,
    )
    scores = xp.where(is_left, scores, xp.inf)
    return num_left - 1, is_left & ~geometry.is_first(scores, 1, xp)

  n = xp.size(squared_distances)
  _, is_left = xp.while_loop(
      lambda num_left, is_left: num_left > n - num_selected,
      select,
      (n, xp.ones([n], dtype=bool)),
  )
  return ~is_left


def mean_around_median(block, num_averaged, xp):
  """Averages the values of each column that are closest to its median."""
  ordered = xp.asarray(xp.sorted_columns(block), dtype=xp.float64)
  n = xp.size(block)
  median = 0.5 * (ordered[:, (n - 1) // 2] + ordered[:, n // 2])[:, None]
  # They are neighbors in order: a value is left out at the lower end as long as
  # the next one at the upper end is closer.
  below = median - ordered[:, : n - num_averaged]
  above = ordered[:, num_averaged:] - median
  first = xp.sum(xp.asarray(below > above, xp.int64), axis=1)[:, None]
  place = xp.arange(n)
  is_averaged = (place >= first) & (place < first + num_averaged)
  # Sums of deviations keep what an offset that updates share would cost.
  deviations = xp.sum(xp.where(is_averaged, ordered - median, 0.0), axis=1)
  return median[:, 0] + deviations / xp.asarray(num_averaged, xp.float64)


@rule.rule()
def bulyan(cohort, num_byzantine):
  """A mean around the median of the updates that Krum selects repeatedly.

  With n updates of which f may be Byzantine, Krum is applied theta = n - 2 f
  times, each time to the updates not selected yet (at least one neighbor
  counts). Every coordinate of the result is the mean of the beta = theta - 2 f
  values of the selected updates that are closest to their median, of two
  equally far ones the smaller (El Mhamdi, Guerraoui and Rouault, "The Hidden
  Vulnerability of Distributed Learning in Byzantium", ICML 2018,
  arXiv:1802.07927).

  Breakdown point: n >= 4 f + 3. If n is smaller, `cohort_too_small` tells;
  theta is then one at least, and where beta would be less than one, the result
  is the median. Cost: O(N^2 d + theta N^2 log N).

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `is_selected`, `num_byzantine`,
    `num_non_finite` and `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  # More than this is no different, and this times 4 is no overflow.
  f = xp.minimum(num_byzantine, n)
  num_selected = xp.maximum(n - 2 * f, 1)
  is_selected = select_by_krum(cohort.squared_distances, f, num_selected, xp)
  selected = xp.nonzero(is_selected)[0]
  num_averaged = xp.maximum(num_selected - 2 * f, 2 - num_selected % 2)
  return rule.Decision(
      combine=lambda block: mean_around_median(
          xp.take(block, selected, axis=0), num_averaged, xp
      ),
      measurements={'cohort_too_small': n < 4 * f + 3},
      row_measurements={'is_selected': is_selected},
  )
