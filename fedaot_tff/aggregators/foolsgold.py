"""FoolsGold: less weight for updates that resemble each other."""

import collections
import math
import numbers
from typing import Any, Dict, NamedTuple, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import ignored_weights
from fedaot_tff.aggregators import krum

# Two updates that are more alike count as copies, so that rounding does not
# tell copies apart.
_COPY_COSINE = 1.0 - 1e-12


class FoolsGoldResult(NamedTuple):
  """What FoolsGold decides for a table of N updates with d coordinates.

  Attributes:
    update: A `[d]` float32 tensor, the weighted mean.
    weights: A `[N]` float32 tensor that sums to 1, zero if no update is finite.
    learning_rates: A `[N]` float32 tensor in [0, 1], the weights before they
      are normalized.
  """

  update: tf.Tensor
  weights: tf.Tensor
  learning_rates: tf.Tensor


def cosine_similarities(updates: tf.Tensor, is_finite: tf.Tensor) -> tf.Tensor:
  """Computes the cosine of the angle of every pair of updates.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows may hold anything.

  Returns:
    A `[N, N]` float64 tensor in [-1, 1]; exactly 1 for copies, 0 where one of
    the two is zero or not finite.
  """
  products = krum.inner_products(updates)
  norms = tf.sqrt(tf.linalg.diag_part(products))
  both_finite = is_finite[:, tf.newaxis] & is_finite
  cosines = tf.math.divide_no_nan(products, norms[:, tf.newaxis] * norms)
  cosines = tf.where(both_finite, cosines, 0.0)
  cosines = tf.where(cosines > _COPY_COSINE, tf.ones_like(cosines), cosines)
  return tf.maximum(cosines, -1.0)


def foolsgold(
    updates: tf.Tensor, is_finite: tf.Tensor, *, confidence: float = 1.0
) -> FoolsGoldResult:
  """Averages updates, those that resemble another one with less weight.

  See `FoolsGoldFactory` for the formula, its source and the special cases.

  Args:
    updates: A `[N, d]` float32 tensor with static d, one update a row.
    is_finite: A `[N]` bool tensor; the other rows have no weight, whatever they
      hold.
    confidence: The factor kappa.

  Returns:
    A `FoolsGoldResult`.
  """
  cosines = cosine_similarities(updates, is_finite)
  # An update is not compared with itself; with zero instead, opposite
  # directions are as good as orthogonal ones.
  cosines = tf.linalg.set_diag(
      cosines, tf.zeros(tf.shape(is_finite), tf.float64)
  )
  most_similar = tf.reduce_max(tf.maximum(cosines, 0.0), axis=1)
  own, other = most_similar[:, tf.newaxis], most_similar
  pardon = tf.where(own < other, tf.math.divide_no_nan(own, other), 1.0)
  novelty = 1.0 - tf.reduce_max(tf.maximum(cosines * pardon, 0.0), axis=1)
  novelty = tf.where(is_finite, novelty, 0.0)
  largest = tf.reduce_max(tf.concat([novelty, [0.0]], axis=0))
  # If each update has a copy, they are all equally (not) novel.
  novelty = tf.where(
      largest > 0.0,
      tf.math.divide_no_nan(novelty, largest),
      tf.cast(is_finite, tf.float64),
  )
  # The logarithms are infinite at 0 and 1, which is cut off.
  logits = tf.math.log(novelty) - tf.math.log1p(-novelty)
  rates = tf.clip_by_value(confidence * (logits + 0.5), 0.0, 1.0)
  rates = tf.cast(rates, tf.float32)
  return FoolsGoldResult(
      flat_updates.means_of_rows(updates, is_finite, rates[tf.newaxis])[0],
      tf.math.divide_no_nan(rates, tf.reduce_sum(rates)),
      rates,
  )


