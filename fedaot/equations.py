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
TensorFlow Federated traces them. All arrays are float64 (projections, of p
floats, may be float32), masks are of 0 and 1.
A client whose update is not usable has `finite` 0 and zeros in its row. Zero
weight keeps it out of every median, maximum and sum, so that it influences no
other client.
"""

import functools
import math
from typing import Any, Dict, NamedTuple, Optional, Tuple

from fedaot import config as config_lib

Array = Any
Table = Dict[str, Array]
# `raw_slope` [K] is b (the slope is its softplus), `margin` [K] is m, and
# `log_sharpness` is the scalar l.
Theta = Dict[str, Array]

HOLDOUT_STATISTICS = (
    'reference_cosine',
    'root_cosine',
    'copies',
    'norm',
    'profile',
)
AGREEMENT_STATISTICS = ('reference_cosine', 'norm', 'profile')

# Turns a quartile's distance from the median into a standard deviation.
_QUARTILE_TO_STDDEV = 1.4826
# Stands for zero in a denominator; far below any norm that matters.
_TINY = 1e-30
# Share of a sum that may be rounding: what differs by less is a tie.
_TIE = 1e-9
# Signs of layers settle in a few steps.
_SIGN_STEPS = 5


class Statistics(NamedTuple):
  """What a round's summaries say about each client.

  Attributes:
    values: [N, K], the statistics phi, higher is more trustworthy.
    z: [N, K], standardized over the cohort, bounded.
    log_base: [N], added to the score: the log of one over the number of copies
      and, in agreement mode, of what trust in the reference, camps and
      concordance leave.
    norm_bound: Scalar tau, the norm of a typical update.
    clip: [N], factor in [0, 1] that bounds each update's norm.
  """

  values: Array
  z: Array
  log_base: Array
  norm_bound: Array
  clip: Array


class Memory(NamedTuple):
  """What agreement mode remembers of the rounds so far, G groups of tensors.

  Attributes:
    reference: [G, m], moving average of aggregates, in sketch space.
    camp_memory: [G, m], decaying sum of the votes between camps, each along the
      difference of their means.
    support: Scalar in [0, 1], moving average of the cohort's share in favour of
      the reference.
    age: Scalar, the rounds that the reference is made from.
  """

  reference: Array
  camp_memory: Array
  support: Array
  age: Array


class Decision(NamedTuple):
  """The weights of a round, and what they were made from.

  Attributes:
    weights: [N], sums to 1; all 0 if no client is finite.
    clip: [N], see `Statistics`. An update's coefficient is weight times clip.
    values: [N, K], see `Statistics`.
    z: [N, K], see `Statistics`.
    log_base: [N], what was added to the scores before the softmax.
    norm_bound: Scalar, see `Statistics`.
    memory: The `Memory` after the round; empty with a hold-out.
  """

  weights: Array
  clip: Array
  values: Array
  z: Array
  log_base: Array
  norm_bound: Array
  memory: Any = ()


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
  """Interpolated quantiles of weighted samples: [N] or [m, N] to [] or [m].

  A sorted entry sits at position (cumulative weight - weight / 2) / total;
  between positions the quantile is linear, beyond them constant. With equal
  weights [N] the median is the usual one. Entries of weight 0 take no part; 0
  if no weight is positive.
  """
  # Equal values are ordered by weight, so that the order of the clients, which
  # is arbitrary, has no influence.
  order = xp.argsort(weights, kind='stable')
  values = xp.take(values, order, axis=-1)
  weights = xp.take(weights, order, axis=0)
  total = xp.sum(weights)
  # Entries without weight come last, and are never taken.
  is_taken = (weights > 0) | (total <= 0)
  last = xp.sum(xp.where(is_taken, 1, 0)) - 1
  order = xp.argsort(
      xp.where(is_taken, values, math.inf), axis=-1, kind='stable'
  )
  ordered = xp.take(weights, order, axis=0)
  middles = xp.cumsum(ordered, axis=-1) - ordered / 2.0
  # The places of the last position below the quantile and of the next one.
  above = xp.sum(xp.where(middles < quantile * total, 1, 0), axis=-1)

  def at(place):
    """Value and position of the entry at a place."""
    place = xp.expand_dims(xp.clip(place, 0, last), -1)
    entry = xp.take_along_axis(order, place, axis=-1)
    middle = xp.take_along_axis(middles, place, axis=-1)[..., 0]
    value = xp.take_along_axis(values, entry, axis=-1)[..., 0]
    return value, divide(xp, middle, total)

  (low, left), (high, right) = at(above - 1), at(above)
  fraction = xp.clip(divide(xp, quantile - left, right - left), 0.0, 1.0)
  return xp.where(total > 0, low + fraction * (high - low), 0.0)


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


def typical_norm(xp, norms: Array, weights: Array, share: float) -> Array:
  """Median of the norms [N] inside of where they are densest; a scalar.

  That is the shortest interval of log norms that holds a `share` of the weight.
  Unlike the median of all it does not move to the edge of the honest norms
  where many send long, or short, updates. 0 if no weight is positive.
  """
  logs = xp.log(xp.maximum(norms, _TINY))
  order = xp.argsort(logs, kind='stable')
  ordered, mass = (xp.take(rows, order, axis=0) for rows in (logs, weights))
  upto = divide(xp, xp.cumsum(mass), xp.sum(mass))
  below = upto - divide(xp, mass, xp.sum(mass))
  # The first client with which the interval that begins at each holds enough; a
  # share that is met but for rounding is met.
  is_short = upto < below[:, None] + share - _TIE
  end = xp.sum(xp.where(is_short, 1, 0), axis=1)
  last = xp.size(ordered) - 1
  reach = xp.take(ordered, xp.minimum(end, last), axis=0) - ordered
  width = xp.where(end > last, math.inf, reach)
  first = xp.argmin(width)
  distance = logs - ordered[first]
  is_inside = (distance >= 0) & (distance <= width[first])
  return weighted_quantile(xp, norms, xp.where(is_inside, weights, 0.0), 0.5)


def _ramp(xp, values: Array, bounds) -> Array:
  """0 below the lower bound, 1 above the upper, linear between."""
  low, high = bounds
  return xp.clip((values - low) / max(high - low, _TINY), 0.0, 1.0)


def _log_trust(xp, share: Array, config) -> Array:
  """The log of a trust that falls from 1 to `config.min_trust` with a share."""
  return xp.log(config.min_trust + (1.0 - config.min_trust) * share)


# --- Likeness of clients -----------------------------------------------------


def _unit_rows(xp, sketches: Array) -> Array:
  """Sketches as rows divided by their norms; zero rows stay zero."""
  rows = xp.reshape(sketches, (-1, math.prod(sketches.shape[1:])))
  return divide(xp, rows, norm(xp, rows)[:, None])


def _products(xp, rows: Array) -> Array:
  """Inner products [N, N] of all pairs of rows, symmetric to the last bit.

  Rounding, which may depend on an entry's place, must not tell two closest
  neighbours apart: they tie, and quantiles order ties by their weights.
  """
  return _symmetric(xp, xp.matmul(rows, xp.transpose(rows)))


def _symmetric(xp, matrix: Array) -> Array:
  return (matrix + xp.transpose(matrix)) / 2


def _others(xp, of_clients: Array) -> Array:
  """[N, N] of 1, but 0 for a client and itself."""
  return 1.0 - xp.eye(xp.size(of_clients))


def pair_cosines(xp, units: Array, finite: Array) -> Array:
  """Cosines [N, N] of all pairs; -1 for a client itself and unusable ones."""
  is_pair = finite[:, None] * finite * _others(xp, finite)
  return xp.where(is_pair > 0, _products(xp, units), -1.0)


def _count_alike(xp, cosines: Array, threshold: float, config) -> Array:
  """Soft number [N] of updates like each: 1 + sum_j sigma((C_ij - c) / T)."""
  likeness = (cosines - threshold) / config.copy_temperature
  return 1.0 + xp.sum(0.5 + 0.5 * xp.tanh(0.5 * likeness), axis=1)


def _copies_discount(xp, cosines: Array, config) -> Array:
  """mu [N]: one over the number of copies of an update, itself included."""
  return 1.0 / _count_alike(xp, cosines, config.copy_cosine, config)


def _voices(xp, cosines: Array, finite: Array, config) -> Array:
  """mu [N], but 1 for those who are like the majority of the cohort.

  That majority is honest, as most clients are: honest clients with much the
  same data must not be one voice against attackers who differ.
  """
  alike = _count_alike(xp, cosines, config.majority_cosine, config)
  share = divide(xp, alike, xp.sum(finite))
  is_majority = _ramp(xp, share, config.majority_range)
  return _copies_discount(xp, cosines, config) ** (1.0 - is_majority)


def _clip_factor(xp, norms: Array, bound: Array) -> Array:
  """min(1, bound / norm) [N]; 1 for a zero norm."""
  # Norms that are equal but for float32's rounding are not clipped in part.
  is_longer = norms > (1.0 + 1e-6) * bound
  return xp.where(is_longer, divide(xp, bound, norms), 1.0)


# --- Statistics --------------------------------------------------------------


def profile_divergence(xp, profiles: Array, typical: Array, config) -> Array:
  """Renyi divergence [N] of order 2, log sum_b p_b^2 / m_b, of profiles.

  Who writes where others do not, as a backdoor's trigger does, differs in where
  an update's energy is, however small the part and whatever its direction.

  Args:
    xp: The namespace.
    profiles: [N, B], each block's share of an update's energy; zeros for an
      update of zeros, whose divergence is 0.
    typical: [B], what they are compared with, not normalised.
    config: A `FedAOTConfig`.
  """
  even = config.profile_smoothing
  shares = divide(xp, typical, xp.sum(typical))
  shares = (1.0 - even) * shares + even / typical.shape[0]
  # At least 1, by Cauchy and Schwarz, but for rounding.
  return xp.log(xp.maximum(xp.sum(profiles**2 / shares, axis=1), 1.0))


def holdout_statistics(
    xp,
    table: Table,
    reference_norm: Array,
    root: Table,
    config: config_lib.FedAOTConfig,
) -> Statistics:
  """Statistics of hold-out mode, in the order of `HOLDOUT_STATISTICS`.

  All medians and quartiles weigh a client by its absolute trust from the
  hold-out and share that weight among copies, so that they stay with the
  honest clients even where attackers are the majority.

  Args:
    xp: The namespace.
    table: `finite` [N], `norm` [N], `sketch` [N, G, m], `profile` [N, B], and
      the inner products `dot_reference` [N] and `dot_root` [N]; N >= 1.
    reference_norm: Scalar, the norm of the EMA reference.
    root: `norm` and `profile` [B] of the root update; zeros if there is no
      usable one.
    config: A `FedAOTConfig`.

  Returns:
    `Statistics` with K = 5.
  """
  finite, norms, root_norm = table['finite'], table['norm'], root['norm']
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
  # Absolute, not relative to the cohort: a majority cannot make it normal. The
  # square, as of a normal log norm, spares honest clients, whose few classes
  # may make updates somewhat long, and not who scales.
  excess = -xp.log(xp.maximum(1.0, norms / xp.maximum(norm_bound, _TINY)))
  profile = xp.where(
      root_norm > 0,
      -profile_divergence(xp, table['profile'], root['profile'], config),
      0.0,
  )

  def z(values, floor):
    return standardize(xp, values, weights, floor, config.max_abs_z)

  return Statistics(
      values=xp.stack(
          [reference_cosine, root_cosine, copies, excess, profile], axis=1
      ),
      z=xp.stack(
          [
              z(reference_cosine, config.holdout_cosine_floor),
              z(root_cosine, config.holdout_cosine_floor),
              z(copies, config.copies_floor),
              xp.maximum(
                  -((excess / config.holdout_norm_scale) ** 2),
                  -config.max_abs_z,
              ),
              z(profile, config.profile_floor),
          ],
          axis=1,
      ),
      log_base=xp.log(discount),
      norm_bound=norm_bound,
      clip=_clip_factor(xp, norms, config.holdout_clip_factor * norm_bound),
  )


def agreement_statistics(
    xp, table: Table, memory: Memory, config: config_lib.FedAOTConfig
) -> Tuple[Statistics, Array, Memory]:
  """Statistics of agreement mode, in the order of `AGREEMENT_STATISTICS`.

  Args:
    xp: The namespace.
    table: `finite` [N], `norm` [N], `sketch` [N, G, m] and `profile` [N, B];
      N >= 1.
    memory: What is remembered of the rounds before.
    config: A `FedAOTConfig`.

  Returns:
    `Statistics` with K = 3; the part [N] of its `log_base` that is trust in the
    reference; and the memory with this round's votes on reference and camps.
  """
  finite, norms = table['finite'], table['norm']
  units = _unit_rows(xp, table['sketch'])
  cosines = pair_cosines(xp, units, finite)
  discount = _voices(xp, cosines, finite, config)
  standard = functools.partial(standardize, xp, max_abs_z=config.max_abs_z)
  voices = finite * discount
  typical = weighted_quantile(xp, xp.transpose(table['profile']), voices, 0.5)
  profile = -profile_divergence(xp, table['profile'], typical, config)
  profile_z = standard(profile, voices, config.profile_floor)
  # Who writes where others do not has less of a voice in all that follows.
  below = -(profile_z + config.agreement_margin)
  weights = voices * xp.exp(-config.initial_slope * xp.softplus(below))
  reference_cosine, memory = follow_support(xp, units, weights, memory, config)
  trust = log_reference_trust(xp, reference_cosine, memory, config)
  concordance = log_concordance(xp, table['sketch'], weights, config)
  # Whose layers disagree has no part in the camps: these are to part those whom
  # the concordance cannot tell.
  camp_trust, camp_memory = log_camp_trust(
      xp,
      units,
      cosines,
      weights * xp.exp(concordance),
      memory.camp_memory,
      config,
  )

  median_norm = weighted_quantile(xp, norms, finite, 0.5)
  # Copies share the weight of one, and free riders, who send next to nothing,
  # have none: they must not shorten every honest update.
  is_short = norms <= config.min_norm_ratio * median_norm
  counted = xp.where(is_short, 0.0, weights)
  middle = xp.clip(
      weighted_quantile(xp, norms, counted, 0.5),
      median_norm,
      config.max_norm_bound_ratio * median_norm,
  )
  log_ratio = xp.log(
      xp.maximum(norms / xp.maximum(middle, _TINY), config.min_norm_ratio)
  )
  # Up to the cohort's own spread below the middle long updates cost nothing.
  spread = xp.maximum(-weighted_quantile(xp, log_ratio, finite, 0.25), 0.0)
  excess = -xp.maximum(0.0, log_ratio - config.norm_tolerance * spread)
  # Nobody can make honest clients look like copies to send long updates.
  norm_bound = xp.minimum(
      typical_norm(xp, norms, counted, config.norm_share),
      config.max_norm_bound_ratio * middle,
  )

  found = Statistics(
      values=xp.stack([reference_cosine, excess, profile], axis=1),
      z=xp.stack(
          [
              standard(reference_cosine, finite, config.agreement_cosine_floor),
              xp.maximum(
                  excess / config.agreement_norm_scale, -config.max_abs_z
              ),
              profile_z,
          ],
          axis=1,
      ),
      log_base=xp.log(discount) + trust + camp_trust + concordance,
      norm_bound=norm_bound,
      clip=_clip_factor(xp, norms, config.agreement_clip_factor * norm_bound),
  )
  return found, trust, memory._replace(camp_memory=camp_memory)


def _principal_coordinates(xp, rows: Array, weights: Array) -> Array:
  """Coordinate [N] of each row along the first axis of their weighted scatter.

  The axis' sign is arbitrary; of axes of the same variance, which rounding
  parts, it is any.
  """
  scaled = rows * xp.sqrt(weights)[:, None]

  def from_clients():
    _, vectors = xp.eigh(xp.matmul(scaled, xp.transpose(scaled)))
    return xp.matmul(xp.transpose(vectors[:, -1:]), scaled)[0]

  def from_coordinates():
    _, vectors = xp.eigh(xp.matmul(xp.transpose(scaled), scaled))
    return vectors[:, -1]

  # The same axis up to its length; the smaller eigenproblem is taken.
  axis = xp.cond(xp.size(rows) <= rows.shape[1], from_clients, from_coordinates)
  return xp.sum(rows * divide(xp, axis, norm(xp, axis)), axis=1)


# --- Agreement: the reference's support --------------------------------------


def follow_support(
    xp, units: Array, weights: Array, memory: Memory, config
) -> Tuple[Array, Memory]:
  """Cosines [N] with the reference, and the memory after the vote on it.

  p <- (1 - rate) p + rate sum_i mu_i vote_i / sum_i mu_i, where a vote goes
  from 0 to 1 as the cosine goes from -full_trust_cosine to full_trust_cosine;
  the first votes have a plain mean, so that none is for what nobody has seen.
  A reference that most of the cohort opposes (p < reset_support) is forgotten:
  attackers who made the first ones must not keep them.
  """
  reference = xp.reshape(memory.reference, (-1,))
  length = norm(xp, reference)
  cosines = xp.sum(units * divide(xp, reference, length), axis=1)
  full = config.full_trust_cosine
  favour = divide(
      xp, xp.sum(weights * _ramp(xp, cosines, (-full, full))), xp.sum(weights)
  )
  decay = xp.minimum(
      1.0 - config.support_rate, 1.0 - 1.0 / xp.maximum(memory.age, 1.0)
  )
  followed = follow(memory.support, favour, decay)
  support = xp.where(length > 0, followed, memory.support)
  kept = xp.where(support < config.reset_support, 0.0, 1.0)
  return kept * cosines, memory._replace(
      reference=kept * memory.reference,
      support=xp.where(kept > 0, support, 1.0),
      age=kept * memory.age,
  )


def log_reference_trust(
    xp, reference_cosine: Array, memory: Memory, config
) -> Array:
  """t [N]: log trust, least for who opposes the reference; 0 without one.

  It counts as far as the reference has the support of the cohort.
  """
  share = _ramp(xp, reference_cosine, (0.0, config.full_trust_cosine))
  confidence = _ramp(xp, memory.support, config.support_range)
  has_reference = xp.where(memory.age > 0, 1.0, 0.0)
  return has_reference * confidence * _log_trust(xp, share, config)


# --- Agreement: camps --------------------------------------------------------


def split_camps(xp, units: Array, weights: Array) -> Array:
  """Two camps, [N] of 0 and 1, in arbitrary order.

  The cut of the first principal coordinate x that maximises the scatter between
  both sides, (sum_below mu x)^2 / (mass_below mass_above). Steps of 2-means
  from there change nothing: in many dimensions each client is near a mean that
  it is part of.
  """
  centre = divide(xp, xp.sum(units * weights[:, None], axis=0), xp.sum(weights))
  rows = (units - centre) * xp.where(weights > 0, 1.0, 0.0)[:, None]
  x = _principal_coordinates(xp, rows, weights)
  order = xp.argsort(x, kind='stable')
  mass = xp.cumsum(xp.take(weights, order, axis=0))
  moment = xp.cumsum(xp.take(weights * x, order, axis=0))
  between = divide(xp, moment * moment, mass * (mass[-1] - mass))
  # Equal coordinates stay together, whatever their order.
  cut = xp.take(x, order, axis=0)[xp.argmax(between)]
  return xp.where(x > cut, 1.0, 0.0)


def camp_distance(xp, cosines: Array, weights: Array, camp: Array) -> Array:
  """How far apart camps are, in units of the cosines' spread; a scalar.

  d = (mean C inside of camps - mean C across) / pooled standard deviation,
  where the pair of i and j weighs mu_i mu_j; 0 unless there are both kinds.
  """
  pairs = weights[:, None] * weights * _others(xp, weights)
  is_same = xp.where(xp.equal(camp[:, None], camp), 1.0, 0.0)
  inside, across = pairs * is_same, pairs * (1.0 - is_same)
  mean = lambda kind: divide(xp, xp.sum(kind * cosines), xp.sum(kind))
  scatter = lambda kind: xp.sum(kind * (cosines - mean(kind)) ** 2)
  spread = xp.sqrt(divide(xp, scatter(inside) + scatter(across), xp.sum(pairs)))
  gap = (mean(inside) - mean(across)) / xp.maximum(spread, _TIE)
  has_both = (xp.sum(inside) > 0) & (xp.sum(across) > 0)
  return xp.where(has_both, gap, 0.0)


def log_camp_trust(
    xp, units: Array, cosines: Array, weights: Array, camp_memory: Array, config
) -> Tuple[Array, Array]:
  """Log trust [N] by the camp, and the memory with this round's vote.

  Attackers who are alike, and unlike the honest, are a camp. Which of the two
  they are is not this round's majority alone: with delta the difference of the
  camps' means and g = 0 to 1 as the camps are clear,

    e <- decay e + g (mass_1 - mass_0) / mass delta,

  and the good camp is the one that delta points to if <e, delta> > 0. Nothing
  depends on which camp is called 1. A client is trusted by the mean cosine with
  the others of the good camp less that with the other camp.
  """
  camp = split_camps(xp, units, weights)
  distance = camp_distance(xp, cosines, weights, camp)
  # The fewer voices there are, the further apart any two camps are by chance.
  voices = divide(xp, xp.sum(weights) ** 2, xp.sum(weights * weights))
  chance = xp.sqrt(xp.minimum(1.0, voices / config.camp_voices))
  clear = _ramp(xp, distance * chance, config.camp_range)
  first, second = weights * camp, weights * (1.0 - camp)
  mean = lambda w: divide(xp, xp.sum(w[:, None] * units, axis=0), xp.sum(w))
  vote = divide(xp, xp.sum(first) - xp.sum(second), xp.sum(weights))
  difference = mean(first) - mean(second)
  votes = config.camp_decay * xp.reshape(camp_memory, (-1,)) + (
      clear * vote * difference
  )
  lead = xp.sum(votes * difference)
  # Two camps of equal mass and no memory are a tie: nobody loses by it.
  is_tie = xp.abs(lead) <= _TIE * xp.sum(difference * difference)
  side = xp.where(is_tie, 0.0, xp.sign(lead))

  others = _others(xp, weights)
  likeness = lambda w: divide(
      xp, xp.sum(others * cosines * w, axis=1), xp.sum(others * w, axis=1)
  )
  margin = side * (likeness(first) - likeness(second))
  good = xp.where(side > 0, first, second)
  typical = weighted_quantile(xp, margin, good, 0.5)
  share = xp.clip(1.0 + margin / xp.maximum(typical, _TIE), 0.0, 1.0)
  return (
      clear * xp.abs(side) * _log_trust(xp, share, config),
      xp.reshape(votes, camp_memory.shape),
  )


# --- Agreement: concordance of layers ----------------------------------------


def log_concordance(xp, sketches: Array, weights: Array, config) -> Array:
  """Log trust [N]: do a client's layers agree about whom it resembles?

  With C^g the cosines in group g, R = sum_{g<h} C^g C^h (elementwise): who
  turned some layers only resembles the honest in one group and opposes them in
  another. Signs s of the majority maximise sum_ij mu_i mu_j s_i s_j R_ij in
  about; y_i = sum_j mu_j s_j R_ij / sum_j mu_j |R_ij|, relative to a high
  quantile of y, is the concordance. It counts as far as that quantile is high.
  """
  others = _others(xp, weights)
  relation = total = xp.zeros_like(others)
  for group in range(sketches.shape[1]):
    cosines = _products(xp, _unit_rows(xp, sketches[:, group])) * others
    relation, total = relation + total * cosines, total + cosines
  signs = _majority_signs(xp, relation, weights)
  y = divide(
      xp,
      xp.sum(relation * weights * signs, axis=1),
      xp.sum(xp.abs(relation) * weights, axis=1),
  )
  typical = weighted_quantile(xp, y, weights, config.concordance_quantile)
  confidence = _ramp(xp, typical, config.concordance_range)
  share = _ramp(
      xp, y / xp.maximum(typical, _TIE), config.concordant_share_range
  )
  return confidence * _log_trust(xp, share, config)


def _majority_signs(xp, relation: Array, weights: Array) -> Array:
  """Signs [N] of who goes with whom, 1 for the side of more weight.

  0 for who has no weight, and for all if both sides have the same.
  """
  root = xp.sqrt(weights)
  # Signs are constant almost everywhere.
  relation = xp.stop_gradient(relation * root[:, None] * root)
  _, vectors = xp.eigh(relation)

  def settle(signs):
    for _ in range(_SIGN_STEPS):
      signs = xp.sign(xp.sum(relation * signs, axis=1))
    return signs, xp.sum(relation * signs[:, None] * signs)

  # Usually all agree, which the eigenvector misses where few pairs stand out.
  signs, value = settle(xp.ones_like(weights))
  others, other_value = settle(xp.sign(vectors[:, -1]))
  margin = _TIE * xp.sum(xp.abs(relation))
  signs = xp.where(other_value > value + margin, others, signs)
  lead = xp.sum(weights * signs)
  is_tie = xp.abs(lead) <= _TIE * xp.sum(weights)
  return signs * xp.where(is_tie, 0.0, xp.sign(lead))


# --- Weights -----------------------------------------------------------------


def initial_weighting(
    xp, config: config_lib.FedAOTConfig, *, has_holdout: bool
) -> Theta:
  """The weighting variables theta of a mode's K statistics at their start."""
  if has_holdout:
    size, margin = len(HOLDOUT_STATISTICS), config.holdout_margin
  else:
    size, margin = len(AGREEMENT_STATISTICS), config.agreement_margin
  slope = config.initial_slope
  raw_slope = slope + math.log(-math.expm1(-slope))  # The inverse of softplus.
  return {
      'raw_slope': xp.full([size], raw_slope),
      'margin': xp.full([size], float(margin)),
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
    known: Any,
    root: Optional[Table],
    config: config_lib.FedAOTConfig,
) -> Decision:
  """The weights of a round.

  Args:
    xp: The namespace.
    theta: The weighting variables.
    table: As `holdout_statistics` or `agreement_statistics` takes it, with N
      >= 0; with `num_examples` [N] if example counts are to be used.
    known: The EMA reference, or in agreement mode the `Memory`.
    root: See `holdout_statistics`; None in agreement mode.
    config: A `FedAOTConfig`.

  Returns:
    A `Decision`.
  """
  # A client that takes no part keeps every reduction defined for an empty
  # cohort; it changes no result.
  table = {name: _append_zero_row(xp, rows) for name, rows in table.items()}
  finite = table['finite']
  memory: Any = ()
  if root is None:
    found, trust, memory = agreement_statistics(xp, table, known, config)
  else:
    found = holdout_statistics(xp, table, norm(xp, known), root, config)
  if 'num_examples' in table:
    found = found._replace(
        log_base=found.log_base
        + log_example_weights(
            xp, table['num_examples'], finite, config.max_example_ratio
        )
    )
  if root is None:
    memory = _follow_reference(xp, theta, table, found, trust, memory, config)
    # Where nobody has anything to say there is nothing to remember.
    memory = Memory(
        *(
            xp.where(xp.sum(finite) > 0, new, old)
            for new, old in zip(memory, known)
        )
    )
  return Decision(
      weights=weights(xp, theta, found.z, found.log_base, finite)[:-1],
      clip=found.clip[:-1],
      values=found.values[:-1],
      z=found.z[:-1],
      log_base=found.log_base[:-1],
      norm_bound=found.norm_bound,
      memory=memory,
  )


