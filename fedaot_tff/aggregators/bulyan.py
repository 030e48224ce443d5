"""Bulyan: a trimmed mean around the median of what Krum selects."""

import collections
import math
from typing import Any, Dict, NamedTuple, Tuple, Union

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import coordinate_median
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import krum
from fedaot_tff.aggregators import trimmed_mean

# Coordinates handled at a time, so that no second table is held.
_BLOCK_COLUMNS = 16384


class BulyanResult(NamedTuple):
  """What Bulyan decides for a table of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the aggregate.
    is_selected: A `[N]` bool tensor, the updates that the first stage selects.
    cohort_too_small: A scalar bool, see `BulyanFactory`.
  """

  update: tf.Tensor
  is_selected: tf.Tensor
  cohort_too_small: tf.Tensor


def select_by_krum(
    distances: tf.Tensor,
    is_finite: tf.Tensor,
    num_byzantine: tf.Tensor,
    num_selected: tf.Tensor,
) -> tf.Tensor:
  """Selects updates by Krum one after the other, each among the rest.

  Args:
    distances: A `[N, N]` float64 tensor from `krum.squared_distances`.
    is_finite: A `[N]` bool tensor; the other updates are not selected.
    num_byzantine: A scalar int32, f.
    num_selected: A scalar int32, at most the number of finite updates.

  Returns:
    A `[N]` bool tensor.
  """
  indices = tf.range(tf.size(is_finite))

  def select(is_left, _):
    num_left = tf.reduce_sum(tf.cast(is_left, tf.int32))
    scores = krum.krum_scores(
        tf.where(is_left & is_left[:, tf.newaxis], distances, math.inf),
        is_left,
        tf.maximum(num_left - num_byzantine - 2, 1),
    )
    winner = tf.argmin(scores, output_type=tf.int32)
    return is_left & tf.not_equal(indices, winner)

  is_left = tf.foldl(
      select,
      tf.range(num_selected),
      initializer=is_finite,
      parallel_iterations=1,
  )
  return is_finite & ~is_left


def _count(is_counted):
  """Counts true entries in each column."""
  return tf.reduce_sum(tf.cast(is_counted, tf.int32), axis=0)


def mean_around_median(
    updates: tf.Tensor, is_selected: tf.Tensor, num_averaged: tf.Tensor
) -> tf.Tensor:
  """Averages the values of each coordinate that are closest to the median.

  Args:
    updates: A `[N, d]` float32 tensor with static d > 0, one update a row.
    is_selected: A `[N]` bool tensor; the other rows are left out, whatever they
      hold.
    num_averaged: A scalar int32, how many values to average: at least one, at
      most as many as are selected. Of two values equally far from the median
      the smaller comes first.

  Returns:
    A `[d]` float32 tensor, zero if no update is selected.
  """
  num_columns = updates.shape[1]
  medians = coordinate_median.coordinate_median(updates, is_selected)

  def block_mean(block_of):
    median = block_of(medians)
    deviations = tf.boolean_mask(block_of(updates), is_selected) - median
    distances = tf.abs(deviations)
    # The distance of the last value that is averaged.
    last = tf.raw_ops.NthElement(
        input=tf.transpose(distances), n=num_averaged - 1
    )
    is_closer = distances < last
    num_last = num_averaged - _count(is_closer)
    num_below = tf.minimum(_count(tf.equal(deviations, -last)), num_last)
    # Sums of deviations keep the precision that an offset shared by all updates
    # would cost.
    total = tf.reduce_sum(tf.where(is_closer, deviations, 0.0), axis=0)
    total += tf.cast(num_last - 2 * num_below, tf.float32) * last
    return median + total / tf.cast(num_averaged, tf.float32)

  return tf.cond(
      tf.reduce_any(is_selected),
      lambda: trimmed_mean.map_column_blocks(
          block_mean, num_columns, _BLOCK_COLUMNS
      ),
      lambda: tf.zeros([num_columns]),
  )


