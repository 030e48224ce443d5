"""Clipping updates to the cohort's median norm before another aggregator."""

import collections
from typing import Any, Callable, Dict, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import row_gather

# Takes norms `[N]` float32, zero for updates that are not finite, and finite
# `[N]` bool, and returns a bound, a scalar float32 of at least 0, and an
# `OrderedDict` of measurements of its own.
BoundFn = Callable[[tf.Tensor, tf.Tensor], Tuple[tf.Tensor, Dict[str, Any]]]


def finite_norm(value: Any) -> Tuple[tf.Tensor, tf.Tensor]:
  """Computes the Euclidean norm of an update taken as one vector.

  Args:
    value: A tensor or a nested structure of float tensors.

  Returns:
    A pair of the norm, a scalar float32 that is zero if the update is not
    finite, and whether it is, a scalar bool; see
    `flat_updates.is_finite_update`.
  """
  flat = flat_updates.flatten(value)
  is_finite = flat_updates.is_finite_update(flat)
  return tf.where(is_finite, tf.norm(flat), 0.0), is_finite


def clip_update(value: Any, bound: tf.Tensor) -> Any:
  """Scales an update down to a norm.

  Args:
    value: A tensor or a nested structure of float tensors.
    bound: A scalar float32 of at least 0.

  Returns:
    A structure like `value`: equal to it bit for bit if its norm is no larger
    than the bound, scaled to that norm if it is, zero if it is not finite.
  """
  norm, is_finite = finite_norm(value)
  scale = tf.where(norm > bound, tf.math.divide_no_nan(bound, norm), 1.0)

  def clip_tensor(tensor):
    # Half precision cannot hold a small scale.
    dtype = tf.float64 if tensor.dtype == tf.float64 else tf.float32
    product = tf.cast(tensor, dtype) * tf.cast(scale, dtype)
    # A product with zero would keep NaN and infinity.
    return tf.cast(tf.where(is_finite, product, 0.0), tensor.dtype)

  return tf.nest.map_structure(clip_tensor, value)


class _NormBounding:
  """The computations of a wrapper for one type of update."""

  def __init__(
      self,
      process: tff.templates.AggregationProcess,
      value_type: tff.Type,
      bound_fn: BoundFn,
  ):
    self._process = process

    @tff.tensorflow.computation(value_type)
    def measure_norm(value):
      norm, is_finite = finite_norm(value)
      return collections.OrderedDict(norm=norm, is_finite=is_finite)

    @tff.tensorflow.computation(
        collections.OrderedDict(
            norm=tff.TensorType(np.float32, [None]),
            is_finite=tff.TensorType(np.bool_, [None]),
        )
    )
    def find_bound(table):
      norms, is_finite = table['norm'], table['is_finite']
      bound, measurements = bound_fn(norms, is_finite)
      return bound, collections.OrderedDict(
          clipping_norm=bound,
          num_clipped=tf.reduce_sum(tf.cast(norms > bound, tf.int32)),
          num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
          **measurements,
      )

    @tff.tensorflow.computation(value_type, np.float32)
    def clip(value, bound):
      return clip_update(value, bound)

    @tff.tensorflow.computation(
        process.next.type_signature.result.measurements.member,
        find_bound.type_signature.result[1],
    )
    def join_measurements(inner, measurements):
      return collections.OrderedDict(inner=inner, **measurements)

    self._measure_norm = measure_norm
    self._find_bound = find_bound
    self._clip = clip
    self._join_measurements = join_measurements

  def next(self, state, value, *weight):
    """Clips, then runs the inner process; for use in a computation."""
    table = row_gather.federated_gather(
        tff.federated_map(self._measure_norm, value)
    )
    bound, measurements = tff.federated_map(self._find_bound, table)
    clipped = tff.federated_map(
        self._clip, (value, tff.federated_broadcast(bound))
    )
    output = self._process.next(state, clipped, *weight)
    return tff.templates.MeasuredProcessOutput(
        output.state,
        output.result,
        tff.federated_map(
            self._join_measurements, (output.measurements, measurements)
        ),
    )


