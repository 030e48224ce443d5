"""What there is to show of a round, as scalars by name."""

import collections
from collections.abc import Mapping
from typing import Any, Dict

import numpy as np

from fedaot_tff.simulation import training


def scalars(record: training.RoundRecord) -> Dict[str, Any]:
  """The scalars of a round: a nested OrderedDict of floats, ints and bools.

  `process` has all scalars among the metrics of the process, `time` is in
  seconds. What the round does not have is left out.
  """
  return _only_scalars(
      collections.OrderedDict(
          test=record.evaluation,
          attack=collections.OrderedDict(
              num_attackers=record.num_attackers,
              attacker_weight=record.attacker_weight,
              detection_auroc=record.detection_auroc,
          ),
          model_is_finite=record.model_is_finite,
          process=record.metrics,
          time=collections.OrderedDict(
              round=record.seconds, evaluation=record.evaluation_seconds or None
          ),
      )
  )


def _only_scalars(metrics: Mapping[str, Any]) -> Dict[str, Any]:
  """The scalars of nested mappings; all else is left out."""
  found = collections.OrderedDict()
  for name, value in metrics.items():
    if isinstance(value, Mapping):
      nested = _only_scalars(value)
      if nested:
        found[name] = nested
    elif np.ndim(value) == 0 and np.asarray(value).dtype.kind in 'bfiu':
      found[name] = value
  return found
