"""SignGuard: filters by norm and by the signs of coordinates."""

import collections
import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights

# The bandwidth is the mean distance to the nearest half of the points.
_BANDWIDTH_QUANTILE = 0.5
_MAX_SHIFTS = 300
# Relative to the bandwidth; a point that moved less has arrived.
_SHIFT_TOLERANCE = 1e-3


class SignGuardResult(NamedTuple):
  """What SignGuard decides for a table of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the mean of the clipped trusted updates.
    weights: A `[N]` float32 tensor: one over the number of trusted updates for
      those, zero for the others.
    passes_norm: A `[N]` bool tensor.
    passes_signs: A `[N]` bool tensor.
    norm_bound: A scalar float32, the norm that updates were clipped to.
  """

  update: tf.Tensor
  weights: tf.Tensor
  passes_norm: tf.Tensor
  passes_signs: tf.Tensor
  norm_bound: tf.Tensor


def sign_features(updates: tf.Tensor) -> tf.Tensor:
  """Computes the shares of positive, zero and negative coordinates.

  Args:
    updates: A `[N, k]` float32 tensor.

  Returns:
    A `[N, 3]` float64 tensor of rows that sum to 1; a NaN counts as none of the
    three.
  """
  counts = tf.stack(
      [
          tf.math.count_nonzero(is_sign(updates, 0.0), axis=1)
          for is_sign in (tf.greater, tf.equal, tf.less)
      ],
      axis=1,
  )
  return tf.cast(counts, tf.float64) / updates.shape[1]


def _distances(first, second):
  """Euclidean distances of rows, `[A, B]`, of few columns."""
  squares = [
      tf.math.squared_difference(first[:, c, tf.newaxis], second[:, c])
      for c in range(first.shape[1])
  ]
  return tf.sqrt(tf.add_n(squares))


def _modes(points, bandwidth):
  """Where each point arrives that moves to the mean of what is around it."""

  def shift(modes, is_moving):
    is_near = tf.cast(_distances(modes, points) <= bandwidth, tf.float64)
    means = tf.math.divide_no_nan(
        tf.matmul(is_near, points),
        tf.reduce_sum(is_near, axis=1, keepdims=True),
    )
    moved = tf.norm(means - modes, axis=1) > _SHIFT_TOLERANCE * bandwidth
    means = tf.where(is_moving[:, tf.newaxis], means, modes)
    return means, is_moving & moved

  modes, _ = tf.while_loop(
      lambda modes, is_moving: tf.reduce_any(is_moving),
      shift,
      (points, tf.fill([tf.shape(points)[0]], True)),
      maximum_iterations=_MAX_SHIFTS,
  )
  return modes


def largest_cluster(points: tf.Tensor) -> tf.Tensor:
  """Finds the largest cluster by mean shift with a flat kernel.

  The bandwidth is the mean over the points of the distance to the k-th nearest
  one, itself included, with k half the number of points, rounded down but at
  least 1. Modes within a bandwidth of one with more points around it are
  dropped, and each point belongs to the nearest mode that is left if that is no
  farther than a bandwidth. Of equally large clusters the one of the mode with
  more points around it is chosen.

  Args:
    points: A `[n, k]` float64 tensor with static k.

  Returns:
    A `[n]` bool tensor, true for the points of the cluster.
  """
  num_points = tf.shape(points)[0]
  near = tf.cast(
      tf.cast(num_points, tf.float64) * _BANDWIDTH_QUANTILE, tf.int32
  )
  ordered = tf.sort(_distances(points, points), axis=1)
  ordered = tf.pad(ordered, [[0, 0], [0, 1]])  # No point, nothing to look up.
  # The mean of equal points may be off by rounding.
  bandwidth = tf.reduce_mean(ordered[:, tf.maximum(near, 1) - 1]) + 1e-9
  modes = _modes(points, bandwidth)
  density = tf.reduce_sum(
      tf.cast(_distances(modes, points) <= bandwidth, tf.int32), axis=1
  )
  order = tf.argsort(density, direction='DESCENDING', stable=True)
  modes = tf.gather(modes, order)
  is_close = _distances(modes, modes) <= bandwidth

  def keep(is_kept, i):
    # Only modes that are kept, which all come before, drop others.
    is_dropped = tf.reduce_any(is_kept & is_close[i])
    is_own = tf.equal(tf.range(num_points), i)
    return is_kept | (is_own & ~is_dropped)

  is_kept = tf.foldl(
      keep,
      tf.range(num_points),
      initializer=tf.fill([num_points], False),
      parallel_iterations=1,
  )
  to_modes = tf.where(is_kept, _distances(points, modes), math.inf)
  to_modes = tf.pad(to_modes, [[0, 0], [0, 1]], constant_values=math.inf)
  label = tf.argmin(to_modes, axis=1, output_type=tf.int32)
  is_clustered = tf.reduce_min(to_modes, axis=1) <= bandwidth
  sizes = tf.math.unsorted_segment_sum(
      tf.cast(is_clustered, tf.int32), label, num_points + 1
  )
  largest = tf.argmax(sizes, output_type=tf.int32)
  return is_clustered & tf.equal(label, largest)


