"""Plain NumPy (float64) reference of the FedAOT aggregation, both modes.

Written from the formulas alone and for reading, not for speed: it is what the
TensorFlow implementation is compared with. `N` is the number of clients of a
round, `d` the number of coordinates of an update, `m` the sketch dimension and
`K` the number of statistics.

Parameters of the weighting are kept as `b` [K], `m` [K] and `log_sharpness`;
wherever they form one vector (Adam moments, gradients) its order is
`[b_1..b_K, m_1..m_K, log_sharpness]`.
"""

from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

HOLD_OUT_STATISTICS = ('cref', 'croot', 'dup', 'norm', 'profile')
AGREEMENT_STATISTICS = ('cref', 'norm', 'profile')

_LARGEST_ENTRY = np.float32(1e15)
_TINY = 1e-30
_Z_LIMIT = 10.0

_SOFTPLUS_B_START = 1.5
_B_START = np.log(np.expm1(_SOFTPLUS_B_START))

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


def weighted_quantile(
    values: np.ndarray, weights: np.ndarray, q: float
) -> float:
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


def fold_sketch(
    vector: np.ndarray, signs: np.ndarray, dimension: int
) -> np.ndarray:
  """Sketch [dimension] of `vector` [d]: its signed coordinates, folded."""
  sketch = np.zeros(dimension)
  for position, (sign, entry) in enumerate(zip(signs, vector)):
    sketch[position % dimension] += sign * entry
  return sketch


def expand_signs(
    table: np.ndarray, blocks: np.ndarray, num_coordinates: int
) -> np.ndarray:
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
  return bool(
      np.all(np.isfinite(single)) and np.all(np.abs(single) < _LARGEST_ENTRY)
  )


def softmax_over(scores: np.ndarray, taking_part: np.ndarray) -> np.ndarray:
  """Softmax of `scores` [N] over the entries marked; 0 for all others."""
  weights = np.zeros(len(scores))
  if np.any(taking_part):
    top = np.max(scores[taking_part])
    weights[taking_part] = np.exp(scores[taking_part] - top)
    weights /= np.sum(weights)
  return weights


