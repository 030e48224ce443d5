"""Minimum diameter averaging: the mean of the tightest n - f updates."""

import collections
import math
from typing import Any, Dict, NamedTuple, Tuple, Union

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import krum

# How many partial solutions the search for a subset holds at a time. It drops
# none for f up to 18: see `_find_subset`.
_MAX_CANDIDATES = 8192


class MinimumDiameterResult(NamedTuple):
  """What minimum diameter averaging decides for N updates, d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the mean of the selected updates.
    weights: A `[N]` float32 tensor: one over the number of selected updates for
      those, zero for the others.
    is_exact: A scalar bool, see `MinimumDiameterAveragingFactory`.
    cohort_too_small: A scalar bool, see `MinimumDiameterAveragingFactory`.
  """

  update: tf.Tensor
  weights: tf.Tensor
  is_exact: tf.Tensor
  cohort_too_small: tf.Tensor


def mean_of_selected(
    updates: tf.Tensor, is_selected: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Averages some rows of a table, without copying them.

  Args:
    updates: A `[N, d]` float32 tensor with static d; rows that are not selected
      may hold anything.
    is_selected: A `[N]` bool tensor.

  Returns:
    The `[d]` float32 mean, zero if no row is selected, and the `[N]` float32
    weight of each row in it.
  """
  selected = tf.cast(is_selected, tf.float32)
  weight = tf.math.divide_no_nan(1.0, tf.reduce_sum(selected))
  mean = tf.foldl(
      lambda total, row: total + weight * updates[row],
      tf.reshape(tf.where(is_selected), [-1]),
      initializer=tf.zeros([updates.shape[1]]),
      parallel_iterations=1,
  )
  return mean, weight * selected


def _find_subset(
    conflicts: tf.Tensor, is_member: tf.Tensor, num_removed: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Looks for members that can be removed so that no conflict is left.

  Candidates are grown breadth first from the set of all members. Of the member
  with most conflicts, either itself or all that are in conflict with it must
  go. A candidate is given up if the removals it has left cannot end its
  conflicts even if each ended as many as the first.

  Where every member has at most one conflict, either side may go, so that there
  is no second branch; otherwise the second branch removes two or more. With f
  removals to begin with there are never more candidates than the Fibonacci
  number F(f + 2).

  Args:
    conflicts: A `[N, N]` float32 tensor, symmetric, of zeros and ones.
    is_member: A `[N]` bool tensor; the others have no conflicts.
    num_removed: A scalar int32, how many members may be removed at most.

  Returns:
    Whether such a set was found, a `[N]` bool tensor with what is left (only
    if found), and whether the answer is certain.
  """
  members = tf.cast(is_member, tf.float32)
  num_left = tf.reduce_sum(members) - tf.cast(num_removed, tf.float32)

  def has_candidates(candidates, found, left, is_certain):
    del left, is_certain
    return tf.logical_not(found) & (tf.shape(candidates)[0] > 0)

  def grow(candidates, found, left, is_certain):
    degrees = candidates * tf.matmul(candidates, conflicts)
    num_conflicts = 0.5 * tf.reduce_sum(degrees, axis=1)
    removals = tf.reduce_sum(candidates, axis=1) - num_left
    degree = tf.reduce_max(degrees, axis=1)
    is_solved = (num_conflicts < 0.5) & (removals >= 0.0)
    found = tf.reduce_any(is_solved)
    left = tf.where(
        found, candidates[tf.argmax(tf.cast(is_solved, tf.int32))] > 0.5, left
    )

    promising = (removals >= 0.0) & (num_conflicts <= removals * degree)
    promising = tf.reshape(tf.where(promising), [-1])
    # Conflicts to end by a removal: where there are too many candidates, those
    # that need fewest stay.
    order = tf.argsort(
        tf.gather(tf.math.divide_no_nan(num_conflicts, removals), promising),
        stable=True,
    )
    promising = tf.gather(promising, order[:_MAX_CANDIDATES])
    is_certain &= tf.shape(order)[0] <= _MAX_CANDIDATES

    worst = tf.gather(tf.argmax(degrees, axis=1), promising)
    can_stay = tf.gather(degree, promising) > 1.5
    candidates = tf.gather(candidates, promising)
    without_worst = candidates * tf.gather(1.0 - tf.eye(tf.size(left)), worst)
    with_worst = candidates * (1.0 - tf.gather(conflicts, worst))
    candidates = tf.concat(
        [without_worst, tf.boolean_mask(with_worst, can_stay)], axis=0
    )
    return candidates, found, left, is_certain

  _, found, left, is_certain = tf.while_loop(
      has_candidates,
      grow,
      (members[tf.newaxis], tf.constant(False), is_member, tf.constant(True)),
      shape_invariants=(
          tf.TensorShape([None, None]),
          tf.TensorShape([]),
          is_member.shape,
          tf.TensorShape([]),
      ),
      parallel_iterations=1,
  )
  return found, left, found | is_certain


def minimum_diameter_subset(
    distances: tf.Tensor, is_finite: tf.Tensor, num_selected: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Selects the updates whose largest pairwise distance is smallest.

  A diameter can be kept to if the updates in conflict, those farther apart, can
  be parted by removing few enough; the smallest such diameter is found by
  bisection among the distances.

  Args:
    distances: A `[N, N]` float64 tensor from `krum.squared_distances`.
    is_finite: A `[N]` bool tensor; the other updates are not selected.
    num_selected: A scalar int32, at most the number of finite updates.

  Returns:
    A `[N]` bool tensor with the selected updates, and a scalar bool: whether no
    subset of this size is certain to have a smaller diameter. If False, the
    diameter is still at most twice the smallest.
  """
  num_rows = tf.shape(is_finite)[0]
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  # One triangle decides, so that rounding cannot make conflicts one-sided.
  upper = tf.linalg.band_part(distances, 0, -1)
  distances = tf.maximum(upper, tf.transpose(upper))
  both_finite = is_finite & is_finite[:, tf.newaxis]
  distances = tf.where(both_finite, distances, math.inf)

  def diameter(is_selected):
    both = is_selected & is_selected[:, tf.newaxis]
    return tf.reduce_max(tf.where(both, distances, 0.0))

  def select():
    # The radius of an update reaches its num_selected nearest, itself included.
    # The smallest radius is at most the smallest diameter, and the diameter of
    # those updates at most twice that radius.
    radii = tf.sort(distances, axis=1)[:, num_selected - 1]
    nearest = tf.argsort(distances[tf.argmin(radii)], stable=True)
    ball = tf.scatter_nd(
        nearest[:num_selected, tf.newaxis],
        tf.fill([num_selected], True),
        [num_rows],
    )
    in_question = (
        (upper >= tf.reduce_min(radii))
        & (upper <= diameter(ball))
        & (tf.range(num_rows) > tf.range(num_rows)[:, tf.newaxis])
    )
    diameters = tf.sort(tf.boolean_mask(upper, in_question))

    def is_open(low, high, best, is_exact):
      del best, is_exact
      return low < high

    def bisect(low, high, best, is_exact):
      middle = (low + high) // 2
      is_conflict = both_finite & (distances > diameters[middle])
      found, left, is_certain = _find_subset(
          tf.cast(is_conflict, tf.float32), is_finite, num_finite - num_selected
      )
      return (
          tf.where(found, low, middle + 1),
          tf.where(found, middle, high),
          tf.where(found, left, best),
          is_exact & is_certain,
      )

    _, _, best, is_exact = tf.while_loop(
        is_open,
        bisect,
        (0, tf.size(diameters) - 1, ball, tf.constant(True)),
        shape_invariants=(
            tf.TensorShape([]),
            tf.TensorShape([]),
            is_finite.shape,
            tf.TensorShape([]),
        ),
        parallel_iterations=1,
    )
    # More updates than asked for may keep to the diameter; the first stay.
    return best & (tf.cumsum(tf.cast(best, tf.int32)) <= num_selected), is_exact

  return tf.cond(
      num_finite > 0,
      select,
      lambda: (tf.zeros_like(is_finite), tf.constant(True)),
  )


def minimum_diameter_averaging(
    updates: tf.Tensor, is_finite: tf.Tensor, num_byzantine: tf.Tensor
) -> MinimumDiameterResult:
  """Averages the n - f updates of the smallest diameter.

  See `MinimumDiameterAveragingFactory` for the formula, its source and the
  special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are never selected, whatever
      they hold.
    num_byzantine: A scalar int32, f.

  Returns:
    A `MinimumDiameterResult`.
  """
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  num_left_out = tf.minimum(num_byzantine, (num_finite - 1) // 2)
  is_selected, is_exact = minimum_diameter_subset(
      krum.squared_distances(updates, is_finite),
      is_finite,
      num_finite - num_left_out,
  )
  update, weights = mean_of_selected(updates, is_selected)
  return MinimumDiameterResult(
      update=update,
      weights=weights,
      is_exact=is_exact,
      cohort_too_small=num_finite - num_byzantine <= num_byzantine,
  )


class MinimumDiameterAveragingFactory(byzantine_bound.BoundedFactory):
  """Aggregation factory for minimum diameter averaging.

  With n updates x_i of which f may be Byzantine, the result is the mean of

    S* = argmin over S, |S| = n - f, of max over i, j in S of ||x_i - x_j||

  (used by El Mhamdi, Guerraoui, Guirguis, Hoang and Rouault, "Genuinely
  Distributed Byzantine Machine Learning", PODC 2020). Where several subsets
  have the smallest diameter, which of them is averaged depends on the order of
  the updates.

  Breakdown point: for f < n / 2 the result is no farther from the mean of any
  n - f honest updates than 2 f / (n - f) times their diameter: the two subsets
  share an update, so that an update of one is within both diameters of an
  update of the other, and at most f updates differ.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      never selected; n counts the other ones. If there is none, the result is
      zero.
    * If 2 f >= n, the largest minority is left out instead of f updates; the
      measurement `cohort_too_small` tells.
    * The subset is exact for f up to 18 in a cohort of any size, and usually
      far beyond: instead of all subsets, only those updates are tried that are
      too far from others. If the search must drop candidates, the subset has at
      most twice the smallest diameter; the measurement `is_exact` tells.

  Cost with N clients and d coordinates: time O(N^2 d) at the server, and for
  the search O(N^2) for each of at most 8192 candidates, f + 1 times for each of
  at most 2 log2(N) bisections; memory `4 * N * d` bytes for the table of
  updates, about four times that while it is gathered, `40 * N^2` bytes for
  distances, and up to 330 KB a client for the search. Updates are taken in
  float32, distances in float64.

  The process has an empty state, and the measurements
    * `weights`, float32 `[N]`: 1 / (n - f) for the selected updates, 0 for the
      others, in the order in which they were gathered;
    * `num_byzantine`, int32: f of this round;
    * `num_non_finite`, int32: the number of updates left out;
    * `is_exact`, bool: see above;
    * `cohort_too_small`, bool: see above.
  """

  def bounded_rule(
      self,
      updates: tf.Tensor,
      is_finite: tf.Tensor,
      num_byzantine: tf.Tensor,
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `minimum_diameter_averaging`; see `BoundedFactory`."""
    result = minimum_diameter_averaging(updates, is_finite, num_byzantine)
    return result.update, collections.OrderedDict(
        weights=result.weights,
        is_exact=result.is_exact,
        cohort_too_small=result.cohort_too_small,
    )


def minimum_diameter_averaging_factory(
    num_byzantine: Union[int, float], *, weighted: bool = False
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for minimum diameter averaging.

  Args:
    num_byzantine: See `byzantine_bound.BoundedFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `MinimumDiameterAveragingFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `byzantine_bound.BoundedFactory`, and if `weighted` is not a
      bool.
    ValueError: See `byzantine_bound.BoundedFactory`.
  """
  return ignored_weights.accept_weights(
      MinimumDiameterAveragingFactory(num_byzantine), weighted
  )