def _follow_reference(
    xp,
    theta: Theta,
    table: Table,
    found: Statistics,
    trust: Array,
    memory: Memory,
    config,
) -> Memory:
  """The memory with this round's updates in the reference.

  The reference is a plain mean of its first rounds, then a moving average.
  """
  # With all of the trust in it a bad start would confirm itself.
  log_base = found.log_base + (config.reference_trust_exponent - 1.0) * trust
  w = reference_weights(xp, theta, found.z, log_base, table['finite'])
  bound = config.reference_clip_factor * found.norm_bound
  w = w * _clip_factor(xp, table['norm'], bound)
  aggregate = xp.sum(w[:, None, None] * table['sketch'], axis=0)
  decay = xp.minimum(config.reference_decay, memory.age / (memory.age + 1.0))
  return memory._replace(
      reference=follow(memory.reference, aggregate, decay),
      age=memory.age + 1.0,
  )


def reference_weights(
    xp, theta: Theta, z: Array, log_base: Array, finite: Array
) -> Array:
  """Weights [N] of the updates in agreement mode's reference.

  The reference must not confirm itself, so its own statistic has no say.
  """
  is_other = [s != 'reference_cosine' for s in AGREEMENT_STATISTICS]
  # A statistic this far above the middle costs nothing.
  z = xp.where(xp.array(is_other), z, 1e3)
  return weights(xp, theta, z, log_base, finite)


