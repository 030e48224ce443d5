"""The equations of FedAOT, as functions of tables with a row a client.

Notation of Das & Sen (arXiv 2603.16846), as extended in this package: N client
updates, of which only a norm and a sketch of m floats are seen here; K
statistics phi of each; theta = {b_k, m_k, l} the weighting variables. A round:

  1. `holdout_statistics` or `agreement_statistics`: how suspicious each is;
  2. `decide`: weights w = softmax(s(z; theta)) and clip factors, from which the
     caller makes the aggregate sum_i w_i clip_i update_i;
  3. the caller judges each update: its alignment A_i with the harm done;
  4. `learn`: a step on theta down the gradient of sum_i w_i(theta) A_i.

`xp` is the namespace of the arrays, see `namespace`: NumPy runs these lines,
TensorFlow Federated traces them. All arrays are float64, masks are of 0 and 1.
A client whose update is not usable has `finite` 0 and zeros in its row. Zero
weight keeps it out of every median, maximum and sum, so that it influences no
other client.
"""

import math
from typing import Any, Dict, NamedTuple, Optional

from fedaot import config as config_lib

Array = Any
Table = Dict[str, Array]
# `raw_slope` [K] is b (the slope is its softplus), `margin` [K] is m, and
# `log_sharpness` is the scalar l.
Theta = Dict[str, Array]

HOLDOUT_STATISTICS = ('reference_cosine', 'root_cosine', 'copies', 'norm')
AGREEMENT_STATISTICS = ('reference_cosine', 'norm', 'copies', 'spectral')

# Turns a quartile's distance from the median into a standard deviation.
_QUARTILE_TO_STDDEV = 1.4826
# Stands for zero in a denominator; far below any norm that matters.
_TINY = 1e-30


class Statistics(NamedTuple):
  """What a round's summaries say about each client.

  Attributes:
    values: [N, K], the statistics phi, higher is more trustworthy.
    z: [N, K], standardized over the cohort, bounded.
    log_discount: [N], added to the score; 0 or the log of one over the number
      of copies.
    norm_bound: Scalar tau, the norm of a typical update.
    clip: [N], factor in [0, 1] that bounds each update's norm.
  """

  values: Array
  z: Array
  log_discount: Array
  norm_bound: Array
  clip: Array


class Decision(NamedTuple):
  """The weights of a round, and what they were made from.

  Attributes:
    weights: [N], sums to 1; all 0 if no client is finite.
    clip: [N], see `Statistics`. An update's coefficient is weight times clip.
    values: [N, K], see `Statistics`.
    z: [N, K], see `Statistics`.
    log_base: [N], what was added to the scores before the softmax.
    norm_bound: Scalar, see `Statistics`.
  """

  weights: Array
  clip: Array
  values: Array
  z: Array
  log_base: Array
  norm_bound: Array


class Judgement(NamedTuple):
  """The objective of a meta step: sum_i w_i(theta) A_i + penalty sum_i w_i^2.

  Attributes:
    z: [N, K], of the round that is judged.
    log_base: [N], of that round.
    finite: [N], of that round.
    alignments: [N], A_i: how much a client's update did harm.
    penalty: Factor of the sum of squared weights.
  """

  z: Array
  log_base: Array
  finite: Array
  alignments: Array
  penalty: float


# --- Robust location and scale -----------------------------------------------


def divide(xp, numerator: Array, denominator: Array) -> Array:
  """Elementwise quotient; 0 where the denominator is 0."""
  is_zero = xp.equal(denominator, 0.0)
  quotient = numerator / xp.where(is_zero, 1.0, denominator)
  return xp.where(is_zero, 0.0, quotient)


def norm(xp, vectors: Array) -> Array:
  """Euclidean norms over the last axis."""
  return xp.sqrt(xp.sum(vectors * vectors, axis=-1))


