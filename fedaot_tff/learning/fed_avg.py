"""Federated averaging with FedAOT, and with any aggregator under attack."""

import functools
from typing import Any, Callable, Dict, Optional, Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot import config as config_lib
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.learning import adversary as adversary_lib
from fedaot_tff.learning import array_work
from fedaot_tff.learning import composition

ModelFn = Union[
    Callable[[], tff.learning.models.VariableModel],
    tff.learning.models.FunctionalModel,
]
_Distributor = tff.learning.templates.DistributionProcess
_Loop = tff.learning.LoopImplementation
_Weighting = tff.learning.ClientWeighting
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
    client_weighting: _Weighting = _Weighting.NUM_EXAMPLES,
    model_distributor: Optional[_Distributor] = None,
    metrics_aggregator: Any = None,
    loop_implementation: _Loop = _Loop.DATASET_ITERATOR,
) -> tff.learning.templates.LearningProcess:
  """Builds federated averaging that aggregates with FedAOT.

  Like `tff.learning.algorithms.build_weighted_fed_avg` with
  `fedaot_factory(holdout)` as its aggregator, but the aggregator is handed the
  global model each round, non-trainable weights too: it keeps no mirror of it,
  so model, server optimizer and initial weights may be anything,
  `set_model_weights` and `set_hparams` need no synchronization, and the state
  is smaller. Raises ValueError if the hold-out's
  model is not the one that is trained. Other arguments as there, and

  Args:
    client_optimizer_fn: The clients' optimizer; also the hold-out's, if that
      was made without one.
    server_optimizer_fn: The server's; None is SGD with learning rate 1.
    holdout: The clean examples at the server, or None for agreement mode.
    config: The constants of FedAOT; None for the defaults.
    seed: The secret seed, see `fedaot_factory`.
    client_weighting: What clients report as their weight. Beyond whether it is
      positive it is of effect only with `config.max_example_ratio`.
  """
  return _build_fed_avg(
      model_fn,
      client_optimizer_fn,
      server_optimizer_fn,
      fedaot.fedaot_factory(holdout, config=config, seed=seed),
      dict(
          client_weighting=client_weighting,
          metrics_aggregator=metrics_aggregator,
          loop_implementation=loop_implementation,
      ),
      model_distributor=model_distributor,
  )


def build_attacked_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: tff.learning.optimizers.Optimizer,
    server_optimizer_fn: Optional[tff.learning.optimizers.Optimizer] = None,
    *,
    model_aggregator: tff.aggregators.AggregationFactory,
    update_poisoning: Optional[adversary_lib.UpdatePoisoning] = None,
    training_poisoning: Optional[adversary_lib.TrainingPoisoning] = None,
    forged_examples: Optional[float] = None,
    discard_attackers: bool = False,
    seed: int = 0,
    client_weighting: _Weighting = _Weighting.UNIFORM,
    metrics_aggregator: Any = None,
    loop_implementation: _Loop = _Loop.DATASET_ITERATOR,
    array_batch_size: Optional[int] = None,
) -> tff.learning.templates.LearningProcess:
  """Builds federated averaging in which some clients are attackers.

  A client's data is an `OrderedDict(attacker_index=int32, dataset=...)`, where
  the index is -1 for an honest client and else the number of the attacker, from
  0. Attacks on the data are made in the dataset; attacks on the update happen
  between the client's work and the aggregator. Every aggregator sees the same
  updates. Other arguments as those of `build_fedaot_fed_avg`, and

  Args:
    model_aggregator: A weighted or unweighted factory. One that works with a
      hold-out, a `ModelAwareFactory`, is handed the global model.
    update_poisoning: What attackers do to their updates; None for nothing.
    training_poisoning: How attackers train, before `update_poisoning`; None for
      like the others. Needs a `FunctionalModel`.
    forged_examples: The weight that attackers report, positive; None for the
      truth. Of effect only if `client_weighting` and the aggregator heed it.
    discard_attackers: Whether the attackers' updates get zero weight by the
      ground truth: the oracle. ValueError if the aggregator heeds no weights.
    seed: Fixes what attackers draw at random; nonnegative, below 2^63.
    client_weighting: What clients report as their weight. UNIFORM (default),
      as example counts are under the attackers' control: 1 from all who have
      examples. Unlike TFF's, it is 0 from the others, who have nothing to say.
    array_batch_size: If given, a client's `dataset` is the arrays that
      `array_work.ArrayWork` trains on, in batches of this size, which takes
      less time; `model_fn` is then a FunctionalModel.
  """
  checks.check_kind(
      'update_poisoning',
      update_poisoning,
      adversary_lib.UpdatePoisoning,
      type(None),
  )
  attacker_training = None
  if training_poisoning is not None:
    checks.check_kind(
        'training_poisoning',
        training_poisoning,
        adversary_lib.TrainingPoisoning,
    )
    checks.check_kind(
        'model_fn of attackers who train in a way of their own',
        model_fn,
        tff.learning.models.FunctionalModel,
    )
    if array_batch_size is not None:
      raise ValueError(
          'training_poisoning trains on datasets; leave array_batch_size out.'
      )
    attacker_training = training_poisoning.create(model_fn, client_optimizer_fn)
  if forged_examples is not None:
    forged_examples = checks.check_number(
        'forged_examples', forged_examples, above=0
    )
  if discard_attackers and isinstance(
      model_aggregator, tff.aggregators.UnweightedAggregationFactory
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
      model_aggregator,
      dict(
          client_weighting=client_weighting,
          metrics_aggregator=metrics_aggregator,
          loop_implementation=loop_implementation,
      ),
      array_batch_size=array_batch_size,
      update_poisoning=update_poisoning,
      seed=checks.check_seed(seed),
      attacker_indices=True,
      attacker_training=attacker_training,
      forged_examples=forged_examples,
      discard_attackers=discard_attackers,
  )


