"""How well an aggregator's weights tell attackers from honest clients."""

from typing import Any, Optional, Tuple

import numpy as np


def attacker_weight(weights: Any, is_byzantine: Any) -> float:
  """The attackers' share of the aggregation weights.

  Args:
    weights: Float [N], the clients' weights.
    is_byzantine: Bool [N], whether each client is an attacker.

  Returns:
    The sum of the attackers' weights.

  Raises:
    TypeError: If `is_byzantine` is not boolean.
    ValueError: If the arguments are not vectors of the same length.
  """
  weights, is_byzantine = _check_vectors(weights, is_byzantine)
  return float(np.sum(weights[is_byzantine]))


def detection_auroc(weights: Any, is_byzantine: Any) -> Optional[float]:
  """The area under the ROC curve of low weights as a detector of attackers.

  The probability that a random honest client has a larger weight than a random
  attacker, ties counted half: 1 is perfect, 0.5 is chance.

  Args:
    weights: Float [N], the clients' weights.
    is_byzantine: Bool [N], whether each client is an attacker.

  Returns:
    The area, in [0, 1]; None if there are no attackers, no honest clients, or a
    weight is NaN.

  Raises:
    TypeError: If `is_byzantine` is not boolean.
    ValueError: If the arguments are not vectors of the same length.
  """
  weights, is_byzantine = _check_vectors(weights, is_byzantine)
  attackers = np.sort(weights[is_byzantine])
  honest = weights[~is_byzantine]
  if not attackers.size or not honest.size or np.isnan(weights).any():
    return None
  below = np.searchsorted(attackers, honest, side='left')
  not_above = np.searchsorted(attackers, honest, side='right')
  return float(np.mean(below + not_above) / (2 * attackers.size))


def _check_vectors(
    weights: Any, is_byzantine: Any
) -> Tuple[np.ndarray, np.ndarray]:
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