def rough_cohort(
    rng: np.random.Generator, round_num: int, base: np.ndarray
) -> np.ndarray:
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
    m_start: What each of m is first; 1.5 with a hold-out, 2 without.
    m: [K], margin of each statistic, in units of z.
    log_sharpness: Logarithm of the common factor of the scores; 0 first.
    first_moment: [2 K + 1], Adam's mean of the gradients.
    second_moment: [2 K + 1], Adam's mean of the squared gradients.
    step: Number of Adam steps so far.
  """

  def __init__(self, num_statistics: int, *, m_start: float):
    self.b = np.full(num_statistics, _B_START)
    self.m_start = m_start
    self.m = np.full(num_statistics, m_start)
    self.log_sharpness = 0.0
    self.first_moment = np.zeros(2 * num_statistics + 1)
    self.second_moment = np.zeros(2 * num_statistics + 1)
    self.step = 0

  def scores(
      self,
      z: np.ndarray,
      log_discount: np.ndarray,
      without: Optional[int] = None,
  ) -> np.ndarray:
    """Scores [N] from `z` [N, K], leaving out the statistic `without`."""
    scores = np.zeros(len(z))
    for i in range(len(z)):
      hinges = 0.0
      for k in range(len(self.b)):
        if k != without:
          hinges -= softplus(self.b[k]) * softplus(-(z[i, k] + self.m[k]))
      scores[i] = np.exp(self.log_sharpness) * hinges + log_discount[i]
    return scores

  def gradient(
      self, z: np.ndarray, weights: np.ndarray, weight_gradient: np.ndarray
  ) -> np.ndarray:
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
    gradient = np.zeros(2 * len(self.b) + 1)
    for i in range(len(z)):
      for k in range(len(self.b)):
        hinge = softplus(-(z[i, k] + self.m[k]))
        slope = softplus(self.b[k])
        gradient[k] -= (
            score_gradient[i] * sharpness * sigmoid(self.b[k]) * hinge
        )
        gradient[len(self.b) + k] += (
            score_gradient[i]
            * sharpness
            * slope
            * sigmoid(-(z[i, k] + self.m[k]))
        )
        gradient[-1] -= score_gradient[i] * sharpness * slope * hinge
    return gradient

  def descend(self, gradient: np.ndarray) -> None:
    """One Adam step along `gradient` with a pull towards the start."""
    self.step += 1
    self.first_moment = (
        _ADAM_BETA_1 * self.first_moment + (1 - _ADAM_BETA_1) * gradient
    )
    self.second_moment = (
        _ADAM_BETA_2 * self.second_moment + (1 - _ADAM_BETA_2) * gradient**2
    )
    mean = self.first_moment / (1 - _ADAM_BETA_1**self.step)
    square = self.second_moment / (1 - _ADAM_BETA_2**self.step)
    change = _LEARNING_RATE * mean / (np.sqrt(square) + _ADAM_EPSILON)

    b, m = change[: len(self.b)], change[len(self.b) : -1]
    self.b = self.b - b - _PULL_TO_START * (self.b - _B_START)
    self.m = self.m - m - _PULL_TO_START * (self.m - self.m_start)
    self.log_sharpness = float(
        self.log_sharpness - change[-1] - _PULL_TO_START * self.log_sharpness
    )


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


def profile(update: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
  """Share of |update|^2 in each run of ceil(d / 256) coordinates of a tensor.

  Args:
    update: [d].
    sizes: The numbers of coordinates of its tensors.
  """
  width = -(-len(update) // 256)
  shares, start = [], 0
  for size in sizes:
    for low in range(start, start + size, width):
      shares.append(np.sum(update[low : min(low + width, start + size)] ** 2))
    start += size
  assert start == len(update)
  total = np.sum(shares)
  return np.array(shares) / total if total > 0.0 else np.zeros(len(shares))


def profile_statistic(profiles: np.ndarray, typical: np.ndarray) -> np.ndarray:
  """-log sum_b p_b^2 / m_b [N], with 1 % of even shares in m; 0 for zeros."""
  typical = typical / max(np.sum(typical), _TINY)
  typical = 0.99 * typical + 0.01 / len(typical)
  found = np.zeros(len(profiles))
  for i, shares in enumerate(profiles):
    if np.any(shares):
      found[i] = -np.log(np.sum(shares**2 / typical))
  return found


class HoldOutReference(_Weighting):
  """FedAOT with a clean hold-out; one round is `aggregate`, then `learn`.

  Attributes (beside those of theta and its Adam):
    reference: [d], exponential moving average of the aggregates.
  """

  def __init__(
      self,
      *,
      signs: np.ndarray,
      sketch_dimension: int = 256,
      sizes: Optional[Sequence[int]] = None,
  ):
    """Initializes `HoldOutReference`.

    Args:
      signs: [d].
      sketch_dimension: Length of the fold sketch.
      sizes: The numbers of coordinates of the update's tensors; None for one.
    """
    super().__init__(len(HOLD_OUT_STATISTICS), m_start=1.5)
    self.signs = np.asarray(signs, np.float64)
    self.sizes = [len(signs)] if sizes is None else sizes
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
        np.array(
            [
                fold_sketch(update, self.signs, self.sketch_dimension)
                for update in updates
            ]
        ).reshape(count, self.sketch_dimension)
    )

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
      mu[i] = 1.0 / (
          1.0 + sum(sigmoid((c - 0.95) / 0.02) for c in similarities)
      )
    trust = 0.05 + 0.95 * np.clip(croot / 0.05, 0.0, 1.0)
    opposed = np.clip(-cref / 0.05, 0.0, 1.0) * np.clip(
        -(croot + 0.5 * cref) / 0.05, 0.0, 1.0
    )
    trust = (1.0 - opposed) * trust + opposed * 0.05**2
    v = finite * mu * trust

    tau = weighted_quantile(norms, v, 0.5)
    if root_is_usable:
      tau = min(tau, 1.5 * root_norm)

    clipped = np.zeros_like(updates)
    norm = np.zeros(count)
    for i in range(count):
      factor = min(1.0, 2.0 * tau / norms[i]) if norms[i] > 0.0 else 1.0
      clipped[i] = factor * updates[i]
      ratio = norms[i] / (tau if tau > 0.0 else _TINY)
      norm[i] = -np.log(max(1.0, ratio))

    prof = np.zeros(count)
    if root_is_usable:
      prof = profile_statistic(
          np.array([profile(update, self.sizes) for update in updates]),
          profile(root, self.sizes),
      )

    statistics = np.stack([cref, croot, dup, norm, prof], axis=1)
    z = np.stack(
        [
            _standardize(cref, v, 0.02),
            _standardize(croot, v, 0.02),
            _standardize(dup, v, 0.25),
            np.maximum(-((norm / 0.5) ** 2), -_Z_LIMIT),
            _standardize(prof, v, 0.20),
        ],
        axis=1,
    )
    scores = self.scores(z, np.log(mu))
    weights = softmax_over(scores, finite)
    result = weights @ clipped
    if np.any(finite):
      self.reference = _EMA_DECAY * self.reference + (1 - _EMA_DECAY) * result

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
        clipped=clipped,
    )
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
    # A step that went past the lowest loss along it says nothing of anybody.
    step = last['result']
    if np.isfinite(gradient_norm) and step @ holdout_gradient > 0.0:
      overshoot = (step @ holdout_gradient) / (step @ step)
      holdout_gradient = holdout_gradient - overshoot * step

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


def ramp(x: Any, low: float, high: float) -> Any:
  """0 up to `low`, 1 from `high` on, linear between."""
  return np.clip((x - low) / (high - low), 0.0, 1.0)


def log_trust(share: Any) -> Any:
  return np.log(0.05 + 0.95 * share)


def copies_discounts(units: np.ndarray, finite: np.ndarray) -> np.ndarray:
  """mu [N]: one over the soft number of copies; 0 if not finite.

  Less so for who is like half of the cohort, not for who is like 60 %.
  """
  mu = np.zeros(len(units))
  for i in np.flatnonzero(finite):

    def alike(threshold):
      return 1.0 + sum(
          sigmoid((units[i] @ units[j] - threshold) / 0.02)
          for j in np.flatnonzero(finite)
          if j != i
      )

    share = alike(0.85) / np.sum(finite)
    mu[i] = alike(0.95) ** (ramp(share, 0.5, 0.6) - 1.0)
  return mu


def typical_norm(norms: np.ndarray, weights: np.ndarray, share: float) -> float:
  """Median inside the narrowest interval of log norms with so much weight."""
  logs = np.log(np.maximum(norms, _TINY))
  intervals = []
  for low in logs[weights > 0]:
    for high in logs[weights > 0]:
      inside = (logs >= low) & (logs <= high)
      if np.sum(weights[inside]) >= (share - 1e-9) * np.sum(weights):
        intervals.append((high - low, low, high))
  if not intervals:
    return 0.0
  _, low, high = min(intervals)
  return weighted_quantile(norms, weights * (logs >= low) * (logs <= high), 0.5)


def principal_coordinates(rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Coordinates [N] along the first axis of the weighted scatter."""
  scaled = np.sqrt(weights)[:, None] * rows
  if not np.any(scaled):
    return np.zeros(len(rows))
  return rows @ np.linalg.svd(scaled, full_matrices=False)[2][0]


