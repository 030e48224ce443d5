"""Krum and multi-Krum: the updates closest to their neighbors."""

import collections
import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights

# Coordinates handled at a time, so that no float64 copy of the table is held.
_BLOCK_COLUMNS = 4096

# How many neighbors of its own count for an update: n - f minus this.
_NEIGHBOR_OFFSETS = {'published': 2, 'byzfl': 1}


class KrumResult(NamedTuple):
  """What Krum decides for a table of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the mean of the selected updates.
    weights: A `[N]` float32 tensor: one over the number of selected updates for
      those, zero for the others.
    cohort_too_small: A scalar bool, see `KrumFactory`.
  """

  update: tf.Tensor
  weights: tf.Tensor
  cohort_too_small: tf.Tensor


def inner_products(updates: tf.Tensor) -> tf.Tensor:
  """Computes the inner product of every pair of updates.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.

  Returns:
    A `[N, N]` float64 tensor. An entry involves two updates only, so that NaN
    does not spread to other pairs.
  """
  num_rows, num_columns = tf.shape(updates)[0], updates.shape[1]

  def add_block(products, start):
    columns = updates[:, start : start + _BLOCK_COLUMNS]
    # In float64 the products of float32 numbers are exact, so that a distance
    # is as accurate as the updates themselves even where they share a large
    # offset. Subtracting a center would not do: one far client moves the mean.
    columns = tf.cast(columns, tf.float64)
    return products + tf.matmul(columns, columns, transpose_b=True)

  return tf.foldl(
      add_block,
      tf.range(0, num_columns, _BLOCK_COLUMNS),
      initializer=tf.zeros([num_rows, num_rows], tf.float64),
      parallel_iterations=1,
  )


