"""FedAOT as a strategy of Flower."""

from typing import Any, Dict, Optional

from fedaot import aggregator as aggregator_lib
from fedaot import config as config_lib
from fedaot import holdout as holdout_lib
from fedaot.flower import strategy as strategy_lib


class FedAOT(strategy_lib.RobustStrategy):
  """A drop-in for `flwr.serverapp.strategy.FedAvg` that withstands attackers.

  Without a hold-out the majority of a round's clients must be honest; with one,
  a majority of attackers can be withstood. See `RobustStrategy` for what
  becomes of unusable replies and of buffers, `fedaot.FedAOTAggregator` for the
  rule. Metrics of a round, beside those of the clients:

  * `fedaot-weights`: the clients' weights, in the order of `node_ids`.
  * `fedaot-effective-clients`, `fedaot-num-clipped`, `fedaot-num-attenuated`,
    `fedaot-num-non-finite`, `fedaot-norm-bound`: see `fedaot.Round`.
  * `fedaot-num-dropped`: unusable replies.
  * With a hold-out, `fedaot-holdout-loss-before`, its loss before the round,
    and `fedaot-root-norm`, the norm of an update from its examples. If that is
    far from the norm bound, the hold-out does not train as clients do.

  Attributes:
    aggregator: The `fedaot.FedAOTAggregator`; `last_round` tells more.
  """

  def __init__(
      self,
      *args: Any,
      holdout: Optional[holdout_lib.HoldOut] = None,
      config: Optional[config_lib.FedAOTConfig] = None,
      seed: Optional[int] = None,
      **kwargs: Any,
  ):
    """Initializes `FedAOT`.

    Args:
      *args: As of `FedAvg`.
      holdout: The server's clean examples, of `fedaot.holdouts` or your own: a
        `fedaot.HoldOut` on all the arrays that are sent, in their order.
      config: The constants of the algorithm; None for the defaults.
      seed: A secret that clients must not know; None draws it.
      **kwargs: As of `FedAvg`, and `buffers`, see `RobustStrategy`.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If a value is out of range.
    """
    super().__init__(*args, **kwargs)
    self._holdout = strategy_lib.of_weights(holdout)
    self.aggregator = aggregator_lib.FedAOTAggregator(
        self._holdout, config=config, seed=seed
    )

  def configure_train(self, server_round, arrays, config, grid):
    """As of `FedAvg`; first learns from the last round at its model."""
    messages = super().configure_train(server_round, arrays, config, grid)
    model, places = list(self._model.values()), self._weight_places()
    if self._holdout:
      self._holdout.follow(model, places)
    self.aggregator.learn([model[i] for i in places])
    return messages

  def _aggregate(self, model, clients, num_examples):
    new = self.aggregator.aggregate(model, clients, num_examples)
    found = self.aggregator.last_round
    names = (
        'weights',
        'effective_clients',
        'num_clipped',
        'num_attenuated',
        'num_non_finite',
        'norm_bound',
        'holdout_loss_before',
        'root_norm',
    )
    return new, found.weights, {name: getattr(found, name) for name in names}

  def state_dict(self) -> Dict[str, Any]:
    """What goes from round to round, as arrays; see `FedAOTAggregator`."""
    return self.aggregator.state_dict()

  def load_state_dict(self, state: Dict[str, Any]) -> None:
    """Goes on where `state_dict` was taken, with the arrays of that round."""
    self.aggregator.load_state_dict(state)
