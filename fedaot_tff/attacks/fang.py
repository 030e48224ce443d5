"""Attacks that are directed against one aggregation rule."""

from typing import Any, Tuple

import tensorflow as tf

from fedaot_tff.aggregators import krum
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import honest_table


def beyond_extremes(
    honest: tf.Tensor, factor: float, seed: tf.Tensor
) -> tf.Tensor:
  """Draws a vector beyond the honest values, against their mean.

  Args:
    honest: Float32 [h, d] with h > 0.
    factor: b > 1.
    seed: int32 [2].

  Returns:
    Float32 [d]. A coordinate is uniform between e and the farther of e b and
    e / b, where e is the largest honest value if their mean is negative, else
    the smallest.
  """
  mean = honest_table.moments(honest).mean
  goes_up = mean < 0
  extreme = tf.where(
      goes_up, tf.reduce_max(honest, axis=0), tf.reduce_min(honest, axis=0)
  )
  far_end = tf.where(
      tf.equal(goes_up, extreme > 0), extreme * factor, extreme / factor
  )
  way = tf.random.stateless_uniform(tf.shape(mean), seed)
  return extreme + way * (far_end - extreme)


class FangTrimmedMean(attack.CollusivePoisoning):
  """Sends values beyond all honest ones, against the honest mean.

  If the honest mean of a coordinate is negative, the attackers send a value
  above the largest honest value e, between e and b e, or e / b where e < 0;
  otherwise one below the smallest, between e and b e, or e / b where e > 0. A
  coordinate-wise median or trimmed mean then moves the coordinate less far, or
  the wrong way.

  The paper takes the values of the local models; here they are those of the
  updates, which keeps the attack on the scale of a round. It draws for each
  attacker; here the attackers agree on the same values, which no rule on
  coordinates can tell.

  Knowledge: the honest updates. Source: Fang, Cao, Jia and Gong, "Local Model
  Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security
  2020, the attack on trimmed mean and median with full knowledge.
  """

  sees_table = True

  def __init__(self, *, factor: float = 2.0):
    """Initializes `FangTrimmedMean`.

    Args:
      factor: b, how far beyond the honest values; above 1. The paper has 2.

    Raises:
      TypeError: If `factor` is not a number.
      ValueError: If it is not above 1 and finite.
    """
    factor = checks.check_number('factor', factor)
    if factor <= 1:
      raise ValueError(f'factor must be above 1; found {factor!r}.')
    self._factor = factor

  def agree(
      self, knowledge: attack.Knowledge, state: Any
  ) -> Tuple[tf.Tensor, Any]:
    """See `CollusivePoisoning.agree`."""
    vector = beyond_extremes(
        knowledge.honest, self._factor, knowledge.seed
    )
    # The extremes of no values are infinite.
    return tf.where(knowledge.num_honest > 0, vector, 0.0), state


def krum_selects_copies(
    distances: tf.Tensor, to_honest: tf.Tensor, num_attackers: tf.Tensor
) -> tf.Tensor:
  """Whether Krum prefers equal updates of the attackers to all honest ones.

  Args:
    distances: Float64 [h, h], squared distances of the honest updates.
    to_honest: Float64 [h], those of the attackers' update to them.
    num_attackers: Scalar int32, f > 0, how many send it; Krum is told this f.

  Returns:
    Scalar bool: the score of the attackers is the smallest, with no tie.
  """
  # The table of an attacker and the honest clients, and then f of the former.
  once = tf.concat(
      [
          tf.concat([[0.0], to_honest], axis=0)[tf.newaxis],
          tf.concat([to_honest[:, tf.newaxis], distances], axis=1),
      ],
      axis=0,
  )
  num_honest = tf.size(to_honest)
  rows = tf.maximum(tf.range(num_attackers + num_honest) - num_attackers + 1, 0)
  cohort = tf.gather(tf.gather(once, rows), rows, axis=1)
  scores = krum.krum_scores(
      cohort, tf.fill([tf.size(rows)], True), tf.maximum(num_honest - 2, 1)
  )
  return scores[0] < tf.reduce_min(scores[num_attackers:])


