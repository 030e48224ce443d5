"""Attacks whose strength is tried on the defence at hand."""

import abc
import collections
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks


class OptimalStrengthPoisoning(attack.UpdatePoisoning):
  """Sends what takes the defence furthest from the mean of the honest updates.

  Each round the attackers try some strengths on the defence itself, with its
  present state, and send the vector whose aggregate has the largest Euclidean
  distance from the mean of the honest updates. Knowledge: all honest updates,
  the global model, and the defence with its state and secrets. A trial costs an
  aggregation. Source: the line search of Shejwalkar and Houmansadr,
  "Manipulating the Byzantine", NDSS 2021, section IV, over a fixed grid.
  """

  def __init__(self, *, strengths: Sequence[float]):
    """Initializes `OptimalStrengthPoisoning`.

    Args:
      strengths: The strengths to try, positive.

    Raises:
      TypeError: If they are not numbers.
      ValueError: If there are none, or one is not positive and finite.
    """
    if isinstance(strengths, (str, float, int)):
      raise TypeError(f'strengths must be numbers; found {strengths!r}.')
    self._strengths = tuple(
        checks.check_positive('strengths', s) for s in strengths
    )
    if not self._strengths:
      raise ValueError('strengths must be one or more; found none.')

  @abc.abstractmethod
  def poison(
      self, moments: attack.HonestMoments, strength: tf.Tensor
  ) -> tf.Tensor:
    """The attackers' vector, float32 [d], for a scalar float32 strength."""

  def create(
      self, value_type: tff.Type, context: attack.Context = attack.Context()
  ) -> attack.AdversaryProcess:
    """See `UpdatePoisoning.create`; measures the chosen `strength`.

    Raises:
      ValueError: If `context` tells no defence.
    """
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
      sums = attack.sum_moments(update, index)

      @tff.tensorflow.computation(sums.type_signature.member)
      def read(sums):
        return attack.read_moments(sums)[0]

      moments = tff.federated_map(read, sums)
      moments_type = moments.type_signature.member
      known = tff.federated_broadcast(moments)

      @tff.tensorflow.computation(
          value_type, np.int32, moments_type, np.float32
      )
      def send(update, index, moments, strength):
        return attack.replace_if_attacker(
            update, index, lambda _: self.poison(moments, strength)
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

      @tff.tensorflow.computation(
          moments_type, [value_type] * len(aggregates)
      )
      def choose(moments, aggregates):
        distances = tf.stack([
            tf.norm(flat_updates.flatten(aggregate) - moments.mean)
            for aggregate in aggregates
        ])
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

    return attack.AdversaryProcess(init_fn, next_fn)


class OptimalAlie(OptimalStrengthPoisoning):
  """A Little Is Enough with the strength that works best; see `alie`."""

  def __init__(
      self, *, strengths: Sequence[float] = (0.5, 1.0, 2.0, 4.0)
  ):
    """Initializes `OptimalAlie`.

    Args:
      strengths: The numbers z of standard deviations to try, positive.

    Raises:
      TypeError: If they are not numbers.
      ValueError: If there are none, or one is not positive and finite.
    """
    super().__init__(strengths=strengths)

  def poison(
      self, moments: attack.HonestMoments, strength: tf.Tensor
  ) -> tf.Tensor:
    """mean - z standard deviations."""
    return moments.mean - strength * moments.stddev


class OptimalIpm(OptimalStrengthPoisoning):
  """Inner product manipulation with the strength that works best; see `ipm`."""

  def __init__(
      self, *, strengths: Sequence[float] = (0.5, 1.0, 2.0, 5.0)
  ):
    """Initializes `OptimalIpm`.

    Args:
      strengths: The factors epsilon to try, positive.

    Raises:
      TypeError: If they are not numbers.
      ValueError: If there are none, or one is not positive and finite.
    """
    super().__init__(strengths=strengths)

  def poison(
      self, moments: attack.HonestMoments, strength: tf.Tensor
  ) -> tf.Tensor:
    """-epsilon times the mean."""
    return -strength * moments.mean
