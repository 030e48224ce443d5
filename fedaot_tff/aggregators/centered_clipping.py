"""Centered clipping: clipping differences to the last aggregate."""

import collections
import numbers
from typing import NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import row_gather


class ClippedDifference(NamedTuple):
  """What an update adds to the center.

  Attributes:
    difference: A `[d]` float32 tensor, zero if the update is not finite.
    is_clipped: A scalar bool, whether the difference was scaled down.
    is_finite: A scalar bool, see `flat_updates.is_finite_update`.
  """

  difference: tf.Tensor
  is_clipped: tf.Tensor
  is_finite: tf.Tensor


def clip_difference(
    update: tf.Tensor, center: tf.Tensor, radius: tf.Tensor
) -> ClippedDifference:
  """Scales the difference of an update to the center down to a radius.

  Args:
    update: A `[d]` float32 tensor.
    center: A `[d]` float32 tensor, finite.
    radius: A scalar float32 of at least 0.

  Returns:
    A `ClippedDifference`.
  """
  is_finite = flat_updates.is_finite_update(update)
  difference = tf.where(is_finite, update - center, 0.0)
  distance = tf.norm(difference)
  is_clipped = distance > radius
  scale = tf.where(is_clipped, tf.math.divide_no_nan(radius, distance), 1.0)
  return ClippedDifference(scale * difference, is_clipped, is_finite)


