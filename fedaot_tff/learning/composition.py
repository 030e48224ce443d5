"""Composes a learning process with an adversary between work and aggregator.

  distributor -> client work -> adversary -> aggregator -> finalizer

Unlike `tff.learning.templates.compose_learning_process`, an aggregator that is
a `ModelAwareRound` is handed the global model before and after the update, so
that it needs no mirror of it.
"""

import collections
from typing import Any, Callable, NamedTuple, Optional, Tuple, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.learning import adversary as adversary_lib


class LearningState(NamedTuple):
  """The state of a composed learning process."""

  global_model_weights: Any  # The `tff.learning.models.ModelWeights`.
  distributor: Any
  client_work: Any
  adversary: Any  # Empty if there is none.
  aggregator: Any
  finalizer: Any


# The entry of a known defence's state that holds its `GlobalModel`.
_HANDED_OVER = 'handed_over'
_Aggregator = Union[
    tff.templates.AggregationProcess, model_aware.ModelAwareRound
]


def compose_learning_process(
    initial_model_weights_fn: tff.Computation,
    model_weights_distributor: tff.learning.templates.DistributionProcess,
    client_work: tff.learning.templates.ClientWorkProcess,
    model_update_aggregator: _Aggregator,
    model_finalizer: tff.learning.templates.FinalizerProcess,
    *,
    uniform_weights: bool = False,
    attacker_indices: bool = False,
    adversary: Optional[adversary_lib.AdversaryProcess] = None,
    attacker_training: Optional[Callable[..., Any]] = None,
    forged_examples: Optional[float] = None,
    discard_attackers: bool = False,
) -> tff.learning.templates.LearningProcess:
  """Composes processes into a learning process with a `LearningState`.

  The arguments that attackers have to do with need `attacker_indices`.

  Args:
    initial_model_weights_fn: Returns the unplaced initial model weights.
    model_weights_distributor: Brings the model to the clients.
    client_work: Makes a client's update from the model and its data.
    model_update_aggregator: A weighted process, or one that gets the model.
    model_finalizer: Applies the aggregate to the model.
    uniform_weights: Whether all clients whose weight is positive weigh 1.
    attacker_indices: Whether a client's data is an `OrderedDict(
      attacker_index=int32 scalar, dataset=...)` instead of the dataset alone.
      The index is -1 for honest clients.
    adversary: Poisons the attackers' updates. Made with the `defence_of` this
      aggregator or with none in its context.
    attacker_training: How attackers train; see
      `adversary.TrainingPoisoning.create`.
    forged_examples: What attackers report as their weight, whatever they have;
      None for the truth.
    discard_attackers: Whether the attackers' updates get zero weight by the
      simulation's ground truth: the oracle, an upper bound for the defences.
      Needs an aggregator that heeds weights.

  Returns:
    A process whose metrics are an OrderedDict of those of `distributor`,
    `client_work`, `adversary`, `aggregator` and `finalizer`. With
    `attacker_indices` there is also `honest_mean`, an OrderedDict of `norm`,
    the Euclidean norm of the mean of the honest clients' finite updates by
    their true weights, and `distance`, that of the aggregate from it.
  """
  if not attacker_indices and (
      adversary is not None
      or attacker_training is not None
      or forged_examples is not None
      or discard_attackers
  ):
    raise ValueError(
        'adversary, attacker_training, forged_examples and discard_attackers'
        ' need attacker_indices=True, as they must know who the attackers are.'
    )
  aggregator = _round_of(model_update_aggregator)
  client_data_type = client_work.next.type_signature.parameter[2]
  if attacker_indices:
    client_data_type = tff.FederatedType(
        collections.OrderedDict(
            attacker_index=np.int32, dataset=client_data_type.member
        ),
        tff.CLIENTS,
    )

  @tff.federated_computation
  def init_fn():
    if isinstance(aggregator, _StockRound):
      aggregator_state = model_update_aggregator.initialize()
    else:
      aggregator_state = tff.federated_eval(aggregator.initialize, tff.SERVER)
    return tff.federated_zip(
        LearningState(
            tff.federated_eval(initial_model_weights_fn, tff.SERVER),
            model_weights_distributor.initialize(),
            client_work.initialize(),
            tff.federated_value((), tff.SERVER)
            if adversary is None
            else adversary.initialize(),
            aggregator_state,
            model_finalizer.initialize(),
        )
    )

  def hand_over(weights, client_work_state):
    """The `holdout_lib.GlobalModel`, None if nobody asks for it."""
    if aggregator.holdout is None:
      return None

    @tff.tensorflow.computation(client_work_state.type_signature.member)
    def holdout_hparams(state):
      return aggregator.holdout.hparams(client_work.get_hparams(state))

    return tff.federated_zip(
        holdout_lib.GlobalModel(
            weights.trainable,
            weights.non_trainable,
            tff.federated_map(holdout_hparams, client_work_state),
        )
    )

  @tff.federated_computation(init_fn.type_signature.result, client_data_type)
  def next_fn(state, client_data):
    model = state.global_model_weights
    global_model = hand_over(model, state.client_work)
    nothing = tff.federated_value((), tff.SERVER)
    distributed = model_weights_distributor.next(state.distributor, model)
    worked = client_work.next(
        state.client_work,
        distributed.result,
        client_data.dataset if attacker_indices else client_data,
    )
    update, weight = worked.result.update, worked.result.update_weight
    if attacker_training is not None:
      update = _train_attackers(
          attacker_training, update, distributed.result, client_data
      )
    if uniform_weights:
      equalize = tff.tensorflow.computation(
          lambda weight: tf.cast(weight > 0, weight.dtype),
          weight.type_signature.member,
      )
      weight = tff.federated_map(equalize, weight)
    true_update, true_weight = update, weight
    adversary_state, adversary_measurements = state.adversary, nothing
    if forged_examples is not None:
      weight = _forge_weights(
          weight, client_data.attacker_index, forged_examples
      )
    if adversary is not None:
      weight, known_index = _show_to_attackers(
          weight, client_data.attacker_index
      )
      adversary_state, update, adversary_measurements = adversary.next(
          state.adversary,
          update,
          known_index,
          model.trainable,
          _known_defence(state.aggregator, global_model)
          if adversary.knows_defence
          else nothing,
      )
    if discard_attackers:
      update, weight = _discard_attackers(
          update, weight, client_data.attacker_index
      )
    weighed = aggregator.weigh(
        state.aggregator, update, weight, model=global_model
    )
    finalized = model_finalizer.next(state.finalizer, model, weighed.result)
    aggregator_state, aggregator_measurements = aggregator.learn(
        state.aggregator,
        weighed,
        hand_over(finalized.result, state.client_work),
    )
    measurements = collections.OrderedDict(
        distributor=distributed.measurements,
        client_work=worked.measurements,
        adversary=adversary_measurements,
        aggregator=aggregator_measurements,
        finalizer=finalized.measurements,
    )
    if attacker_indices:
      measurements['honest_mean'] = _compare_with_honest_mean(
          weighed.result, true_update, true_weight, client_data.attacker_index
      )
    new_state = LearningState(
        finalized.result,
        distributed.state,
        worked.state,
        adversary_state,
        aggregator_state,
        finalized.state,
    )
    return tff.learning.templates.LearningProcessOutput(
        tff.federated_zip(new_state), tff.federated_zip(measurements)
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


class _StockRound(NamedTuple):
  """A stock process with the two halves of a `ModelAwareRound`."""

  process: tff.templates.AggregationProcess
  holdout: None = None

  def weigh(self, state, value, weight, model):
    del model
    return self.process.next(state, value, weight)

  def learn(self, state, weighed, model_after):
    del state, model_after
    return weighed.state, weighed.measurements


def _round_of(
    aggregator: _Aggregator,
) -> Union[model_aware.ModelAwareRound, _StockRound]:
  if isinstance(aggregator, model_aware.ModelAwareRound):
    return aggregator
  return _StockRound(aggregator)


def defence_of(
    aggregator: _Aggregator,
    *,
    update_weight_type: tff.Type,
    discard_attackers: bool = False,
) -> adversary_lib.Defence:
  """What an attacker that knows the defence can try its updates on.

  `update_weight_type` is the unplaced type of the clients' weights, the rest as
  `compose_learning_process` takes it. The state that a trial gives is dropped.
  """
  state_type = aggregator.initialize.type_signature.result
  if isinstance(state_type, tff.FederatedType):
    state_type = state_type.member
  tried = _round_of(aggregator)
  if tried.holdout is not None:
    state_type = tff.to_type(
        collections.OrderedDict(
            tff.structure.iter_elements(state_type),
            **{_HANDED_OVER: tried.holdout.model_type(())},
        )
    )

  @tff.tensorflow.computation(np.int32)
  def equal_weight(index):
    return tf.cast(
        tf.not_equal(index, adversary_lib.EMPTY), update_weight_type.dtype
    )

  def aggregate(state, update, index, model):
    weight = tff.federated_map(equal_weight, index)
    if discard_attackers:
      update, weight = _discard_attackers(update, weight, index)
    if tried.holdout is None:
      return tried.weigh(state, update, weight, model=None).result

    state, model = _map(split, state, model)
    return tried.weigh(state, update, weight, model=model).result

  def split(state, trainable):
    rest = state.pop(_HANDED_OVER)
    return state, rest._replace(trainable=trainable)

  def root(state, trainable):
    _, model = split(state, trainable)
    update = tried.holdout.root_update(
        model, tf.range(tried.holdout.num_examples)
    )
    return tf.nest.pack_sequence_as(trainable, update)

  return adversary_lib.Defence(
      state_type,
      aggregate,
      None
      if tried.holdout is None
      else lambda state, model: _map(root, state, model),
  )


def _known_defence(state: tff.Value, model: Optional[tff.Value]) -> tff.Value:
  """The defence's state, with what it is handed over besides the model."""
  if model is None:
    return state
  return _map(
      lambda state, model: collections.OrderedDict(
          state, **{_HANDED_OVER: model._replace(trainable=())}
      ),
      state,
      model,
  )


def _map(fn: Callable[..., Any], *values: tff.Value) -> tff.Value:
  """Maps a function of TensorFlow over values of the same placement."""
  types = [value.type_signature.member for value in values]
  return tff.federated_map(tff.tensorflow.computation(fn, types), values)


def _train_attackers(
    train: Callable[..., Any],
    update: tff.Value,
    weights: tff.Value,
    client_data: tff.Value,
) -> tff.Value:
  """The updates, with those of the attackers trained by `train`."""

  def train_if_attacker(update, weights, data):
    return tf.cond(
        data['attacker_index'] >= 0,
        lambda: train(update, weights, data['dataset']),
        lambda: update,
    )

  return _map(train_if_attacker, update, weights, client_data)


def _show_to_attackers(
    weight: tff.Value, index: tff.Value
) -> Tuple[tff.Value, tff.Value]:
  """Weights with which every attacker votes, and indices that tell who does."""

  def show(weight, index):
    is_empty = flat_updates.is_empty_update(weight)
    is_attacker = index >= 0
    # An attacker that has no examples claims one, lest it be left out.
    return (
        tf.where(is_attacker & is_empty, tf.ones_like(weight), weight),
        tf.where(is_empty & ~is_attacker, adversary_lib.EMPTY, index),
    )

  shown = _map(show, weight, index)
  return shown[0], shown[1]


def _forge_weights(
    weight: tff.Value, index: tff.Value, forged: float
) -> tff.Value:
  """Lets the attackers report another weight."""

  def forge(weight, index):
    return tf.where(index >= 0, tf.cast(forged, weight.dtype), weight)

  return _map(forge, weight, index)


def _discard_attackers(
    update: tff.Value, weight: tff.Value, index: tff.Value
) -> Tuple[tff.Value, tff.Value]:
  """Gives the attackers zero updates of zero weight."""

  def discard(update, weight, index):
    # Both: a zero weight alone would let a NaN through.
    zeros = tf.nest.map_structure(tf.zeros_like, update)
    kept = tf.cond(index >= 0, lambda: zeros, lambda: update)
    return kept, tf.where(index >= 0, tf.zeros_like(weight), weight)

  kept = _map(discard, update, weight, index)
  return kept[0], kept[1]


def _compare_with_honest_mean(
    aggregate: tff.Value,
    update: tff.Value,
    weight: tff.Value,
    index: tff.Value,
) -> tff.Value:
  """The measurement `honest_mean`."""

  def to_terms(update, weight, index):
    flat = flat_updates.flatten(update)
    counts = tf.logical_and(index < 0, flat_updates.is_finite_update(flat))
    weight = tf.where(counts, tf.cast(weight, tf.float32), 0.0)
    return tf.where(counts, weight * flat, 0.0), weight

  sums = tff.federated_sum(_map(to_terms, update, weight, index))

  def compare(aggregate, sums):
    mean = tf.math.divide_no_nan(sums[0], sums[1])
    return collections.OrderedDict(
        norm=tf.norm(mean),
        distance=tf.norm(flat_updates.flatten(aggregate) - mean),
    )

  return _map(compare, aggregate, sums)