def camps(units: np.ndarray, mu: np.ndarray) -> np.ndarray:
  """Two camps, bool [N]: the cut of least scatter along the first axis."""
  mean = lambda members: (mu * members) @ units / np.sum(mu * members)
  x = principal_coordinates(
      (units - mean(np.ones(len(mu)))) * (mu > 0)[:, None], mu
  )
  best, camp = np.inf, None
  for cut in np.unique(x[mu > 0])[:-1]:
    scatter = 0.0
    for side in (x <= cut, x > cut):
      middle = np.sum(mu * side * x) / np.sum(mu * side)
      scatter += np.sum(mu * side * (x - middle) ** 2)
    if scatter < best:
      best, camp = scatter, x > cut
  if camp is None:
    return np.zeros(len(mu), bool)
  return camp


def camp_distance(
    cosines: np.ndarray, mu: np.ndarray, camp: np.ndarray
) -> float:
  """(mean cosine inside - mean across) / pooled standard deviation."""
  values, pair_weights, same = [], [], []
  for i in range(len(mu)):
    for j in range(i):
      if mu[i] * mu[j] > 0:
        values.append(cosines[i, j])
        pair_weights.append(mu[i] * mu[j])
        same.append(camp[i] == camp[j])
  values, pair_weights = np.array(values), np.array(pair_weights)
  same = np.array(same, bool)
  if not np.any(same) or np.all(same):
    return 0.0
  means, scatter = [], 0.0
  for kind in (same, ~same):
    means.append(np.average(values[kind], weights=pair_weights[kind]))
    scatter += np.sum(pair_weights[kind] * (values[kind] - means[-1]) ** 2)
  return (means[0] - means[1]) / max(
      np.sqrt(scatter / np.sum(pair_weights)), 1e-9
  )


