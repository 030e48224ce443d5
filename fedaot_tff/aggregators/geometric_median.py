"""Geometric median of client updates (RFA)."""

import collections
import math
import numbers
from typing import Any, Dict, NamedTuple, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import krum

# Half the distance of 1 to the next float32.
_FLOAT32_RESOLUTION = 2.0**-24

# Its inverse and its square stay normal float64 numbers.
_TINY_DISTANCE = 1e-150


class GeometricMedianResult(NamedTuple):
  """The geometric median of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the weighted sum of the updates.
    weights: A `[N]` float32 tensor of nonnegative weights with sum 1, zero for
      updates that are not finite.
    num_iterations: A scalar int32, the number of Weiszfeld steps.
    converged: A scalar bool, see `GeometricMedianFactory`.
  """

  update: tf.Tensor
  weights: tf.Tensor
  num_iterations: tf.Tensor
  converged: tf.Tensor


def _typical_distance_and_norm(products, is_finite):
  """Finds the scale of the updates that the majority agrees on.

  Args:
    products: A `[N, N]` float64 tensor, the inner products of the updates.
    is_finite: A `[N]` bool tensor, not all of it False.

  Returns:
    The smallest among the updates' median distances to all finite updates, at
    most the diameter of any majority; and the norm of the update that has it.
  """
  squared_norms = tf.linalg.diag_part(products)
  squared_distances = (
      squared_norms[:, tf.newaxis] + squared_norms - 2.0 * products
  )
  both_finite = is_finite[:, tf.newaxis] & is_finite
  sorted_distances = tf.sort(tf.where(both_finite, squared_distances, math.inf))
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  medians = sorted_distances[:, num_finite // 2]
  center = tf.argmin(medians)
  return (
      tf.sqrt(tf.maximum(medians[center], 0.0)),
      tf.sqrt(squared_norms[center]),
  )


def weiszfeld_weights(
    products: tf.Tensor,
    is_finite: tf.Tensor,
    *,
    smoothing: float,
    tolerance: float,
    max_iterations: int,
) -> Tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
  """Iterates the weights of the geometric median to convergence.

  The iterates are weighted means of the updates, so that their distances to the
  updates follow from the inner products:

    ||x_i - sum_j w_j x_j||^2 = P_ii - 2 (P w)_i + w^T P w.

  Args:
    products: A `[N, N]` float64 tensor P, the inner products of the updates,
      zero where one of two updates is not finite.
    is_finite: A `[N]` bool tensor; the other updates have weight zero.
    smoothing: See `GeometricMedianFactory`.
    tolerance: See `GeometricMedianFactory`.
    max_iterations: See `GeometricMedianFactory`.

  Returns:
    A tuple of the weights, `[N]` float64, the number of iterations, int32, and
    whether they converged, bool.
  """
  finite = tf.cast(is_finite, tf.float64)
  squared_norms = tf.linalg.diag_part(products)

  def iterate():
    distance, norm = _typical_distance_and_norm(products, is_finite)
    resolution = _FLOAT32_RESOLUTION * norm
    smallest_distance = tf.maximum(
        tf.maximum(smoothing * distance, resolution), _TINY_DISTANCE
    )
    # Neither the objective nor the distances to far updates tell when to stop:
    # next to a client at 1e15 all else is within their tolerance at once.
    smallest_step = tf.maximum(tolerance * distance, resolution)

    def step(weights, last_step, num_iterations):
      del last_step
      mean_products = tf.linalg.matvec(products, weights)
      # No square of a far update appears but times the square of its weight, so
      # that what is small near the median does not cancel.
      squared_distances = (
          squared_norms
          - 2.0 * mean_products
          + tf.tensordot(weights, mean_products, 1)
      )
      distances = tf.sqrt(tf.maximum(squared_distances, 0.0))
      inverses = finite / tf.maximum(distances, smallest_distance)
      new_weights = inverses / tf.reduce_sum(inverses)
      change = new_weights - weights
      squared_step = tf.tensordot(change, tf.linalg.matvec(products, change), 1)
      return (
          new_weights,
          tf.sqrt(tf.maximum(squared_step, 0.0)),
          num_iterations + 1,
      )

    weights, last_step, num_iterations = tf.while_loop(
        lambda weights, last_step, num_iterations: last_step > smallest_step,
        step,
        (
            finite / tf.reduce_sum(finite),
            tf.constant(math.inf, tf.float64),
            tf.constant(0),
        ),
        parallel_iterations=1,
        maximum_iterations=max_iterations,
    )
    return weights, num_iterations, last_step <= smallest_step

  return tf.cond(
      tf.reduce_any(is_finite),
      iterate,
      lambda: (finite, tf.constant(0), tf.constant(True)),
  )


def geometric_median(
    updates: tf.Tensor,
    is_finite: tf.Tensor,
    *,
    smoothing: float = 1e-6,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
) -> GeometricMedianResult:
  """Computes the point of the smallest sum of distances to the updates.

  See `GeometricMedianFactory` for the formula, its source and the special
  cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are left out, whatever they
      hold.
    smoothing: See `GeometricMedianFactory`.
    tolerance: See `GeometricMedianFactory`.
    max_iterations: See `GeometricMedianFactory`.

  Returns:
    A `GeometricMedianResult`.
  """
  both_finite = is_finite[:, tf.newaxis] & is_finite
  weights, num_iterations, converged = weiszfeld_weights(
      tf.where(both_finite, krum.inner_products(updates), 0.0),
      is_finite,
      smoothing=smoothing,
      tolerance=tolerance,
      max_iterations=max_iterations,
  )
  weights = tf.cast(weights, tf.float32)
  update = tf.foldl(
      lambda total, row: total + weights[row] * updates[row],
      tf.where(is_finite)[:, 0],
      initializer=tf.zeros([updates.shape[1]]),
      parallel_iterations=1,
  )
  return GeometricMedianResult(update, weights, num_iterations, converged)


class GeometricMedianFactory(flat_updates.GatheringFactory):
  """Aggregation factory for the geometric median.

  The geometric median of n updates x_i is the point v of the smallest

    g(v) = sum_i ||x_i - v||.

  It is found by the smoothed Weiszfeld algorithm, which starts at the mean and
  repeats

    w_i = 1 / max(nu, ||x_i - v||),   v = sum_i w_i x_i / sum_i w_i

  (Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning",
  IEEE Transactions on Signal Processing, 2022, arXiv:1912.13445, there called
  RFA), until v moves by less than a tolerance. An early stop would undo the
  robustness: far from the honest clients, each step shortens the way by no more
  than the ratio of Byzantine to honest clients.

  The paper's nu is a length; here it is a multiple of the typical distance,
  the smallest among the updates' median distances to all updates, lest updates
  of a small scale be averaged. The typical distance is at most the diameter of
  the honest updates as long as these are a majority. Neither nu nor the
  tolerance is less than float32's resolution, 6e-8, of a typical update.

  Breakdown point: 1/2. With f < n / 2 Byzantine updates, the squared distance
  to the mean of the honest ones is at most 4 (1 + f / (n - 2 f))^2 times their
  variance (Allouah, Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, "Fixing
  by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS
  2023).

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      left out; if none remains, the result is zero.
    * Of two updates, and whenever more than one point is a minimum, the result
      is the one that the iterations reach from the mean.
    * If `max_iterations` steps do not suffice, the last iterate is the result;
      the measurement `converged` tells.

  Cost with N clients and d coordinates: time O(N^2 d) at the server for inner
  products, and O(N^2) for each iteration, as the iterates are known by their
  weights: each update is gathered, and read, once for all iterations. Memory
  `4 * N * d` bytes for the table of updates, about four times that while it is
  gathered, and `40 * N^2` bytes for inner products and distances. Updates are
  taken in float32, inner products in float64.

  The process has an empty state, and the measurements
    * `weights`, float32 `[N]`: the weights whose weighted sum of updates is the
      result, in the order in which they were gathered;
    * `num_iterations`, int32: the number of iterations;
    * `converged`, bool: whether the last one moved by less than the tolerance;
    * `num_non_finite`, int32: the number of updates left out.
  """

  def __init__(
      self,
      *,
      smoothing: float = 1e-6,
      tolerance: float = 1e-6,
      max_iterations: int = 1000,
  ):
    """Initializes `GeometricMedianFactory`.

    Args:
      smoothing: nu as a multiple of the typical distance, in [0, 1).
      tolerance: Iterations end when one moves the result by no more than this
        multiple of the typical distance; in [0, 1).
      max_iterations: The largest number of iterations, at least 1. The default
        suffices for 45 Byzantine clients of 100 at any distance.

    Raises:
      TypeError: If `smoothing` or `tolerance` is not a number or
        `max_iterations` not an int.
      ValueError: If an argument is out of its range.
    """
    for name, value in (('smoothing', smoothing), ('tolerance', tolerance)):
      if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f'Expected `{name}` to be a number, found {value!r}.')
      if not 0.0 <= value < 1.0:
        raise ValueError(
            f'Expected `{name}`, a multiple of the typical distance, to be at '
            f'least 0 and below 1, found {value!r}.'
        )
    if isinstance(max_iterations, bool) or not isinstance(
        max_iterations, numbers.Integral
    ):
      raise TypeError(
          f'Expected `max_iterations` to be an int, found {max_iterations!r}.'
      )
    if max_iterations < 1:
      raise ValueError(
          'Expected `max_iterations` to be 1 or more, found '
          f'{max_iterations!r}.'
      )
    self._smoothing = float(smoothing)
    self._tolerance = float(tolerance)
    self._max_iterations = int(max_iterations)

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Takes the median; see `flat_updates.GatheringFactory.rule`."""
    result = geometric_median(
        updates,
        is_finite,
        smoothing=self._smoothing,
        tolerance=self._tolerance,
        max_iterations=self._max_iterations,
    )
    return result.update, collections.OrderedDict(
        weights=result.weights,
        num_iterations=result.num_iterations,
        converged=result.converged,
        num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
    )


def geometric_median_factory(
    *,
    smoothing: float = 1e-6,
    tolerance: float = 1e-6,
    max_iterations: int = 1000,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for the geometric median.

  Args:
    smoothing: See `GeometricMedianFactory`.
    tolerance: See `GeometricMedianFactory`.
    max_iterations: See `GeometricMedianFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `GeometricMedianFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `GeometricMedianFactory`, and if `weighted` is not a bool.
    ValueError: See `GeometricMedianFactory`.
  """
  return ignored_weights.accept_weights(
      GeometricMedianFactory(
          smoothing=smoothing,
          tolerance=tolerance,
          max_iterations=max_iterations,
      ),
      weighted,
  )
