"""FedAOT as a TFF aggregation factory."""

from typing import Optional

import tensorflow_federated as tff

from fedaot import checks
from fedaot import config as config_lib
from fedaot_tff.aggregators import fedaot_round
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware


class FedAOTFactory(model_aware.ModelAwareFactory):
  """FedAOT, robust against Byzantine clients.

  The aggregate is a weighted mean of the client updates with learned soft
  weights: statistics of each update become a reliability score, a softmax turns
  scores into weights, and after each round a meta-gradient step improves the
  variables that turn statistics into scores. No update is thrown away but those
  that are not finite; no threshold is tuned to an attack.

  With a `holdout` the meta step lowers the loss of the updated model on clean
  examples at the server, and a majority of attackers can be withstood. Without
  one it raises the agreement between rounds, and the majority of the clients
  must be honest.

  In hold-out mode the aggregator must know the global model. Its state mirrors
  it: the model starts at the hold-out model's initial weights, and each
  aggregate is applied with `server_optimizer`. The state of a process whose
  model starts elsewhere (a Keras model, or after `set_model_weights`), or whose
  hyperparameters were set, must be given to `fedaot_tff.synchronize_model`
  first; `fedaot_tff.check_model` tells whether mirror and process differ. Two
  things no mirror can know: the client learning rate of a process that
  schedules it over rounds, and, where the clients train a functional model,
  which TFF gives no hyperparameters, that of the clients. There the hold-out's
  `client_optimizer` must be right. `fedaot_tff.build_fedaot_fed_avg` needs no
  mirror.

  The state of the created process is an OrderedDict, see
  `fedaot_round.FedAOTRound`; with a hold-out it has a further entry
  `mirror`, see `model_aware.ModelAwareFactory.create_process`.

  The measurements are an OrderedDict; N clients in the order in which they were
  given, K statistics named by `HOLDOUT_STATISTICS` and
  `AGREEMENT_STATISTICS`:

  *   `weights`: float32 [N], the weights; they sum to 1.
  *   `statistics`: float32 [N, K], higher is more trustworthy.
  *   `z`: float32 [N, K], standardized over the cohort.
  *   `norms`: float32 [N], Euclidean norms; 0 if not finite.
  *   `norm_bound`: float32, the norm of a typical update.
  *   `num_clients`, and of them `num_non_finite` and `num_empty`: int32. Empty
      are those without a positive weight, who have nothing to say: in a
      learning process of TFF those without examples, and those whose update was
      not finite, which TFF makes a zero of weight 0. Neither votes. If no other
      is left, the aggregate is zero and nothing was learned.
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
  """

  needs_holdout = False

  def __init__(
      self,
      holdout: Optional[holdout_lib.HoldOut] = None,
      *,
      server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
      config: Optional[config_lib.FedAOTConfig] = None,
      seed: Optional[int] = None,
  ):
    """Initializes the factory.

    Args:
      holdout: The clean examples at the server, or None for agreement mode.
      server_optimizer: The optimizer that the learning process applies the
        aggregate with; of use with a `holdout` only. None (default) is TFF's
        default, SGD with learning rate 1.
      config: The constants of the algorithm; None for the defaults.
      seed: The seed of the sketch and of the hold-out's split, a nonnegative
        int below 2^63. It should be unknown to clients. None (default) draws
        one at random; give one to make runs repeatable.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If `server_optimizer` is given without a `holdout` or `seed`
        is out of range.
    """
    super().__init__(holdout, server_optimizer=server_optimizer)
    self._config = config_lib.FedAOTConfig() if config is None else config
    checks.check_kind('config', self._config, config_lib.FedAOTConfig)
    self._seed = checks.check_seed(seed)

  def create_round(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> fedaot_round.FedAOTRound:
    """See `model_aware.ModelAwareFactory`."""
    return fedaot_round.FedAOTRound(
        value_type,
        weight_type=weight_type,
        holdout=self._holdout,
        config=self._config,
        seed=self._seed,
    )


fedaot_factory = FedAOTFactory