class FoolsGoldFactory(flat_updates.GatheringFactory):
  """Aggregation factory for FoolsGold on the updates of one round.

  With c_ij the cosine of updates i and j (zero for i = j) and v_i = max(0,
  max over j of c_ij), the similarities of an update with one that resembles
  some other more are pardoned in part,

    c'_ij = c_ij v_i / v_j  where v_j > v_i, else c_ij;

  the learning rate of an update is

    a_i = 1 - max(0, max over j of c'_ij),  divided by the largest of them,
    r_i = kappa (ln(a_i / (1 - a_i)) + 1/2),  cut off at 0 and 1,

  and the result is the mean of the updates weighted by r_i (Fung, Yoon and
  Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID
  2020, and "Mitigating Sybils in Federated Learning Poisoning",
  arXiv:1808.04866).

  Two things differ from the paper. It compares the sums of all updates that a
  client has sent so far; a TFF aggregator does not know clients again, so that
  the updates of this round are compared, all coordinates alike. And it adds up
  the updates, each times its r_i; here they are averaged, so that the result is
  of the size of an update.

  Breakdown point: none. The rule means to withstand any number of clients that
  send much the same; a single one that sends something else has the weight of
  an honest client, whatever the norm of its update. Honest clients that
  resemble each other more than attackers do lose their weight.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more have
      no weight and resemble nobody. If there are no others, the result is zero.
    * If every update has a copy, all have the same weight. A zero update
      resembles nobody.
    * Multiplying all updates by a number or rotating them does the same to the
      result; adding a vector to all of them does not.

  Cost with N clients and d coordinates: time O(N^2 d) at the server; memory
  `4 * N * d` bytes for the table of updates, twice that while averaging and
  about four times while it is gathered, and about `40 * N^2` bytes for
  cosines. Updates are taken in float32, cosines in float64.

  The process has an empty state, and the measurements
    * `weights`, float32 `[N]`: r_i over their sum, in the order in which the
      updates were gathered;
    * `learning_rates`, float32 `[N]`: r_i;
    * `num_non_finite`, int32: the number of updates left out.
  """

  def __init__(self, *, confidence: float = 1.0):
    """Initializes `FoolsGoldFactory`.

    Args:
      confidence: kappa, a positive number; the larger, the more all or nothing.

    Raises:
      TypeError: If `confidence` is not a number.
      ValueError: If it is not positive and finite.
    """
    if isinstance(confidence, bool) or not isinstance(confidence, numbers.Real):
      raise TypeError(
          f'Expected `confidence` to be a number, found {confidence!r}.'
      )
    if not 0 < confidence < math.inf:
      raise ValueError(
          'Expected `confidence` to be positive and finite, found '
          f'{confidence!r}.'
      )
    self._confidence = float(confidence)

  def rule(
      self, updates: tf.Tensor, is_finite: tf.Tensor
  ) -> Tuple[tf.Tensor, Dict[str, Any]]:
    """Applies `foolsgold`; see `flat_updates.GatheringFactory.rule`."""
    result = foolsgold(updates, is_finite, confidence=self._confidence)
    return result.update, collections.OrderedDict(
        weights=result.weights,
        learning_rates=result.learning_rates,
        num_non_finite=tf.reduce_sum(tf.cast(~is_finite, tf.int32)),
    )


def foolsgold_factory(
    *, confidence: float = 1.0, weighted: bool = False
) -> tff.aggregators.AggregationFactory:
  """Creates a factory for FoolsGold on the updates of one round.

  Args:
    confidence: See `FoolsGoldFactory`.
    weighted: If True, the factory is a
      `tff.aggregators.WeightedAggregationFactory` for processes that weight
      their clients. The weights are ignored: clients report them, so a
      Byzantine client could claim any.

  Returns:
    A `FoolsGoldFactory`, wrapped if `weighted`.

  Raises:
    TypeError: See `FoolsGoldFactory`, and if `weighted` is not a bool.
    ValueError: See `FoolsGoldFactory`.
  """
  return ignored_weights.accept_weights(
      FoolsGoldFactory(confidence=confidence), weighted
  )
