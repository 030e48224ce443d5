"""How well an aggregator's weights tell attackers from honest clients.

Weights are float [N]; `is_byzantine`, bool [N], tells whose the attackers are.
"""

from typing import Any, Optional, Tuple

import numpy as np
from scipy import stats


def attacker_weight(weights: Any, is_byzantine: Any) -> float:
  """The attackers' share of the aggregation weights."""
  weights, is_byzantine = _check_vectors(weights, is_byzantine)
  return float(np.sum(weights[is_byzantine]))


def detection_auroc(weights: Any, is_byzantine: Any) -> Optional[float]:
  """The area under the ROC curve of low weights as a detector of attackers.

  The probability that a random honest client has a larger weight than a random
  attacker, ties counted half: 1 is perfect, 0.5 is chance. None if there are no
  attackers, no honest clients, or a weight is NaN.
  """
  weights, is_byzantine = _check_vectors(weights, is_byzantine)
  if len(set(is_byzantine)) < 2 or np.isnan(weights).any():
    return None
  # The statistic of Mann and Whitney, by the ranks of the honest clients.
  ranks = stats.rankdata(weights)[~is_byzantine]
  num_attackers = np.count_nonzero(is_byzantine)
  return float((np.mean(ranks) - (len(ranks) + 1) / 2) / num_attackers)


def _check_vectors(weights, is_byzantine) -> Tuple[np.ndarray, np.ndarray]:
  weights = np.asarray(weights, dtype=np.float64)
  is_byzantine = np.asarray(is_byzantine)
  if is_byzantine.dtype != np.bool_:
    raise TypeError(
        f'is_byzantine must be boolean; found {is_byzantine.dtype}.'
    )
  if weights.ndim != 1 or weights.shape != is_byzantine.shape:
    raise ValueError(
        'weights and is_byzantine must be vectors of the same length; found'
        f' shapes {weights.shape} and {is_byzantine.shape}.'
    )
  return weights, is_byzantine
