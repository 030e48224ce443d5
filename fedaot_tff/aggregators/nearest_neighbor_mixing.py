"""Nearest neighbor mixing: a wrapper that averages each update's neighbors."""

import collections
import secrets
from typing import Any, Dict, NamedTuple, Tuple, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import krum
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import summaries


class NearestNeighbors(NamedTuple):
  """The neighbors that nearest neighbor mixing averages.

  Attributes:
    is_near: A `[N, N]` float32 tensor: 1 in row i and column j if update j is
      one of the n - f nearest to update i, else 0. The row of an update that is
      not finite is zero.
    cohort_too_small: A scalar bool, see `nearest_neighbor_mixing_factory`.
  """

  is_near: tf.Tensor
  cohort_too_small: tf.Tensor


def nearest_neighbors(
    updates: tf.Tensor, is_finite: tf.Tensor, num_byzantine: tf.Tensor
) -> NearestNeighbors:
  """Finds the n - f nearest neighbors of each update, itself included.

  Of two updates at the same distance the earlier row is the nearer one.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows have no neighbors and are
      nobody's neighbors, whatever they hold. n counts the finite ones.
    num_byzantine: A scalar int32, f.

  Returns:
    A `NearestNeighbors`.
  """
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  num_near = tf.maximum(num_finite - num_byzantine, 1)
  distances = krum.squared_distances(updates, is_finite)
  # What is not finite is infinitely far and comes last.
  order = tf.argsort(distances, axis=1, stable=True)
  ranks = tf.argsort(order, axis=1)
  is_near = (ranks < num_near) & is_finite[:, tf.newaxis]
  return NearestNeighbors(
      tf.cast(is_near, tf.float32), 2 * num_byzantine >= num_finite
  )


def nearest_neighbor_mixing(
    updates: tf.Tensor, is_finite: tf.Tensor, num_byzantine: tf.Tensor
) -> tf.Tensor:
  """Replaces each update with the mean of its n - f nearest neighbors.

  See `nearest_neighbor_mixing_factory` for the source.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: See `nearest_neighbors`.
    num_byzantine: A scalar int32, f.

  Returns:
    A `[N, d]` float32 tensor; rows that were not finite are zero.
  """
  neighbors = nearest_neighbors(updates, is_finite, num_byzantine)
  return flat_updates.means_of_rows(updates, is_finite, neighbors.is_near)


