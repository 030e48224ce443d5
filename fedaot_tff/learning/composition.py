"""Composes a learning process with an adversary between work and aggregator.

  distributor -> client work -> adversary -> aggregator -> finalizer

Unlike `tff.learning.templates.compose_learning_process`, an aggregator that is
a `ModelAwareRound` is handed the global model before and after the update, so
that it needs no mirror of it.
"""

import collections
from typing import Any, NamedTuple, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import model_aware
from fedaot_tff.attacks import attack


class LearningState(NamedTuple):
  """The state of a composed learning process.

  Attributes:
    global_model_weights: The `tff.learning.models.ModelWeights`.
    distributor: State of the distributor.
    client_work: State of the client work.
    adversary: State of the adversary, empty if there is none.
    aggregator: State of the aggregator.
    finalizer: State of the finalizer.
  """

  global_model_weights: Any
  distributor: Any
  client_work: Any
  adversary: Any
  aggregator: Any
  finalizer: Any


def compose_learning_process(
    initial_model_weights_fn: tff.Computation,
    model_weights_distributor: tff.learning.templates.DistributionProcess,
    client_work: tff.learning.templates.ClientWorkProcess,
    model_update_aggregator: Union[
        tff.templates.AggregationProcess, model_aware.ModelAwareRound
    ],
    model_finalizer: tff.learning.templates.FinalizerProcess,
    *,
    adversary: Optional[attack.AdversaryProcess] = None,
    attacker_flags: bool = False,
    discard_attackers: bool = False,
) -> tff.learning.templates.LearningProcess:
  """Composes processes into a learning process.

  Args:
    initial_model_weights_fn: Returns the unplaced initial model weights.
    model_weights_distributor: Brings the model to the clients.
    client_work: Makes a client's update from the model and its data.
    model_update_aggregator: A weighted `tff.templates.AggregationProcess`, or a
      `ModelAwareRound`, which is handed the global model.
    model_finalizer: Applies the aggregate to the model.
    adversary: Poisons the attackers' updates; needs `attacker_flags`.
    attacker_flags: Whether a client's data is an `OrderedDict(is_byzantine=bool
      scalar, dataset=...)` instead of the dataset alone.
    discard_attackers: Whether the attackers' updates get zero weight by the
      simulation's ground truth: the oracle, an upper bound for the defences.
      Needs `attacker_flags` and an aggregator that heeds weights.

  Returns:
    A `tff.learning.templates.LearningProcess` with a `LearningState`. Its
    metrics are an OrderedDict of those of `distributor`, `client_work`,
    `adversary`, `aggregator` and `finalizer`.

  Raises:
    ValueError: If `adversary` or `discard_attackers` is given without
      `attacker_flags`.
  """
  if (adversary is not None or discard_attackers) and not attacker_flags:
    raise ValueError(
        'adversary and discard_attackers need attacker_flags=True, as they must'
        ' know who the attackers are.'
    )
  hands_model_over = isinstance(
      model_update_aggregator, model_aware.ModelAwareRound
  )
  dataset_type = client_work.next.type_signature.parameter[2]
  update_type = client_work.next.type_signature.result.result.member
  if attacker_flags:
    client_data_type = tff.FederatedType(
        collections.OrderedDict(
            is_byzantine=np.bool_, dataset=dataset_type.member
        ),
        tff.CLIENTS,
    )
  else:
    client_data_type = dataset_type

  @tff.federated_computation
  def initialize_aggregator():
    if hands_model_over:
      return tff.federated_eval(model_update_aggregator.initialize, tff.SERVER)
    return model_update_aggregator.initialize()

  @tff.federated_computation
  def init_fn():
    return tff.federated_zip(
        LearningState(
            tff.federated_eval(initial_model_weights_fn, tff.SERVER),
            model_weights_distributor.initialize(),
            client_work.initialize(),
            tff.federated_value((), tff.SERVER)
            if adversary is None
            else adversary.initialize(),
            initialize_aggregator(),
            model_finalizer.initialize(),
        )
    )

  @tff.tensorflow.computation(
      update_type.update, update_type.update_weight, np.bool_
  )
  def discard(update, weight, is_byzantine):
    # Both: a zero weight alone would let a NaN through.
    zeros = tf.nest.map_structure(tf.zeros_like, update)
    kept = tf.cond(is_byzantine, lambda: zeros, lambda: update)
    return kept, tf.where(is_byzantine, tf.zeros_like(weight), weight)

  @tff.federated_computation(init_fn.type_signature.result, client_data_type)
  def next_fn(state, client_data):
    distributed = model_weights_distributor.next(
        state.distributor, state.global_model_weights
    )
    worked = client_work.next(
        state.client_work,
        distributed.result,
        client_data.dataset if attacker_flags else client_data,
    )
    update, weight = worked.result.update, worked.result.update_weight
    adversary_state = state.adversary
    adversary_measurements = tff.federated_value((), tff.SERVER)
    if adversary is not None:
      poisoned = adversary.next(
          state.adversary, update, client_data.is_byzantine
      )
      adversary_state = poisoned.state
      update = poisoned.result
      adversary_measurements = poisoned.measurements
    if discard_attackers:
      update, weight = tff.federated_map(
          discard, (update, weight, client_data.is_byzantine)
      )
    if hands_model_over:
      weighed = model_update_aggregator.weigh(
          state.aggregator,
          update,
          weight,
          model=state.global_model_weights.trainable,
      )
      aggregate = weighed.result
    else:
      aggregated = model_update_aggregator.next(
          state.aggregator, update, weight
      )
      aggregate = aggregated.result
    finalized = model_finalizer.next(
        state.finalizer, state.global_model_weights, aggregate
    )
    if hands_model_over:
      aggregator_state, aggregator_measurements = model_update_aggregator.learn(
          state.aggregator, weighed, finalized.result.trainable
      )
    else:
      aggregator_state = aggregated.state
      aggregator_measurements = aggregated.measurements
    return tff.learning.templates.LearningProcessOutput(
        tff.federated_zip(
            LearningState(
                finalized.result,
                distributed.state,
                worked.state,
                adversary_state,
                aggregator_state,
                finalized.state,
            )
        ),
        tff.federated_zip(
            collections.OrderedDict(
                distributor=distributed.measurements,
                client_work=worked.measurements,
                adversary=adversary_measurements,
                aggregator=aggregator_measurements,
                finalizer=finalized.measurements,
            )
        ),
    )

  state_type = init_fn.type_signature.result.member

  @tff.tensorflow.computation(state_type)
  def get_model_weights(state):
    return state.global_model_weights

  @tff.tensorflow.computation(state_type, state_type.global_model_weights)
  def set_model_weights(state, model_weights):
    return state._replace(global_model_weights=model_weights)

  @tff.tensorflow.computation(state_type)
  def get_hparams(state):
    return collections.OrderedDict(
        client_work=client_work.get_hparams(state.client_work),
        finalizer=model_finalizer.get_hparams(state.finalizer),
    )

  @tff.tensorflow.computation(state_type, get_hparams.type_signature.result)
  def set_hparams(state, hparams):
    return state._replace(
        client_work=client_work.set_hparams(
            state.client_work, hparams['client_work']
        ),
        finalizer=model_finalizer.set_hparams(
            state.finalizer, hparams['finalizer']
        ),
    )

  return tff.learning.templates.LearningProcess(
      init_fn,
      next_fn,
      get_model_weights,
      set_model_weights,
      get_hparams_fn=get_hparams,
      set_hparams_fn=set_hparams,
  )
