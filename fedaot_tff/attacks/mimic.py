"""Mimic: all attackers imitate one honest client."""

import collections
import math
from typing import Tuple

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors

TARGETS = ('variance', 'first')


def learn_direction(
    honest: tf.Tensor,
    mean: tf.Tensor,
    direction: tf.Tensor,
    num_rounds: tf.Tensor,
) -> Tuple[tf.Tensor, tf.Tensor]:
  """A step of Oja's rule for the direction of the largest variance.

  From honest updates x_i, float32 [h, d], mu and z, float32 [d], and t, the
  rounds so far. mu becomes (t mu + mean of x_i) / (t + 1), and z the unit
  vector along (t z + u) / (t + 1), u the unit vector along the sum over i of
  (x_i - mu) <x_i - mu, z>. Both stay as they are if there are no honest
  updates, and z also where honest updates do not differ.
  """
  old_weight = tf.cast(num_rounds / (num_rounds + 1), tf.float32)
  old_weight = tf.where(tf.shape(honest)[0] > 0, old_weight, 1.0)
  new_mean = old_weight * mean + (1 - old_weight) * vectors.moments(honest).mean
  centered = honest - new_mean
  spread = tf.linalg.matvec(
      centered, tf.linalg.matvec(centered, direction), transpose_a=True
  )
  new_direction = vectors.unit(
      old_weight * direction + (1 - old_weight) * vectors.unit(spread)
  )
  learned = tf.reduce_any(tf.not_equal(new_direction, 0.0))
  return new_mean, tf.where(learned, new_direction, direction)


class Mimic(attack.CollusivePoisoning):
  """Sends a copy of an honest update, so that one client outweighs the others.

  Nothing that is sent is unlike an honest update, yet where the clients' data
  differ, the aggregate leaves out many of them. The attackers imitate the
  client of the largest z . x_i, where z is the direction along which honest
  updates vary most, learned in the first `warmup_rounds` >= 1 rounds and kept
  from then on; see `learn_direction`. With the target 'first' they learn
  nothing and imitate the honest client whose update comes first.

  The paper goes on with one client after the warm-up. Here cohorts are sampled
  anew and the attackers know updates, not identities, so they choose by z in
  each round.

  Knowledge: the honest updates. Source: Karimireddy, He and Jaggi,
  "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR
  2022; the normalization of u and z is that of the authors' code.
  """

  sees_table = True

  def __init__(self, *, warmup_rounds: int = 10, target: str = 'variance'):
    self._warmup_rounds = checks.check_int(
        'warmup_rounds', warmup_rounds, minimum=1
    )
    self._target = checks.check_choice('target', target, TARGETS)

  def initial_state(self, num_coordinates):
    if self._target == 'first':
      return ()
    # z is drawn at random in the first round.
    zeros = tf.zeros([num_coordinates])
    return collections.OrderedDict(mean=zeros, direction=zeros)

  def agree(self, knowledge, state):
    honest = knowledge.honest
    # A row of zeros is what they send if there is no honest client.
    candidates = tf.pad(honest, [[0, 1], [0, 0]])
    if self._target == 'first':
      return candidates[0], state
    mean, direction = state['mean'], state['direction']
    direction = tf.where(
        knowledge.round_num > 1,
        direction,
        vectors.unit(
            tf.random.stateless_normal(tf.shape(direction), knowledge.seed)
        ),
    )
    learned = learn_direction(honest, mean, direction, knowledge.round_num - 1)
    learns = knowledge.round_num <= self._warmup_rounds
    mean = tf.where(learns, learned[0], mean)
    direction = tf.where(learns, learned[1], direction)
    # About the mean: an offset that all share would cost digits.
    along = tf.linalg.matvec(honest - vectors.moments(honest).mean, direction)
    chosen = tf.argmax(tf.concat([along, [-math.inf]], axis=0))
    return candidates[chosen], collections.OrderedDict(
        mean=mean, direction=direction
    )
