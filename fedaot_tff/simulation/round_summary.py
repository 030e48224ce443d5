"""What there is to show of a round, as scalars by name."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from fedaot_tff.simulation import training


def scalars(
    record: training.RoundRecord,
) -> 'collections.OrderedDict[str, Any]':
  """The scalars of a round.

  Args:
    record: What is known of the round.

  Returns:
    A nested OrderedDict of floats, ints and bools: `test`, what the evaluation
    gave; `attack`, the number of attackers, their share of the weights and the
    AUROC of the weights as a detector; `model_is_finite`; `process`, all
    scalars among the metrics of the process; and `time`, in seconds. What the
    round does not have is left out.
  """
  attack = collections.OrderedDict(num_attackers=record.num_attackers)
  for name in ('attacker_weight', 'detection_auroc'):
    if getattr(record, name) is not None:
      attack[name] = getattr(record, name)
  summary = collections.OrderedDict()
  if record.evaluation is not None:
    summary['test'] = collections.OrderedDict(record.evaluation)
  summary['attack'] = attack
  summary['model_is_finite'] = record.model_is_finite
  summary['process'] = _only_scalars(record.metrics)
  summary['time'] = collections.OrderedDict(round=record.seconds)
  if record.evaluation is not None:
    summary['time']['evaluation'] = record.evaluation_seconds
  return summary


def _only_scalars(metrics: Mapping[str, Any]) -> Any:
  """The scalars of nested mappings; other containers are left out."""
  found = collections.OrderedDict()
  for name, value in metrics.items():
    if isinstance(value, Mapping):
      nested = _only_scalars(value)
      if nested:
        found[name] = nested
    elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in 'bfiu':
      found[name] = value
  return found
