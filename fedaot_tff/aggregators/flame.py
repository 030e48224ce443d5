"""FLAME: majority cluster of directions, clipping to the median norm, noise."""

import collections
import math
import numbers
from typing import Any, Dict, NamedTuple, Optional, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import foolsgold
from fedaot_tff.aggregators import ignored_weights


class FlameResult(NamedTuple):
  """What FLAME decides for a table of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the mean of the clipped updates of the
      cluster, with noise.
    weights: A `[N]` float32 tensor: one over the number of admitted updates for
      those, zero for the others.
    norm_bound: A scalar float32, the norm that updates were clipped to.
  """

  update: tf.Tensor
  weights: tf.Tensor
  norm_bound: tf.Tensor


def majority_cluster(distances: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Finds the densest group of more than half of the updates.

  Updates are linked in the order of their distances; the cluster is the first
  group of linked updates that holds more than half of them.

  Args:
    distances: A symmetric `[N, N]` float64 tensor of distances >= 0.
    is_finite: A `[N]` bool tensor; the other updates are left out, n counts the
      finite ones.

  Returns:
    A `[N]` bool tensor, true for at least floor(n / 2) + 1 updates if n > 0.
  """
  num_rows = tf.shape(is_finite)[0]
  both_finite = is_finite[:, tf.newaxis] & is_finite
  linked_at = tf.where(both_finite, distances, math.inf)
  linked_at = tf.linalg.set_diag(linked_at, tf.zeros([num_rows], tf.float64))
  # The smallest largest step of any path from one update to another.
  linked_at = tf.foldl(
      lambda steps, k: tf.minimum(
          steps, tf.maximum(steps[:, k, tf.newaxis], steps[k])
      ),
      tf.range(num_rows),
      initializer=linked_at,
      parallel_iterations=1,
  )
  # With itself counted, an update is among more than half from there on where
  # it is linked with as many others as half, rounded down.
  num_finite = tf.reduce_sum(tf.cast(is_finite, tf.int32))
  ordered = tf.pad(tf.sort(linked_at, axis=1), [[0, 0], [0, 1]])
  majority_at = tf.where(is_finite, ordered[:, num_finite // 2], math.inf)
  smallest = tf.reduce_min(majority_at)
  return is_finite & (majority_at <= smallest)


def flame(
    updates: tf.Tensor,
    is_finite: tf.Tensor,
    seed: tf.Tensor,
    *,
    noise_multiplier: float = 0.001,
) -> FlameResult:
  """Averages the majority cluster, clipped, and adds noise.

  See `FlameFactory` for the source and the special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows are left out, whatever they
      hold.
    seed: A `[2]` int64 tensor that fixes the noise.
    noise_multiplier: lambda.

  Returns:
    A `FlameResult`.
  """
  cosines = foolsgold.cosine_similarities(updates, is_finite)
  is_admitted = majority_cluster(1.0 - cosines, is_finite)
  norms = tf.sqrt(tf.einsum('nd,nd->n', updates, updates))
  bound = flat_updates.median_norm(norms, is_finite)
  update, weights = flat_updates.clipped_mean(
      updates, is_finite, norms, bound, is_admitted
  )
  if noise_multiplier:
    update += noise_multiplier * bound * tf.random.stateless_normal(
        tf.shape(update), seed, alg='philox'
    )
  return FlameResult(update, weights, bound)


class FlameFactory(flat_updates.GatheringFactory):
  """Aggregation factory for FLAME.

  The rule has three steps:
    * Of the updates, with 1 - cosine as the distance, the cluster of more than
      half of them is admitted.
    * Admitted updates that are longer than the median norm S of all updates are
      scaled down to S, and the mean is taken.
    * Gaussian noise of standard deviation lambda S is added to each coordinate.

  (Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX
  Security 2022, arXiv:2101.02281.)

  The paper clusters with HDBSCAN of smallest cluster size floor(n / 2) + 1. Two
  clusters of that size cannot be, so its hierarchy has one branch, and with
  one neighbor for its density (`min_samples` 1) and a single cluster allowed it
  selects the first group of more than half that single linkage forms. This
  group is what is computed here, without the hierarchy. The paper compares the
  clients' models; an aggregator sees updates, whose cosines are compared.

  Breakdown point: none proved for the mean. If more than half of the updates
  are honest and of similar directions, attackers of other directions are left
  out; those that are admitted have a norm of at most S, which lies among honest
  norms. A majority of attackers of one direction is admitted instead.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      left out, from the median too; n counts the other ones. If there are none,
      the result is zero.
    * A zero update has the cosine 0 with all others.
    * Without noise, multiplying all updates by a positive number or rotating
      them does the same to the result; adding a vector to all does not.

  Cost with N clients and d coordinates: time O(N^2 d + N^3) at the server;
  memory `4 * N * d` bytes for the table of updates, twice that while averaging
  and about four times while it is gathered, and about `40 * N^2` bytes for
  distances. Updates are taken in float32, cosines in float64.

  The state is the number of rounds so far, int64; the noise of a round depends
  on that number and the seed. The measurements are
    * `weights`, float32 `[N]`: one over their number for admitted updates, 0
      for the others, in the order in which they were gathered;
    * `norm_bound`, float32: S;
    * `num_non_finite`, int32: the number of updates left out.
  """

  counts_rounds = True

  def __init__(
      self, *, noise_multiplier: float = 0.001, seed: Optional[int] = None
  ):
    """Initializes `FlameFactory`.

    Args:
      noise_multiplier: lambda, 0 or more; 0 adds no noise.
      seed: A nonnegative int below 2^63. It should be unknown to clients. None
        (default) draws one at random; give one to make runs repeatable.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If an argument is out of its range.
    """
    if isinstance(noise_multiplier, bool) or not isinstance(
        noise_multiplier, numbers.Real
    ):
      raise TypeError(
          'Expected `noise_multiplier` to be a number, found '
          f'{noise_multiplier!r}.'
      )
    if not 0 <= noise_multiplier < math.inf:
      raise ValueError(
          'Expected `noise_multiplier` to be finite and 0 or more, found '
          f'{noise_multiplier!r}.'
      )
    self._noise_multiplier = float(noise_multiplier)
    self._seed = flat_updates.check_seed(seed)

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor, round_number: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `flame`; see `flat_updates.GatheringFactory.rule`."""
    result = flame(
        updates,
        is_finite,
        tf.stack([tf.constant(self._seed, tf.int64), round_number]),
        noise_multiplier=self._noise_multiplier,
    )
    return result.update, collections.OrderedDict(
        weights=result.weights,
        norm_bound=result.norm_bound,
        num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
    )


def flame_factory(
    *,
    noise_multiplier: float = 0.001,
    seed: Optional[int] = None,
    weighted: bool = False,
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for FLAME.

  Args:
    noise_multiplier: See `FlameFactory`.
    seed: See `FlameFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `FlameFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `FlameFactory`, and if `weighted` is not a bool.
    ValueError: See `FlameFactory`.
  """
  return ignored_weights.accept_weights(
      FlameFactory(noise_multiplier=noise_multiplier, seed=seed), weighted
  )
