"""Reference mimicry: the attackers repeat where the model went before."""

import collections

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors


def against_news(
    reference: tf.Tensor, mean: tf.Tensor, poison: float
) -> tf.Tensor:
  """A direction along the reference and against what is new.

  Args:
    reference: Float32 [d], r, not zero.
    mean: Float32 [d], m.
    poison: p >= 0.

  Returns:
    Float32 [d], the unit vector along r' - p q', where r' and q' are the unit
    vectors along r and along the part of m that is orthogonal to r. Its cosine
    with r is 1 / sqrt(1 + p^2), or 1 if there is no such part.
  """
  along = vectors.unit(reference)
  news = mean - tf.tensordot(mean, along, 1) * along
  return vectors.unit(along - poison * vectors.unit(news))


class ReferenceMimic(attack.CollusivePoisoning):
  """Sends the model's past direction, blended with reversed honest news.

  The attackers observe the global model, average its moves exponentially to a
  reference r and send, with noise of their own,

    v = scale * l * unit(r' - poison * q'),

  where l is the root mean square norm of the honest updates, r' the unit vector
  along r, and q' the one along the part of the honest mean that is orthogonal
  to r. To a defence that trusts what agrees with earlier aggregates they look
  the most reliable clients of all, and the more it follows them, the more it
  repeats itself, while what honest clients find anew is cancelled. The noise is
  `jitter` times as long as v and drawn by each attacker, lest equal updates
  give them away: two of them have a cosine of about 1 / (1 + jitter^2).

  With a fraction b of attackers, the part of a plain mean that is orthogonal to
  r is a multiple of q' of at most

    (1 - b) ||q|| - b * scale * l * poison / sqrt(1 + poison^2),

  where l >= ||q||. With the defaults it is reversed for 40 % attackers: it is
  below (0.6 - 0.66) ||q||.

  While there is no reference, as in the first round or if the model stood
  still, they send the honest mean, which makes them trusted.

  Knowledge: mean and standard deviation of the honest updates, and the global
  models so far. It stems from no paper; it is mimicry of the aggregate in place
  of a client.
  """

  def __init__(
      self,
      *,
      poison: float = 1.5,
      scale: float = 2.0,
      jitter: float = 0.1,
      memory: float = 0.5,
  ):
    """Initializes `ReferenceMimic`.

    Args:
      poison: The weight of the reversed news against that of the reference; at
        least 0, which only repeats the past.
      scale: How many times longer than an honest update; positive.
      jitter: The length of the noise against that of the vector; at least 0.
      memory: In [0, 1), the weight of the earlier reference in the new one.
    """
    self._poison = checks.check_number('poison', poison, minimum=0)
    self._scale = checks.check_number('scale', scale, above=0)
    self._jitter = checks.check_number('jitter', jitter, minimum=0)
    self._memory = checks.check_number('memory', memory, minimum=0, below=1)

  def initial_state(self, num_coordinates):
    # The first round does not look at the last model.
    zeros = tf.zeros([num_coordinates])
    return collections.OrderedDict(model=zeros, reference=zeros)

  def agree(self, knowledge, state):
    mean, stddev = knowledge.honest
    move = tf.where(
        knowledge.round_num > 1, knowledge.model - state['model'], 0.0
    )
    reference = self._memory * state['reference'] + (1 - self._memory) * move
    norm = tf.sqrt(tf.reduce_sum(mean**2 + stddev**2))
    blend = self._scale * norm * against_news(reference, mean, self._poison)
    has_reference = tf.reduce_any(tf.not_equal(reference, 0.0))
    vector = tf.where(has_reference, blend, mean)
    return vector, collections.OrderedDict(
        model=knowledge.model, reference=reference
    )

  def send(self, vector, attacker):
    return vector + vectors.noise_like(vector, self._jitter, attacker.seed)
