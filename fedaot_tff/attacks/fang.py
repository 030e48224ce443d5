"""Attacks that are directed against one aggregation rule.

Source: Fang, Cao, Jia and Gong, "Local Model Poisoning Attacks to
Byzantine-Robust Federated Learning", USENIX Security 2020, the attacks with
full knowledge.
"""

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors


class FangTrimmedMean(attack.CollusivePoisoning):
  """Sends values beyond all honest ones, against the honest mean.

  If the honest mean of a coordinate is negative, the attackers send a value
  above the largest honest value e, else one below the smallest, e: uniform
  between e and the farther of b e and e / b, where b is `factor` > 1, 2 in the
  paper. A coordinate-wise median or trimmed mean then moves the coordinate less
  far, or the wrong way.

  The paper takes the values of the local models; here they are those of the
  updates, which keeps the attack on the scale of a round. It draws for each
  attacker; here the attackers agree on the same values, which no rule on
  coordinates can tell. Knowledge: the honest updates.
  """

  sees_table = True

  def __init__(self, *, factor: float = 2.0):
    self._factor = checks.check_number('factor', factor, above=1)

  def agree(self, knowledge, state):
    honest = knowledge.honest
    mean = vectors.moments(honest).mean
    goes_up = mean < 0
    extreme = tf.where(
        goes_up, tf.reduce_max(honest, axis=0), tf.reduce_min(honest, axis=0)
    )
    far_end = tf.where(
        tf.equal(goes_up, extreme > 0),
        extreme * self._factor,
        extreme / self._factor,
    )
    way = tf.random.stateless_uniform(tf.shape(mean), knowledge.seed)
    vector = extreme + way * (far_end - extreme)
    # The extremes of no values are infinite.
    return tf.where(knowledge.num_honest > 0, vector, 0.0), state


def krum_scores(products: tf.Tensor, num_neighbors: tf.Tensor) -> tf.Tensor:
  """Each update's sum of squared distances to its nearest neighbors.

  Of inner products, float64 [N, N]; below 1 `num_neighbors` counts as 1.
  """
  nearest = tf.sort(vectors.squared_distances(products), axis=1)
  # The nearest of all is the update itself.
  return tf.reduce_sum(nearest[:, 1 : 1 + tf.maximum(num_neighbors, 1)], axis=1)


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
  a number of neighbors below 1 count as 1. The paper moves the other attackers
  by a little from the first; here all send the same, for which Krum's scores
  are solved. Knowledge: the honest updates, and that Krum aggregates.
  """

  sees_table = True

  def __init__(self, *, threshold: float = 1e-5):
    self._threshold = checks.check_number('threshold', threshold, above=0)

  def agree(self, knowledge, state):
    mean = vectors.moments(knowledge.honest).mean
    signs, center, honest = (
        tf.cast(x, tf.float64) for x in (tf.sign(mean), mean, knowledge.honest)
    )
    # About the mean: an offset that all share would cost the digits that tell
    # the updates apart.
    products = vectors.inner_products(
        tf.concat([[signs, center], honest - center], axis=0)
    )
    step = self._largest_selected_step(
        products,
        tf.cast(tf.size(signs), tf.float64),
        knowledge.num_honest,
        tf.maximum(knowledge.num_attackers, 1),
    )
    # Without honest updates the bound is infinite.
    step = tf.where(knowledge.num_honest > 0, step, 0.0)
    return tf.cast(-step * signs, tf.float32), state

  def _largest_selected_step(
      self, products, num_coordinates, num_honest, num_attackers
  ) -> tf.Tensor:
    """lambda, from products of s, the mean and the updates about the mean."""
    num_neighbors = num_honest - 2
    copies_short = tf.maximum(num_honest - num_attackers - 1, 1)
    from_mean = products[2:, 2:]
    squares = (
        tf.linalg.diag_part(from_mean) + 2 * products[1, 2:] + products[1, 1]
    )
    bound = tf.sqrt(
        tf.reduce_min(krum_scores(from_mean, num_neighbors))
        / (tf.cast(copies_short, tf.float64) * num_coordinates)
    ) + tf.sqrt(tf.reduce_max(squares) / num_coordinates)
    # The cohort: f times the attackers' update, and the honest ones.
    rows = tf.maximum(
        tf.range(num_attackers + num_honest) - num_attackers + 1, 0
    )
    honest = tf.eye(num_honest + 2, dtype=tf.float64)[2:]

    def is_selected(step):
      attackers = tf.pad([[-step, -1.0]], [[0, 0], [0, num_honest]])
      combined = tf.concat([attackers, honest], axis=0)
      among = combined @ products @ tf.transpose(combined)
      cohort = tf.gather(tf.gather(among, rows), rows, axis=1)
      scores = krum_scores(cohort, num_neighbors)
      return scores[0] < tf.reduce_min(scores[num_attackers:])

    return tf.while_loop(
        lambda step: ~is_selected(step) & (step >= self._threshold),
        lambda step: (step / 2,),
        (bound,),
    )[0]