def _build_fed_avg(
    model_fn: ModelFn,
    client_optimizer_fn: tff.learning.optimizers.Optimizer,
    server_optimizer_fn: Optional[tff.learning.optimizers.Optimizer],
    model_aggregator: tff.aggregators.AggregationFactory,
    work_options: Dict[str, Any],
    *,
    model_distributor: Optional[_Distributor] = None,
    array_batch_size: Optional[int] = None,
    update_poisoning: Optional[adversary_lib.UpdatePoisoning] = None,
    seed: int = 0,
    **attack_options,
) -> tff.learning.templates.LearningProcess:
  """Federated averaging with options of TFF's work and of the composition."""
  if server_optimizer_fn is None:
    server_optimizer_fn = tff.learning.optimizers.build_sgdm(learning_rate=1.0)
  for name, optimizer in (
      ('client_optimizer_fn', client_optimizer_fn),
      ('server_optimizer_fn', server_optimizer_fn),
  ):
    checks.check_kind(name, optimizer, tff.learning.optimizers.Optimizer)
  if work_options['metrics_aggregator'] is None:
    work_options['metrics_aggregator'] = tff.learning.metrics.sum_then_finalize
  initial_weights = _initial_model_weights(model_fn)
  weights_type = initial_weights.type_signature.result
  if model_distributor is None:
    model_distributor = tff.learning.templates.build_broadcast_process(
        weights_type
    )
  work_options['optimizer'] = client_optimizer_fn
  # TFF's uniform weights do not tell who has no examples.
  uniform_weights = work_options['client_weighting'] is _Weighting.UNIFORM
  if uniform_weights:
    work_options['client_weighting'] = _Weighting.NUM_EXAMPLES
  if array_batch_size is not None:
    del work_options['loop_implementation']
    client_work = array_work.build_array_work(
        model=model_fn, batch_size=array_batch_size, **work_options
    )
  elif isinstance(model_fn, tff.learning.models.FunctionalModel):
    client_work = (
        tff.learning.templates.build_functional_model_delta_client_work(
            model=model_fn, **work_options
        )
    )
  else:
    client_work = tff.learning.templates.build_model_delta_client_work(
        model_fn=model_fn, **work_options
    )
  finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
      server_optimizer_fn, weights_type
  )
  aggregator = _create_aggregator(
      model_aggregator, weights_type, client_optimizer_fn
  )
  adversary = None
  if update_poisoning is not None:
    adversary = update_poisoning.create(
        weights_type.trainable,
        adversary_lib.Context(
            seed=seed,
            defence=composition.defence_of(
                aggregator,
                update_weight_type=_WEIGHT_TYPE,
                discard_attackers=attack_options['discard_attackers'],
            ),
        ),
    )
  return composition.compose_learning_process(
      initial_weights,
      model_distributor,
      client_work,
      aggregator,
      finalizer,
      uniform_weights=uniform_weights,
      adversary=adversary,
      **attack_options,
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


# Of the processes of a grid, which try a rule under one attack after another.
@functools.lru_cache(maxsize=4)
def _create_aggregator(
    factory: tff.aggregators.AggregationFactory,
    weights_type: tff.Type,
    client_optimizer: tff.learning.optimizers.Optimizer,
):
  """A weighted process, or a `ModelAwareRound`."""
  weight_type = _WEIGHT_TYPE
  if isinstance(factory, model_aware.UnweightedFactory):
    factory, weight_type = factory.weighted, None
  if isinstance(factory, model_aware.ModelAwareFactory):
    if factory.holdout is not None:
      factory.holdout.check_non_trainable_type(weights_type.non_trainable)
    return factory.for_clients(client_optimizer).create_round(
        weights_type.trainable, weight_type
    )
  if isinstance(factory, tff.aggregators.UnweightedAggregationFactory):
    factory = tff.aggregators.as_weighted_aggregator(factory)
  if not isinstance(factory, tff.aggregators.WeightedAggregationFactory):
    raise TypeError(
        'model_aggregator must be a tff.aggregators.AggregationFactory; found'
        f' {type(factory).__name__}.'
    )
  return factory.create(weights_type.trainable, weight_type)
