"""Divide and conquer (DnC): spectral outliers in samples of coordinates."""

import collections
import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import byzantine_bound
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import minimum_diameter_averaging


class DivideAndConquerResult(NamedTuple):
  """What divide and conquer decides for N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the mean of the selected updates.
    weights: A `[N]` float32 tensor: one over the number of selected updates for
      those, zero for the others.
    cohort_too_small: A scalar bool, see `DivideAndConquerFactory`.
  """

  update: tf.Tensor
  weights: tf.Tensor
  cohort_too_small: tf.Tensor


def sample_coordinates(
    seed: tf.Tensor, num_coordinates: int, num_sampled: int
) -> tf.Tensor:
  """Draws coordinates without replacement.

  Args:
    seed: A `[2]` integer tensor; equal seeds draw equal coordinates.
    num_coordinates: d.
    num_sampled: How many coordinates to draw, at most d.

  Returns:
    A `[num_sampled]` int32 tensor, sorted.
  """
  return tf.sort(
      tf.random.experimental.index_shuffle(
          tf.range(num_sampled), seed, num_coordinates - 1
      )
  )


def outlier_scores(sampled: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Computes squared projections on the direction of the largest variance.

  With the mean mu and the top right singular vector v of the centered finite
  updates, the score of an update x is `(v . (x - mu))^2`. Where several
  directions have the same variance, which of them counts is arbitrary.

  Args:
    sampled: A `[N, b]` float32 tensor, some coordinates of one update a row.
    is_finite: A `[N]` bool tensor; the other rows may hold anything.

  Returns:
    A `[N]` float64 tensor, infinite for updates that are not finite.
  """
  finite = is_finite[:, tf.newaxis]
  sampled = tf.where(finite, tf.cast(sampled, tf.float64), 0.0)
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.float64))
  mean = tf.math.divide_no_nan(tf.reduce_sum(sampled, axis=0), num_finite)
  centered = tf.where(finite, sampled - mean, 0.0)
  # The projections are the top left singular vector times its singular value:
  # an [N, N] eigenproblem is enough.
  products = tf.matmul(centered, centered, transpose_b=True)
  variances, directions = tf.linalg.eigh(products)
  # Slices and a sum, for a table of no rows has no last one.
  scores = tf.reduce_sum(
      variances[-1:] * tf.square(directions[:, -1:]), axis=1
  )
  return tf.where(is_finite, scores, math.inf)


def divide_and_conquer(
    updates: tf.Tensor,
    is_finite: tf.Tensor,
    num_byzantine: tf.Tensor,
    seed: tf.Tensor,
    *,
    num_iterations: int,
    num_sampled: int,
    filter_fraction: float,
) -> DivideAndConquerResult:
  """Averages the updates that are no outliers in any sample of coordinates.

  See `DivideAndConquerFactory` for the formula, its source and the special
  cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are never selected, whatever
      they hold.
    num_byzantine: A scalar int32, f.
    seed: A `[2]` integer tensor that decides which coordinates are drawn.
    num_iterations: How many samples of coordinates to draw.
    num_sampled: b, how many coordinates to draw; all of them if d is less.
    filter_fraction: c, see `DivideAndConquerFactory`.

  Returns:
    A `DivideAndConquerResult`.
  """
  num_rows, num_columns = tf.shape(updates)[0], updates.shape[1]
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  # 1.1 * 10 is a little more than 11 in floating point.
  num_filtered = tf.math.ceil(
      filter_fraction * tf.cast(num_byzantine, tf.float64) - 1e-6
  )
  num_filtered = tf.cast(
      tf.minimum(num_filtered, tf.cast(num_finite, tf.float64)), tf.int32
  )
  num_kept = tf.maximum(num_finite - num_filtered, tf.minimum(num_finite, 1))

  def count_kept(counts, iteration_seed):
    if num_sampled < num_columns:
      coordinates = sample_coordinates(
          iteration_seed, num_columns, num_sampled
      )
      sampled = tf.gather(updates, coordinates, axis=1)
    else:
      sampled = updates
    order = tf.argsort(outlier_scores(sampled, is_finite), stable=True)
    kept = order[:num_kept, tf.newaxis]
    return tf.tensor_scatter_nd_add(
        counts, kept, tf.ones([num_kept], tf.int32)
    )

  # Of all coordinates there is but one sample.
  num_samples = num_iterations if num_sampled < num_columns else 1
  counts = tf.foldl(
      count_kept,
      tf.random.stateless_uniform(
          [num_samples, 2], seed, minval=None, maxval=None, dtype=tf.int32
      ),
      initializer=tf.zeros([num_rows], tf.int32),
      parallel_iterations=1,
  )
  most = tf.maximum(tf.reduce_max(counts), 1)
  update, weights = minimum_diameter_averaging.mean_of_selected(
      updates, tf.equal(counts, most)
  )
  honest_may_be_few = num_finite - num_byzantine <= num_byzantine
  return DivideAndConquerResult(
      update, weights, honest_may_be_few | (most < num_samples)
  )


class DivideAndConquerFactory(byzantine_bound.BoundedFactory):
  """Aggregation factory for divide and conquer (DnC).

  Of n updates up to f may be Byzantine. Each iteration draws b coordinates at
  random without replacement, takes the mean mu and the top right singular
  vector v of the centered updates x_i in these coordinates, and keeps the
  n - c f updates of the smallest outlier scores

    s(i) = (v . (x_i - mu))^2.

  The result is the mean of the updates that every iteration kept (Shejwalkar
  and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning
  Attacks and Defenses for Federated Learning", NDSS 2021). Of equal scores the
  update gathered first is kept.

  Breakdown point: f < n / 2 is needed for honest updates to be the majority. An
  update that is kept may be at any distance in directions other than v, so that
  attackers that do not collude in one direction may be kept.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      never kept and have no part in mu and v; n counts the other ones. If there
      is none, the result is zero.
    * c f is rounded up, and one update is kept at least.
    * If every update is an outlier in some iteration, those that were kept most
      often are averaged. The measurement `cohort_too_small` tells, also if
      2 f >= n.
    * If d <= b, all coordinates are taken, in one iteration.

  Cost with N clients, d coordinates and T iterations: time O(N d + T (N^2 b +
  N^3)) at the server; memory `4 * N * d` bytes for the table of updates, about
  three times that while it is gathered, and `30 * N * b + 30 * N^2` bytes for a
  sample. Updates are taken in float32, scores in float64.

  The state is an int64, the number of rounds so far; with the seed, it decides
  which coordinates are drawn. The measurements are
    * `weights`, float32 `[N]`: one over their number for the updates that are
      averaged, 0 for the others, in the order in which they were gathered;
    * `num_byzantine`, int32: f of this round;
    * `num_non_finite`, int32: the number of updates left out;
    * `cohort_too_small`, bool: see above.
  """

  counts_rounds = True

  def __init__(
      self,
      num_byzantine: Union[int, float],
      *,
      num_iterations: int = 5,
      num_sampled: int = 10000,
      filter_fraction: float = 1.0,
      seed: Optional[int] = None,
  ):
    """Initializes `DivideAndConquerFactory`.

    Args:
      num_byzantine: f, how many Byzantine clients to withstand: an int >= 0, or
        a float in [0, 1), the fraction of each round's cohort, rounded down.
      num_iterations: How many samples of coordinates to draw each round.
      num_sampled: b, how many coordinates to draw each time.
      filter_fraction: c > 0, how many updates to filter out each time, as a
        multiple of f.
      seed: An int in [0, 2^63) that decides which coordinates are drawn, to be
        kept from clients; None draws one.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If an argument is out of its range.
    """
    super().__init__(num_byzantine)
    self._num_iterations = _check_positive_int('num_iterations', num_iterations)
    self._num_sampled = _check_positive_int('num_sampled', num_sampled)
    if isinstance(filter_fraction, bool) or not isinstance(
        filter_fraction, numbers.Real
    ):
      raise TypeError(
          'Expected `filter_fraction` to be a number, found '
          f'{filter_fraction!r}.'
      )
    if not 0.0 < filter_fraction < math.inf:
      raise ValueError(
          'Expected `filter_fraction` to be positive and finite, found '
          f'{filter_fraction!r}.'
      )
    self._filter_fraction = float(filter_fraction)
    self._seed = flat_updates.check_seed(seed)

  def bounded_rule(
      self,
      updates: tf.Tensor,
      is_finite: tf.Tensor,
      num_byzantine: tf.Tensor,
      round_number: tf.Tensor,
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `divide_and_conquer`; see `BoundedFactory`."""
    result = divide_and_conquer(
        updates,
        is_finite,
        num_byzantine,
        tf.stack([tf.constant(self._seed, tf.int64), round_number]),
        num_iterations=self._num_iterations,
        num_sampled=self._num_sampled,
        filter_fraction=self._filter_fraction,
    )
    return result.update, collections.OrderedDict(
        weights=result.weights,
        cohort_too_small=result.cohort_too_small,
    )


def _check_positive_int(name, value):
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise TypeError(f'Expected `{name}` to be an int, found {value!r}.')
  if value < 1:
    raise ValueError(f'Expected `{name}` to be 1 or more, found {value!r}.')
  return int(value)


def divide_and_conquer_factory(
    num_byzantine: Union[int, float],
    *,
    num_iterations: int = 5,
    num_sampled: int = 10000,
    filter_fraction: float = 1.0,
    seed: Optional[int] = None,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for divide and conquer (DnC).

  Args:
    num_byzantine: See `DivideAndConquerFactory`.
    num_iterations: See `DivideAndConquerFactory`.
    num_sampled: See `DivideAndConquerFactory`.
    filter_fraction: See `DivideAndConquerFactory`.
    seed: See `DivideAndConquerFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `DivideAndConquerFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `DivideAndConquerFactory`, and if `weighted` is not a bool.
    ValueError: See `DivideAndConquerFactory`.
  """
  return ignored_weights.accept_weights(
      DivideAndConquerFactory(
          num_byzantine,
          num_iterations=num_iterations,
          num_sampled=num_sampled,
          filter_fraction=filter_fraction,
          seed=seed,
      ),
      weighted,
  )