def largest_selected_step(
    honest: tf.Tensor,
    signs: tf.Tensor,
    num_attackers: tf.Tensor,
    threshold: float,
) -> tf.Tensor:
  """Halves lambda until Krum selects -lambda s.

  Args:
    honest: Float32 [h, d] with static d.
    signs: Float32 [d], s.
    num_attackers: Scalar int32, f > 0.
    threshold: Where to stop if Krum selects an honest update all the same.

  Returns:
    Scalar float64, lambda: the first that is selected, or that is below
    `threshold`.
  """
  products = krum.inner_products(tf.concat([honest, [signs]], axis=0))
  squared_norms = tf.linalg.diag_part(products)[:-1]
  is_honest = tf.fill([tf.size(squared_norms)], True)
  distances = krum.squared_distances(honest, is_honest)
  num_honest = tf.size(squared_norms)
  num_coordinates = tf.cast(tf.size(signs), tf.float64)

  scores = krum.krum_scores(distances, is_honest, tf.maximum(num_honest - 2, 1))
  # With a majority of attackers the denominator of the bound is not positive.
  copies_short = tf.cast(
      tf.maximum(num_honest - num_attackers - 1, 1), tf.float64
  )
  bound = tf.sqrt(
      tf.reduce_min(scores) / (copies_short * num_coordinates)
  ) + tf.sqrt(tf.reduce_max(squared_norms) / num_coordinates)

  def goes_on(step):
    to_honest = (
        squared_norms
        + 2 * step * products[:-1, -1]
        + step**2 * products[-1, -1]
    )
    selected = krum_selects_copies(
        distances, tf.maximum(to_honest, 0), num_attackers
    )
    return ~selected & (step >= threshold)

  return tf.while_loop(goes_on, lambda step: (step / 2,), (bound,))[0]


class FangKrum(attack.CollusivePoisoning):
  """Sends the largest step against the honest mean that Krum would select.

  All attackers send -lambda s, where s is the sign of the honest mean, so that
  their model is the global one moved the wrong way in every coordinate. lambda
  starts at the paper's upper bound

    sqrt(min_i S_i / ((n - 2 f - 1) d)) + max_i ||x_i|| / sqrt(d)

  with S_i the sum of squared distances of honest update x_i to the n - f - 2
  nearest honest ones, and is halved until Krum, told f, selects the attackers'
  update in a cohort of its f copies and the honest updates, or until it falls
  below `threshold`; then the last one is sent. A factor n - 2 f - 1 below 1 and
  a number of neighbors below 1 count as 1.

  The paper moves the other attackers by a little from the first; here all send
  the same, for which Krum's scores are solved.

  Knowledge: the honest updates, and that Krum aggregates. Source: Fang, Cao,
  Jia and Gong, "Local Model Poisoning Attacks to Byzantine-Robust Federated
  Learning", USENIX Security 2020, the attack on Krum with full knowledge.
  """

  sees_table = True

  def __init__(self, *, threshold: float = 1e-5):
    """Initializes `FangKrum`.

    Args:
      threshold: The lambda below which halving ends; positive.

    Raises:
      TypeError: If `threshold` is not a number.
      ValueError: If it is not positive and finite.
    """
    self._threshold = checks.check_positive('threshold', threshold)

  def agree(
      self, knowledge: attack.Knowledge, state: Any
  ) -> Tuple[tf.Tensor, Any]:
    """See `CollusivePoisoning.agree`."""
    signs = tf.sign(honest_table.moments(knowledge.honest).mean)
    step = largest_selected_step(
        knowledge.honest,
        signs,
        tf.maximum(knowledge.num_attackers, 1),
        self._threshold,
    )
    # Without honest updates the bound is infinite.
    step = tf.where(knowledge.num_honest > 0, step, 0.0)
    return -tf.cast(step, tf.float32) * signs, state
