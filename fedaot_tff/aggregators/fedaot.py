"""FedAOT as TFF aggregation factories."""

import collections
import secrets
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot_config
from fedaot_tff.aggregators import fedaot_round
from fedaot_tff.aggregators import holdout as holdout_lib


def fedaot_factory(
    holdout: Optional[holdout_lib.HoldOut] = None,
    *,
    weighted: bool = True,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    config: Optional[fedaot_config.FedAOTConfig] = None,
    seed: Optional[int] = None,
) -> tff.aggregators.AggregationFactory:
  """Creates the FedAOT aggregator, robust against Byzantine clients.

  The aggregate is a weighted mean of the client updates with learned soft
  weights: statistics of each update become a reliability score, a softmax turns
  scores into weights, and after each round a meta-gradient step improves the
  variables that turn statistics into scores. No update is thrown away but those
  that are not finite; no threshold is tuned to an attack.

  With a `holdout` the meta step lowers the loss of the updated model on clean
  examples at the server, and any number of attackers is withstood as long as
  some clients are honest. Without one it raises the agreement between rounds,
  and the majority of the clients must be honest.

  In hold-out mode the aggregator must know the global model. Its state mirrors
  it: the model starts at the hold-out model's initial weights, and each
  aggregate is applied with `server_optimizer`. A process whose model starts
  elsewhere (a Keras model, or after `set_model_weights`) must be given to
  `fedaot_tff.synchronize_model` first; `fedaot_tff.check_model` tells whether
  mirror and model differ. `fedaot_tff.build_fedaot_fed_avg` needs neither.

  The state of the created process is an OrderedDict, see
  `fedaot_round.FedAOTRound.initialize`; with a hold-out it has a further entry
  `mirror`, an OrderedDict of `weights` and `optimizer`.

  The measurements are an OrderedDict; N clients in the order in which they were
  given, K = 4 statistics named by `HOLDOUT_STATISTICS` and
  `AGREEMENT_STATISTICS`:

  *   `weights`: float32 [N], the weights; they sum to 1.
  *   `statistics`: float32 [N, K], higher is more trustworthy.
  *   `z`: float32 [N, K], standardized over the cohort.
  *   `norms`: float32 [N], Euclidean norms; 0 if not finite.
  *   `norm_bound`: float32, the norm of a typical update.
  *   `num_clients`, `num_non_finite`: int32. If they are equal, the aggregate
      is zero and nothing was learned.
  *   `num_attenuated`: int32, finite clients with less than half of 1/N.
  *   `num_clipped`: int32, finite clients whose norm was reduced.
  *   `effective_clients`: float32, 1 / sum of squared weights.
  *   `weighting`: the `slope` float32 [K], `margin` float32 [K] and
      `log_sharpness` float32 that made this round's weights.
  *   `meta_objective`, `meta_gradient_norm`: float32, of this round's meta
      step; 0 if there was none.
  *   `root_norm`, `holdout_loss_before`, `holdout_loss_after`: float32, with a
      hold-out only. `root_norm` far from `norms` of honest clients tells that
      the hold-out's training settings are not the clients'.

  An empty cohort gives a zero aggregate and leaves what was learned.

  Source: Das & Sen, "Dynamic Meta-Layer Aggregation for Byzantine-Robust
  Federated Learning", arXiv 2603.16846.

  Args:
    holdout: The clean examples at the server, or None for agreement mode.
    weighted: Whether to return a `tff.aggregators.WeightedAggregationFactory`
      (default), which `tff.learning.algorithms.build_weighted_*` take, or a
      `tff.aggregators.UnweightedAggregationFactory`. The weights, which clients
      report themselves, have no effect unless `config.max_example_ratio` is
      set.
    server_optimizer: The optimizer that the learning process applies the
      aggregate with; of use with a `holdout` only. None (default) is TFF's
      default, SGD with learning rate 1.
    config: The constants of the algorithm; None for the defaults.
    seed: The seed of the sketch and of the hold-out's split, a nonnegative int
      below 2^63. It should be unknown to clients. None (default) draws one at
      random; give one to make runs repeatable.

  Returns:
    A `tff.aggregators.AggregationFactory`.

  Raises:
    TypeError: If an argument is of another kind.
    ValueError: If `server_optimizer` is given without a `holdout` or `seed` is
      out of range.
  """
  if not isinstance(weighted, bool):
    raise TypeError(f'weighted must be a bool; found {weighted!r}.')
  cls = FedAOTFactory if weighted else UnweightedFedAOTFactory
  return cls(
      holdout, server_optimizer=server_optimizer, config=config, seed=seed
  )