def bulyan(
    updates: tf.Tensor, is_finite: tf.Tensor, num_byzantine: tf.Tensor
) -> BulyanResult:
  """Averages, around the median, the updates that Krum selects repeatedly.

  See `BulyanFactory` for the formula, its source and the special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d > 0, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are never selected and are
      nobody's neighbors, whatever they hold.
    num_byzantine: A scalar int32, f.

  Returns:
    A `BulyanResult`.
  """
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  # More than this is no different, and this times 4 is no overflow.
  num_byzantine = tf.minimum(num_byzantine, num_finite)
  num_selected = tf.maximum(
      num_finite - 2 * num_byzantine, tf.minimum(num_finite, 1)
  )
  is_selected = select_by_krum(
      krum.squared_distances(updates, is_finite),
      is_finite,
      num_byzantine,
      num_selected,
  )
  # One or two values at least: the median.
  num_averaged = tf.maximum(
      num_selected - 2 * num_byzantine, 2 - num_selected % 2
  )
  return BulyanResult(
      mean_around_median(updates, is_selected, num_averaged),
      is_selected,
      num_finite < 4 * num_byzantine + 3,
  )


class BulyanFactory(byzantine_bound.BoundedFactory):
  """Aggregation factory for Bulyan on top of Krum.

  With n updates of which f may be Byzantine, Krum (see `krum.KrumFactory`) is
  applied theta = n - 2 f times, each time to the updates that it has not
  selected yet. Every coordinate of the result is the mean of the beta =
  theta - 2 f values of the selected updates that are closest to their median,
  the midpoint for even theta (El Mhamdi, Guerraoui and Rouault, "The Hidden
  Vulnerability of Distributed Learning in Byzantium", ICML 2018,
  arXiv:1802.07927). Of two values equally far from the median the smaller comes
  first, of updates with equal scores the one gathered first.

  With m updates left Krum counts the m - f - 2 nearest neighbors, and one where
  that is less than one. For f up to 2 it counts one at the end, where two
  updates that are each other's nearest have equal scores: which of the two is
  selected then depends on their order.

  Breakdown point: the guarantee of the paper holds for n >= 4 f + 3.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      never selected and are nobody's neighbors; n counts the other ones. If
      there is none, the result is zero.
    * If n < 4 f + 3, the measurement `cohort_too_small` tells. theta is then
      one at least, and where beta would be less than one, the result is the
      median of the selected updates.

  Cost with N clients and d coordinates: time O(N^2 d + theta N^2 log(N)) at the
  server; memory `4 * N * d` bytes for the table of updates, about four times
  that while it is gathered, and `60 * N^2` bytes for distances. Updates are
  taken in float32, distances in float64.

  The process has an empty state, and the measurements
    * `is_selected`, bool `[N]`: whether Krum selected an update, in the order
      in which they were gathered;
    * `num_byzantine`, int32: f of this round;
    * `num_non_finite`, int32: the number of updates left out;
    * `cohort_too_small`, bool: see above.
  """

  def bounded_rule(
      self,
      updates: tf.Tensor,
      is_finite: tf.Tensor,
      num_byzantine: tf.Tensor,
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `bulyan`; see `BoundedFactory`."""
    result = bulyan(updates, is_finite, num_byzantine)
    return result.update, collections.OrderedDict(
        is_selected=result.is_selected,
        cohort_too_small=result.cohort_too_small,
    )


def bulyan_factory(
    num_byzantine: Union[int, float], *, weighted: bool = False
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for Bulyan on top of Krum.

  Args:
    num_byzantine: See `byzantine_bound.BoundedFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `BulyanFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `byzantine_bound.BoundedFactory`, and if `weighted` is not a
      bool.
    ValueError: See `byzantine_bound.BoundedFactory`.
  """
  return ignored_weights.accept_weights(BulyanFactory(num_byzantine), weighted)