def squared_distances(updates: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Computes the squared Euclidean distance of every pair of updates.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows may hold anything.

  Returns:
    A `[N, N]` float64 tensor with a zero diagonal; infinite where one of two
    different updates is not finite.
  """
  products = inner_products(updates)
  squared_norms = tf.linalg.diag_part(products)
  distances = tf.maximum(
      squared_norms[:, tf.newaxis] + squared_norms - 2.0 * products, 0.0
  )
  both_finite = is_finite[:, tf.newaxis] & is_finite
  distances = tf.where(both_finite, distances, math.inf)
  return tf.linalg.set_diag(distances, tf.zeros_like(squared_norms))


def krum_scores(
    distances: tf.Tensor, is_finite: tf.Tensor, num_neighbors: tf.Tensor
) -> tf.Tensor:
  """Sums the squared distances of each update to its nearest neighbors.

  Args:
    distances: A `[N, N]` float64 tensor from `squared_distances`.
    is_finite: A `[N]` bool tensor; the other updates are nobody's neighbors.
    num_neighbors: A scalar int32, how many neighbors count; where fewer finite
      neighbors exist, all of them do.

  Returns:
    A `[N]` float64 tensor, infinite for updates that are not finite.
  """
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  num_neighbors = tf.minimum(num_neighbors, num_finite - 1)
  # An infinite diagonal keeps an update from being its own neighbor.
  to_others = tf.linalg.set_diag(
      distances, tf.fill(tf.shape(is_finite), tf.constant(math.inf, tf.float64))
  )
  is_near = tf.range(tf.shape(is_finite)[0]) < num_neighbors
  nearest = tf.where(is_near, tf.sort(to_others, axis=1), 0.0)
  return tf.where(is_finite, tf.reduce_sum(nearest, axis=1), math.inf)


def krum(
    updates: tf.Tensor,
    is_finite: tf.Tensor,
    num_byzantine: tf.Tensor,
    *,
    num_selected: Optional[int] = 1,
    neighbors: str = 'published',
) -> KrumResult:
  """Averages the updates that lie closest to their nearest neighbors.

  See `KrumFactory` for the formula, its source and the special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are never selected and are
      nobody's neighbors, whatever they hold.
    num_byzantine: A scalar int32, f.
    num_selected: m, how many updates to average; None for n - f.
    neighbors: 'published' or 'byzfl'.

  Returns:
    A `KrumResult`.
  """
  num_rows, num_columns = tf.shape(updates)[0], updates.shape[1]
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  num_neighbors = num_finite - num_byzantine - _NEIGHBOR_OFFSETS[neighbors]
  scores = krum_scores(
      squared_distances(updates, is_finite),
      is_finite,
      tf.maximum(num_neighbors, 1),
  )
  # Of equal scores the earlier row comes first; infinite ones come last.
  if num_selected is None:
    num_selected = tf.maximum(num_finite - num_byzantine, 1)
  num_selected = tf.minimum(num_selected, num_finite)
  selected = tf.argsort(scores, stable=True)[:num_selected]
  weight = tf.math.divide_no_nan(1.0, tf.cast(num_selected, tf.float32))
  weights = tf.scatter_nd(
      selected[:, tf.newaxis], tf.fill([num_selected], weight), [num_rows]
  )
  update = tf.foldl(
      lambda total, row: total + weight * updates[row],
      selected,
      initializer=tf.zeros([num_columns]),
      parallel_iterations=1,
  )
  return KrumResult(update, weights, num_neighbors < 1)


class KrumFactory(byzantine_bound.BoundedFactory):
  """Aggregation factory for Krum and multi-Krum.

  With n updates x_i of which f may be Byzantine, the score of an update is

    s(i) = sum over j in N(i) of ||x_i - x_j||^2,

  N(i) the n - f - 2 updates nearest to x_i, itself not counted. Krum returns
  the update of the smallest score, multi-Krum the mean of the m updates of the
  smallest scores (Blanchard, El Mhamdi, Guerraoui and Stainer, "Machine
  Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS
  2017).
  Of equal scores the update gathered first wins.

  Breakdown point: the guarantee of the paper holds for 2 f + 2 < n; multi-Krum
  further needs m <= n - f, lest it must select a Byzantine update.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      never selected and are nobody's neighbors; n counts the other ones. If
      there is none, the result is zero.
    * If n is too small for f to leave one neighbor, one neighbor counts, as far
      as there is another update; the measurement `cohort_too_small` tells.
    * If fewer than m updates are finite, all of them are averaged.

  Cost with N clients and d coordinates: time O(N^2 d) at the server; memory
  `4 * N * d` bytes for the table of updates, about four times that while it is
  gathered, and `40 * N^2` bytes for distances. Updates are taken in float32,
  distances in float64.

  The process has an empty state, and the measurements
    * `weights`, float32 `[N]`: 1 / m for the selected updates, 0 for the
      others, in the order in which they were gathered;
    * `num_byzantine`, int32: f of this round;
    * `num_non_finite`, int32: the number of updates left out;
    * `cohort_too_small`, bool: see above.
  """

  def __init__(
      self,
      num_byzantine: Union[int, float],
      *,
      num_selected: Optional[int] = 1,
      neighbors: str = 'published',
  ):
    """Initializes `KrumFactory`.

    Args:
      num_byzantine: f, how many Byzantine clients to withstand: an int >= 0, or
        a float in [0, 1), the fraction of each round's cohort, rounded down.
      num_selected: m, how many updates to average; 1 is Krum, more multi-Krum.
        None averages n - f, the most that the guarantee allows.
      neighbors: 'published' sums the distances to the n - f - 2 nearest
        neighbors as in the paper, 'byzfl' those to n - f - 1 as in the ByzFL
        library, for comparisons with it.

    Raises:
      TypeError: If `num_byzantine` is not a number or `num_selected` not an
        int or None.
      ValueError: If an argument is out of its range.
    """
    super().__init__(num_byzantine)
    if num_selected is not None:
      if isinstance(num_selected, bool) or not isinstance(
          num_selected, numbers.Integral
      ):
        raise TypeError(
            'Expected `num_selected` to be an int or None, found'
            f' {num_selected!r}.'
        )
      if num_selected < 1:
        raise ValueError(
            f'Expected `num_selected` to be 1 or more, found {num_selected!r}.'
        )
      num_selected = int(num_selected)
    if neighbors not in _NEIGHBOR_OFFSETS:
      raise ValueError(
          f'Expected `neighbors` to be one of {list(_NEIGHBOR_OFFSETS)}, '
          f'found {neighbors!r}.'
      )
    self._num_selected = num_selected
    self._neighbors = neighbors

  def bounded_rule(
      self,
      updates: tf.Tensor,
      is_finite: tf.Tensor,
      num_byzantine: tf.Tensor,
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `krum`; see `BoundedFactory`."""
    result = krum(
        updates,
        is_finite,
        num_byzantine,
        num_selected=self._num_selected,
        neighbors=self._neighbors,
    )
    return result.update, collections.OrderedDict(
        weights=result.weights,
        cohort_too_small=result.cohort_too_small,
    )


def krum_factory(
    num_byzantine: Union[int, float],
    *,
    num_selected: Optional[int] = 1,
    neighbors: str = 'published',
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for Krum (`num_selected` 1) or multi-Krum.

  Args:
    num_byzantine: See `KrumFactory`.
    num_selected: See `KrumFactory`.
    neighbors: See `KrumFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `KrumFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `KrumFactory`, and if `weighted` is not a bool.
    ValueError: See `KrumFactory`.
  """
  return ignored_weights.accept_weights(
      KrumFactory(
          num_byzantine, num_selected=num_selected, neighbors=neighbors
      ),
      weighted,
  )
