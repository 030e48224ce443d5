"""Federated averaging with FedAOT, and with any aggregator under attack."""

from typing import Any, Callable, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot import config as config_lib
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.learning import adversary as adversary_lib
from fedaot_tff.learning import composition

ModelFn = Union[
    Callable[[], tff.learning.models.VariableModel],
    tff.learning.models.FunctionalModel,
]
# The clients' weights, as TFF's client work reports them.
_WEIGHT_TYPE = tff.TensorType(np.float32)


def build_fedaot_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: tff.learning.optimizers.Optimizer,
    server_optimizer_fn: Optional[tff.learning.optimizers.Optimizer] = None,
    *,
    holdout: Optional[holdout_lib.HoldOut] = None,
    config: Optional[config_lib.FedAOTConfig] = None,
    seed: Optional[int] = None,
    client_weighting: tff.learning.ClientWeighting = (
        tff.learning.ClientWeighting.NUM_EXAMPLES
    ),
    model_distributor: Optional[
        tff.learning.templates.DistributionProcess
    ] = None,
    metrics_aggregator: Any = None,
    loop_implementation: tff.learning.LoopImplementation = (
        tff.learning.LoopImplementation.DATASET_ITERATOR
    ),
) -> tff.learning.templates.LearningProcess:
  """Builds federated averaging that aggregates with FedAOT.

  Like `tff.learning.algorithms.build_weighted_fed_avg` with
  `fedaot_factory(holdout)` as its aggregator, but the aggregator is handed the
  global model each round: it keeps no mirror of it, so model, server optimizer
  and initial weights may be anything, `set_model_weights` needs no
  synchronization, and the state is smaller.

  Args:
    model_fn: A no-argument function that returns a new
      `tff.learning.models.VariableModel`, or a
      `tff.learning.models.FunctionalModel`.
    client_optimizer_fn: The clients' `tff.learning.optimizers.Optimizer`; also
      the hold-out's, if that was made without one.
    server_optimizer_fn: The server's; None (default) is SGD with learning rate
      1.
    holdout: The clean examples at the server, or None for agreement mode.
    config: The constants of FedAOT; None for the defaults.
    seed: The secret seed, see `fedaot_factory`.
    client_weighting: What clients report as their weight; of effect only with
      `config.max_example_ratio`.
    model_distributor: Brings the model to the clients; None is a broadcast.
    metrics_aggregator: Aggregates the clients' training metrics; None sums and
      finalizes.
    loop_implementation: The clients' training loop.

  Returns:
    A `tff.learning.templates.LearningProcess`.

  Raises:
    TypeError: If an argument is of another kind.
    ValueError: If the hold-out's model is not the one that is trained.
  """
  if isinstance(holdout, holdout_lib.HoldOut):
    holdout = holdout.with_default_client_optimizer(client_optimizer_fn)
  return _build_fed_avg(
      model_fn,
      client_optimizer_fn,
      server_optimizer_fn,
      model_aggregator=fedaot.fedaot_factory(holdout, config=config, seed=seed),
      client_weighting=client_weighting,
      model_distributor=model_distributor,
      metrics_aggregator=metrics_aggregator,
      loop_implementation=loop_implementation,
  )