def sign_guard(
    updates: tf.Tensor,
    is_finite: tf.Tensor,
    seed: tf.Tensor,
    *,
    lower: float = 0.1,
    upper: float = 3.0,
    coordinate_fraction: float = 0.1,
) -> SignGuardResult:
  """Averages the updates of usual norm and usual signs, clipped.

  See `SignGuardFactory` for the formula, its source and the special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are left out, whatever they
      hold.
    seed: A `[2]` int64 tensor that fixes the choice of coordinates.
    lower: L.
    upper: R.
    coordinate_fraction: The share of the coordinates whose signs are looked at.

  Returns:
    A `SignGuardResult`.
  """
  num_rows, num_columns = tf.shape(updates)[0], updates.shape[1]
  norms = tf.sqrt(tf.einsum('nd,nd->n', updates, updates))
  median = flat_updates.median_norm(norms, is_finite)
  passes_norm = (
      is_finite & (norms >= lower * median) & (norms <= upper * median)
  )

  num_chosen = max(1, int(coordinate_fraction * num_columns + 1e-6))
  if num_chosen < num_columns:
    keys = tf.random.stateless_uniform([num_columns], seed, alg='philox')
    _, chosen = tf.math.top_k(keys, num_chosen, sorted=False)
    features = sign_features(tf.gather(updates, chosen, axis=1))
  else:
    features = sign_features(updates)
  finite = tf.where(is_finite)
  is_in_cluster = largest_cluster(tf.gather_nd(features, finite))
  passes_signs = tf.scatter_nd(
      finite,
      tf.cast(is_in_cluster, tf.int32),
      tf.cast([num_rows], tf.int64),
  ) > 0

  update, weights = flat_updates.clipped_mean(
      updates, is_finite, norms, median, passes_norm & passes_signs
  )
  return SignGuardResult(update, weights, passes_norm, passes_signs, median)


