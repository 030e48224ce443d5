"""Coordinate-wise median of client updates."""

import collections
from typing import Any, Dict, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights

# Coordinates handled at a time, so that no second table is held.
_BLOCK_COLUMNS = 16384


def coordinate_median(updates: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Computes the median of every coordinate over the finite updates.

  With x_(1) <= ... <= x_(n) the sorted values of a coordinate over the n finite
  updates, the median is x_((n + 1) / 2) for odd n and the midpoint of x_(n / 2)
  and x_(n / 2 + 1) for even n.

  Args:
    updates: A `[N, d]` float32 tensor with static d > 0, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are left out, whatever they
      hold.

  Returns:
    A `[d]` float32 tensor, zero if no update is finite.
  """
  num_columns = updates.shape[1]
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  block = min(_BLOCK_COLUMNS, num_columns)

  def block_median(start):
    columns = tf.boolean_mask(updates[:, start : start + block], is_finite)
    values = tf.transpose(columns)
    lower = tf.raw_ops.NthElement(input=values, n=(num_finite - 1) // 2)
    upper = tf.cond(
        tf.equal(num_finite % 2, 1),
        lambda: lower,
        lambda: tf.raw_ops.NthElement(input=values, n=num_finite // 2),
    )
    return 0.5 * (lower + upper)

  def median():
    # The last block begins early enough to be full; what it has in common with
    # the block before is cut off below.
    starts = tf.minimum(tf.range(0, num_columns, block), num_columns - block)
    medians = tf.map_fn(
        block_median,
        starts,
        fn_output_signature=tf.TensorSpec([block], tf.float32),
        parallel_iterations=1,
    )
    num_full, rest = divmod(num_columns, block)
    return tf.concat(
        [tf.reshape(medians[:num_full], [-1]), medians[-1, block - rest :]],
        axis=0,
    )

  return tf.cond(num_finite > 0, median, lambda: tf.zeros([num_columns]))


class CoordinateMedianFactory(flat_updates.GatheringFactory):
  """Aggregation factory for the coordinate-wise median.

  Every coordinate of the result is the median of that coordinate over the
  clients, the midpoint of the two middle values for an even number of clients
  (Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning:
  Towards Optimal Statistical Rates", ICML 2018, arXiv:1803.01498, Definition 1
  and Algorithm 1, option I).

  Breakdown point: as long as fewer than half of the finite updates are
  Byzantine, every coordinate lies between the smallest and the largest honest
  value of it. Updates with a NaN, an infinity or an entry of magnitude 1e15 or
  more are left out; if none remains, the result is zero.

  Cost with N clients and d coordinates: time O(N d) on average at the server;
  memory `4 * N * d` bytes for the table of updates, and about four times that
  while it is gathered. The median is taken in float32.

  The process has an empty state, and the measurement `num_non_finite` (int32),
  the number of updates left out.
  """

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Takes the median; see `flat_updates.GatheringFactory.rule`."""
    return coordinate_median(updates, is_finite), collections.OrderedDict(
        num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32))
    )


def coordinate_median_factory(
    *, weighted: bool = False
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for the coordinate-wise median.

  Args:
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `CoordinateMedianFactory`, wrapped if `weighted`.

  Raises:
    TypeError: If `weighted` is not a bool.
  """
  return ignored_weights.accept_weights(CoordinateMedianFactory(), weighted)
