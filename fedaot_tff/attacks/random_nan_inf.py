"""Values that break arithmetic, put into the attackers' updates."""

import math

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack

# The last is finite in float32, its square is not.
_VALUES = (math.nan, math.inf, -math.inf, 1e30)


class RandomNanInf(attack.OwnUpdatePoisoning):
  """Overwrites random coordinates by NaN, infinities and 1e30.

  Of the d coordinates of the attacker's own update, `fraction * d`, rounded and
  at least one, become NaN, +Inf, -Inf and 1e30 in turn, starting with any of
  them, so that one bad coordinate can stand among many good ones. A defence
  must leave such updates out; without one, the model is lost in one round. A
  test of an implementation's robustness, it stems from no paper.
  """

  def __init__(self, *, fraction: float = 0.1):
    self._fraction = checks.check_number(
        'fraction', fraction, above=0, maximum=1
    )

  def poison(self, update, attacker):
    num_coordinates = update.shape.num_elements()
    count = max(1, round(self._fraction * num_coordinates))
    coordinates = tf.random.experimental.stateless_shuffle(
        tf.range(num_coordinates), attacker.seed
    )[:count]
    start = tf.random.stateless_uniform(
        [],
        tf.random.experimental.stateless_fold_in(attacker.seed, 1),
        maxval=len(_VALUES),
        dtype=tf.int32,
    )
    values = tf.gather(_VALUES, (start + tf.range(count)) % len(_VALUES))
    return tf.tensor_scatter_nd_update(
        update, coordinates[:, tf.newaxis], values
    )