class _FactoryBase:
  """What the weighted and the unweighted factory share."""

  def __init__(
      self,
      holdout: Optional[holdout_lib.HoldOut] = None,
      *,
      server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
      config: Optional[fedaot_config.FedAOTConfig] = None,
      seed: Optional[int] = None,
  ):
    """Initializes the factory; see `fedaot_factory` for the arguments."""
    if holdout is not None and not isinstance(holdout, holdout_lib.HoldOut):
      raise TypeError(
          'holdout must be a fedaot_tff.HoldOut or None; found'
          f' {type(holdout).__name__}.'
      )
    if server_optimizer is not None:
      if not isinstance(server_optimizer, tff.learning.optimizers.Optimizer):
        raise TypeError(
            'server_optimizer must be a tff.learning.optimizers.Optimizer;'
            f' found {type(server_optimizer).__name__}.'
        )
      if holdout is None:
        raise ValueError(
            'server_optimizer is of use with a holdout only; leave it out.'
        )
    if config is not None and not isinstance(
        config, fedaot_config.FedAOTConfig
    ):
      raise TypeError(
          'config must be a fedaot_tff.FedAOTConfig or None; found'
          f' {type(config).__name__}.'
      )
    self._holdout = holdout
    self._server_optimizer = (
        server_optimizer
        or tff.learning.optimizers.build_sgdm(learning_rate=1.0)
    )
    self._config = config or fedaot_config.FedAOTConfig()
    self._seed = _check_seed(seed)

  @property
  def holdout(self) -> Optional[holdout_lib.HoldOut]:
    """The hold-out, None in agreement mode."""
    return self._holdout

  def create_round(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> fedaot_round.FedAOTRound:
    """The pieces of a round, for learning processes that hand the model over.

    Args:
      value_type: The type of a client update.
      weight_type: The type of an example count, None if there is none.

    Returns:
      A `FedAOTRound`.
    """
    return fedaot_round.FedAOTRound(
        value_type,
        weight_type=weight_type,
        holdout=self._holdout,
        config=self._config,
        seed=self._seed,
    )

  def _create(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> tff.templates.AggregationProcess:
    """The process, weighted unless `weight_type` is None."""
    fedaot = self.create_round(value_type, weight_type)
    if self._holdout is None:
      init_fn, next_fn = _agreement_functions(fedaot)
    else:
      init_fn, next_fn = _mirror_functions(
          fedaot, value_type, self._holdout, self._server_optimizer
      )
    init = tff.federated_computation(
        lambda: tff.federated_eval(init_fn, tff.SERVER)
    )
    types = [
        init.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
    ]
    if weight_type is None:

      @tff.federated_computation(*types)
      def unweighted_next(state, value):
        return next_fn(state, value, None)

      return tff.templates.AggregationProcess(init, unweighted_next)

    @tff.federated_computation(
        *types, tff.FederatedType(weight_type, tff.CLIENTS)
    )
    def weighted_next(state, value, weight):
      return next_fn(state, value, weight)

    return tff.templates.AggregationProcess(init, weighted_next)


class FedAOTFactory(_FactoryBase, tff.aggregators.WeightedAggregationFactory):
  """FedAOT for weighted values; see `fedaot_factory`."""

  def create(
      self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Creates the process for updates of `value_type`.

    Args:
      value_type: A structure of float tensors of known shapes.
      weight_type: A scalar number, the clients' example counts.

    Returns:
      A weighted `tff.templates.AggregationProcess`.

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
    return self._create(value_type, weight_type)


class UnweightedFedAOTFactory(
    _FactoryBase, tff.aggregators.UnweightedAggregationFactory
):
  """FedAOT for values without weights; see `fedaot_factory`."""

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Creates the process for updates of `value_type`.

    Args:
      value_type: A structure of float tensors of known shapes.

    Returns:
      An unweighted `tff.templates.AggregationProcess`.

    Raises:
      TypeError: If `value_type` is of another kind.
      ValueError: If it does not match the hold-out's model.
    """
    return self._create(value_type, None)


def _check_seed(seed: Any) -> int:
  if seed is None:
    return secrets.randbits(63)
  if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
    raise TypeError(f'seed must be an int or None; found {seed!r}.')
  if not 0 <= seed < 2**63:
    raise ValueError(f'seed must be in [0, 2^63); found {seed}.')
  return int(seed)


def _agreement_functions(fedaot: fedaot_round.FedAOTRound):
  """Initial state and `next` of agreement mode."""

  def next_fn(state, value, weight):
    weighed = fedaot.weigh(state, value, weight)
    new_state, measurements = fedaot.learn(state, weighed)
    return tff.templates.MeasuredProcessOutput(
        new_state, weighed.result, measurements
    )

  return fedaot.initialize, next_fn


def _mirror_functions(
    fedaot: fedaot_round.FedAOTRound,
    value_type: tff.Type,
    holdout: holdout_lib.HoldOut,
    server_optimizer: tff.learning.optimizers.Optimizer,
):
  """Initial state and `next` of hold-out mode, with a mirror of the model."""

  @tff.tensorflow.computation
  def initialize():
    state = fedaot.initialize()
    specs = tff.types.type_to_tf_tensor_specs(value_type)
    state['mirror'] = collections.OrderedDict(
        weights=tf.nest.pack_sequence_as(specs, holdout.initial_weights()),
        optimizer=server_optimizer.initialize(specs),
    )
    return state

  @tff.tensorflow.computation(initialize.type_signature.result)
  def split_state(state):
    mirror = state.pop('mirror')
    return state, mirror

  mirror_type = split_state.type_signature.result[1]

  @tff.tensorflow.computation(mirror_type, value_type)
  @tf.function
  def apply_aggregate(mirror, aggregate):
    # The same operations in the same order as TFF's own model finalizer, so
    # that mirror and model stay equal to the last bit. A tf.function, as some
    # optimizers branch on tensors.
    optimizer, weights = server_optimizer.next(
        mirror['optimizer'], mirror['weights'], aggregate
    )
    return collections.OrderedDict(weights=weights, optimizer=optimizer)

  @tff.tensorflow.computation(
      fedaot.initialize.type_signature.result, mirror_type
  )
  def join_state(state, mirror):
    state['mirror'] = mirror
    return state

  def next_fn(state, value, weight):
    state, mirror = tff.federated_map(split_state, state)
    weighed = fedaot.weigh(state, value, weight, model=mirror.weights)
    mirror = tff.federated_map(apply_aggregate, (mirror, weighed.result))
    new_state, measurements = fedaot.learn(state, weighed, mirror.weights)
    return tff.templates.MeasuredProcessOutput(
        tff.federated_map(join_state, (new_state, mirror)),
        weighed.result,
        measurements,
    )

  return initialize, next_fn
