"""Aggregators that may need the global model, and the process that mirrors it.

An aggregation process sees updates only. A rule that trains on the server's
hold-out or measures its loss needs the model, too; it is a `ModelAwareRound`.
A learning process that composes it hands the model over
(`fedaot_tff.learning.composition`). Elsewhere, in TFF's own builders say, the
process of a `ModelAwareFactory` follows the model in its state.
"""

import abc
import collections
from collections.abc import Mapping
import copy
from typing import Any, Optional, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.aggregators import holdout as holdout_lib

# The entry of an aggregator's state that holds the mirror, and the mirror's.
MIRROR = 'mirror'
MIRROR_ENTRIES = ('weights', 'non_trainable', 'optimizer', 'client_hparams')


class ModelAwareRound(abc.ABC):
  """The computations of a round for one type of update.

  `weigh` and `learn` are called inside of a federated computation, the model's
  update by the aggregate between them.

  Attributes:
    initialize: Unplaced computation of the initial state, an OrderedDict.
    holdout: The hold-out for which `weigh` and `learn` must be given the model,
      None if there is none.
  """

  initialize: tff.Computation
  holdout: Optional[holdout_lib.HoldOut] = None

  @abc.abstractmethod
  def weigh(
      self,
      state: tff.Value,
      value: tff.Value,
      weight: Optional[tff.Value] = None,
      model: Optional[tff.Value] = None,
  ) -> Any:
    """The first half: makes the aggregate.

    Args:
      state: The state, at the server.
      value: The client updates, at the clients.
      weight: The clients' weights, at the clients; None if there are none.
      model: The `holdout_lib.GlobalModel` that the clients started from, at the
        server.

    Returns:
      An object with an attribute `result`, the aggregate at the server.
    """

  @abc.abstractmethod
  def learn(
      self,
      state: tff.Value,
      weighed: Any,
      model_after: Optional[tff.Value] = None,
  ) -> Tuple[tff.Value, tff.Value]:
    """The second half: the new state.

    Args:
      state: The state that `weigh` was given.
      weighed: What `weigh` returned.
      model_after: The `holdout_lib.GlobalModel` after the aggregate was
        applied, at the server.

    Returns:
      A pair of the new state and the measurements, at the server.
    """