def build_attacked_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: tff.learning.optimizers.Optimizer,
    server_optimizer_fn: Optional[tff.learning.optimizers.Optimizer] = None,
    *,
    model_aggregator: tff.aggregators.AggregationFactory,
    update_poisoning: Optional[adversary_lib.UpdatePoisoning] = None,
    forged_examples: Optional[float] = None,
    discard_attackers: bool = False,
    seed: int = 0,
    client_weighting: tff.learning.ClientWeighting = (
        tff.learning.ClientWeighting.UNIFORM
    ),
    metrics_aggregator: Any = None,
    loop_implementation: tff.learning.LoopImplementation = (
        tff.learning.LoopImplementation.DATASET_ITERATOR
    ),
) -> tff.learning.templates.LearningProcess:
  """Builds federated averaging in which some clients are attackers.

  A client's data is an `OrderedDict(attacker_index=int32, dataset=...)`, where
  the index is -1 for an honest client and else the number of the attacker, from
  0. Attacks on the data are made in the dataset; attacks on the update happen
  between the client's work and the aggregator. Every aggregator sees the same
  updates.

  Args:
    model_fn: See `build_fedaot_fed_avg`.
    client_optimizer_fn: See `build_fedaot_fed_avg`.
    server_optimizer_fn: See `build_fedaot_fed_avg`.
    model_aggregator: A weighted or unweighted factory. One that works with a
      hold-out, a `ModelAwareFactory`, is handed the global model.
    update_poisoning: What attackers do to their updates; None for nothing.
    forged_examples: The weight that attackers report, positive; None for the
      truth. Of effect only if `client_weighting` and the aggregator heed it.
    discard_attackers: Whether the attackers' updates get zero weight by the
      ground truth: the oracle. Needs an aggregator that heeds weights.
    seed: Fixes what attackers draw at random; nonnegative, below 2^63.
    client_weighting: What clients report as their weight. UNIFORM (default),
      as example counts are under the attackers' control.
    metrics_aggregator: See `build_fedaot_fed_avg`.
    loop_implementation: See `build_fedaot_fed_avg`.

  Returns:
    A `tff.learning.templates.LearningProcess`.

  Raises:
    TypeError: If an argument is of another kind.
    ValueError: If the hold-out's model is not the one that is trained, or
      `discard_attackers` is set for an aggregator that does not heed weights.
  """
  if update_poisoning is not None and not isinstance(
      update_poisoning, adversary_lib.UpdatePoisoning
  ):
    raise TypeError(
        'update_poisoning must be an UpdatePoisoning or None; found'
        f' {type(update_poisoning).__name__}.'
    )
  if forged_examples is not None:
    forged_examples = checks.check_number(
        'forged_examples', forged_examples, above=0
    )
  if discard_attackers and isinstance(
      model_aggregator,
      (
          tff.aggregators.UnweightedAggregationFactory,
          model_aware.ModelAwareFactory,
      ),
  ):
    raise ValueError(
        'discard_attackers needs a model_aggregator that heeds weights, such as'
        ' tff.aggregators.MeanFactory(); in'
        f' {type(model_aggregator).__name__} attackers would count as zero'
        ' updates.'
    )
  return _build_fed_avg(
      model_fn,
      client_optimizer_fn,
      server_optimizer_fn,
      model_aggregator=model_aggregator,
      client_weighting=client_weighting,
      metrics_aggregator=metrics_aggregator,
      loop_implementation=loop_implementation,
      attacker_indices=True,
      update_poisoning=update_poisoning,
      forged_examples=forged_examples,
      discard_attackers=discard_attackers,
      seed=checks.check_seed(seed),
  )