def weighted_quantile(
    xp, values: Array, weights: Array, quantile: float
) -> Array:
  """Interpolated quantile of a weighted sample [N], N >= 1; a scalar.

  A sorted entry sits at position (cumulative weight - weight / 2) / total;
  between positions the quantile is linear, beyond them constant. With equal
  weights the median is the usual one. Entries of weight 0 take no part; 0 if no
  weight is positive.
  """
  # Equal values are ordered by weight, so that the order of the clients, which
  # is arbitrary, has no influence.
  order = xp.argsort(weights, kind='stable')
  values = xp.take(values, order, axis=0)
  weights = xp.take(weights, order, axis=0)
  total = xp.sum(weights)
  # Entries without weight come last and repeat the largest valid value.
  largest = xp.amax(xp.where(weights > 0, values, -math.inf))
  largest = xp.where(total > 0, largest, 0.0)
  values = xp.where(weights > 0, values, math.inf)
  order = xp.argsort(values, kind='stable')
  values = xp.minimum(xp.take(values, order, axis=0), largest)
  weights = xp.take(weights, order, axis=0)
  positions = divide(xp, xp.cumsum(weights) - weights / 2, total)
  # The places of the last position below the quantile and of the next one.
  last = xp.size(values) - 1
  above = xp.sum(xp.where(positions < quantile, 1, 0))
  low = xp.clip(above - 1, 0, last)
  high = xp.clip(above, 0, last)
  left, right = positions[low], positions[high]
  fraction = xp.clip(divide(xp, quantile - left, right - left), 0.0, 1.0)
  result = values[low] + fraction * (values[high] - values[low])
  return xp.where(total > 0, result, 0.0)


def standardize(
    xp, values: Array, weights: Array, floor: float, max_abs_z: float
) -> Array:
  """Distance [N] from the weighted median in units of the upper half's spread.

  Only the upper quartile sets the scale, and `floor` is added to it: attackers
  sit below the median and must not widen it.
  """
  median = weighted_quantile(xp, values, weights, 0.5)
  spread = weighted_quantile(xp, values, weights, 0.75) - median
  z = (values - median) / (_QUARTILE_TO_STDDEV * spread + floor)
  return xp.clip(z, -max_abs_z, max_abs_z)