def nearest_neighbor_mixing_factory(
    inner: tff.aggregators.AggregationFactory,
    num_byzantine: Union[int, float],
    *,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory that mixes updates before another one aggregates them.

  With n updates x_i of which f may be Byzantine, nearest neighbor mixing (NNM)
  hands

    y_i = 1 / (n - f) sum over j in N(i) of x_j

  to the inner rule in place of x_i, N(i) the n - f updates nearest to x_i in
  Euclidean distance, itself included. (Allouah, Farhadkhani, Guerraoui, Gupta,
  Pinot and Stephan, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under
  Heterogeneity", AISTATS 2023, arXiv:2302.01772.) Of two updates at the same
  distance the one gathered first is the nearer one.

  Breakdown point: that of the inner rule, f < n / 2 at most. Around a rule that
  is (f, kappa)-robust the result is (f, 8 f / (n - f) (kappa + 1))-robust. The
  inner rule gets f itself: mixing does not tell it.

  An inner `flat_updates.GatheringFactory` (the rules of this package that need
  the table of all updates) is applied to the mixed table itself. Any other
  inner factory, weighted or with a state, needs values at clients: the mixed
  table is broadcast, and each client takes its own row, which it finds by a
  fingerprint of its update.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      nobody's neighbors; n counts the other ones. An inner rule on tables
      leaves them out. Any other inner factory would count them, so it gets the
      mean of all mixed updates in their place, zero if there are none.
    * If 2 f >= n, the measurement `cohort_too_small` tells; the n - f, but at
      least one, nearest are averaged all the same.

  Cost with N clients and d coordinates, besides the inner rule's: time
  O(N^2 d); memory `8 * N * d` bytes for the table and the mixed one, `12 * N *
  d` while mixing and gathering, and about `40 * N^2` bytes for distances.
  Without an inner rule on tables also what the inner factory needs for `4 * N *
  d` bytes of new client updates. Updates are mixed in float32.

  The state is the inner one. The measurements are
    * `weights`, float32 `[N]`, only if the inner rule is on tables and measures
      its weights: those of the updates themselves;
    * `num_byzantine`, int32: f of this round;
    * `num_non_finite`, int32: the number of updates left out;
    * `cohort_too_small`, bool: see above;
    * `inner`: the inner measurements.

  Args:
    inner: The factory for the inner rule, unweighted or weighted.
    num_byzantine: f, how many Byzantine clients to withstand: an int >= 0, or a
      float in [0, 1), the fraction of each round's cohort, rounded down.
    weighted: If True and `inner` is unweighted, the factory is a
      `tff.aggregators.WeightedAggregationFactory` that ignores the weights, for
      processes that weight their clients. Give this option here rather than to
      `inner`, whose table cannot be reached through a weighted factory.

  Returns:
    A `tff.aggregators.WeightedAggregationFactory` if `inner` is one or
    `weighted`, else a `tff.aggregators.UnweightedAggregationFactory`. Weights
    are handed to a weighted `inner` as they are.

  Raises:
    TypeError: If `inner` is not an aggregation factory, `num_byzantine` not a
      number, or `weighted`, where it has an effect, not a bool.
    ValueError: If `num_byzantine` is out of range.
  """
  if isinstance(inner, tff.aggregators.WeightedAggregationFactory):
    return _WeightedBroadcastMixingFactory(inner, num_byzantine)
  if isinstance(inner, flat_updates.GatheringFactory):
    factory = NearestNeighborMixingFactory(inner, num_byzantine)
  elif isinstance(inner, tff.aggregators.UnweightedAggregationFactory):
    factory = _UnweightedBroadcastMixingFactory(inner, num_byzantine)
  else:
    raise TypeError(
        'Expected `inner` to be a tff.aggregators.AggregationFactory, found '
        f'{inner!r}.'
    )
  return ignored_weights.accept_weights(factory, weighted)


class NearestNeighborMixingFactory(flat_updates.GatheringFactory):
  """Nearest neighbor mixing before a rule on tables.

  See `nearest_neighbor_mixing_factory`.
  """

  def __init__(
      self,
      inner: flat_updates.GatheringFactory,
      num_byzantine: Union[int, float],
  ):
    """Initializes `NearestNeighborMixingFactory`.

    Args:
      inner: The factory for the inner rule.
      num_byzantine: See `nearest_neighbor_mixing_factory`.

    Raises:
      TypeError: See `nearest_neighbor_mixing_factory`.
      ValueError: See `nearest_neighbor_mixing_factory`.
    """
    self._inner = inner
    self._num_byzantine = byzantine_bound.check_num_byzantine(num_byzantine)
    self.counts_rounds = inner.counts_rounds

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor, *round_number: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Mixes and aggregates; see `flat_updates.GatheringFactory.rule`."""
    num_byzantine = byzantine_bound.resolve_num_byzantine(
        self._num_byzantine, tf.shape(updates)[0]
    )
    neighbors = nearest_neighbors(updates, is_finite, num_byzantine)
    mixed = flat_updates.means_of_rows(updates, is_finite, neighbors.is_near)
    update, inner = self._inner.rule(mixed, is_finite, *round_number)
    measurements = _measure(is_finite, num_byzantine, neighbors)
    if 'weights' in inner:
      measurements['weights'] = flat_updates.weights_before_means(
          inner['weights'], neighbors.is_near
      )
    return update, collections.OrderedDict(measurements, inner=inner)


class _BroadcastMixing:
  """Nearest neighbor mixing before a process on values at clients."""

  def __init__(
      self,
      inner: tff.aggregators.AggregationFactory,
      num_byzantine: Union[int, float],
  ):
    self._inner = inner
    self._num_byzantine = byzantine_bound.check_num_byzantine(num_byzantine)
    # Clients that knew it could make two updates with one fingerprint.
    self._seed = secrets.randbits(63)

  def _mix(self, value: tff.Value) -> Tuple[tff.Value, tff.Value]:
    """Returns the mixed updates at clients and measurements at the server."""
    value_type = value.type_signature.member
    specs = tff.types.type_to_tf_tensor_specs(value_type)

    @tff.tensorflow.computation(value_type)
    def fingerprint(value):
      return summaries.fingerprint(
          flat_updates.flatten(value), tf.constant([self._seed, 0], tf.int64)
      )

    @tff.tensorflow.computation(value_type, np.int64)
    def to_row(value, own_fingerprint):
      flat = flat_updates.flatten(value)
      return collections.OrderedDict(
          update=flat,
          is_finite=flat_updates.is_finite_update(flat),
          fingerprint=own_fingerprint,
      )

    fingerprints = tff.federated_map(fingerprint, value)
    rows = row_gather.federated_gather(
        tff.federated_map(to_row, tff.federated_zip((value, fingerprints)))
    )

    @tff.tensorflow.computation(rows.type_signature.member)
    def mix_rows(rows):
      updates, is_finite = rows['update'], rows['is_finite']
      num_byzantine = byzantine_bound.resolve_num_byzantine(
          self._num_byzantine, tf.shape(updates)[0]
      )
      neighbors = nearest_neighbors(updates, is_finite, num_byzantine)
      # The last row of the table is the mean of the mixed updates, of which
      # each is a mean of equally many.
      counts = tf.concat(
          [
              neighbors.is_near,
              tf.reduce_sum(neighbors.is_near, axis=0, keepdims=True),
          ],
          axis=0,
      )
      table = collections.OrderedDict(
          mixed=flat_updates.means_of_rows(updates, is_finite, counts),
          is_finite=is_finite,
          fingerprint=rows['fingerprint'],
      )
      return table, _measure(is_finite, num_byzantine, neighbors)

    table, measurements = tff.federated_map(mix_rows, rows)

    @tff.tensorflow.computation(np.int64, table.type_signature.member)
    def take_row(own_fingerprint, table):
      is_own = table['is_finite'] & tf.equal(
          table['fingerprint'], own_fingerprint
      )
      # Equal updates have equal neighbors, so that any of them will do.
      row = tf.cond(
          tf.reduce_any(is_own),
          lambda: tf.argmax(is_own, output_type=tf.int32),
          lambda: tf.shape(is_own)[0],
      )
      return flat_updates.unflatten(table['mixed'][row], specs)

    mixed = tff.federated_map(
        take_row,
        tff.federated_zip((fingerprints, tff.federated_broadcast(table))),
    )
    return mixed, measurements

  def _next(self, inner_process, state, value, *weight):
    """A round, weighted if a weight is given."""
    mixed, measurements = self._mix(value)
    output = inner_process.next(state, mixed, *weight)

    @tff.tensorflow.computation(
        measurements.type_signature.member,
        output.measurements.type_signature.member,
    )
    def add_inner(measurements, inner):
      return collections.OrderedDict(measurements, inner=inner)

    return tff.templates.MeasuredProcessOutput(
        output.state,
        output.result,
        tff.federated_map(
            add_inner, tff.federated_zip((measurements, output.measurements))
        ),
    )


class _UnweightedBroadcastMixingFactory(
    _BroadcastMixing, tff.aggregators.UnweightedAggregationFactory
):
  """Nearest neighbor mixing before an unweighted process."""

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Creates the process; see `nearest_neighbor_mixing_factory`."""
    flat_updates.check_float_value_type(value_type)
    inner_process = self._inner.create(value_type)
    init = inner_process.initialize

    @tff.federated_computation(
        init.type_signature.result, tff.FederatedType(value_type, tff.CLIENTS)
    )
    def next_fn(state, value):
      return self._next(inner_process, state, value)

    return tff.templates.AggregationProcess(init, next_fn)


class _WeightedBroadcastMixingFactory(
    _BroadcastMixing, tff.aggregators.WeightedAggregationFactory
):
  """Nearest neighbor mixing before a weighted process."""

  def create(
      self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Creates the process; see `nearest_neighbor_mixing_factory`."""
    flat_updates.check_float_value_type(value_type)
    inner_process = self._inner.create(value_type, weight_type)
    init = inner_process.initialize

    @tff.federated_computation(
        init.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
        tff.FederatedType(weight_type, tff.CLIENTS),
    )
    def next_fn(state, value, weight):
      return self._next(inner_process, state, value, weight)

    return tff.templates.AggregationProcess(init, next_fn)


def _measure(is_finite, num_byzantine, neighbors):
  return collections.OrderedDict(
      num_byzantine=num_byzantine,
      num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
      cohort_too_small=neighbors.cohort_too_small,
  )