def log_concordance(sketches: np.ndarray, mu: np.ndarray) -> np.ndarray:
  """[N], from one sketch [G, m] a client: do its layers agree?"""
  count, num_groups, _ = sketches.shape
  relation = np.zeros([count, count])
  for i in range(count):
    for j in range(count):
      for g in range(num_groups):
        for h in range(g):
          if i != j:
            relation[i, j] += cosine(sketches[i, g], sketches[j, g]) * cosine(
                sketches[i, h], sketches[j, h]
            )
  kernel = relation * np.sqrt(np.outer(mu, mu))
  found = []
  for signs in (np.ones(count), np.sign(np.linalg.eigh(kernel)[1][:, -1])):
    for _ in range(5):
      signs = np.sign(np.round(kernel @ signs, 14))
    found.append((signs @ kernel @ signs, signs))
  ahead = found[1][0] > found[0][0] + 1e-9 * np.sum(np.abs(kernel))
  signs = found[1][1] if ahead else found[0][1]
  lead = np.sum(mu * signs)
  if abs(lead) <= 1e-9 * np.sum(mu):
    return np.zeros(count)
  signs = signs * np.sign(lead)

  y = np.zeros(count)
  for i in range(count):
    scale = np.sum(mu * np.abs(relation[i]))
    y[i] = np.sum(mu * signs * relation[i]) / scale if scale > 0 else 0.0
  typical = weighted_quantile(y, mu, 0.7)
  return ramp(typical, 0.4, 0.6) * log_trust(
      ramp(y / max(typical, 1e-9), 0.2, 0.6)
  )


