"""FLTrust with the server's hold-out; the rule is `fedaot.rules.fltrust`."""

import collections
from typing import Any, NamedTuple, Optional

import tensorflow as tf
import tensorflow_federated as tff

from fedaot.rules.fltrust import trust_scores
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import weighted_sum
from fedaot_tff.namespace import TENSORFLOW


class _WeighedUpdates(NamedTuple):
  """Placed values between the two halves of a round."""

  result: Any
  table: Any
  root: Any


class FLTrustRound(model_aware.ModelAwareRound):
  """The computations of an FLTrust round; see `fltrust_factory`."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    flat_updates.check_float_value_type(value_type)
    holdout.check_update_type(value_type)

    @tff.tensorflow.computation
    def initialize():
      return collections.OrderedDict()

    @tff.tensorflow.computation(value_type)
    def train_root(model):
      update = flat_updates.flatten(
          holdout.root_update(
              tuple(tf.nest.flatten(model)), tf.range(holdout.num_examples)
          )
      )
      usable = flat_updates.is_finite_update(update)
      return tf.where(usable, update, tf.zeros_like(update))

    @tff.tensorflow.computation(value_type, train_root.type_signature.result)
    def judge(value, root):
      update = flat_updates.flatten(value)
      is_finite = flat_updates.is_finite_update(update)
      norm = tf.where(is_finite, tf.norm(update), 0.0)
      product = tf.where(is_finite, tf.tensordot(update, root, 1), 0.0)
      root_norm = tf.norm(root)
      score = trust_scores(product, norm, root_norm, TENSORFLOW)
      return collections.OrderedDict(
          score=score,
          norm=norm,
          coefficient=score * tf.math.divide_no_nan(root_norm, norm),
          is_finite=is_finite,
      )

    self.initialize = initialize
    self._train_root = train_root
    self._judge = judge

  def weigh(self, state, value, weight=None, model=None) -> _WeighedUpdates:
    """See `model_aware.ModelAwareRound`; `weight` has no effect."""
    del state, weight
    root = tff.federated_map(self._train_root, model)
    judgments = tff.federated_map(
        self._judge, (value, tff.federated_broadcast(root))
    )
    table = row_gather.federated_gather(judgments)

    result = weighted_sum.federated_weighted_mean(
        value, judgments['coefficient'], judgments['score']
    )
    return _WeighedUpdates(result, table, root)

  def learn(self, state, weighed: _WeighedUpdates, model_after=None):
    """See `model_aware.ModelAwareRound`."""
    del model_after

    @tff.tensorflow.computation(
        weighed.table.type_signature.member, weighed.root.type_signature.member
    )
    def measure(table, root):
      score = table['score']

      def count(condition):
        return tf.reduce_sum(tf.cast(condition, tf.int32))

      return collections.OrderedDict(
          weights=tf.math.divide_no_nan(score, tf.reduce_sum(score)),
          trust_scores=score,
          norms=table['norm'],
          root_norm=tf.norm(root),
          num_trusted=count(score > 0),
          num_non_finite=count(~table['is_finite']),
      )

    return state, tff.federated_map(measure, (weighed.table, weighed.root))


class FLTrustFactory(model_aware.ModelAwareFactory):
  """FLTrust; the rule is `fedaot.rules.fltrust`. Weights are ignored.

  The root update g_0 is made from the whole hold-out, with its optimizer, batch
  size and number of steps. It is zero if it is not finite, and so is then the
  aggregate.

  No update is gathered: one pass for norm and product with g_0, one for the
  sum, memory as a plain mean's and `8 * d` bytes for g_0 and its broadcast.

  Like FedAOT with a hold-out the rule must know the global model; see
  `fedaot_tff.fedaot_factory` on its mirror in the state,
  which is all the state there is.

  The measurements are an OrderedDict; N clients in the order in which they were
  given:
    * `weights`, float32 `[N]`: TS_i / sum of TS; zero if none is trusted;
    * `trust_scores`, float32 `[N]`: TS_i;
    * `norms`, float32 `[N]`: ||g_i||, zero if not finite;
    * `root_norm`, float32: ||g_0||;
    * `num_trusted`, int32: the number of positive scores;
    * `num_non_finite`, int32: the number of updates left out.
  """

  def create_round(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> FLTrustRound:
    """See `model_aware.ModelAwareFactory`."""
    del weight_type
    return FLTrustRound(value_type, self._holdout)


fltrust_factory = FLTrustFactory