class ModelAwareFactory(tff.aggregators.WeightedAggregationFactory):
  """Base class of the factories whose rounds are `ModelAwareRound`s.

  A factory is for values with weights, as the weighted builders of
  `tff.learning.algorithms` have them; `unweighted` is for those without.

  Attributes:
    needs_holdout: Whether there must be a hold-out.
  """

  needs_holdout = True

  def __init__(
      self,
      holdout: Optional[holdout_lib.HoldOut] = None,
      *,
      server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
  ):
    """Initializes the factory.

    Args:
      holdout: The clean examples at the server.
      server_optimizer: The optimizer that the learning process applies the
        aggregate with; of use with a `holdout` only. None (default) is TFF's
        default, SGD with learning rate 1.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If `server_optimizer` is given without a `holdout`.
    """
    if self.needs_holdout or holdout is not None:
      checks.check_kind('holdout', holdout, holdout_lib.HoldOut)
    if server_optimizer is not None:
      checks.check_kind(
          'server_optimizer',
          server_optimizer,
          tff.learning.optimizers.Optimizer,
      )
      if holdout is None:
        raise ValueError(
            'server_optimizer is of use with a holdout only; leave it out.'
        )
    self._holdout = holdout
    self._server_optimizer = (
        server_optimizer
        or tff.learning.optimizers.build_sgdm(learning_rate=1.0)
    )

  @abc.abstractmethod
  def create_round(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> ModelAwareRound:
    """The pieces of a round, for learning processes that hand the model over.

    Args:
      value_type: The type of a client update.
      weight_type: The type of a client's weight, None if there is none.

    Returns:
      A `ModelAwareRound`.
    """

  @property
  def holdout(self) -> Optional[holdout_lib.HoldOut]:
    """The clean examples at the server, None if there are none."""
    return self._holdout

  def for_clients(
      self, optimizer: tff.learning.optimizers.Optimizer
  ) -> 'ModelAwareFactory':
    """This factory for clients that train with `optimizer`."""
    if self._holdout is None:
      return self
    result = copy.copy(self)
    result._holdout = self._holdout.for_clients(optimizer)
    return result

  @property
  def unweighted(self) -> tff.aggregators.UnweightedAggregationFactory:
    """The same rule for values without weights."""
    return UnweightedFactory(self)

  def create(
      self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Creates the process for updates of `value_type`.

    Args:
      value_type: A structure of float tensors of known shapes.
      weight_type: A scalar number, the clients' example counts.

    Returns:
      A weighted `tff.templates.AggregationProcess`; see `create_process` for
      its state.

    Raises:
      TypeError: If a type is of another kind.
      ValueError: If `value_type` does not match the hold-out's model.
    """
    if (
        not isinstance(weight_type, tff.TensorType)
        or weight_type.shape != ()
        or not np.issubdtype(weight_type.dtype, np.number)
        or np.issubdtype(weight_type.dtype, np.complexfloating)
    ):
      raise TypeError(
          f'weight_type must be a scalar real number; found {weight_type!r}.'
      )
    return self.create_process(value_type, weight_type)

  def create_process(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> tff.templates.AggregationProcess:
    """Creates the process, unweighted if `weight_type` is None.

    Its state is the round's. If the round needs the model, a further entry
    `mirror`, an OrderedDict, follows it: `weights`, `non_trainable`, the state
    of the server's `optimizer` and the `client_hparams` of the hold-out's. The
    mirror starts at the hold-out model's initial weights and applies each
    aggregate just as the learning process does, so that mirror and model stay
    equal to the last bit. See `fedaot_tff.synchronize_model` for models that
    start elsewhere, and for settings that change.

    Args:
      value_type: The type of a client update.
      weight_type: The type of a client's weight.

    Returns:
      A `tff.templates.AggregationProcess`.
    """
    this_round = self.create_round(value_type, weight_type)
    if this_round.holdout is not None:
      initialize, next_fn = _mirror(
          this_round, value_type, self._server_optimizer
      )
    else:
      initialize = this_round.initialize

      def next_fn(state, value, weight):
        weighed = this_round.weigh(state, value, weight)
        new_state, measurements = this_round.learn(state, weighed)
        return tff.templates.MeasuredProcessOutput(
            new_state, weighed.result, measurements
        )

    init = tff.federated_computation(
        lambda: tff.federated_eval(initialize, tff.SERVER)
    )
    types = [
        init.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
    ]
    if weight_type is None:
      unweighted_next = tff.federated_computation(
          lambda state, value: next_fn(state, value, None), types
      )
      return tff.templates.AggregationProcess(init, unweighted_next)
    types.append(tff.FederatedType(weight_type, tff.CLIENTS))
    return tff.templates.AggregationProcess(
        init, tff.federated_computation(next_fn, types)
    )


class UnweightedFactory(tff.aggregators.UnweightedAggregationFactory):
  """A `ModelAwareFactory`, `weighted`, for values without weights.

  Not for `value_sum_factory` of a TFF mean, see
  `rule_factory.UnweightedRuleFactory`.
  """

  def __init__(self, weighted: ModelAwareFactory):
    self.weighted = weighted

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """See `ModelAwareFactory.create`."""
    return self.weighted.create_process(value_type, None)


def is_mirrored(state: Any) -> bool:
  """Whether an aggregator's state, but for nested ones, has a mirror."""
  if not isinstance(state, Mapping):
    return False
  mirror = state.get(MIRROR)
  return isinstance(mirror, Mapping) and set(mirror) == set(MIRROR_ENTRIES)


def _mirror(
    this_round: ModelAwareRound,
    value_type: tff.Type,
    server_optimizer: tff.learning.optimizers.Optimizer,
):
  """Initial state and next function of a process that follows the model."""

  @tff.tensorflow.computation
  def initialize():
    state = this_round.initialize()
    specs = tff.types.type_to_tf_tensor_specs(value_type)
    model = this_round.holdout.initial_model()
    state[MIRROR] = collections.OrderedDict(
        weights=tf.nest.pack_sequence_as(specs, model.trainable),
        non_trainable=model.non_trainable,
        optimizer=server_optimizer.initialize(specs),
        client_hparams=model.client_hparams,
    )
    return state

  @tff.tensorflow.computation(initialize.type_signature.result)
  def split_state(state):
    mirror = state.pop(MIRROR)
    return state, mirror

  state_type, mirror_type = split_state.type_signature.result

  @tff.tensorflow.computation(mirror_type, value_type)
  @tf.function
  def apply_aggregate(mirror, aggregate):
    # The same operations in the same order as TFF's own model finalizer, which
    # leaves model and optimizer as they are if an aggregate is not finite. A
    # tf.function, as some optimizers branch on tensors.
    optimizer, weights = server_optimizer.next(
        mirror['optimizer'], mirror['weights'], aggregate
    )
    stepped = collections.OrderedDict(
        mirror, weights=weights, optimizer=optimizer
    )
    is_finite = tf.reduce_all(
        [
            tf.reduce_all(tf.math.is_finite(tensor))
            for tensor in tf.nest.flatten(aggregate)
        ]
    )
    tensors = zip(tf.nest.flatten(stepped), tf.nest.flatten(mirror))
    return tf.nest.pack_sequence_as(
        stepped, [tf.where(is_finite, new, old) for new, old in tensors]
    )

  @tff.tensorflow.computation(state_type, mirror_type)
  def join_state(state, mirror):
    state[MIRROR] = mirror
    return state

  def next_fn(state, value, weight):
    state, mirror = tff.federated_map(split_state, state)
    weighed = this_round.weigh(
        state, value, weight, model=_global_model(mirror)
    )
    mirror = tff.federated_map(apply_aggregate, (mirror, weighed.result))
    new_state, measurements = this_round.learn(
        state, weighed, _global_model(mirror)
    )
    return tff.templates.MeasuredProcessOutput(
        tff.federated_map(join_state, (new_state, mirror)),
        weighed.result,
        measurements,
    )

  return initialize, next_fn


def _global_model(mirror: tff.Value) -> tff.Value:
  """The mirrored `holdout_lib.GlobalModel`."""
  return tff.federated_zip(
      holdout_lib.GlobalModel(
          mirror.weights, mirror.non_trainable, mirror.client_hparams
      )
  )