def _build_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: tff.learning.optimizers.Optimizer,
    server_optimizer_fn: Optional[tff.learning.optimizers.Optimizer],
    *,
    model_aggregator: tff.aggregators.AggregationFactory,
    client_weighting: tff.learning.ClientWeighting,
    metrics_aggregator: Any,
    loop_implementation: tff.learning.LoopImplementation,
    model_distributor: Optional[
        tff.learning.templates.DistributionProcess
    ] = None,
    attacker_indices: bool = False,
    update_poisoning: Optional[adversary_lib.UpdatePoisoning] = None,
    forged_examples: Optional[float] = None,
    discard_attackers: bool = False,
    seed: int = 0,
) -> tff.learning.templates.LearningProcess:
  """Federated averaging as both public builders make it."""
  if server_optimizer_fn is None:
    server_optimizer_fn = tff.learning.optimizers.build_sgdm(learning_rate=1.0)
  for name, optimizer in (
      ('client_optimizer_fn', client_optimizer_fn),
      ('server_optimizer_fn', server_optimizer_fn),
  ):
    if not isinstance(optimizer, tff.learning.optimizers.Optimizer):
      raise TypeError(
          f'{name} must be a tff.learning.optimizers.Optimizer; found'
          f' {type(optimizer).__name__}.'
      )
  if metrics_aggregator is None:
    metrics_aggregator = tff.learning.metrics.sum_then_finalize
  initial_weights = _initial_model_weights(model_fn)
  weights_type = initial_weights.type_signature.result
  if model_distributor is None:
    model_distributor = tff.learning.templates.build_broadcast_process(
        weights_type
    )
  work_settings = dict(
      optimizer=client_optimizer_fn,
      client_weighting=client_weighting,
      metrics_aggregator=metrics_aggregator,
      loop_implementation=loop_implementation,
  )
  if isinstance(model_fn, tff.learning.models.FunctionalModel):
    client_work = (
        tff.learning.templates.build_functional_model_delta_client_work(
            model=model_fn, **work_settings
        )
    )
  else:
    client_work = tff.learning.templates.build_model_delta_client_work(
        model_fn=model_fn, **work_settings
    )
  finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
      server_optimizer_fn, weights_type
  )
  aggregator = _create_aggregator(model_aggregator, weights_type.trainable)
  adversary = None
  if update_poisoning is not None:
    adversary = update_poisoning.create(
        weights_type.trainable,
        adversary_lib.Context(
            seed=seed,
            defence=composition.defence_of(
                aggregator,
                update_weight_type=_WEIGHT_TYPE,
                discard_attackers=discard_attackers,
            ),
        ),
    )
  return composition.compose_learning_process(
      initial_weights,
      model_distributor,
      client_work,
      aggregator,
      finalizer,
      attacker_indices=attacker_indices,
      adversary=adversary,
      forged_examples=forged_examples,
      discard_attackers=discard_attackers,
  )


def _initial_model_weights(model_fn: ModelFn) -> tff.Computation:
  """The unplaced computation of the model's initial weights."""
  if isinstance(model_fn, tff.learning.models.FunctionalModel):
    trainable, non_trainable = model_fn.initial_weights

    @tff.tensorflow.computation
    def functional_weights():
      return tff.learning.models.ModelWeights(
          tuple(tf.convert_to_tensor(w) for w in trainable),
          tuple(tf.convert_to_tensor(w) for w in non_trainable),
      )

    return functional_weights
  if not callable(model_fn):
    raise TypeError(
        'model_fn must be a tff.learning.models.FunctionalModel or a function'
        ' that returns a tff.learning.models.VariableModel; found'
        f' {type(model_fn).__name__}.'
    )

  @tff.tensorflow.computation
  def variable_weights():
    model = model_fn()
    if not isinstance(model, tff.learning.models.VariableModel):
      raise TypeError(
          'model_fn must return a tff.learning.models.VariableModel; it'
          f' returned {type(model).__name__}.'
      )
    return tff.learning.models.ModelWeights.from_model(model)

  return variable_weights


def _create_aggregator(
    factory: tff.aggregators.AggregationFactory, value_type: tff.Type
):
  """A weighted process, or a `ModelAwareRound`."""
  if isinstance(factory, model_aware.ModelAwareFactory):
    return factory.create_round(value_type, _WEIGHT_TYPE)
  if isinstance(factory, model_aware.UnweightedFactory):
    return factory.weighted.create_round(value_type, None)
  if isinstance(factory, tff.aggregators.UnweightedAggregationFactory):
    factory = tff.aggregators.as_weighted_aggregator(factory)
  if not isinstance(factory, tff.aggregators.WeightedAggregationFactory):
    raise TypeError(
        'model_aggregator must be a tff.aggregators.AggregationFactory; found'
        f' {type(factory).__name__}.'
    )
  return factory.create(value_type, _WEIGHT_TYPE)
