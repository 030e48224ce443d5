"""Attacks whose strength is tried on the defence at hand."""

import collections
from collections.abc import Sequence
from typing import Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.attacks import alie
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import ipm
from fedaot_tff.learning import adversary


class OptimalStrength(adversary.UpdatePoisoning):
  """Sends what takes the defence furthest from the mean of the honest updates.

  Each round the attackers try all `strengths` on the defence itself, with its
  present state, and send the `make_vector(HonestMoments, strength)`, [d], whose
  aggregate has the largest Euclidean distance from the mean of the honest
  updates. Knowledge: all honest updates, the global model, and the defence with
  its state and secrets. A trial costs an aggregation; the process measures the
  chosen `strength`.

  Source: the line search of Shejwalkar and Houmansadr, "Manipulating the
  Byzantine", NDSS 2021, section IV, over a fixed grid.
  """

  def __init__(
      self,
      make_vector: Callable[[attack.HonestMoments, tf.Tensor], tf.Tensor],
      strengths: Sequence[float],
  ):
    self._make_vector = make_vector
    self._strengths = [
        checks.check_number('strengths', s, above=0) for s in strengths
    ]
    checks.check_int('the number of strengths', len(self._strengths), minimum=1)

  def create(self, value_type, context=adversary.Context()):
    if context.defence is None:
      raise ValueError(
          f'{type(self).__name__} tries its strength on the defence; give one'
          ' in the context.'
      )

    @tff.federated_computation
    def init_fn():
      return tff.federated_value((), tff.SERVER)

    @tff.federated_computation(
        init_fn.type_signature.result,
        *attack.next_parameters(value_type, context),
    )
    def next_fn(state, update, index, model, defence_state):
      moments = attack.observe_moments(update, index)[0]
      moments_type = moments.type_signature.member
      known = tff.federated_broadcast(moments)

      @tff.tensorflow.computation(
          value_type, np.int32, moments_type, np.float32
      )
      def send(update, index, moments, strength):
        return attack.replace_if_attacker(
            update, index, lambda _: self._make_vector(moments, strength)
        )

      def send_with(strength):
        return tff.federated_map(
            send, (update, index, known, tff.federated_broadcast(strength))
        )

      aggregates = tuple(
          context.defence.aggregate(
              defence_state,
              send_with(tff.federated_value(strength, tff.SERVER)),
              index,
              model,
          )
          for strength in self._strengths
      )

      @tff.tensorflow.computation(moments_type, [value_type] * len(aggregates))
      def choose(moments, aggregates):
        distances = tf.stack(
            [
                tf.norm(flat_updates.flatten(aggregate) - moments.mean)
                for aggregate in aggregates
            ]
        )
        return tf.gather(
            tf.constant(self._strengths, tf.float32), tf.argmax(distances)
        )

      strength = tff.federated_map(
          choose, (moments, tff.federated_zip(aggregates))
      )
      return tff.templates.MeasuredProcessOutput(
          state,
          send_with(strength),
          tff.federated_zip(collections.OrderedDict(strength=strength)),
      )

    return adversary.AdversaryProcess(init_fn, next_fn)


def optimal_alie() -> OptimalStrength:
  """A Little Is Enough with the z that works best; see `alie`."""
  return OptimalStrength(alie.shifted_mean, (0.5, 1.0, 2.0, 4.0))


def optimal_ipm() -> OptimalStrength:
  """Inner product manipulation with the best epsilon; see `ipm`."""
  return OptimalStrength(ipm.reversed_mean, (0.5, 1.0, 2.0, 5.0))
