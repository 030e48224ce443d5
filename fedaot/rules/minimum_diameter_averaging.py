"""Minimum diameter averaging: the mean of the tightest n - f updates."""

from fedaot.rules import geometry
from fedaot.rules import rule

# How many partial solutions the search for a subset holds at a time. It drops
# none for f up to 18: see `_without_conflicts`.
_MAX_CANDIDATES = 8192


def _without_conflicts(conflicts, num_removed, xp):
  """Looks for rows to remove, so few, that no conflict is left.

  Candidates grow breadth first from the set of all rows. Of the row with most
  conflicts, either itself or all that are in conflict with it must go. A
  candidate is given up if the removals it has left cannot end its conflicts
  even if each ended as many as the first. Where every row has one conflict at
  most, either side may go: no second branch; otherwise the second branch
  removes two or more. So there are at most F(f + 2) candidates, a Fibonacci
  number.

  Args:
    conflicts: Float64 `[n, n]`, symmetric, of zeros and ones.
    num_removed: How many rows may be removed at most.
    xp: The namespace.

  Returns:
    Whether there is such a set, bool `[n]` with what is left (only if so), and
    whether the answer is certain.
  """
  n = xp.size(conflicts)
  num_left = xp.asarray(n - num_removed, xp.float64)

  def grow(candidates, found, left, is_certain):
    degrees = candidates * xp.matmul(candidates, conflicts)
    num_conflicts = 0.5 * xp.sum(degrees, axis=1)
    removals = xp.sum(candidates, axis=1) - num_left
    degree = xp.amax(degrees, axis=1)
    is_solved = (num_conflicts < 0.5) & (removals >= 0.0)
    found = xp.any(is_solved)
    solved = xp.argmax(xp.asarray(is_solved, xp.int64))
    left = xp.where(found, xp.take(candidates, solved, axis=0) > 0.5, left)

    promising = xp.nonzero(
        (removals >= 0.0) & (num_conflicts <= removals * degree)
    )[0]
    # Conflicts to end by a removal: where there are too many candidates, those
    # that need fewest stay.
    need = geometry.divide(num_conflicts, removals, xp)
    need = xp.take(need, promising, axis=0)
    order = xp.argsort(need, kind='stable')[:_MAX_CANDIDATES]
    is_certain = is_certain & (xp.size(promising) <= _MAX_CANDIDATES)
    promising = xp.take(promising, order, axis=0)

    worst = xp.take(xp.argmax(degrees, axis=1), promising, axis=0)
    can_stay = xp.nonzero(xp.take(degree, promising, axis=0) > 1.5)[0]
    candidates = xp.take(candidates, promising, axis=0)
    without = candidates * xp.take(1.0 - xp.eye(n), worst, axis=0)
    alone = candidates * (1.0 - xp.take(conflicts, worst, axis=0))
    alone = xp.take(alone, can_stay, axis=0)
    return xp.concatenate([without, alone], axis=0), found, left, is_certain

  everyone = xp.ones([1, n], dtype=xp.float64)
  _, found, left, is_certain = xp.while_loop(
      lambda candidates, found, left, is_certain: (
          ~found & (xp.size(candidates) > 0)
      ),
      grow,
      (everyone, everyone[0, 0] < 0, everyone[0] > 0, everyone[0, 0] > 0),
      growing=True,
  )
  return found, left, found | is_certain


def tightest_subset(squared_distances, num_selected, xp):
  """Selects rows so that their largest pairwise distance is smallest.

  A diameter can be kept to if the rows in conflict, those farther apart, can be
  parted by removing few enough; the smallest such diameter is found by
  bisection among the distances.

  Args:
    squared_distances: Float64 `[n, n]`, symmetric.
    num_selected: At most n.
    xp: The namespace.

  Returns:
    Bool `[n]`, and whether no subset of this size is certain to be tighter. If
    not, the diameter is still at most twice the smallest.
  """
  n = xp.size(squared_distances)
  # The radius of a row reaches its num_selected nearest, itself included. The
  # smallest radius is at most the smallest diameter, and the diameter of those
  # rows at most twice that radius.
  radii = xp.sort(squared_distances, axis=1)[:, num_selected - 1]
  nearest = xp.take(squared_distances, xp.argmin(radii), axis=0)
  ball = geometry.is_first(nearest, num_selected, xp)
  diameter = xp.amax(xp.where(ball & ball[:, None], squared_distances, 0.0))
  all_pairs = xp.sort(xp.reshape(squared_distances, [-1]))
  diameters = xp.take(
      all_pairs,
      xp.nonzero((all_pairs >= xp.amin(radii)) & (all_pairs <= diameter))[0],
      axis=0,
  )

  def bisect(low, high, best, is_exact):
    middle = (low + high) // 2
    too_far = squared_distances > xp.take(diameters, middle, axis=0)
    found, left, is_certain = _without_conflicts(
        xp.asarray(too_far, dtype=xp.float64), n - num_selected, xp
    )
    return (
        xp.where(found, low, middle + 1),
        xp.where(found, middle, high),
        xp.where(found, left, best),
        is_exact & is_certain,
    )

  zero = 0 * n
  last = xp.size(diameters) - 1
  _, _, best, is_exact = xp.while_loop(
      lambda low, high, best, is_exact: low < high,
      bisect,
      (zero, last, ball, zero < 1),
  )
  # More rows than asked for may keep to the diameter; the first stay.
  count = xp.cumsum(xp.asarray(best, dtype=xp.int64))
  return best & (count <= num_selected), is_exact


@rule.rule()
def minimum_diameter_averaging(cohort, num_byzantine):
  """The mean of the n - f updates of the smallest diameter.

  With n updates x_i of which f may be Byzantine, it is the mean of

    argmin over S, |S| = n - f, of max over i, j in S of ||x_i - x_j||

  (used by El Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely
  Distributed Byzantine Machine Learning", PODC 2020). Of several such subsets
  the order of the updates decides. If 2 f >= n, the largest minority is left
  out, and `cohort_too_small` tells. The subset is exact for f up to 18, and
  usually far beyond; otherwise `is_exact` is False and its diameter at most
  twice the smallest.

  Breakdown point: for f < n / 2 the result is within 2 f / (n - f) honest
  diameters of the honest mean: the subset shares an update with the honest
  ones, and at most f of it differ. Cost: O(N^2 d), and for the search O(N^2)
  for each of at most 8192 candidates, f + 1 times in each of 2 log2(N) steps.

  Args:
    num_byzantine: f.

  Returns:
    A `rule.Rule` that measures `weights`, `is_exact`, `num_byzantine`,
    `num_non_finite` and `cohort_too_small`.
  """
  xp, n = cohort.xp, cohort.size
  num_left_out = xp.minimum(num_byzantine, (n - 1) // 2)
  is_selected, is_exact = tightest_subset(
      cohort.squared_distances, n - num_left_out, xp
  )
  return rule.Decision(
      geometry.mean_of(is_selected, xp),
      measurements={
          'is_exact': is_exact,
          'cohort_too_small': 2 * num_byzantine >= n,
      },
  )