def _append_zero_row(xp, rows: Array) -> Array:
  return xp.concatenate([rows, xp.zeros((1, *rows.shape[1:]))], axis=0)


# --- Meta step ---------------------------------------------------------------


def without_overshoot(xp, gradient: Array, step: Array) -> Array:
  """The gradient g' [p], less its part along the step if that went too far.

  Past the lowest loss along a step [p], which the model is moved against, each
  update that helped to make it seems to harm, the honest most, and who shortens
  it to help. That says how long the step was, not who is right. Both are
  projections, from which inner products are taken.
  """
  product = xp.minimum(xp.sum(gradient * step), 0.0)
  return gradient - divide(xp, product, xp.sum(step * step)) * step


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
    dots: [N], <g', update_i>; g' as `without_overshoot` leaves it.
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
    previous_sketches: [N, G, m], clipped and divided by the norm bound.
    current_aggregate: [G, m], sketch of this round's weighted mean.
  """
  length = xp.sqrt(xp.sum(current_aggregate * current_aggregate))
  direction = divide(xp, current_aggregate, length)
  return -xp.sum(previous_sketches * direction, axis=(1, 2))


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
      'step': xp.zeros([]),
      'first_moment': zeros(),
      'second_moment': zeros(),
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
  start = initial_weighting(xp, config, has_holdout=has_holdout)
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


def follow(average: Array, value: Array, decay: Array) -> Array:
  """The moving average: decay average + (1 - decay) value."""
  return decay * average + (1.0 - decay) * value