class SignGuardFactory(flat_updates.GatheringFactory):
  """Aggregation factory for SignGuard.

  With M the median of the norms of all updates, an update x is trusted if
    * L M <= ||x|| <= R M, and
    * it is in the largest cluster of sign statistics: the shares of positive,
      zero and negative numbers among coordinates chosen at random, the same for
      all updates of a round, clustered by mean shift.

  The result is the mean of the trusted updates, those longer than M scaled down
  to M (Xu, Huang, Song and Lan, "Byzantine-robust Federated Learning through
  Collaborative Malicious Gradient Filtering", ICDCS 2022, arXiv:2109.05872). It
  is the variant without a further feature of similarity. Mean shift has a flat
  kernel and the bandwidth of scikit-learn's `estimate_bandwidth` with quantile
  0.5, starts from every point, and leaves points out that are farther than a
  bandwidth from every mode.

  Breakdown point: fewer than half of the updates for the norms, so that each
  trusted update counts with a norm of at most M, which lies among honest norms.
  None is proved for the signs: attackers whose shares of signs are those of
  honest updates are trusted.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      left out, from the median too. If no update is trusted, the result is
      zero.
    * Scaling all updates by any number does the same to the result; rotating
      them or adding a vector to all does not.
    * All coordinates are looked at if `coordinate_fraction` is 1, and then the
      result does not depend on the seed.

  Cost with N clients and d coordinates: time O(N d + N^2 T) at the server for T
  shifts, at most 300; memory `4 * N * d` bytes for the table of updates, twice
  that while averaging and about four times while it is gathered, and about
  `60 * N^2` bytes for clustering.

  The state is the number of rounds so far, int64; the coordinates of a round
  depend on that number and the seed. The measurements are
    * `weights`, float32 `[N]`: one over their number for trusted updates, 0 for
      the others, in the order in which they were gathered;
    * `norm_bound`, float32: M;
    * `num_norm_rejected`, `num_sign_rejected`, int32: the finite updates that
      each filter rejects;
    * `num_non_finite`, int32: the number of updates left out.
  """

  counts_rounds = True

  def __init__(
      self,
      *,
      lower: float = 0.1,
      upper: float = 3.0,
      coordinate_fraction: float = 0.1,
      seed: Optional[int] = None,
  ):
    """Initializes `SignGuardFactory`.

    Args:
      lower: L, in [0, 1].
      upper: R, 1 or more; may be infinite.
      coordinate_fraction: The share of coordinates whose signs are looked at,
        in (0, 1]; at least one coordinate is.
      seed: A nonnegative int below 2^63. It should be unknown to clients. None
        (default) draws one at random; give one to make runs repeatable.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If an argument is out of its range.
    """
    for name, value in (
        ('lower', lower),
        ('upper', upper),
        ('coordinate_fraction', coordinate_fraction),
    ):
      if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f'Expected `{name}` to be a number, found {value!r}.')
    if not 0 <= lower <= 1:
      raise ValueError(f'Expected `lower` to be in [0, 1], found {lower!r}.')
    if not upper >= 1:
      raise ValueError(f'Expected `upper` to be 1 or more, found {upper!r}.')
    if not 0 < coordinate_fraction <= 1:
      raise ValueError(
          'Expected `coordinate_fraction` to be in (0, 1], found '
          f'{coordinate_fraction!r}.'
      )
    self._lower = float(lower)
    self._upper = float(upper)
    self._coordinate_fraction = float(coordinate_fraction)
    self._seed = flat_updates.check_seed(seed)

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor, round_number: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `sign_guard`; see `flat_updates.GatheringFactory.rule`."""
    result = sign_guard(
        updates,
        is_finite,
        tf.stack([tf.constant(self._seed, tf.int64), round_number]),
        lower=self._lower,
        upper=self._upper,
        coordinate_fraction=self._coordinate_fraction,
    )

    def count(condition):
      return tf.reduce_sum(tf.cast(condition, tf.int32))

    return result.update, collections.OrderedDict(
        weights=result.weights,
        norm_bound=result.norm_bound,
        num_norm_rejected=count(is_finite & ~result.passes_norm),
        num_sign_rejected=count(is_finite & ~result.passes_signs),
        num_non_finite=count(~is_finite),
    )


def sign_guard_factory(
    *,
    lower: float = 0.1,
    upper: float = 3.0,
    coordinate_fraction: float = 0.1,
    seed: Optional[int] = None,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for SignGuard.

  Args:
    lower: See `SignGuardFactory`.
    upper: See `SignGuardFactory`.
    coordinate_fraction: See `SignGuardFactory`.
    seed: See `SignGuardFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `SignGuardFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `SignGuardFactory`, and if `weighted` is not a bool.
    ValueError: See `SignGuardFactory`.
  """
  return ignored_weights.accept_weights(
      SignGuardFactory(
          lower=lower,
          upper=upper,
          coordinate_fraction=coordinate_fraction,
          seed=seed,
      ),
      weighted,
  )
