"""The equations of FedAOT as pure TensorFlow functions: no TFF, no state.

Notation of Das & Sen (arXiv 2603.16846), as extended in this package: N client
updates of d floats, `reference` the EMA of past aggregates, theta the weighting
variables. An update enters these equations only through its norm and a random
projection on p floats, from which come inner products and a sketch of m floats;
all tables below have one row a client.

A round:
  1. `summarize_update` for each client (one pass over the update);
  2. `holdout_statistics` or `agreement_statistics`: how suspicious each is;
  3. `scores` and `softmax_weights`: w = softmax(s(z; theta));
  4. the aggregate sum_i w_i clip_i update_i (a second pass, outside);
  5. `meta_step` on theta: down the gradient of `holdout_objective` (the
     projections make its alignments) or `agreement_objective`.

Clients whose update is not finite have zero summaries and `finite` 0. Zero
weight keeps them out of every median, maximum and sum, so they influence no
other client.
"""

import collections
import math
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

import tensorflow as tf

from fedaot_tff.aggregators import fedaot_config

HOLDOUT_STATISTICS = ('reference_cosine', 'root_cosine', 'copies', 'norm')
AGREEMENT_STATISTICS = ('reference_cosine', 'norm', 'copies', 'spectral')

# Turns a quartile's distance from the median into a standard deviation.
_QUARTILE_TO_STDDEV = 1.4826
# Stands for zero in a denominator; far below any norm that matters.
_TINY = 1e-30
# Coordinates in a block of `norm_and_sketch`, 256 KiB, and the most blocks that
# an update is cut into, but for the ends of its tensors.
_BLOCK_SIZE = 2**16
_MAX_BLOCKS = 64
# Blocks that have signs of their own; further ones reuse these, moved by a
# multiple of so many coordinates that a slice of them need not be copied.
_NUM_SIGN_BLOCKS = 2
_SHIFT = 16


class Statistics(NamedTuple):
  """What a round's summaries say about each client; N clients, K statistics.

  Attributes:
    values: float32 [N, K], the statistics phi, higher is more trustworthy.
    z: float32 [N, K], standardized over the cohort, bounded.
    log_discount: float32 [N], added to the score; 0 or the log of one over the
      number of copies.
    norm_bound: float32 scalar tau, the norm of a typical update.
    clip: float32 [N], factor in [0, 1] that bounds each update's norm.
  """

  values: tf.Tensor
  z: tf.Tensor
  log_discount: tf.Tensor
  norm_bound: tf.Tensor
  clip: tf.Tensor


def divide(numerator: tf.Tensor, denominator: tf.Tensor) -> tf.Tensor:
  """Elementwise quotient of nonnegative denominators; 0 where they are 0."""
  return tf.math.divide_no_nan(numerator, denominator)


# --- Summaries ---------------------------------------------------------------


def projection_length(
    num_coordinates: int, config: fedaot_config.FedAOTConfig
) -> int:
  """Length p of the projection of an update of d coordinates.

  A multiple of the sketch dimension m, so that a projection folds into a
  sketch; `config.projection_dimension`, or d if that is less, rounded up.
  """
  length = min(config.projection_dimension, num_coordinates)
  return config.sketch_dimension * math.ceil(length / config.sketch_dimension)


class _SignLayout(NamedTuple):
  """Where the signs of an update's rows are; rows have p coordinates.

  Rows are grouped into blocks. A block's signs are consecutive in the table of
  signs, flattened, and those of different blocks begin at different places
  modulo p. So coordinates that are added up have signs of different places.

  Attributes:
    block_rows: The rows of a block; the last one may have fewer.
    num_blocks: The number of blocks.
    table_rows: The rows of the table of signs, as long as an update's.
    is_reused: Whether places of the table are the signs of several rows. Then
      a block has a sign of its own as well.
    shift: The distance of two blocks' places that share signs.
    num_apart: The number of blocks that share none.
  """

  block_rows: int
  num_blocks: int
  table_rows: int
  is_reused: bool
  shift: int
  num_apart: int

  def first_sign(self, block: int, length: int) -> int:
    """The place of a block's first sign in the flattened table."""
    group, position = divmod(block, self.num_apart)
    return position * self.block_rows * length + group * self.shift