class CenteredClippingFactory(tff.aggregators.UnweightedAggregationFactory):
  """Aggregation factory for centered clipping.

  With n updates x_i and the center v, which is the aggregate of the round
  before and zero in the first round, each of L iterations does

    v <- v + 1 / n sum_i (x_i - v) min(1, tau / ||x_i - v||),

  and the last v is the aggregate (Karimireddy, He and Jaggi, "Learning from
  History for Byzantine Robust Optimization", ICML 2021, arXiv:2012.10333).

  The radius tau is the paper's to tune; it should be about as large as honest
  updates are far from their mean. By default it is set anew in each iteration
  to the median of the distances ||x_i - v|| of the finite updates: no larger
  than the largest honest one as long as fewer than half of the updates are
  Byzantine. This is a choice of this package and not in the paper; give a
  number for the rule as published.

  Breakdown point: f Byzantine updates move v by at most f / n times tau in an
  iteration, whatever they are. The paper's guarantee asks for a small fraction
  of them, for a tau that fits the honest updates, and for clients that average
  their gradients over rounds by momentum.

  Special cases: updates with a NaN, an infinity or an entry of magnitude 1e15
  or more add a zero difference and count in n. Without any other one, or
  without clients, the aggregate is the center, so that a lost round repeats the
  aggregate of the round before.

  The rule commutes with permutations of clients and with rotation. With scaling
  it does only for the default radius, with translation only from one center to
  another: the first one is zero.

  Cost with N clients and d coordinates: time O(L N d), in L passes over the
  updates (2 L with the default radius, of which L gather one number a client);
  no updates are gathered. Memory `4 * d` bytes for the center, once at the
  server and once a client while it is broadcast, and `4 * d` bytes for each
  partial sum that the executor keeps, at most N of them. Updates are taken in
  float32.

  The state is an OrderedDict of `center`, float32 `[d]` in the order of
  `flat_updates.flatten`. The measurements, which tell of the last iteration,
  are
    * `clipping_radius`, float32: tau;
    * `num_clipped`, int32: the number of updates farther from the center;
    * `num_non_finite`, int32: the number of updates left out.
  """

  def __init__(
      self,
      clipping_radius: Optional[float] = None,
      *,
      num_iterations: int = 1,
  ):
    """Initializes `CenteredClippingFactory`.

    Args:
      clipping_radius: tau, a positive finite number; None (default) for the
        median distance.
      num_iterations: L, at least 1. Each is a federated pass of its own, and
        takes its time to compile: keep it small. 1 (default) relies on the
        center of the round before as a good start.

    Raises:
      TypeError: If `clipping_radius` is not a number or `num_iterations` not an
        int.
      ValueError: If an argument is out of its range.
    """
    if clipping_radius is not None:
      if isinstance(clipping_radius, bool) or not isinstance(
          clipping_radius, numbers.Real
      ):
        raise TypeError(
            'Expected `clipping_radius` to be a number or None, found '
            f'{clipping_radius!r}.'
        )
      # Compared as float32, in which it is used.
      if not 0.0 < np.float32(clipping_radius) < np.inf:
        raise ValueError(
            'Expected `clipping_radius` to be positive and finite in float32, '
            f'found {clipping_radius!r}; use None for the median distance.'
        )
      clipping_radius = float(clipping_radius)
    if isinstance(num_iterations, bool) or not isinstance(
        num_iterations, numbers.Integral
    ):
      raise TypeError(
          f'Expected `num_iterations` to be an int, found {num_iterations!r}.'
      )
    if num_iterations < 1:
      raise ValueError(
          'Expected `num_iterations` to be 1 or more, found '
          f'{num_iterations!r}.'
      )
    self._clipping_radius = clipping_radius
    self._num_iterations = int(num_iterations)

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Creates the process.

    Args:
      value_type: The unplaced type of an update: a tensor or a structure of
        tensors of static shape and dtype float16, bfloat16, float32 or float64.

    Returns:
      A `tff.templates.AggregationProcess`.

    Raises:
      TypeError: If `value_type` is not as described.
    """
    flat_updates.check_float_value_type(value_type)
    specs = tff.types.type_to_tf_tensor_specs(value_type)
    dimension = flat_updates.num_coordinates(value_type)
    center_type = tff.TensorType(np.float32, [dimension])
    move_center = _create_move_center(value_type, center_type)
    find_radius = self._create_find_radius(value_type, center_type)

    @tff.tensorflow.computation
    def initial_state():
      return collections.OrderedDict(center=tf.zeros([dimension]))

    @tff.tensorflow.computation(initial_state.type_signature.result)
    def get_center(state):
      return state['center']

    @tff.tensorflow.computation(center_type)
    def finish(center):
      return collections.OrderedDict(center=center), flat_updates.unflatten(
          center, specs
      )

    @tff.federated_computation
    def initialize():
      return tff.federated_eval(initial_state, tff.SERVER)

    @tff.federated_computation(
        initialize.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
    )
    def next_fn(state, value):
      center = tff.federated_map(get_center, state)
      for _ in range(self._num_iterations):
        client_center = tff.federated_broadcast(center)
        radius = find_radius(value, client_center)
        center, measurements = move_center(value, center, client_center, radius)
      new_state, result = tff.federated_map(finish, center)
      return tff.templates.MeasuredProcessOutput(
          new_state, result, measurements
      )

    return tff.templates.AggregationProcess(initialize, next_fn)

  def _create_find_radius(self, value_type, center_type):
    """Creates a function from values and center at clients to the radius."""
    if self._clipping_radius is not None:
      return lambda value, center: tff.federated_value(
          np.float32(self._clipping_radius), tff.SERVER
      )

    @tff.tensorflow.computation(value_type, center_type)
    def measure_distance(value, center):
      flat = flat_updates.flatten(value)
      return collections.OrderedDict(
          distance=tf.norm(flat - center),
          is_finite=flat_updates.is_finite_update(flat),
      )

    @tff.tensorflow.computation(
        collections.OrderedDict(
            distance=tff.TensorType(np.float32, [None]),
            is_finite=tff.TensorType(np.bool_, [None]),
        )
    )
    def median_distance(table):
      return flat_updates.median_norm(
          table['distance'], table['is_finite']
      )

    return lambda value, center: tff.federated_map(
        median_distance,
        row_gather.federated_gather(
            tff.federated_map(measure_distance, (value, center))
        ),
    )


def _create_move_center(value_type, center_type):
  """Creates a function that runs one iteration.

  Args:
    value_type: The unplaced type of an update.
    center_type: The unplaced type of the center.

  Returns:
    A function of the updates at the clients, the center at the server, the same
    at the clients and the radius at the server, to be called inside of a
    federated computation. It returns the new center and the measurements.
  """

  @tff.tensorflow.computation
  def zero():
    return collections.OrderedDict(
        difference=tf.zeros(center_type.shape),
        num_clients=tf.constant(0),
        num_clipped=tf.constant(0),
        num_non_finite=tf.constant(0),
    )

  total_type = zero.type_signature.result

  @tff.tensorflow.computation(
      total_type, tff.to_type((value_type, center_type, np.float32))
  )
  def accumulate(total, client):
    value, center, radius = client
    clipped = clip_difference(flat_updates.flatten(value), center, radius)
    return collections.OrderedDict(
        difference=total['difference'] + clipped.difference,
        num_clients=total['num_clients'] + 1,
        num_clipped=total['num_clipped']
        + tf.cast(clipped.is_clipped, tf.int32),
        num_non_finite=total['num_non_finite']
        + tf.cast(~clipped.is_finite, tf.int32),
    )

  @tff.tensorflow.computation(total_type, total_type)
  def merge(a, b):
    return tf.nest.map_structure(tf.add, a, b)

  @tff.tensorflow.computation(total_type)
  def report(total):
    return total

  @tff.tensorflow.computation(center_type, total_type, np.float32)
  def move(center, total, radius):
    new_center = center + tf.math.divide_no_nan(
        total['difference'], tf.cast(total['num_clients'], tf.float32)
    )
    return new_center, collections.OrderedDict(
        clipping_radius=radius,
        num_clipped=total['num_clipped'],
        num_non_finite=total['num_non_finite'],
    )

  def move_center(value, center, client_center, radius):
    total = tff.federated_aggregate(
        tff.federated_zip(
            (value, client_center, tff.federated_broadcast(radius))
        ),
        zero(),
        accumulate,
        merge,
        report,
    )
    return tff.federated_map(move, (center, total, radius))

  return move_center


def centered_clipping_factory(
    clipping_radius: Optional[float] = None,
    *,
    num_iterations: int = 1,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for centered clipping.

  Args:
    clipping_radius: See `CenteredClippingFactory`.
    num_iterations: See `CenteredClippingFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `CenteredClippingFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `CenteredClippingFactory`, and if `weighted` is not a bool.
    ValueError: See `CenteredClippingFactory`.
  """
  return ignored_weights.accept_weights(
      CenteredClippingFactory(
          clipping_radius, num_iterations=num_iterations
      ),
      weighted,
  )