def _coordinate_median(xp, rows: Array, mask: Array) -> Array:
  """Coordinate-wise median [m] of the rows [N, m] with mask 1; 0 if none."""
  count = xp.sum(xp.where(mask > 0, 1, 0))
  ordered = xp.sort(xp.where(mask[:, None] > 0, rows, math.inf), axis=0)
  lower = ordered[xp.maximum(count - 1, 0) // 2]
  median = (lower + ordered[xp.minimum(count // 2, xp.size(rows) - 1)]) / 2
  return xp.where(count > 0, median, 0.0)


# --- Likeness of clients -----------------------------------------------------


def _unit_rows(xp, sketches: Array) -> Array:
  """Rows divided by their norms; zero rows stay zero."""
  return divide(xp, sketches, norm(xp, sketches)[:, None])


def pair_cosines(xp, units: Array, finite: Array) -> Array:
  """Cosines [N, N] of all pairs; -1 for a client itself and unusable ones."""
  cosines = _symmetric(xp, xp.matmul(units, xp.transpose(units)))
  is_pair = finite[:, None] * finite * (1.0 - xp.eye(xp.size(finite)))
  return xp.where(is_pair > 0, cosines, -1.0)


def _symmetric(xp, matrix: Array) -> Array:
  """A symmetric matrix, to the last bit.

  Rounding, which may depend on an entry's place, must not tell two closest
  neighbours apart: they tie, and quantiles order ties by their weights.
  """
  return (matrix + xp.transpose(matrix)) / 2


def _count_copies(
    xp, cosines: Array, threshold: float, temperature: float
) -> Array:
  """Soft number [N] of other clients that share each client's update."""
  likeness = (cosines - threshold) / temperature
  return xp.sum(0.5 + 0.5 * xp.tanh(0.5 * likeness), axis=1)


def _copies_discount(xp, cosines: Array, config) -> Array:
  """One over the number of copies [N] of each update, itself included: mu."""
  return 1.0 / (
      1.0
      + _count_copies(
          xp, cosines, config.copy_cosine, config.copy_temperature
      )
  )


def _clip_factor(xp, norms: Array, bound: Array) -> Array:
  """min(1, bound / norm) [N]; 1 for a zero norm."""
  # Norms that are equal but for float32's rounding are not clipped in part.
  is_longer = norms > (1.0 + 1e-6) * bound
  return xp.where(is_longer, divide(xp, bound, norms), 1.0)


# --- Statistics --------------------------------------------------------------


def holdout_statistics(
    xp,
    table: Table,
    reference_norm: Array,
    root_norm: Array,
    config: config_lib.FedAOTConfig,
) -> Statistics:
  """Statistics of hold-out mode, in the order of `HOLDOUT_STATISTICS`.

  All medians and quartiles weigh a client by its absolute trust from the
  hold-out and share that weight among copies, so that they stay with the
  honest clients even where attackers are the majority.

  Args:
    xp: The namespace.
    table: `finite` [N], `norm` [N], `sketch` [N, m], and the inner products
      `dot_reference` [N] and `dot_root` [N]; N >= 1.
    reference_norm: Scalar, the norm of the EMA reference.
    root_norm: Scalar, that of the root update; 0 if there is no usable one.
    config: A `FedAOTConfig`.

  Returns:
    `Statistics` with K = 4.
  """
  finite, norms = table['finite'], table['norm']
  cosines = pair_cosines(xp, _unit_rows(xp, table['sketch']), finite)
  discount = _copies_discount(xp, cosines, config)
  reference_cosine = divide(xp, table['dot_reference'], norms * reference_norm)
  root_cosine = divide(xp, table['dot_root'], norms * root_norm)
  share = lambda cosine: xp.clip(cosine / config.full_trust_cosine, 0.0, 1.0)
  trust = config.min_trust + (1.0 - config.min_trust) * share(root_cosine)
  # Where the root says little, copies, such as honest clients with the same
  # data, would be outvoted by attackers who differ: the reference remembers. It
  # only takes trust away, so that nobody gains by following it.
  support = root_cosine + config.reference_support * reference_cosine
  opposed = share(-reference_cosine) * share(-support)
  trust = trust + opposed * (config.min_trust**2 - trust)
  weights = finite * discount * trust

  # Trust is in the weights: untrusted short updates, such as the zeros of free
  # riders, must not shorten the others.
  norm_bound = weighted_quantile(xp, norms, weights, 0.5)
  norm_bound = xp.where(
      root_norm > 0,
      xp.minimum(norm_bound, config.root_norm_factor * root_norm),
      norm_bound,
  )
  copies = xp.amin(_symmetric(xp, xp.log(1.01 - cosines)), axis=1)
  # Absolute, not relative to the cohort: a majority cannot make it normal.
  excess = -xp.log(xp.maximum(1.0, norms / xp.maximum(norm_bound, _TINY)))

  def z(values, floor):
    return standardize(xp, values, weights, floor, config.max_abs_z)

  return Statistics(
      values=xp.stack([reference_cosine, root_cosine, copies, excess], axis=1),
      z=xp.stack(
          [
              z(reference_cosine, config.reference_floor),
              z(root_cosine, config.root_floor),
              z(copies, config.copies_floor),
              xp.maximum(excess / config.norm_scale, -config.max_abs_z),
          ],
          axis=1,
      ),
      log_discount=xp.log(discount),
      norm_bound=norm_bound,
      clip=_clip_factor(xp, norms, config.holdout_clip_factor * norm_bound),
  )


def agreement_statistics(
    xp, table: Table, reference: Array, config: config_lib.FedAOTConfig
) -> Statistics:
  """Statistics of agreement mode, in the order of `AGREEMENT_STATISTICS`.

  Args:
    xp: The namespace.
    table: `finite` [N], `norm` [N] and `sketch` [N, m]; N >= 1.
    reference: [m], the EMA reference in sketch space.
    config: A `FedAOTConfig`.

  Returns:
    `Statistics` with K = 4.
  """
  finite, norms = table['finite'], table['norm']
  units = _unit_rows(xp, table['sketch'])
  cosines = pair_cosines(xp, units, finite)
  direction = divide(xp, reference, norm(xp, reference))
  reference_cosine = xp.sum(units * direction, axis=1)

  norm_bound = _agreed_norm_bound(xp, norms, finite, cosines, config)
  log_ratio = xp.log(
      xp.maximum(norms / xp.maximum(norm_bound, _TINY), config.min_norm_ratio)
  )
  # Up to a fraction of the cohort's own spread, long updates cost nothing.
  spread = xp.maximum(-weighted_quantile(xp, log_ratio, finite, 0.25), 0.0)
  excess = -xp.maximum(0.0, log_ratio - config.norm_tolerance * spread)

  copies = -xp.log1p(
      _count_copies(xp, cosines, config.crowd_cosine, config.crowd_temperature)
  )
  centred = (units - _coordinate_median(xp, units, finite)) * finite[:, None]
  coordinates = _principal_coordinates(xp, centred)
  spectral = -xp.abs(
      coordinates - weighted_quantile(xp, coordinates, finite, 0.5)
  )

  def z(values, floor):
    return standardize(xp, values, finite, floor, config.max_abs_z)

  return Statistics(
      values=xp.stack([reference_cosine, excess, copies, spectral], axis=1),
      z=xp.stack(
          [
              z(reference_cosine, config.reference_floor),
              z(excess, config.norm_floor),
              z(copies, config.copies_floor),
              z(spectral, config.spectral_floor),
          ],
          axis=1,
      ),
      log_discount=0.0 * norms,
      norm_bound=norm_bound,
      clip=_clip_factor(xp, norms, config.agreement_clip_factor * norm_bound),
  )


def _agreed_norm_bound(
    xp, norms: Array, finite: Array, cosines: Array, config
) -> Array:
  """The norm of a typical update, from the cohort alone; a scalar.

  Colluders who all send one short vector, and free riders who send next to
  nothing, pull the median norm down and with it the length of every honest
  update. So copies share the weight of one, and the shortest updates have none.
  Whatever a cohort makes of that, the bound stays between the plain median and
  `config.max_norm_bound_ratio` times it.
  """
  median = weighted_quantile(xp, norms, finite, 0.5)
  is_short = norms <= config.min_norm_ratio * median
  weights = finite * _copies_discount(xp, cosines, config)
  typical = weighted_quantile(xp, norms, xp.where(is_short, 0.0, weights), 0.5)
  return xp.clip(typical, median, config.max_norm_bound_ratio * median)


def _principal_coordinates(xp, rows: Array) -> Array:
  """Coordinate [N] of each row along the rows' top right singular vector."""

  def from_clients():
    values, vectors = xp.eigh(xp.matmul(rows, xp.transpose(rows)))
    return vectors[:, -1] * xp.sqrt(xp.maximum(values[-1], 0.0))

  def from_coordinates():
    _, vectors = xp.eigh(xp.matmul(xp.transpose(rows), rows))
    return xp.sum(rows * vectors[:, -1], axis=1)

  # The same coordinates up to sign; the smaller eigenproblem is taken.
  return xp.cond(
      xp.size(rows) <= rows.shape[1], from_clients, from_coordinates
  )


# --- Weights -----------------------------------------------------------------


def initial_weighting(xp, config: config_lib.FedAOTConfig) -> Theta:
  """The weighting variables theta at their start."""
  slope = config.initial_slope
  raw_slope = slope + math.log(-math.expm1(-slope))  # The inverse of softplus.
  num_statistics = len(HOLDOUT_STATISTICS)  # As many in both modes.
  return {
      'raw_slope': xp.full([num_statistics], raw_slope),
      'margin': xp.full([num_statistics], float(config.initial_margin)),
      'log_sharpness': xp.full([], float(config.initial_log_sharpness)),
  }


def scores(xp, theta: Theta, z: Array) -> Array:
  """Reliability scores [N], at most 0: a soft hinge on each statistic, summed.

  s_i = exp(l) sum_k -softplus(b_k) softplus(-(z_ik + m_k)): much worse than the
  cohort's middle costs much, better than it earns little.
  """
  hinges = xp.softplus(theta['raw_slope']) * xp.softplus(-(z + theta['margin']))
  return -xp.exp(theta['log_sharpness']) * xp.sum(hinges, axis=1)


def softmax(xp, score: Array, finite: Array) -> Array:
  """Softmax [N] over the finite clients; all 0 if no client is finite."""
  highest = xp.amax(xp.where(finite > 0, score, -1e300))
  # Masked before the exponential, so that neither the value nor the gradient
  # of a client that takes no part can overflow.
  shifted = xp.where(finite > 0, score - xp.stop_gradient(highest), 0.0)
  exponentials = finite * xp.exp(shifted)
  return divide(xp, exponentials, xp.sum(exponentials))


def weights(
    xp, theta: Theta, z: Array, log_base: Array, finite: Array
) -> Array:
  """w(theta) [N] = softmax(s(z; theta) + log_base)."""
  return softmax(xp, scores(xp, theta, z) + log_base, finite)


def log_example_weights(
    xp, num_examples: Array, finite: Array, max_ratio: float
) -> Array:
  """Log weights [N] from reported example counts, capped against forged ones.

  Args:
    xp: The namespace.
    num_examples: [N], positive where `finite` is.
    finite: [N].
    max_ratio: Cap as a multiple of the cohort's median count.

  Returns:
    [N].
  """
  median = weighted_quantile(xp, num_examples, finite, 0.5)
  capped = xp.minimum(num_examples, max_ratio * median)
  return xp.log(xp.where(finite > 0, capped, 1.0))


def decide(
    xp,
    theta: Theta,
    table: Table,
    reference: Array,
    root_norm: Optional[Array],
    config: config_lib.FedAOTConfig,
) -> Decision:
  """The weights of a round.

  Args:
    xp: The namespace.
    theta: The weighting variables.
    table: As `holdout_statistics` or `agreement_statistics` takes it, with N
      >= 0; with `num_examples` [N] if example counts are to be used.
    reference: The EMA reference.
    root_norm: The norm of the root update; None in agreement mode.
    config: A `FedAOTConfig`.

  Returns:
    A `Decision`.
  """
  # A client that takes no part keeps every reduction defined for an empty
  # cohort; it changes no result.
  table = {name: _append_zero_row(xp, rows) for name, rows in table.items()}
  if root_norm is None:
    found = agreement_statistics(xp, table, reference, config)
  else:
    found = holdout_statistics(
        xp, table, norm(xp, reference), root_norm, config
    )
  log_base = found.log_discount
  if 'num_examples' in table:
    log_base = log_base + log_example_weights(
        xp, table['num_examples'], table['finite'], config.max_example_ratio
    )
  return Decision(
      weights=weights(xp, theta, found.z, log_base, table['finite'])[:-1],
      clip=found.clip[:-1],
      values=found.values[:-1],
      z=found.z[:-1],
      log_base=log_base[:-1],
      norm_bound=found.norm_bound,
  )


def reference_weights(
    xp, theta: Theta, decision: Decision, finite: Array
) -> Array:
  """Weights [N] of the updates in agreement mode's reference.

  The reference must not confirm itself, so its own statistic has no say.
  """
  is_other = [s != 'reference_cosine' for s in AGREEMENT_STATISTICS]
  # A statistic this far above the middle costs nothing.
  z = xp.where(xp.array(is_other), decision.z, 1e3)
  return weights(
      xp,
      theta,
      _append_zero_row(xp, z),
      _append_zero_row(xp, decision.log_base),
      _append_zero_row(xp, finite),
  )[:-1]


def _append_zero_row(xp, rows: Array) -> Array:
  return xp.concatenate([rows, xp.zeros((1, *rows.shape[1:]))], axis=0)


# --- Meta step ---------------------------------------------------------------


def holdout_alignments(
    xp, dots: Array, clip: Array, gradient_norm: Array, norm_bound: Array
) -> Array:
  """How much each client raises the hold-out loss, A_i; [N], about in [-2, 2].

  With g' the gradient of the hold-out loss at the model AFTER the update, the
  gradient of sum_i w_i(theta) A_i is, up to a positive factor, exactly that of
  the hold-out loss of the aggregated model in theta: the chain rule needs of
  each update only its inner product with g'. Updates are subtracted from the
  model, hence the sign.

  Args:
    xp: The namespace.
    dots: [N], <g', update_i>.
    clip: [N].
    gradient_norm: Scalar, the norm of g'; 0 if it is not usable.
    norm_bound: Scalar.
  """
  return -divide(xp, dots * clip, gradient_norm * norm_bound)


def agreement_alignments(
    xp, previous_sketches: Array, current_aggregate: Array
) -> Array:
  """How far last round's updates point away from this round's aggregate; [N].

  Args:
    xp: The namespace.
    previous_sketches: [N, m], clipped and divided by the norm bound.
    current_aggregate: [m], sketch of this round's weighted mean.
  """
  direction = divide(xp, current_aggregate, norm(xp, current_aggregate))
  return -xp.sum(previous_sketches * direction, axis=1)


def objective(xp, theta: Theta, judgement: Judgement) -> Array:
  """The scalar that a meta step lowers, see `Judgement`."""
  z, log_base, finite, alignments = (
      _append_zero_row(xp, rows) for rows in judgement[:4]
  )
  w = weights(xp, theta, z, log_base, finite)
  return xp.sum(w * alignments + judgement.penalty * w * w)


def objective_gradient(xp, theta: Theta, judgement: Judgement) -> Theta:
  """The gradient of `objective` in theta, written out."""
  z, log_base, finite, alignments, penalty = judgement
  score = scores(xp, theta, z)
  w = softmax(xp, score + log_base, finite)
  to_w = alignments + 2.0 * penalty * w
  to_score = w * (to_w - xp.sum(w * to_w))  # Through the softmax.
  below = -(z + theta['margin'])
  sharpness = xp.exp(theta['log_sharpness'])
  slope = xp.softplus(theta['raw_slope'])
  sigmoid = lambda x: 0.5 + 0.5 * xp.tanh(0.5 * x)  # Of softplus.
  return {
      'raw_slope': -sharpness
      * sigmoid(theta['raw_slope'])
      * xp.sum(to_score[:, None] * xp.softplus(below), axis=0),
      'margin': sharpness
      * slope
      * xp.sum(to_score[:, None] * sigmoid(below), axis=0),
      'log_sharpness': xp.sum(to_score * score),
  }


def initial_meta_optimizer(xp, theta: Theta) -> Dict[str, Any]:
  """Adam's slots for theta: `step`, `first_moment`, `second_moment`."""
  zeros = lambda: {name: xp.zeros_like(v) for name, v in theta.items()}
  return {
      'step': xp.zeros([]), 'first_moment': zeros(), 'second_moment': zeros()
  }


def learn(
    xp,
    theta: Theta,
    optimizer: Dict[str, Any],
    gradient: Theta,
    *,
    has_holdout: bool,
    config: config_lib.FedAOTConfig,
):
  """A step of Adam on theta with a pull back to its start, then the bounds.

  Args:
    xp: The namespace.
    theta: The weighting variables.
    optimizer: Adam's slots, see `initial_meta_optimizer`.
    gradient: Like theta.
    has_holdout: Whether clean data guide the step. Without, theta is bounded so
      that a step only sharpens a defence.
    config: A `FedAOTConfig`.

  Returns:
    A pair of the new theta and the new slots.
  """
  start = initial_weighting(xp, config)
  step = optimizer['step'] + 1.0
  beta_1, beta_2 = config.meta_beta_1, config.meta_beta_2
  first, second, new = {}, {}, {}
  for name, g in gradient.items():
    first[name] = beta_1 * optimizer['first_moment'][name] + (1 - beta_1) * g
    second[name] = (
        beta_2 * optimizer['second_moment'][name] + (1 - beta_2) * g * g
    )
    adam = (first[name] / (1.0 - beta_1**step)) / (
        xp.sqrt(second[name] / (1.0 - beta_2**step)) + config.meta_epsilon
    )
    new[name] = (
        theta[name]
        - config.meta_learning_rate * adam
        - config.meta_anchor * (theta[name] - start[name])
    )
  if has_holdout:
    sharpness_range = config.holdout_log_sharpness
  else:
    sharpness_range = config.agreement_log_sharpness
    new['raw_slope'] = xp.maximum(new['raw_slope'], start['raw_slope'])
    new['margin'] = xp.minimum(new['margin'], start['margin'])
  new['log_sharpness'] = xp.clip(new['log_sharpness'], *sharpness_range)
  return new, {'step': step, 'first_moment': first, 'second_moment': second}


def follow(reference: Array, aggregate: Array, decay: float) -> Array:
  """The exponential moving average: decay r + (1 - decay) aggregate."""
  return decay * reference + (1.0 - decay) * aggregate
