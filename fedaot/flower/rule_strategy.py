"""Any rule of `fedaot.rules` as a strategy of Flower."""

from typing import Any, Dict, Optional

import numpy as np

from fedaot import checks
from fedaot import holdout as holdout_lib
from fedaot.flower import strategy as strategy_lib
from fedaot.rules import rule as rule_lib


class Robust(strategy_lib.RobustStrategy):
  """`FedAvg` with a rule in the place of the average.

  `Robust(nnm(krum(num_byzantine=2)))`. Reported example counts are ignored. See
  `RobustStrategy` for what becomes of unusable replies and of buffers; what the
  rule measures are metrics as well: `fedaot-weights`, in the order of
  `node_ids`, `fedaot-num-non-finite` and others.
  """

  def __init__(
      self,
      rule: rule_lib.Rule,
      *args: Any,
      holdout: Optional[holdout_lib.HoldOut] = None,
      **kwargs: Any,
  ):
    """Initializes `Robust`.

    Args:
      rule: A rule or wrapped rule of `fedaot.rules`.
      *args: As of `FedAvg`.
      holdout: For `fltrust`: the server's clean examples, see `FedAOT`.
      **kwargs: As of `FedAvg`, and `buffers`, see `RobustStrategy`.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If the rule needs a hold-out or has no use for the one given.
    """
    super().__init__(*args, **kwargs)
    self._rule = checks.check_kind('rule', rule, rule_lib.Rule)
    if rule.needs_root != (holdout is not None):
      raise ValueError(
          f"{rule!r} needs the server's own update: give a holdout."
          if rule.needs_root
          else f'{rule!r} has no use for a holdout; leave it out.'
      )
    self._holdout = strategy_lib.of_weights(holdout)
    self._round = 0
    self._reference: Optional[np.ndarray] = None

  def _aggregate(self, model, clients, num_examples):
    reference = self._reference
    dtype = np.result_type(np.float32, *model)
    if self._holdout:
      self._holdout.follow(list(self._model.values()), self._weight_places())
      positions = np.arange(self._holdout.num_examples)
      trained = self._holdout.train(model, positions)
      (reference,) = _updates(model, [trained], dtype)
    update, measured = self._rule.measure(
        _updates(model, clients, dtype),
        round_num=self._round,
        reference=reference,
        shapes=[array.shape for array in model],
    )
    self._round += 1
    if self._rule.remembers:
      self._reference = update
    parts = np.split(update, np.cumsum([a.size for a in model])[:-1])
    new = [
        (array + part.reshape(array.shape)).astype(array.dtype)
        for array, part in zip(model, parts)
    ]
    return new, measured.get('weights', np.ones(len(clients))), measured

  def state_dict(self) -> Dict[str, np.ndarray]:
    """What goes from round to round, as arrays."""
    state = {'round': np.asarray(self._round)}
    if self._reference is not None:
      state['reference'] = self._reference
    return state

  def load_state_dict(self, state: Dict[str, Any]) -> None:
    """Goes on where `state_dict` was taken, with the arrays of that round."""
    self._round = int(state['round'])
    self._reference = state['reference'] if 'reference' in state else None


def _updates(model, clients, dtype) -> np.ndarray:
  """The clients' updates, one a row."""
  table = np.empty([len(clients), sum(a.size for a in model)], dtype)
  with np.errstate(all='ignore'):  # Forged updates overflow.
    for row, client in zip(table, clients):
      start = 0
      for before, after in zip(model, client):
        part = row[start : start + before.size].reshape(before.shape)
        # Not in half precision, in which both may be.
        wide = np.result_type(after, before, np.float32)
        np.subtract(after, before, out=part, dtype=wide, casting='same_kind')
        start += before.size
  return table