class _UnweightedFactory(tff.aggregators.UnweightedAggregationFactory):
  """Bounds norms before an unweighted inner factory."""

  def __init__(
      self,
      inner: tff.aggregators.UnweightedAggregationFactory,
      bound_fn: BoundFn,
  ):
    self._inner = inner
    self._bound_fn = bound_fn

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Creates the process; see `create_norm_bounding_factory`."""
    flat_updates.check_float_value_type(value_type)
    process = self._inner.create(value_type)
    bounding = _NormBounding(process, value_type, self._bound_fn)

    @tff.federated_computation(
        process.state_type, tff.FederatedType(value_type, tff.CLIENTS)
    )
    def next_fn(state, value):
      return bounding.next(state, value)

    return tff.templates.AggregationProcess(process.initialize, next_fn)


class _WeightedFactory(tff.aggregators.WeightedAggregationFactory):
  """Bounds norms before a weighted inner factory."""

  def __init__(
      self, inner: tff.aggregators.WeightedAggregationFactory, bound_fn: BoundFn
  ):
    self._inner = inner
    self._bound_fn = bound_fn

  def create(
      self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Creates the process; see `create_norm_bounding_factory`."""
    flat_updates.check_float_value_type(value_type)
    process = self._inner.create(value_type, weight_type)
    bounding = _NormBounding(process, value_type, self._bound_fn)

    @tff.federated_computation(
        process.state_type,
        tff.FederatedType(value_type, tff.CLIENTS),
        tff.FederatedType(weight_type, tff.CLIENTS),
    )
    def next_fn(state, value, weight):
      return bounding.next(state, value, weight)

    return tff.templates.AggregationProcess(process.initialize, next_fn)


def create_norm_bounding_factory(
    inner: tff.aggregators.AggregationFactory, bound_fn: BoundFn
) -> tff.aggregators.AggregationFactory:
  """Wraps a factory so that it sees clipped, finite updates.

  Norms alone are gathered. The updates are clipped where they are, to the bound
  that `bound_fn` finds at the server; those that are not finite become zero.
  A weighted inner factory is given the weights as they are, also for updates
  that became zero.

  The process has the state and the result of the inner one, and the
  measurements
    * `inner`: those of the inner process;
    * `clipping_norm`, float32: the bound;
    * `num_clipped`, int32: the number of updates whose norm was above it;
    * `num_non_finite`, int32: the number of updates that became zero;
    * those of `bound_fn`.

  Args:
    inner: The factory to wrap.
    bound_fn: See `BoundFn`.

  Returns:
    A factory, weighted if `inner` is.

  Raises:
    TypeError: If `inner` is not an aggregation factory.
  """
  if isinstance(inner, tff.aggregators.WeightedAggregationFactory):
    return _WeightedFactory(inner, bound_fn)
  if isinstance(inner, tff.aggregators.UnweightedAggregationFactory):
    return _UnweightedFactory(inner, bound_fn)
  raise TypeError(
      'Expected `inner` to be a tff.aggregators aggregation factory, found '
      f'{inner!r}.'
  )


def _median_bound(norms, is_finite):
  return flat_updates.median_norm(norms, is_finite), collections.OrderedDict()


def median_norm_bounding_factory(
    inner: tff.aggregators.AggregationFactory,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory that clips updates to the cohort's median norm.

  With M the median of the norms of the finite updates (the midpoint of the two
  middle ones for an even number), the inner factory aggregates

    x_i min(1, M / ||x_i||)

  in place of the updates x_i: norm bounding (Sun, Kairouz, Suresh and McMahan,
  "Can You Really Backdoor Federated Learning?", 2019, arXiv:1911.07963) with a
  threshold that needs no tuning. It follows this round's cohort at once, where
  `tff.aggregators.clipping_factory` with a quantile estimate follows past ones.

  Breakdown point: as long as fewer than half of the finite updates are
  Byzantine, M is at most the largest honest norm and at least the smallest. A
  bounded norm alone does not withstand attacks on the direction; that is left
  to the inner factory. Half of the honest updates are clipped as well, so that
  a mean becomes biased toward the direction of the shorter ones.

  Special cases: updates with a NaN, an infinity or an entry of magnitude 1e15
  or more become zero and have no say in M; if there is no other one, the inner
  factory sees zeros only. Their weights, as those of clipped updates, are left
  as they are.

  The wrapper commutes with permutations of clients, scaling and rotation, but
  not with translation: norms are distances from zero.

  Cost with N clients and d coordinates on top of the inner factory: time
  O(N d + N log N), two passes over the updates. One number a client is
  gathered; the clipped updates take `4 * N * d` bytes for float32 as far as the
  executor holds them all at once.

  The process has the state and the result of the inner one, and the
  measurements
    * `inner`: those of the inner process;
    * `clipping_norm`, float32: M;
    * `num_clipped`, int32: the number of updates with a larger norm;
    * `num_non_finite`, int32: the number of updates that became zero.

  Args:
    inner: The factory to wrap, weighted or unweighted. Its `create` is given
      the type of an update, which must be a structure of floats.

  Returns:
    A factory, weighted if `inner` is.

  Raises:
    TypeError: If `inner` is not an aggregation factory.
  """
  return create_norm_bounding_factory(inner, _median_bound)
