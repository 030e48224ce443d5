"""Plain NumPy (float64) reference of the FedAOT aggregation, both modes.

Written from the formulas alone and for reading, not for speed: it is what the
TensorFlow implementation is compared with. `N` is the number of clients of a
round, `d` the number of coordinates of an update, `m` the sketch dimension and
`K = 4` the number of statistics.

Parameters of the weighting are kept as `b` [K], `m` [K] and `log_sharpness`;
wherever they form one vector (Adam moments, gradients) its order is
`[b_1..b_K, m_1..m_K, log_sharpness]`.
"""

from typing import Any, Dict, Optional, Tuple

import numpy as np

HOLD_OUT_STATISTICS = ('cref', 'croot', 'dup', 'norm')
AGREEMENT_STATISTICS = ('cref', 'norm', 'dup', 'spec')

_NUM_STATISTICS = 4
_LARGEST_ENTRY = np.float32(1e15)
_TINY = 1e-30
_Z_LIMIT = 10.0

_SOFTPLUS_B_START = 1.5
_B_START = np.log(np.expm1(_SOFTPLUS_B_START))
_M_START = 2.0

_EMA_DECAY = 0.9
_ADAM_BETA_1 = 0.9
_ADAM_BETA_2 = 0.99
_ADAM_EPSILON = 1e-3
_LEARNING_RATE = 0.05
_PULL_TO_START = 0.01


def sigmoid(x: Any) -> np.ndarray:
  """Logistic function, elementwise, without overflow."""
  return np.exp(-np.logaddexp(0.0, -np.asarray(x, np.float64)))


def softplus(x: Any) -> np.ndarray:
  """`log(1 + exp(x))`, elementwise, without overflow."""
  return np.logaddexp(0.0, np.asarray(x, np.float64))


def cosine(x: np.ndarray, y: np.ndarray) -> float:
  """Cosine of two vectors; 0 if either is the zero vector."""
  product = np.linalg.norm(x) * np.linalg.norm(y)
  return float(x @ y / product) if product > 0.0 else 0.0


def weighted_quantile(values: np.ndarray, weights: np.ndarray,
                      q: float) -> float:
  """Quantile `q` of `values` [N] under non-negative `weights` [N].

  The i-th smallest value sits at `(cumsum v - v / 2) / sum v`; in between the
  values are interpolated linearly, outside they are constant. Entries of
  weight 0 take no part; without any positive weight the quantile is 0.
  """
  taking_part = np.flatnonzero(weights > 0.0)
  if taking_part.size == 0:
    return 0.0
  # Of equal values the one of less weight comes first.
  order = taking_part[np.lexsort((weights[taking_part], values[taking_part]))]
  total = np.sum(weights[order])
  positions = (np.cumsum(weights[order]) - weights[order] / 2.0) / total
  return float(np.interp(q, positions, values[order]))


def fold_sketch(vector: np.ndarray, signs: np.ndarray,
                dimension: int) -> np.ndarray:
  """Sketch [dimension] of `vector` [d]: its signed coordinates, folded."""
  sketch = np.zeros(dimension)
  for position, (sign, entry) in enumerate(zip(signs, vector)):
    sketch[position % dimension] += sign * entry
  return sketch


