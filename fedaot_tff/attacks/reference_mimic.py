"""Reference mimicry: the attackers repeat where the model went before."""

import collections
from typing import Any

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors


def initial_moves(num_coordinates: int) -> 'collections.OrderedDict':
  """The state of `follow_moves` before the first round, float32 [d] each."""
  # The first round does not look at the last model.
  zeros = tf.zeros([num_coordinates])
  return collections.OrderedDict(model=zeros, reference=zeros)


def follow_moves(
    knowledge: attack.Knowledge, state: Any, memory: float
) -> 'collections.OrderedDict':
  """Averages the moves of the model exponentially; see `initial_moves`."""
  move = tf.where(
      knowledge.round_num > 1, knowledge.model - state['model'], 0.0
  )
  return collections.OrderedDict(
      model=knowledge.model,
      reference=memory * state['reference'] + (1 - memory) * move,
  )


def against_news(
    reference: tf.Tensor, mean: tf.Tensor, poison: float
) -> tf.Tensor:
  """The unit vector along r' - p q', from r != 0 and m, float32 [d], and p.

  r' and q' are the unit vectors along the reference r and along what is new,
  the part of the mean m that is orthogonal to r. Its cosine with r is
  1 / sqrt(1 + p^2), or 1 if there is no such part.
  """
  along = vectors.unit(reference)
  news = mean - tf.tensordot(mean, along, 1) * along
  return vectors.unit(along - poison * vectors.unit(news))


class ReferenceMimic(attack.CollusivePoisoning):
  """Sends the model's past direction, blended with reversed honest news.

  The attackers observe the global model, average its moves exponentially to a
  reference r, `memory` in [0, 1) being the weight of the earlier one, and send

    v = scale * l * unit(r' - poison * q'),

  with l the root mean square norm of the honest updates and r', q' those of
  `against_news`. To a defence that trusts what agrees with earlier aggregates
  they look the most reliable clients of all, and the more it follows them, the
  more it repeats itself, while what honest clients find anew is cancelled. Each
  adds noise of its own, `jitter` times as long as v, lest equal updates give
  them away: two of them have a cosine of about 1 / (1 + jitter^2).

  With a fraction b of attackers, the part of a plain mean that is orthogonal to
  r is a multiple of q' of at most

    (1 - b) ||q|| - b * scale * l * poison / sqrt(1 + poison^2),

  where l >= ||q||. With the defaults it is reversed for 40 % attackers: it is
  below (0.6 - 0.66) ||q||. While there is no reference, as in the first round
  or if the model stood still, they send the honest mean, which makes them
  trusted.

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
    self._poison = checks.check_number('poison', poison, minimum=0)
    self._scale = checks.check_number('scale', scale, above=0)
    self._jitter = checks.check_number('jitter', jitter, minimum=0)
    self._memory = checks.check_number('memory', memory, minimum=0, below=1)

  def initial_state(self, num_coordinates):
    return initial_moves(num_coordinates)

  def agree(self, knowledge, state):
    mean, stddev = knowledge.honest
    state = follow_moves(knowledge, state, self._memory)
    reference = state['reference']
    norm = tf.sqrt(tf.reduce_sum(mean**2 + stddev**2))
    blend = self._scale * norm * against_news(reference, mean, self._poison)
    has_reference = tf.reduce_any(tf.not_equal(reference, 0.0))
    vector = tf.where(has_reference, blend, mean)
    return vector, state

  def send(self, update, vector, attacker):
    del update
    return vector + vectors.noise_like(vector, self._jitter, attacker.seed)