def _sign_layout(num_rows: int, length: int) -> _SignLayout:
  """The layout of the signs of R rows of p coordinates."""
  # Blocks that stay in a core's cache from the product to the sums, but not so
  # many that the graph of a huge model is long.
  block_rows = max(1, _BLOCK_SIZE // length, math.ceil(num_rows / _MAX_BLOCKS))
  num_blocks = math.ceil(num_rows / block_rows)
  shift = min(_SHIFT, length)
  # So few groups of blocks that no shift is as long as a row.
  num_apart = max(
      _NUM_SIGN_BLOCKS, math.ceil(num_blocks / (length // shift))
  )
  is_reused = num_blocks > num_apart
  return _SignLayout(
      block_rows,
      num_blocks,
      num_apart * block_rows + 1 if is_reused else num_rows,
      is_reused,
      shift,
      num_apart,
  )


def sketch_signs(
    seed: tf.Tensor, num_coordinates: int, length: int
) -> 'collections.OrderedDict[str, tf.Tensor]':
  """Random signs of the fold sketch, the same for one seed on every device.

  There are fewer than d of them for a large d: they stay in a core's cache,
  which an update does not.

  Args:
    seed: int64 [2], secret: who knows the signs can hide from the sketch.
    num_coordinates: d.
    length: Of the sketch, p.

  Returns:
    An OrderedDict of -1 and 1: `table` float32 [rows, p], and `blocks`
    float32 [number of blocks].
  """
  layout = _sign_layout(math.ceil(num_coordinates / length), length)
  return collections.OrderedDict(
      table=_random_signs(seed, [layout.table_rows, length]),
      blocks=_random_signs(
          tf.random.experimental.stateless_fold_in(seed, 0),
          [layout.num_blocks],
      ),
  )


def _random_signs(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
  """A float32 tensor of -1 and 1."""
  num_signs = math.prod(shape)
  # Every byte of a random word gives a sign: random bits are what costs.
  words = tf.random.stateless_uniform(
      [math.ceil(num_signs / 4)], seed, None, None, tf.int32, alg='philox'
  )
  signed_bytes = tf.reshape(tf.bitcast(words, tf.int8), [-1])[:num_signs]
  return tf.where(tf.reshape(signed_bytes, shape) < 0, -1.0, 1.0)


def norm_and_sketch(
    tensors: Sequence[tf.Tensor],
    signs: 'collections.OrderedDict[str, tf.Tensor]',
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Norm and fold sketch of an update in one read of its tensors.

  The sketch is linear and keeps inner products: each coordinate gets a random
  sign, every p-th one is added up. E <S(a), S(b)> = <a, b>; for d <= p it is
  exact. With a sign for each coordinate, that is for up to two blocks of 2^16
  coordinates, the variance is at most 2 sum_c |a_c|^2 |b_c|^2, where a_c is
  what is added up at place c: 2 |a|^2 |b|^2 / p where places share evenly, up
  to 2 |a|^2 |b|^2 where one holds all. Beyond, the signs of two rows of a block
  have the same products in other blocks, too. That adds nothing where entries
  vary at random and up to a half where all are equal; a few coordinates that
  are chosen for it have up to 32 times the variance.

  Coordinates are taken in this order: of each tensor in turn as many as fill
  whole rows of p, then what is left of each tensor in turn. So no large tensor
  is copied.

  Args:
    tensors: float32 tensors of any static shapes, d coordinates in all.
    signs: See `sketch_signs`.

  Returns:
    The Euclidean norm, a float32 scalar, and the sketch, float32 [p].
  """
  length = signs['table'].shape[1]
  table = tf.reshape(signs['table'], [-1])
  flat = [tf.reshape(tensor, [-1]) for tensor in tensors]
  num_rows = math.ceil(sum(tensor.shape[0] for tensor in flat) / length)
  layout = _sign_layout(num_rows, length)
  squares, sums, rest, row = [], [], [], 0

  def add(rows, row):
    """Adds rows, the first of which is number `row` of the update."""
    first = 0
    while first < rows.shape[0]:
      block, position = divmod(row + first, layout.block_rows)
      size = min(layout.block_rows - position, rows.shape[0] - first)
      start = layout.first_sign(block, length) + position * length
      signed = rows[first : first + size] * tf.reshape(
          table[start : start + size * length], [size, length]
      )
      # The signs do not change the squares.
      squares.append(tf.nn.l2_loss(signed))
      total = tf.reduce_sum(signed, axis=0)
      sums.append(total * signs['blocks'][block] if layout.is_reused else total)
      first += size
    return row + first

  for tensor in flat:
    num_whole = tensor.shape[0] // length
    row = add(
        tf.reshape(tensor[: num_whole * length], [num_whole, length]), row
    )
    rest.append(tensor[num_whole * length :])
  rest = tf.concat(rest, axis=0)
  padding = (num_rows - row) * length - rest.shape[0]
  add(
      tf.reshape(tf.pad(rest, [[0, padding]]), [num_rows - row, length]), row
  )
  return tf.sqrt(2.0 * tf.add_n(squares)), tf.add_n(sums)


def fold_sketch(
    update: tf.Tensor, signs: 'collections.OrderedDict[str, tf.Tensor]'
) -> tf.Tensor:
  """The sketch [p] alone of an update [d]; see `norm_and_sketch`."""
  return norm_and_sketch([update], signs)[1]


def narrow_sketch(sketch: tf.Tensor, length: int) -> tf.Tensor:
  """Folds a sketch [p] into one of a length that divides p."""
  return tf.reduce_sum(tf.reshape(sketch, [-1, length]), axis=0)


def fingerprint(numbers: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Keyed 64-bit hash of floats by which a client finds its row in a table.

  Multilinear hashing modulo 2^64: different rows collide with a probability of
  at most 2^-33 whatever they are, as long as the seed is secret.

  Args:
    numbers: float32 [k].
    seed: int64 [2].

  Returns:
    int64 scalar.
  """
  factors = tf.random.stateless_uniform(
      [numbers.shape[0]], seed, None, None, tf.int64, alg='philox'
  )
  bits = tf.cast(tf.bitcast(numbers, tf.int32), tf.int64)
  return tf.reduce_sum(factors * bits)


def summarize_update(
    tensors: Sequence[tf.Tensor],
    signs: 'collections.OrderedDict[str, tf.Tensor]',
    seed: tf.Tensor,
    directions: 'collections.OrderedDict[str, tf.Tensor]',
    config: fedaot_config.FedAOTConfig,
) -> Tuple['collections.OrderedDict[str, tf.Tensor]', tf.Tensor]:
  """Summary of one client update: all that the weighting sees of it.

  Args:
    tensors: The update, float32 tensors of static shapes, d coordinates in all.
    signs: See `sketch_signs`.
    seed: int64 [2], of the fingerprint.
    directions: Named float32 [p] sketches of vectors to project the update on.
    config: A `FedAOTConfig`.

  Returns:
    A pair. First an OrderedDict of `fingerprint` int64 scalar, `finite` float32
    scalar 0 or 1, `norm` float32 scalar, `sketch` float32 [m] and `dot_<name>`
    float32 scalar for each direction; second the update's sketch, float32 [p].
    Everything is 0 for an update that is not finite.
  """
  norm, projection = norm_and_sketch(tensors, signs)
  # No entry is larger than the norm, and a NaN compares false.
  usable = norm < config.max_norm
  norm = tf.where(usable, norm, 0.0)
  projection = tf.where(usable, projection, 0.0)
  sketch = narrow_sketch(projection, config.sketch_dimension)
  dots = [tf.tensordot(projection, v, 1) for v in directions.values()]
  numbers = tf.concat([tf.stack([norm] + dots), sketch], axis=0)
  summary = collections.OrderedDict(
      [
          ('fingerprint', fingerprint(numbers, seed)),
          ('finite', tf.cast(usable, tf.float32)),
          ('norm', norm),
          ('sketch', sketch),
      ]
      + [(f'dot_{name}', dot) for name, dot in zip(directions, dots)]
  )
  return summary, projection


# --- Robust location and scale ----------------------------------------------


def weighted_quantile(
    values: tf.Tensor, weights: tf.Tensor, quantile: float
) -> tf.Tensor:
  """Interpolated quantile of a weighted sample.

  A sorted entry sits at position (cumulative weight - weight / 2) / total;
  between positions the quantile is linear, beyond them constant. With equal
  weights the median is the usual one, the midpoint for an even number.

  Args:
    values: float32 [N], N >= 1.
    weights: float32 [N], nonnegative; entries of weight 0 take no part.
    quantile: In [0, 1].

  Returns:
    float32 scalar; 0 if no weight is positive.
  """
  # Equal values are ordered by weight, so that the order of the clients, which
  # is arbitrary, has no influence.
  order = tf.argsort(weights)
  values, weights = tf.gather(values, order), tf.gather(weights, order)
  valid = weights > 0
  largest = tf.reduce_max(tf.where(valid, values, values.dtype.min))
  order = tf.argsort(tf.where(valid, values, math.inf), stable=True)
  # Entries without weight come last and repeat the largest valid value.
  values = tf.minimum(tf.gather(values, order), largest)
  values = tf.where(tf.gather(valid, order), values, largest)
  weights = tf.gather(tf.where(valid, weights, 0.0), order)
  total = tf.reduce_sum(weights)
  positions = divide(tf.cumsum(weights) - weights / 2, total)
  above = tf.reduce_sum(tf.cast(positions < quantile, tf.int32))
  last = tf.shape(values)[0] - 1
  low = tf.clip_by_value(above - 1, 0, last)
  high = tf.clip_by_value(above, 0, last)
  left, right = positions[low], positions[high]
  fraction = tf.clip_by_value(divide(quantile - left, right - left), 0.0, 1.0)
  result = values[low] + fraction * (values[high] - values[low])
  return tf.where(total > 0, result, 0.0)


def standardize(
    values: tf.Tensor, weights: tf.Tensor, floor: float, max_abs_z: float
) -> tf.Tensor:
  """Distance from the median in units of the upper half's spread.

  Only the upper quartile sets the scale: attackers sit below the median and
  must not widen it.

  Args:
    values: float32 [N].
    weights: float32 [N] of the median and the quartile.
    floor: Added to the scale.
    max_abs_z: Bound on the result.

  Returns:
    float32 [N].
  """
  median = weighted_quantile(values, weights, 0.5)
  spread = weighted_quantile(values, weights, 0.75) - median
  z = (values - median) / (_QUARTILE_TO_STDDEV * spread + floor)
  return tf.clip_by_value(z, -max_abs_z, max_abs_z)


def _unit_rows(sketches: tf.Tensor) -> tf.Tensor:
  """Rows divided by their norms; zero rows stay zero. Shape [N, m]."""
  return divide(sketches, tf.norm(sketches, axis=1, keepdims=True))


def _pair_cosines(units: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
  """Cosines of all pairs [N, N]; -1 for a client itself and not finite ones."""
  cosines = tf.matmul(units, units, transpose_b=True)
  # Rounding must not tell two closest neighbours apart: they tie.
  cosines = (cosines + tf.transpose(cosines)) / 2
  others = tf.linalg.set_diag(
      tf.ones_like(cosines) * finite[None, :], tf.zeros_like(finite)
  )
  return tf.where(others > 0, cosines, -1.0)


def _count_copies(
    cosines: tf.Tensor, threshold: float, temperature: float
) -> tf.Tensor:
  """Soft number [N] of other clients that share each client's update."""
  return tf.reduce_sum(
      tf.sigmoid((cosines - threshold) / temperature), axis=1
  )


def _copies_discount(
    cosines: tf.Tensor, config: fedaot_config.FedAOTConfig
) -> tf.Tensor:
  """One over the number of copies [N] of each update, itself included."""
  return 1.0 / (
      1.0 + _count_copies(cosines, config.copy_cosine, config.copy_temperature)
  )


def _clip_factor(norms: tf.Tensor, bound: tf.Tensor) -> tf.Tensor:
  """min(1, bound / norm) [N]; 1 for a zero norm."""
  return tf.where(norms > bound, divide(bound, norms), 1.0)


# --- Statistics --------------------------------------------------------------


def holdout_statistics(
    table: 'collections.OrderedDict[str, tf.Tensor]',
    reference_norm: tf.Tensor,
    root_norm: tf.Tensor,
    config: fedaot_config.FedAOTConfig,
) -> Statistics:
  """Statistics of hold-out mode, in the order of `HOLDOUT_STATISTICS`.

  All medians and quartiles weigh a client by its absolute trust from the
  hold-out and share that weight among copies, so that they stay with the
  honest clients even where attackers are the majority.

  Args:
    table: Summaries with a leading dimension N >= 1, with `dot_reference` and
      `dot_root`.
    reference_norm: float32 scalar.
    root_norm: float32 scalar, 0 if there is no usable root update.
    config: A `FedAOTConfig`.

  Returns:
    `Statistics` with K = 4.
  """
  finite, norms = table['finite'], table['norm']
  cosines = _pair_cosines(_unit_rows(table['sketch']), finite)
  discount = _copies_discount(cosines, config)
  reference_cosine = divide(table['dot_reference'], norms * reference_norm)
  root_cosine = divide(table['dot_root'], norms * root_norm)
  trust = config.min_trust + (1.0 - config.min_trust) * tf.clip_by_value(
      root_cosine / config.full_trust_cosine, 0.0, 1.0
  )
  weights = finite * discount * trust

  # Trust is in the weights: untrusted short updates, such as the zeros of free
  # riders, must not shorten the others.
  norm_bound = weighted_quantile(norms, weights, 0.5)
  norm_bound = tf.where(
      root_norm > 0,
      tf.minimum(norm_bound, config.root_norm_factor * root_norm),
      norm_bound,
  )
  copies = tf.math.log(1.01 - tf.reduce_max(cosines, axis=1))
  # Absolute, not relative to the cohort: a majority cannot make it normal.
  norm = -tf.math.log(tf.maximum(1.0, norms / tf.maximum(norm_bound, _TINY)))
  values = tf.stack([reference_cosine, root_cosine, copies, norm], axis=1)
  z = tf.stack(
      [
          standardize(
              reference_cosine,
              weights,
              config.reference_floor,
              config.max_abs_z,
          ),
          standardize(
              root_cosine, weights, config.root_floor, config.max_abs_z
          ),
          standardize(copies, weights, config.copies_floor, config.max_abs_z),
          tf.maximum(norm / config.norm_scale, -config.max_abs_z),
      ],
      axis=1,
  )
  return Statistics(
      values=values,
      z=z,
      log_discount=tf.math.log(discount),
      norm_bound=norm_bound,
      clip=_clip_factor(norms, config.holdout_clip_factor * norm_bound),
  )


def _masked_coordinate_median(
    rows: tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
  """Coordinate-wise median [m] of the rows [N, m] with a positive mask [N]."""
  count = tf.reduce_sum(tf.cast(mask > 0, tf.int32))
  ordered = tf.sort(tf.where(mask[:, None] > 0, rows, math.inf), axis=0)
  median = (
      ordered[tf.maximum((count - 1) // 2, 0)] + ordered[count // 2]
  ) / 2
  return tf.where(count > 0, median, tf.zeros_like(median))


def _principal_coordinates(rows: tf.Tensor) -> tf.Tensor:
  """Coordinate [N] of each row along the rows' top right singular vector."""

  def from_clients():
    values, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_b=True))
    return vectors[:, -1] * tf.sqrt(tf.maximum(values[-1], 0.0))

  def from_coordinates():
    _, vectors = tf.linalg.eigh(tf.matmul(rows, rows, transpose_a=True))
    return tf.linalg.matvec(rows, vectors[:, -1])

  # The same coordinates up to sign; the smaller eigenproblem is taken.
  shape = tf.shape(rows)
  return tf.cond(shape[0] <= shape[1], from_clients, from_coordinates)


def _agreed_norm_bound(
    norms: tf.Tensor,
    finite: tf.Tensor,
    cosines: tf.Tensor,
    config: fedaot_config.FedAOTConfig,
) -> tf.Tensor:
  """The norm of a typical update, from the cohort alone.

  Colluders who all send one short vector, and free riders who send next to
  nothing, pull the median norm down and with it the length of every honest
  update. So copies share the weight of one, and the shortest updates have none.
  Whatever a cohort makes of that, the bound stays between the plain median and
  `config.max_norm_bound_ratio` times it.

  Args:
    norms: float32 [N].
    finite: float32 [N].
    cosines: float32 [N, N], see `_pair_cosines`.
    config: A `FedAOTConfig`.

  Returns:
    float32 scalar.
  """
  median = weighted_quantile(norms, finite, 0.5)
  is_short = norms <= config.min_norm_ratio * median
  weights = finite * _copies_discount(cosines, config)
  typical = weighted_quantile(norms, tf.where(is_short, 0.0, weights), 0.5)
  return tf.clip_by_value(
      typical, median, config.max_norm_bound_ratio * median
  )


def agreement_statistics(
    table: 'collections.OrderedDict[str, tf.Tensor]',
    reference: tf.Tensor,
    config: fedaot_config.FedAOTConfig,
) -> Statistics:
  """Statistics of agreement mode, in the order of `AGREEMENT_STATISTICS`.

  Args:
    table: Summaries with a leading dimension N >= 1.
    reference: float32 [m], the EMA reference in sketch space.
    config: A `FedAOTConfig`.

  Returns:
    `Statistics` with K = 4.
  """
  finite, norms, sketches = table['finite'], table['norm'], table['sketch']
  units = _unit_rows(sketches)
  cosines = _pair_cosines(units, finite)

  reference_cosine = tf.linalg.matvec(
      units, divide(reference, tf.norm(reference))
  )
  norm_bound = _agreed_norm_bound(norms, finite, cosines, config)
  log_ratio = tf.math.log(
      tf.maximum(
          norms / tf.maximum(norm_bound, _TINY), config.min_norm_ratio
      )
  )
  lower = tf.maximum(-weighted_quantile(log_ratio, finite, 0.25), 0.0)
  norm = -tf.maximum(0.0, log_ratio - config.norm_tolerance * lower)
  copies = -tf.math.log1p(
      _count_copies(cosines, config.crowd_cosine, config.crowd_temperature)
  )
  centred = (units - _masked_coordinate_median(units, finite)) * finite[:, None]
  coordinates = _principal_coordinates(centred)
  spectral = -tf.abs(coordinates - weighted_quantile(coordinates, finite, 0.5))

  values = [reference_cosine, norm, copies, spectral]
  floors = [
      config.reference_floor,
      config.norm_floor,
      config.copies_floor,
      config.spectral_floor,
  ]
  z = [
      standardize(value, finite, floor, config.max_abs_z)
      for value, floor in zip(values, floors)
  ]
  return Statistics(
      values=tf.stack(values, axis=1),
      z=tf.stack(z, axis=1),
      log_discount=tf.zeros_like(norms),
      norm_bound=norm_bound,
      clip=_clip_factor(norms, config.agreement_clip_factor * norm_bound),
  )


# --- Weights -----------------------------------------------------------------


def initial_weighting(
    num_statistics: int, config: fedaot_config.FedAOTConfig
) -> 'collections.OrderedDict[str, tf.Tensor]':
  """The weighting variables theta at their start.

  Args:
    num_statistics: K.
    config: A `FedAOTConfig`.

  Returns:
    OrderedDict of `raw_slope` float32 [K] (b; the slope is its softplus),
    `margin` float32 [K] (m) and `log_sharpness` float32 scalar (l).
  """
  slope = config.initial_slope
  raw_slope = slope + math.log(-math.expm1(-slope))
  return collections.OrderedDict(
      raw_slope=tf.fill([num_statistics], tf.constant(raw_slope, tf.float32)),
      margin=tf.fill(
          [num_statistics], tf.constant(config.initial_margin, tf.float32)
      ),
      log_sharpness=tf.constant(config.initial_log_sharpness, tf.float32),
  )


def scores(
    theta: 'collections.OrderedDict[str, tf.Tensor]',
    z: tf.Tensor,
    statistics_mask: Optional[tf.Tensor] = None,
) -> tf.Tensor:
  """Reliability scores: a soft hinge on each statistic, summed.

  s_i = exp(l) sum_k -softplus(b_k) softplus(-(z_ik + m_k)): much worse than the
  cohort's middle costs much, better than it earns little.

  Args:
    theta: The weighting variables.
    z: float32 [N, K].
    statistics_mask: Optional float32 [K] of 0 and 1, the statistics to sum.

  Returns:
    float32 [N], at most 0.
  """
  hinge = -tf.math.softplus(theta['raw_slope']) * tf.math.softplus(
      -(z + theta['margin'])
  )
  if statistics_mask is not None:
    hinge *= statistics_mask
  return tf.exp(theta['log_sharpness']) * tf.reduce_sum(hinge, axis=1)


def softmax_weights(score: tf.Tensor, finite: tf.Tensor) -> tf.Tensor:
  """Softmax over the finite clients.

  Args:
    score: float32 [N].
    finite: float32 [N] of 0 and 1.

  Returns:
    float32 [N] that sums to 1; all 0 if no client is finite.
  """
  highest = tf.reduce_max(tf.where(finite > 0, score, score.dtype.min))
  # Masked before the exponential, so that neither the value nor the gradient
  # of a client that takes no part can overflow.
  shifted = tf.where(finite > 0, score - tf.stop_gradient(highest), 0.0)
  exponentials = finite * tf.exp(shifted)
  return divide(exponentials, tf.reduce_sum(exponentials))


def log_example_weights(
    num_examples: tf.Tensor, finite: tf.Tensor, max_ratio: float
) -> tf.Tensor:
  """Log weights from reported example counts, capped against forged ones.

  Args:
    num_examples: float32 [N], positive where `finite` is.
    finite: float32 [N].
    max_ratio: Cap as a multiple of the cohort's median count.

  Returns:
    float32 [N].
  """
  median = weighted_quantile(num_examples, finite, 0.5)
  capped = tf.minimum(num_examples, max_ratio * median)
  return tf.math.log(tf.where(finite > 0, capped, 1.0))


# --- Meta step ---------------------------------------------------------------


def holdout_alignments(
    dots: tf.Tensor,
    clip: tf.Tensor,
    gradient_norm: tf.Tensor,
    norm_bound: tf.Tensor,
) -> tf.Tensor:
  """How much each client raises the hold-out loss, A_i.

  With g' the gradient of the hold-out loss at the model AFTER the update, the
  gradient of sum_i w_i(theta) A_i is, up to a positive factor, exactly that of
  the hold-out loss of the aggregated model in theta: the chain rule needs of
  each update only its inner product with g'. Updates are subtracted from the
  model (TFF's convention), hence the sign.

  Args:
    dots: float32 [N], <g', update_i>, from their projections.
    clip: float32 [N].
    gradient_norm: float32 scalar, the norm of g'; 0 if it is unusable.
    norm_bound: float32 scalar.

  Returns:
    float32 [N], about in [-2, 2].
  """
  return -divide(dots * clip, gradient_norm * norm_bound)


def holdout_objective(
    weights: tf.Tensor, alignments: tf.Tensor
) -> tf.Tensor:
  """sum_i w_i A_i, whose gradient is the hold-out loss's; a scalar."""
  return tf.reduce_sum(weights * alignments)


def agreement_alignments(
    previous_sketches: tf.Tensor, current_aggregate: tf.Tensor
) -> tf.Tensor:
  """How far last round's updates point away from this round's aggregate.

  Args:
    previous_sketches: float32 [N', m], clipped and divided by the norm bound.
    current_aggregate: float32 [m], sketch of this round's weighted mean.

  Returns:
    float32 [N'].
  """
  return -tf.linalg.matvec(
      previous_sketches,
      divide(current_aggregate, tf.norm(current_aggregate)),
  )


def agreement_objective(
    weights: tf.Tensor, alignments: tf.Tensor, concentration_penalty: float
) -> tf.Tensor:
  """sum_i w_i A_i + penalty sum_i w_i^2; a scalar."""
  return tf.reduce_sum(
      weights * alignments + concentration_penalty * tf.square(weights)
  )


def initial_meta_optimizer(
    theta: 'collections.OrderedDict[str, tf.Tensor]',
) -> 'collections.OrderedDict[str, tf.Tensor]':
  """Adam's slots for theta: `step` int32, `first_moment`, `second_moment`."""
  return collections.OrderedDict(
      step=tf.constant(0, tf.int32),
      first_moment=tf.nest.map_structure(tf.zeros_like, theta),
      second_moment=tf.nest.map_structure(tf.zeros_like, theta),
  )


def meta_gradient(
    theta: 'collections.OrderedDict[str, tf.Tensor]',
    objective_fn: Callable[
        ['collections.OrderedDict[str, tf.Tensor]'], tf.Tensor
    ],
) -> 'collections.OrderedDict[str, tf.Tensor]':
  """Gradient of `objective_fn` at theta, by `tf.GradientTape`."""
  with tf.GradientTape() as tape:
    tape.watch(theta)
    objective = objective_fn(theta)
  return tape.gradient(objective, theta)


def meta_step(
    theta: 'collections.OrderedDict[str, tf.Tensor]',
    optimizer: 'collections.OrderedDict[str, tf.Tensor]',
    gradient: 'collections.OrderedDict[str, tf.Tensor]',
    start: 'collections.OrderedDict[str, tf.Tensor]',
    config: fedaot_config.FedAOTConfig,
):
  """One step of Adam on theta with a pull back to its start.

  Args:
    theta: The weighting variables.
    optimizer: Adam's slots, see `initial_meta_optimizer`.
    gradient: Like theta.
    start: Like theta, see `initial_weighting`.
    config: A `FedAOTConfig`.

  Returns:
    A pair of the new theta, before bounds, and the new slots.
  """
  step = optimizer['step'] + 1
  beta_1, beta_2 = config.meta_beta_1, config.meta_beta_2
  first = tf.nest.map_structure(
      lambda m, g: beta_1 * m + (1 - beta_1) * g,
      optimizer['first_moment'],
      gradient,
  )
  second = tf.nest.map_structure(
      lambda v, g: beta_2 * v + (1 - beta_2) * tf.square(g),
      optimizer['second_moment'],
      gradient,
  )
  count = tf.cast(step, tf.float32)
  correction_1 = 1.0 - tf.pow(beta_1, count)
  correction_2 = 1.0 - tf.pow(beta_2, count)

  def update(variable, m, v, origin):
    adam = (m / correction_1) / (
        tf.sqrt(v / correction_2) + config.meta_epsilon
    )
    return (
        variable
        - config.meta_learning_rate * adam
        - config.meta_anchor * (variable - origin)
    )

  theta = tf.nest.map_structure(update, theta, first, second, start)
  slots = collections.OrderedDict(
      step=step, first_moment=first, second_moment=second
  )
  return theta, slots


def bound_holdout(
    theta: 'collections.OrderedDict[str, tf.Tensor]',
    config: fedaot_config.FedAOTConfig,
) -> 'collections.OrderedDict[str, tf.Tensor]':
  """theta with l in its range."""
  return collections.OrderedDict(
      theta,
      log_sharpness=tf.clip_by_value(
          theta['log_sharpness'], *config.holdout_log_sharpness
      ),
  )


def bound_agreement(
    theta: 'collections.OrderedDict[str, tf.Tensor]',
    start: 'collections.OrderedDict[str, tf.Tensor]',
    config: fedaot_config.FedAOTConfig,
) -> 'collections.OrderedDict[str, tf.Tensor]':
  """theta bounded so that a step without clean data only sharpens a defence."""
  return collections.OrderedDict(
      raw_slope=tf.maximum(theta['raw_slope'], start['raw_slope']),
      margin=tf.minimum(theta['margin'], start['margin']),
      log_sharpness=tf.clip_by_value(
          theta['log_sharpness'], *config.agreement_log_sharpness
      ),
  )
