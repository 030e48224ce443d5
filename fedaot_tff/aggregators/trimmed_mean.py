"""Coordinate-wise trimmed mean of client updates."""

import collections
from typing import Any, Callable, Dict, NamedTuple, Tuple, Union

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights

# Coordinates handled at a time, so that no second table is held.
_BLOCK_COLUMNS = 16384


class TrimmedMeanResult(NamedTuple):
  """The trimmed mean of a table of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the trimmed mean.
    cohort_too_small: A scalar bool, see `TrimmedMeanFactory`.
  """

  update: tf.Tensor
  cohort_too_small: tf.Tensor


def map_column_blocks(
    function: Callable[[Callable[[tf.Tensor], tf.Tensor]], tf.Tensor],
    num_columns: int,
    block_columns: int,
) -> tf.Tensor:
  """Computes a vector from blocks of columns, one block at a time.

  Args:
    function: Called with a function `block_of`, which cuts the block's columns
      out of the last axis of a tensor `[..., d]`; returns the vector's entries
      for these columns, float32. An entry must depend on its column only.
    num_columns: d > 0.
    block_columns: The largest number of columns in a block.

  Returns:
    A `[d]` float32 tensor.
  """
  block = min(block_columns, num_columns)
  # The last block begins early enough to be full; what it has in common with
  # the block before is cut off below.
  starts = tf.minimum(tf.range(0, num_columns, block), num_columns - block)
  entries = tf.map_fn(
      lambda start: function(lambda x: x[..., start : start + block]),
      starts,
      fn_output_signature=tf.TensorSpec([block], tf.float32),
      parallel_iterations=1,
  )
  num_full, rest = divmod(num_columns, block)
  return tf.concat(
      [tf.reshape(entries[:num_full], [-1]), entries[-1, block - rest :]],
      axis=0,
  )


def trimmed_mean(
    updates: tf.Tensor, is_finite: tf.Tensor, num_byzantine: tf.Tensor
) -> TrimmedMeanResult:
  """Averages every coordinate without its smallest and largest values.

  See `TrimmedMeanFactory` for the formula, its source and the special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d > 0, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are left out, whatever they
      hold.
    num_byzantine: A scalar int32, f, how many values to drop at each end.

  Returns:
    A `TrimmedMeanResult`.
  """
  num_columns = updates.shape[1]
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  num_dropped = tf.minimum(num_byzantine, (num_finite - 1) // 2)
  num_kept = tf.cast(num_finite - 2 * num_dropped, tf.float32)

  def block_mean(block_of):
    values = tf.boolean_mask(block_of(updates), is_finite)
    by_column = tf.transpose(values)
    lowest = tf.raw_ops.NthElement(input=by_column, n=num_dropped)
    highest = tf.raw_ops.NthElement(
        input=by_column, n=num_finite - 1 - num_dropped
    )
    # What is dropped never enters a sum, nor does an offset that all updates
    # share: the sum is of the distances of kept values to the lowest of them.
    is_below = values < highest
    between = tf.where((values > lowest) & is_below, values - lowest, 0.0)
    num_highest = (
        tf.cast(num_finite - num_dropped, tf.float32)
        - tf.reduce_sum(tf.cast(is_below, tf.float32), axis=0)
    )
    excess = tf.reduce_sum(between, axis=0) + num_highest * (highest - lowest)
    return lowest + excess / num_kept

  update = tf.cond(
      num_finite > 0,
      lambda: map_column_blocks(block_mean, num_columns, _BLOCK_COLUMNS),
      lambda: tf.zeros([num_columns]),
  )
  return TrimmedMeanResult(update, num_finite - num_byzantine <= num_byzantine)


class TrimmedMeanFactory(byzantine_bound.BoundedFactory):
  """Aggregation factory for the coordinate-wise trimmed mean.

  With x_(1) <= ... <= x_(n) the sorted values of a coordinate over the n finite
  updates, of which f may be Byzantine, the coordinate of the result is

    (x_(f + 1) + ... + x_(n - f)) / (n - 2 f)

  (Yin, Chen, Ramchandran and Bartlett, "Byzantine-Robust Distributed Learning:
  Towards Optimal Statistical Rates", ICML 2018, arXiv:1803.01498, Definition 2
  and Algorithm 1, option II). Dropped values take no part in any sum, so that
  they cost no precision however large they are.

  Breakdown point: as long as at most f < n / 2 of the finite updates are
  Byzantine, every coordinate lies between the smallest and the largest honest
  value of it.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      left out; n counts the other ones. If there is none, the result is zero.
    * If 2 f >= n, as many values are dropped as leaves one or two: the result
      is the coordinate-wise median. The measurement `cohort_too_small` tells.

  Cost with N clients and d coordinates: time O(N d) on average at the server;
  memory `4 * N * d` bytes for the table of updates, and about four times that
  while it is gathered. The mean is taken in float32.

  The process has an empty state, and the measurements
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
    """Applies `trimmed_mean`; see `BoundedFactory`."""
    result = trimmed_mean(updates, is_finite, num_byzantine)
    return result.update, collections.OrderedDict(
        cohort_too_small=result.cohort_too_small,
    )


def trimmed_mean_factory(
    num_byzantine: Union[int, float], *, weighted: bool = False
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for the coordinate-wise trimmed mean.

  Args:
    num_byzantine: See `byzantine_bound.BoundedFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `TrimmedMeanFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `byzantine_bound.BoundedFactory`, and if `weighted` is not a
      bool.
    ValueError: See `byzantine_bound.BoundedFactory`.
  """
  return ignored_weights.accept_weights(
      TrimmedMeanFactory(num_byzantine), weighted
  )