def expand_signs(table: np.ndarray, blocks: np.ndarray,
                 num_coordinates: int) -> np.ndarray:
  """The sign [d] of each coordinate from a table of fewer signs.

  Rows of p coordinates form blocks of 2^16 coordinates, or of as many as make
  64 blocks. Every other block reads its signs 16 places further on in the
  table, and each block has a sign of its own.
  """
  length = table.shape[1]
  num_rows = -(-num_coordinates // length)
  block_rows = max(1, 2**16 // length, -(-num_rows // 64))
  if num_rows <= 2 * block_rows:
    return table.ravel()[:num_coordinates]
  signs = []
  for row in range(num_rows):
    block, position = divmod(row, block_rows)
    start = 16 * (block // 2) + length * (block_rows * (block % 2) + position)
    signs.append(blocks[block] * table.ravel()[start : start + length])
  return np.concatenate(signs)[:num_coordinates]


def is_finite_update(update: np.ndarray) -> bool:
  """Whether every entry, as float32, is a number of size below 1e15."""
  with np.errstate(over='ignore'):
    single = np.asarray(update).astype(np.float32)
  return bool(np.all(np.isfinite(single)) and
              np.all(np.abs(single) < _LARGEST_ENTRY))


def softmax_over(scores: np.ndarray, taking_part: np.ndarray) -> np.ndarray:
  """Softmax of `scores` [N] over the entries marked; 0 for all others."""
  weights = np.zeros(len(scores))
  if np.any(taking_part):
    top = np.max(scores[taking_part])
    weights[taking_part] = np.exp(scores[taking_part] - top)
    weights /= np.sum(weights)
  return weights


def rough_cohort(rng: np.random.Generator, round_num: int,
                 base: np.ndarray) -> np.ndarray:
  """Updates [N, d] with attackers, copies and broken ones for five rounds."""
  num_clients = [8, 9, 6, 7, 8][round_num]
  noise = rng.normal(size=[num_clients, len(base)])
  updates = base + 0.7 * np.linalg.norm(base) / np.sqrt(len(base)) * noise
  updates[:2] *= -3
  if round_num == 2:
    updates[3, 4] = np.nan
    updates[4] *= 1e30
    updates[5, 0] = -np.inf
  if round_num == 3:
    updates[2] = updates[3]
  return updates.astype(np.float32)


class _Weighting:
  """The weighting parameters theta = (b, m, log_sharpness) and their Adam.

  Attributes:
    b: [K], softplus(b) is the slope of each statistic; softplus(b) = 1.5 first.
    m: [K], margin of each statistic, in units of z; 2 first.
    log_sharpness: Logarithm of the common factor of the scores; 0 first.
    first_moment: [2 K + 1], Adam's mean of the gradients.
    second_moment: [2 K + 1], Adam's mean of the squared gradients.
    step: Number of Adam steps so far.
  """

  def __init__(self):
    self.b = np.full(_NUM_STATISTICS, _B_START)
    self.m = np.full(_NUM_STATISTICS, _M_START)
    self.log_sharpness = 0.0
    self.first_moment = np.zeros(2 * _NUM_STATISTICS + 1)
    self.second_moment = np.zeros(2 * _NUM_STATISTICS + 1)
    self.step = 0

  def scores(self, z: np.ndarray, log_discount: np.ndarray,
             without: Optional[int] = None) -> np.ndarray:
    """Scores [N] from `z` [N, K], leaving out the statistic `without`."""
    scores = np.zeros(len(z))
    for i in range(len(z)):
      hinges = 0.0
      for k in range(_NUM_STATISTICS):
        if k != without:
          hinges -= softplus(self.b[k]) * softplus(-(z[i, k] + self.m[k]))
      scores[i] = np.exp(self.log_sharpness) * hinges + log_discount[i]
    return scores

  def gradient(self, z: np.ndarray, weights: np.ndarray,
               weight_gradient: np.ndarray) -> np.ndarray:
    """Gradient [2 K + 1] in theta, given the objective's in the weights.

    Args:
      z: [N, K], the statistics the weights were computed from.
      weights: [N], their softmax at the current theta; 0 for those left out.
      weight_gradient: [N], derivative of the objective in each weight.

    Returns:
      The derivative of the objective in (b, m, log_sharpness).
    """
    # Softmax: d objective / d s_i = w_i (G_i - sum_j w_j G_j).
    score_gradient = weights * (weight_gradient - weights @ weight_gradient)
    sharpness = np.exp(self.log_sharpness)
    gradient = np.zeros(2 * _NUM_STATISTICS + 1)
    for i in range(len(z)):
      for k in range(_NUM_STATISTICS):
        hinge = softplus(-(z[i, k] + self.m[k]))
        slope = softplus(self.b[k])
        gradient[k] -= (
            score_gradient[i] * sharpness * sigmoid(self.b[k]) * hinge)
        gradient[_NUM_STATISTICS + k] += (
            score_gradient[i] * sharpness * slope *
            sigmoid(-(z[i, k] + self.m[k])))
        gradient[-1] -= score_gradient[i] * sharpness * slope * hinge
    return gradient

  def descend(self, gradient: np.ndarray) -> None:
    """One Adam step along `gradient` with a pull towards the start."""
    self.step += 1
    self.first_moment = (
        _ADAM_BETA_1 * self.first_moment + (1 - _ADAM_BETA_1) * gradient)
    self.second_moment = (
        _ADAM_BETA_2 * self.second_moment + (1 - _ADAM_BETA_2) * gradient**2)
    mean = self.first_moment / (1 - _ADAM_BETA_1**self.step)
    square = self.second_moment / (1 - _ADAM_BETA_2**self.step)
    change = _LEARNING_RATE * mean / (np.sqrt(square) + _ADAM_EPSILON)

    b, m = change[:_NUM_STATISTICS], change[_NUM_STATISTICS:-1]
    self.b = self.b - b - _PULL_TO_START * (self.b - _B_START)
    self.m = self.m - m - _PULL_TO_START * (self.m - _M_START)
    self.log_sharpness = float(self.log_sharpness - change[-1] -
                               _PULL_TO_START * self.log_sharpness)


def _zero_non_finite(updates: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
  """Float64 updates with the non-finite ones zeroed, and who was finite."""
  finite = np.array([is_finite_update(update) for update in updates], bool)
  cleaned = np.zeros(np.shape(updates))
  for i in np.flatnonzero(finite):
    cleaned[i] = updates[i]
  return cleaned, finite


def _unit_rows(rows: np.ndarray) -> np.ndarray:
  units = np.zeros_like(rows)
  for i, row in enumerate(rows):
    norm = np.linalg.norm(row)
    if norm > 0.0:
      units[i] = row / norm
  return units


def _standardize(values: np.ndarray, v: np.ndarray, floor: float) -> np.ndarray:
  """z [N] of one statistic [N], its median and scale weighted by `v` [N]."""
  median = weighted_quantile(values, v, 0.5)
  upper = weighted_quantile(values, v, 0.75)
  z = (values - median) / (1.4826 * (upper - median) + floor)
  return np.clip(z, -_Z_LIMIT, _Z_LIMIT)


class HoldOutReference(_Weighting):
  """FedAOT with a clean hold-out; one round is `aggregate`, then `learn`.

  Attributes (beside those of theta and its Adam):
    reference: [d], exponential moving average of the aggregates.
  """

  def __init__(self, *, signs: np.ndarray, sketch_dimension: int = 256):
    super().__init__()
    self.signs = np.asarray(signs, np.float64)
    self.sketch_dimension = sketch_dimension
    self.reference = np.zeros(len(self.signs))
    self._round = None

  def aggregate(self, updates: np.ndarray, root: np.ndarray) -> Dict[str, Any]:
    """Aggregates `updates` [N, d] given the root update [d].

    Returns:
      A dict of `result` [d], `weights` [N], `scores` [N], `statistics` [N, K],
      `z` [N, K], `norm_bound` (tau), `copies_discount` (mu) [N], `trust` (t)
      [N], `norms` [N], `finite` [N] and `clipped` (the D_i) [N, d]. What it
      says of a non-finite client is what a zero vector would get, but its
      weight is 0.
    """
    updates, finite = _zero_non_finite(updates)
    count = len(updates)
    norms = np.array([np.linalg.norm(update) for update in updates])
    root = np.asarray(root, np.float64)
    root_norm = np.linalg.norm(root)
    root_is_usable = np.isfinite(root_norm) and root_norm > 0.0

    units = _unit_rows(
        np.array([
            fold_sketch(update, self.signs, self.sketch_dimension)
            for update in updates
        ]).reshape(count, self.sketch_dimension))

    cref = np.zeros(count)
    croot = np.zeros(count)
    dup = np.zeros(count)
    mu = np.zeros(count)
    for i in range(count):
      cref[i] = cosine(updates[i], self.reference)
      croot[i] = cosine(updates[i], root) if root_is_usable else 0.0
      similarities = [
          units[i] @ units[j] for j in range(count) if finite[j] and j != i
      ]
      dup[i] = np.log(1.01 - max(similarities, default=-1.0))
      mu[i] = 1.0 / (1.0 + sum(sigmoid((c - 0.95) / 0.02)
                               for c in similarities))
    trust = 0.05 + 0.95 * np.clip(croot / 0.05, 0.0, 1.0)
    opposed = np.clip(-cref / 0.05, 0.0, 1.0) * np.clip(
        -(croot + 0.5 * cref) / 0.05, 0.0, 1.0
    )
    trust = (1.0 - opposed) * trust + opposed * 0.05**2
    v = finite * mu * trust

    tau = weighted_quantile(norms, v, 0.5)
    if root_is_usable:
      tau = min(tau, 1.2 * root_norm)

    clipped = np.zeros_like(updates)
    norm = np.zeros(count)
    for i in range(count):
      factor = min(1.0, 2.0 * tau / norms[i]) if norms[i] > 0.0 else 1.0
      clipped[i] = factor * updates[i]
      ratio = norms[i] / (tau if tau > 0.0 else _TINY)
      norm[i] = -np.log(max(1.0, ratio))

    statistics = np.stack([cref, croot, dup, norm], axis=1)
    z = np.stack([
        _standardize(cref, v, 0.05),
        _standardize(croot, v, 0.05),
        _standardize(dup, v, 0.25),
        np.clip(norm / 0.20, -_Z_LIMIT, _Z_LIMIT),
    ], axis=1)
    scores = self.scores(z, np.log(mu))
    weights = softmax_over(scores, finite)
    result = weights @ clipped
    if np.any(finite):
      self.reference = (
          _EMA_DECAY * self.reference + (1 - _EMA_DECAY) * result)

    self._round = dict(
        result=result,
        weights=weights,
        scores=scores,
        statistics=statistics,
        z=z,
        norm_bound=tau,
        copies_discount=mu,
        trust=trust,
        norms=norms,
        finite=finite,
        clipped=clipped)
    return dict(self._round)

  def learn(self, holdout_gradient: np.ndarray) -> Dict[str, Any]:
    """The meta step, from the hold-out gradient [d] at the updated model.

    Returns:
      A dict of `advantages` (the A_i) [N] and `gradient` [2 K + 1], the
      latter None where no client was finite and nothing is learnt.

    Raises:
      RuntimeError: No round was aggregated since the last call.
    """
    if self._round is None:
      raise RuntimeError('learn() was called before aggregate().')
    last, self._round = self._round, None
    holdout_gradient = np.asarray(holdout_gradient, np.float64)
    gradient_norm = np.linalg.norm(holdout_gradient)
    tau = last['norm_bound']

    advantages = np.zeros(len(last['weights']))
    if np.isfinite(gradient_norm) and gradient_norm > 0.0 and tau > 0.0:
      for i, clipped in enumerate(last['clipped']):
        advantages[i] = holdout_gradient @ clipped / (gradient_norm * tau)
    if not np.any(last['finite']):
      return dict(advantages=advantages, gradient=None)

    gradient = self.gradient(last['z'], last['weights'], advantages)
    self.descend(gradient)
    self.log_sharpness = min(max(self.log_sharpness, -1.0), 1.5)
    return dict(advantages=advantages, gradient=gradient)


class AgreementReference(_Weighting):
  """FedAOT without clean data; one round is one call of `next`.

  Attributes (beside those of theta and its Adam):
    reference: [m], exponential moving average of sketched aggregates.
    previous: What is kept of the last finite round: a dict of `sketches` (of
      the clipped updates) [N', m], `norm_bound`, `z` [N', K] and `finite`
      [N']; None before the first.
  """

  def __init__(self, *, signs: np.ndarray, sketch_dimension: int = 256):
    super().__init__()
    self.signs = np.asarray(signs, np.float64)
    self.sketch_dimension = sketch_dimension
    self.reference = np.zeros(sketch_dimension)
    self.previous = None

  def next(self, updates: np.ndarray) -> Dict[str, Any]:
    """Aggregates `updates` [N, d] and takes the predictive meta step.

    Returns:
      A dict of `result` [d], `weights` [N], `scores` [N], `statistics` [N, K],
      `z` [N, K], `norm_bound` (tau), `norms` [N], `finite` [N], `clipped` (the
      D_i) [N, d], `clipped_sketches` [N, m], `reference_weights` (without the
      cref term) [N], and of the meta step `advantages` (A_i of the previous
      round's clients) [N'] and `gradient` [2 K + 1], both None where none was
      taken.
    """
    updates, finite = _zero_non_finite(updates)
    count = len(updates)
    norms = np.array([np.linalg.norm(update) for update in updates])
    sketches = np.array([
        fold_sketch(update, self.signs, self.sketch_dimension)
        for update in updates
    ]).reshape(count, self.sketch_dimension)
    units = _unit_rows(sketches)
    v = finite.astype(np.float64)

    tau = self._norm_bound(norms, units, finite)
    clipped = np.zeros_like(updates)
    clipped_sketches = np.zeros_like(sketches)
    for i in range(count):
      factor = min(1.0, tau / norms[i]) if norms[i] > 0.0 else 1.0
      clipped[i] = factor * updates[i]
      clipped_sketches[i] = factor * sketches[i]

    log_ratio = np.log(np.maximum(norms / max(tau, _TINY), 1e-2))
    spread_below = max(-weighted_quantile(log_ratio, v, 0.25), 0.0)
    cref = np.zeros(count)
    norm = np.zeros(count)
    dup = np.zeros(count)
    for i in range(count):
      cref[i] = cosine(sketches[i], self.reference)
      norm[i] = -max(0.0, log_ratio[i] - 0.5 * spread_below)
      dup[i] = -np.log(1.0 + sum(
          sigmoid(60.0 * (units[i] @ units[j] - 0.9))
          for j in range(count)
          if finite[j] and j != i))
    spec = self._spectral_statistic(units, finite)

    statistics = np.stack([cref, norm, dup, spec], axis=1)
    z = np.stack([
        _standardize(cref, v, 0.05),
        _standardize(norm, v, 0.20),
        _standardize(dup, v, 0.25),
        _standardize(spec, v, 0.05),
    ], axis=1)
    no_discount = np.zeros(count)
    scores = self.scores(z, no_discount)
    weights = softmax_over(scores, finite)
    reference_weights = softmax_over(
        self.scores(z, no_discount, without=AGREEMENT_STATISTICS.index('cref')),
        finite)

    advantages, gradient = None, None
    if np.any(finite):
      self.reference = (
          _EMA_DECAY * self.reference +
          (1 - _EMA_DECAY) * (reference_weights @ clipped_sketches))
      if self.previous is not None:
        advantages, gradient = self._learn(weights @ clipped_sketches)
      self.previous = dict(
          sketches=clipped_sketches, norm_bound=tau, z=z, finite=finite)

    return dict(
        result=weights @ clipped,
        weights=weights,
        scores=scores,
        statistics=statistics,
        z=z,
        norm_bound=tau,
        norms=norms,
        finite=finite,
        clipped=clipped,
        clipped_sketches=clipped_sketches,
        reference_weights=reference_weights,
        advantages=advantages,
        gradient=gradient)

  def _norm_bound(self, norms: np.ndarray, units: np.ndarray,
                  finite: np.ndarray) -> float:
    """tau: a median in which copies share a weight, 1 to 1.5 plain medians."""
    median = weighted_quantile(norms, finite.astype(np.float64), 0.5)
    weights = np.zeros(len(norms))
    for i in np.flatnonzero(finite):
      if norms[i] > 0.01 * median:
        weights[i] = 1.0 / (1.0 + sum(
            sigmoid((units[i] @ units[j] - 0.95) / 0.02)
            for j in np.flatnonzero(finite)
            if j != i))
    return float(
        np.clip(weighted_quantile(norms, weights, 0.5), median, 1.5 * median))

  def _spectral_statistic(self, units: np.ndarray,
                          finite: np.ndarray) -> np.ndarray:
    """Minus the distance to the median along the top singular direction."""
    deviations = np.zeros_like(units)
    if np.any(finite):
      center = np.median(units[finite], axis=0)
      deviations[finite] = units[finite] - center
    if not np.any(deviations):
      return np.zeros(len(units))
    _, _, right = np.linalg.svd(deviations, full_matrices=False)
    projections = deviations @ right[0]
    return -np.abs(projections - np.median(projections[finite]))

  def _learn(self, direction: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Judges the previous round's weights by this round's `direction` [m]."""
    previous = self.previous
    length = np.linalg.norm(direction)
    advantages = np.zeros(len(previous['z']))
    if length > 0.0 and previous['norm_bound'] > 0.0:
      for i, sketch in enumerate(previous['sketches']):
        advantages[i] = -(sketch / previous['norm_bound']) @ direction / length

    weights = softmax_over(
        self.scores(previous['z'], np.zeros(len(previous['z']))),
        previous['finite'])
    gradient = self.gradient(previous['z'], weights, advantages + 2.0 * weights)
    self.descend(gradient)
    self.b = np.maximum(self.b, _B_START)
    self.m = np.minimum(self.m, _M_START)
    self.log_sharpness = min(max(self.log_sharpness, 0.0), 1.5)
    return advantages, gradient
