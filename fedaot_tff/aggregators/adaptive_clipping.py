"""Adaptive robust clipping (ARC) before another aggregator."""

import collections
from typing import NamedTuple, Union

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import median_norm_bounding


class AdaptiveBound(NamedTuple):
  """The clipping norm that ARC chooses.

  Attributes:
    norm: A scalar float32, zero for an empty cohort.
    cohort_too_small: A scalar bool, see `adaptive_clipping_factory`.
  """

  norm: tf.Tensor
  cohort_too_small: tf.Tensor


def adaptive_bound(
    norms: tf.Tensor, num_byzantine: tf.Tensor
) -> AdaptiveBound:
  """Chooses the norm that the largest norms are clipped to.

  See `adaptive_clipping_factory` for the formula, its source and the special
  cases.

  Args:
    norms: A `[N]` float32 tensor, zero for updates that are not finite.
    num_byzantine: A scalar int32, f.

  Returns:
    An `AdaptiveBound`.
  """
  num_clients = tf.size(norms, tf.int64)
  num_byzantine = tf.cast(num_byzantine, tf.int64)
  cohort_too_small = 2 * num_byzantine >= num_clients
  most = tf.maximum((num_clients - 1) // 2, 0)
  num_byzantine = tf.minimum(num_byzantine, most)
  num_clipped = (
      2
      * num_byzantine
      * (num_clients - num_byzantine)
      // tf.maximum(num_clients, 1)
  )
  # The zero stands for the norm that an empty cohort lacks.
  descending = tf.concat([tf.sort(norms, direction='DESCENDING'), [0.0]], 0)
  return AdaptiveBound(descending[num_clipped], cohort_too_small)


def adaptive_clipping_factory(
    inner: tff.aggregators.AggregationFactory,
    num_byzantine: Union[int, float],
) -> tff.aggregators.AggregationFactory:
  """Creates a factory that clips the largest updates to the next largest norm.

  With n updates x_i of which f may be Byzantine, the

    k = floor(2 (f / n) (n - f))

  updates of the largest norms are scaled down to the (k + 1)-th largest norm
  before the inner factory aggregates them (adaptive robust clipping, ARC;
  Allouah, Guerraoui, Gupta, Jellouli, Rizk and Stephan, "Adaptive Gradient
  Clipping for Robust Federated Learning", ICLR 2025, arXiv:2405.14432). The
  threshold follows this round's cohort; nothing is clipped for f = 0.

  Breakdown point: that of the inner factory, which must withstand f Byzantine
  updates itself; f < n / 2. As k >= f, no norm is left above the largest
  honest one.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more
      become zero. They count in n, with the norm zero: they are among the f.
      Their weights, as those of clipped updates, are left as they are.
    * If 2 f >= n, the largest f with 2 f < n takes its place, zero for an empty
      cohort; the measurement `cohort_too_small` tells.

  The wrapper commutes with permutations of clients, scaling and rotation, but
  not with translation: norms are distances from zero.

  Cost with N clients and d coordinates on top of the inner factory: time
  O(N d + N log N), two passes over the updates. One number a client is
  gathered; the clipped updates take `4 * N * d` bytes for float32 as far as the
  executor holds them all at once.

  The process has the state and the result of the inner one, and the
  measurements
    * `inner`: those of the inner process;
    * `clipping_norm`, float32: the (k + 1)-th largest norm;
    * `num_clipped`, int32: the number of updates with a larger norm, k unless
      norms are equal;
    * `num_non_finite`, int32: the number of updates that became zero;
    * `num_byzantine`, int32: f of this round;
    * `cohort_too_small`, bool: see above.

  Args:
    inner: The factory to wrap, weighted or unweighted. Its `create` is given
      the type of an update, which must be a structure of floats.
    num_byzantine: f, how many Byzantine clients to withstand: an int >= 0, or
      a float in [0, 1), the fraction of each round's cohort, rounded down.

  Returns:
    A factory, weighted if `inner` is.

  Raises:
    TypeError: If `inner` is not an aggregation factory or `num_byzantine` not a
      number.
    ValueError: If `num_byzantine` is out of its range.
  """
  num_byzantine = byzantine_bound.check_num_byzantine(num_byzantine)

  def bound_fn(norms, is_finite):
    del is_finite  # Norms are zero where it is False.
    resolved = byzantine_bound.resolve_num_byzantine(
        num_byzantine, tf.size(norms)
    )
    bound = adaptive_bound(norms, resolved)
    return bound.norm, collections.OrderedDict(
        num_byzantine=resolved, cohort_too_small=bound.cohort_too_small
    )

  return median_norm_bounding.create_norm_bounding_factory(inner, bound_fn)