class AgreementReference(_Weighting):
  """FedAOT without clean data; one round is one call of `next`.

  Attributes (beside those of theta and its Adam):
    reference: [G, m], moving average of sketched aggregates.
    camp_memory: [G, m], decaying sum of votes along the difference of camps.
    support: Moving average of the share in favour of the reference.
    age: Rounds that the reference is made from.
    previous: What is kept of the last finite round: a dict of `sketches` (of
      the clipped updates) [N', G, m], `norm_bound`, `z` [N', K], `log_base`
      [N'] and `finite` [N']; None before the first.
  """

  def __init__(
      self,
      *,
      signs: Sequence[np.ndarray],
      sketch_dimension: int = 512,
      sizes: Optional[Sequence[int]] = None,
  ):
    """Initializes `AgreementReference`.

    Args:
      signs: Those of each of G groups of consecutive coordinates.
      sketch_dimension: m.
      sizes: The numbers of coordinates of the update's tensors; None for one a
        group.
    """
    super().__init__(len(AGREEMENT_STATISTICS), m_start=2.0)
    self.signs = [np.asarray(s, np.float64) for s in signs]
    self.sizes = [len(s) for s in signs] if sizes is None else sizes
    self.sketch_dimension = sketch_dimension
    self.reference = np.zeros([len(signs), sketch_dimension])
    self.camp_memory = np.zeros_like(self.reference)
    self.support, self.age = 1.0, 0
    self.previous = None

  def next(self, updates: np.ndarray) -> Dict[str, Any]:
    """Aggregates `updates` [N, d] and takes the predictive meta step.

    Returns:
      A dict of `result` [d], `weights` [N], `log_base` [N], `statistics` [N,
      K], `z` [N, K], `norm_bound` (tau), `norms` [N], `finite` [N], `clipped`
      (the D_i) [N, d], `clipped_sketches` [N, G, m], `reference_weights` [N],
      and of the meta step `advantages` (A_i of the previous round's clients)
      [N'] and `gradient` [2 K + 1], both None where none was taken.
    """
    updates, finite = _zero_non_finite(updates)
    count = len(updates)
    norms = np.array([np.linalg.norm(update) for update in updates])
    sketches = self._sketches(updates)
    units = _unit_rows(sketches.reshape(count, self.reference.size))
    mu = copies_discounts(units, finite)
    ones = finite.astype(np.float64)
    if not np.any(finite):
      return self._nothing(updates, norms, finite)

    profiles = np.array([profile(update, self.sizes) for update in updates])
    prof = profile_statistic(
        profiles, np.array([weighted_quantile(p, mu, 0.5) for p in profiles.T])
    )
    z_prof = _standardize(prof, mu, 0.20)
    v = mu * np.exp(-1.5 * softplus(-(z_prof + 2.0)))

    cref = self._vote_on_reference(units, v)
    trust = np.zeros(count)
    if self.age > 0:
      trust = ramp(self.support, 0.5, 0.56) * log_trust(ramp(cref, 0.0, 0.05))
    log_base = np.where(finite, np.log(np.where(finite, mu, 1.0)), 0.0)
    concordance = log_concordance(sketches, v)
    log_base = log_base + trust + concordance
    log_base = log_base + self._camp_trust(units, v * np.exp(concordance))

    median = weighted_quantile(norms, ones, 0.5)
    counted = v * (norms > 0.01 * median)
    middle = float(
        np.clip(weighted_quantile(norms, counted, 0.5), median, 1.5 * median)
    )
    tau = min(typical_norm(norms, counted, 0.6), 1.5 * middle)
    log_ratio = np.log(np.maximum(norms / max(middle, _TINY), 1e-2))
    spread_below = max(-weighted_quantile(log_ratio, ones, 0.25), 0.0)
    norm = -np.maximum(0.0, log_ratio - spread_below)

    z = np.stack(
        [
            _standardize(cref, ones, 0.05),
            np.maximum(norm / 0.20, -_Z_LIMIT),
            z_prof,
        ],
        axis=1,
    )
    weights = softmax_over(self.scores(z, log_base), finite)
    reference_weights = softmax_over(
        self.scores(
            z,
            log_base - 0.5 * trust,
            without=AGREEMENT_STATISTICS.index('cref'),
        ),
        finite,
    )

    clip = [min(1.0, 2 * tau / n) if n > 0.0 else 1.0 for n in norms]
    short = [min(1.0, tau / n) if n > 0.0 else 1.0 for n in norms]
    clipped = np.array([f * update for f, update in zip(clip, updates)])
    clipped_sketches = np.array([f * s for f, s in zip(clip, sketches)])

    advantages, gradient = None, None
    if self.previous is not None:
      advantages, gradient = self._learn(
          np.tensordot(weights, clipped_sketches, 1)
      )
    self.previous = dict(
        sketches=clipped_sketches,
        norm_bound=tau,
        z=z,
        log_base=log_base,
        finite=finite,
    )
    decay = min(_EMA_DECAY, self.age / (self.age + 1))
    self.reference = decay * self.reference + (1 - decay) * sum(
        w * f * s for w, f, s in zip(reference_weights, short, sketches)
    )
    self.age += 1

    return dict(
        result=weights @ clipped,
        weights=weights,
        log_base=log_base,
        statistics=np.stack([cref, norm, prof], axis=1),
        z=z,
        norm_bound=tau,
        norms=norms,
        finite=finite,
        clipped=clipped,
        clipped_sketches=clipped_sketches,
        reference_weights=reference_weights,
        advantages=advantages,
        gradient=gradient,
    )

  def _nothing(self, updates, norms, finite) -> Dict[str, Any]:
    """The outcome of a round without a usable update."""
    zeros = np.zeros(len(updates))
    table = np.zeros([len(updates), len(AGREEMENT_STATISTICS)])
    return dict(
        result=np.zeros(updates.shape[1]),
        weights=zeros,
        log_base=zeros,
        statistics=table,
        z=table,
        norm_bound=0.0,
        norms=norms,
        finite=finite,
        clipped=updates,
        reference_weights=zeros,
        advantages=None,
        gradient=None,
    )

  def _sketches(self, updates: np.ndarray) -> np.ndarray:
    """[N, G, m], a fold sketch of each group of coordinates."""
    ends = np.cumsum([len(signs) for signs in self.signs])
    sketches = np.zeros([len(updates), *self.reference.shape])
    for i, update in enumerate(updates):
      parts = np.split(update, ends[:-1])
      for g, (part, signs) in enumerate(zip(parts, self.signs)):
        sketches[i, g] = fold_sketch(part, signs, self.sketch_dimension)
    return sketches

  def _vote_on_reference(self, units: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """The cosines [N] with the reference, which may be voted out."""
    if not np.any(self.reference):
      return np.zeros(len(units))
    cref = np.array([cosine(u, self.reference.ravel()) for u in units])
    votes = np.average(np.clip(cref / 0.1 + 0.5, 0.0, 1.0), weights=mu)
    rate = max(0.3, 1 / self.age)
    self.support = (1 - rate) * self.support + rate * votes
    if self.support >= 0.45:
      return cref
    self.reference = np.zeros_like(self.reference)
    self.support, self.age = 1.0, 0
    return np.zeros(len(units))

  def _camp_trust(self, units: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """Log trust [N] by the camp that the votes of all rounds favour."""
    cosines = units @ units.T
    camp = camps(units, mu)
    first, second = mu * camp, mu * ~camp
    chance = min(1, np.sum(mu) ** 2 / max(np.sum(mu**2), 1e-300) / 20) ** 0.5
    clear = ramp(camp_distance(cosines, mu, camp) * chance, 1.3, 1.6)
    memory = 0.9 * self.camp_memory.ravel()
    if not np.any(first) or not np.any(second):
      self.camp_memory = memory.reshape(self.reference.shape)
      return np.zeros(len(units))
    difference = first @ units / np.sum(first) - second @ units / np.sum(second)
    vote = (np.sum(first) - np.sum(second)) / np.sum(mu)
    memory = memory + clear * vote * difference
    self.camp_memory = memory.reshape(self.reference.shape)
    lead = memory @ difference
    if abs(lead) <= 1e-9 * difference @ difference:
      return np.zeros(len(units))
    good, other = (first, second) if lead > 0 else (second, first)

    y = np.zeros(len(units))
    for i in range(len(units)):
      for side, members in ((1, good), (-1, other)):
        rest = np.where(np.arange(len(units)) == i, 0.0, members)
        if np.any(rest):
          y[i] += side * np.average(cosines[i], weights=rest)
    typical = max(weighted_quantile(y, good, 0.5), 1e-9)
    return clear * log_trust(np.clip(1 + y / typical, 0.0, 1.0))

  def _learn(self, direction: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Judges the last round's weights by this round's `direction` [G, m]."""
    previous = self.previous
    length = np.linalg.norm(direction)
    advantages = np.zeros(len(previous['z']))
    if length > 0.0 and previous['norm_bound'] > 0.0:
      for i, sketch in enumerate(previous['sketches']):
        advantages[i] = -np.sum(sketch * direction) / (
            previous['norm_bound'] * length
        )

    weights = softmax_over(
        self.scores(previous['z'], previous['log_base']), previous['finite']
    )
    gradient = self.gradient(previous['z'], weights, advantages + 2.0 * weights)
    self.descend(gradient)
    self.b = np.maximum(self.b, _B_START)
    self.m = np.minimum(self.m, self.m_start)
    self.log_sharpness = min(max(self.log_sharpness, 0.0), 1.5)
    return advantages, gradient
