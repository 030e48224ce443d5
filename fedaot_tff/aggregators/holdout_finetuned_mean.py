"""The mean, then training on the hold-out: what a hold-out alone buys."""

import collections
from typing import Any, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import weighted_sum


class _WeighedUpdates(NamedTuple):
  """Placed values between the two halves of a round."""

  result: Any
  table: Any
  norm: Any


class HoldOutFinetunedMeanRound(model_aware.ModelAwareRound):
  """The computations of a round; see `holdout_finetuned_mean_factory`."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    flat_updates.check_float_value_type(value_type)
    holdout.check_update_type(value_type)

    @tff.tensorflow.computation
    def initialize():
      return collections.OrderedDict()

    @tff.tensorflow.computation(value_type)
    def judge(value):
      is_finite = flat_updates.is_finite_update(flat_updates.flatten(value))
      return collections.OrderedDict(finite=tf.cast(is_finite, tf.float32))

    @tff.tensorflow.computation(value_type, value_type)
    def finetune(model, mean):
      after_mean = tf.nest.map_structure(tf.subtract, model, mean)
      update = holdout.root_update(
          tuple(tf.nest.flatten(after_mean)), tf.range(holdout.num_examples)
      )
      flat = flat_updates.flatten(update)
      usable = flat_updates.is_finite_update(flat)
      update = tf.nest.pack_sequence_as(mean, tf.nest.flatten(update))
      result = tf.nest.map_structure(
          lambda m, u: tf.where(usable, m + u, m), mean, update
      )
      return result, tf.where(usable, tf.norm(flat), 0.0)

    self.initialize = initialize
    self._judge = judge
    self._finetune = finetune

  def weigh(self, state, value, weight=None, model=None) -> _WeighedUpdates:
    """See `model_aware.ModelAwareRound`; `weight` has no effect."""
    del state, weight
    judgments = tff.federated_map(self._judge, value)
    table = row_gather.federated_gather(judgments)
    mean = weighted_sum.federated_weighted_mean(
        value, judgments['finite'], judgments['finite']
    )
    finetuned = tff.federated_map(self._finetune, (model, mean))
    return _WeighedUpdates(finetuned[0], table, finetuned[1])

  def learn(self, state, weighed: _WeighedUpdates, model_after=None):
    """See `model_aware.ModelAwareRound`."""
    del model_after

    @tff.tensorflow.computation(
        weighed.table.type_signature.member, weighed.norm.type_signature.member
    )
    def measure(table, norm):
      finite = table['finite']
      return collections.OrderedDict(
          weights=tf.math.divide_no_nan(finite, tf.reduce_sum(finite)),
          finetuning_norm=norm,
          num_non_finite=tf.reduce_sum(1 - tf.cast(finite, tf.int32)),
      )

    return state, tff.federated_map(measure, (weighed.table, weighed.norm))


class HoldOutFinetunedMeanFactory(model_aware.ModelAwareFactory):
  """The mean, fine-tuned on the hold-out. Weights are ignored.

  A control, not a defence: a rule that uses a hold-out should beat it, as the
  hold-out could as well be trained on. With model x, and the mean m of the
  updates that are finite, the aggregate is

    m + u(x - m),

  u(y) the update that a client would make from model y by training on the
  whole hold-out, with its optimizer, batch size and number of steps. So the
  model after the round is the model of federated averaging, trained on the
  hold-out. This holds if the server applies aggregates by SGD with learning
  rate 1 and no momentum; with another optimizer x - m is not the model that the
  mean alone would have led to.

  Breakdown point: 0. One attacker moves the mean as far as it likes; training
  on the hold-out makes up for it as far as it gets.

  Special cases:
    * Updates with a NaN, an infinity or an entry of magnitude 1e15 or more are
      left out of the mean, which is zero if there is no other; then the
      aggregate is that of training on the hold-out alone.
    * If training on the hold-out gives an update that is not finite, the
      aggregate is the mean.

  Cost with N clients and d coordinates: time O(N d) and the server's training,
  memory as a plain mean's; no update is gathered.

  Like FedAOT with a hold-out the rule must know the global model; see
  `fedaot_tff.fedaot_factory` on its mirror in the state,
  which is all the state there is.

  The measurements are an OrderedDict; N clients in the order in which they were
  given:
    * `weights`, float32 `[N]`: the weights of the mean, equal for finite
      updates and zero for the others;
    * `finetuning_norm`, float32: ||u(x - m)||, zero if not finite;
    * `num_non_finite`, int32: the number of updates left out.
  """

  def create_round(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> HoldOutFinetunedMeanRound:
    """See `model_aware.ModelAwareFactory`."""
    del weight_type
    return HoldOutFinetunedMeanRound(value_type, self._holdout)


holdout_finetuned_mean_factory = HoldOutFinetunedMeanFactory
