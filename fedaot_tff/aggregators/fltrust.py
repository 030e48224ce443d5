"""FLTrust: updates weighted by their likeness to the server's own."""

import collections
from typing import Any, NamedTuple, Optional, Tuple

import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import weighted_sum


class RootUpdate(NamedTuple):
  """The update that the server makes from its hold-out.

  Attributes:
    direction: A `[d]` float32 tensor of norm 1; zero if the update is zero or
      not finite.
    norm: A float32 scalar, the norm of the update; zero if `direction` is.
  """

  direction: tf.Tensor
  norm: tf.Tensor


def normalize_root(update: tf.Tensor) -> RootUpdate:
  """Splits the server's update into direction and norm.

  Args:
    update: A `[d]` float32 tensor; zero takes its place if it is not finite.

  Returns:
    A `RootUpdate`.
  """
  usable = flat_updates.is_finite_update(update)
  update = tf.where(usable, update, tf.zeros_like(update))
  norm = tf.norm(update)
  return RootUpdate(tf.math.divide_no_nan(update, norm), norm)


def trust_score(
    update: tf.Tensor, direction: tf.Tensor
) -> Tuple[tf.Tensor, tf.Tensor]:
  """Computes how far an update is to be trusted.

  Args:
    update: A `[d]` float32 tensor; it may hold anything.
    direction: A `[d]` float32 tensor of norm 1, or zero; see `RootUpdate`.

  Returns:
    A pair of float32 scalars: the score max(cos(update, direction), 0), and the
    update's norm. Both are zero for an update that is zero or not finite.
  """
  usable = flat_updates.is_finite_update(update)
  norm = tf.where(usable, tf.norm(update), 0.0)
  dot = tf.where(usable, tf.tensordot(update, direction, 1), 0.0)
  # Rounding must not give a cosine above 1.
  cosine = tf.minimum(tf.math.divide_no_nan(dot, norm), 1.0)
  return tf.nn.relu(cosine), norm


class _WeighedUpdates(NamedTuple):
  """Placed values between the two halves of a round."""

  result: Any
  table: Any
  root: Any


class FLTrustRound(model_aware.ModelAwareRound):
  """The computations of an FLTrust round; see `fltrust_factory`."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    """Initializes `FLTrustRound`.

    Args:
      value_type: The type of a client update, a structure of floats.
      holdout: The clean examples at the server.

    Raises:
      TypeError: If `value_type` is not a structure of float tensors.
      ValueError: If it does not match the hold-out's model.
    """
    flat_updates.check_float_value_type(value_type)
    holdout.check_update_type(value_type)

    @tff.tensorflow.computation
    def initialize():
      return collections.OrderedDict()

    @tff.tensorflow.computation(value_type)
    def train_root(model):
      update = holdout.root_update(
          tuple(tf.nest.flatten(model)), tf.range(holdout.num_examples)
      )
      return normalize_root(flat_updates.flatten(update))

    @tff.tensorflow.computation(value_type, train_root.type_signature.result)
    def judge(value, root):
      update = flat_updates.flatten(value)
      score, norm = trust_score(update, root.direction)
      return collections.OrderedDict(
          score=score,
          norm=norm,
          coefficient=score * tf.math.divide_no_nan(root.norm, norm),
          is_finite=flat_updates.is_finite_update(update),
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

    @tff.tensorflow.computation(table.type_signature.member)
    def add_scores(table):
      return tf.reduce_sum(table['score'])

    @tff.tensorflow.computation(
        judgments.type_signature.member, add_scores.type_signature.result
    )
    def normalize(judgment, total):
      return tf.math.divide_no_nan(judgment['coefficient'], total)

    total = tff.federated_broadcast(tff.federated_map(add_scores, table))
    coefficients = tff.federated_map(normalize, (judgments, total))
    result = weighted_sum.federated_weighted_sum(value, coefficients)
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
          root_norm=root.norm,
          num_trusted=count(score > 0),
          num_non_finite=count(~table['is_finite']),
      )

    return state, tff.federated_map(measure, (weighed.table, weighed.root))


class FLTrustFactory(model_aware.ModelAwareFactory):
  """FLTrust.

  The server trains on its clean hold-out like a client. With its update g_0
  and those of the clients, g_i, the trust scores and the aggregate are

    TS_i = max(cos(g_i, g_0), 0),
    g = 1 / (sum_i TS_i) * sum_i TS_i * ||g_0|| / ||g_i|| * g_i

  (Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via
  Trust Bootstrapping", NDSS 2021, arXiv:2012.13995). The root update is made
  from the whole hold-out, with its optimizer, batch size and number of steps.

  Breakdown point: none in the number of attackers. Whatever they send, the
  aggregate is not longer than g_0 and has no negative product with it; but an
  attacker whose update has a direction similar to g_0 is trusted.

  Special cases:
    * An update with a NaN, an infinity or an entry of magnitude 1e15 or more,
      or of norm zero in float32, has a score of zero.
    * If all scores are zero, as in an empty cohort or if g_0 is zero or not
      finite, the aggregate is zero; the measurement `num_trusted` tells.

  The rule does not change with the length of any client's update, and is
  equivariant to permutations of the clients; it is not to translations.

  Cost with N clients and d coordinates: time O(N d), no update is gathered: one
  pass for norm and product with g_0, one for the sum; memory as a plain mean's
  and `8 * d` bytes for g_0 and its broadcast.

  Like FedAOT with a hold-out the rule must know the global model; see
  `fedaot_tff.aggregators.fedaot.fedaot_factory` on its mirror in the state,
  which is all the state there is.

  The measurements are an OrderedDict; N clients in the order in which they were
  given:
    * `weights`, float32 `[N]`: TS_i / sum of TS; zero if none is trusted;
    * `trust_scores`, float32 `[N]`: TS_i;
    * `norms`, float32 `[N]`: ||g_i||, zero if not finite;
    * `root_norm`, float32: ||g_0||;
    * `num_trusted`, int32: the number of positive scores;
    * `num_non_finite`, int32: the number of updates left out.

  The weights of the clients are ignored: they report them, so a Byzantine
  client could claim any.
  """

  def __init__(
      self,
      holdout: holdout_lib.HoldOut,
      *,
      server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
  ):
    """Initializes the factory.

    Args:
      holdout: The clean examples at the server.
      server_optimizer: See `fedaot_tff.fedaot_factory`.

    Raises:
      TypeError: If an argument is of another kind.
    """
    model_aware.check_holdout(holdout)
    super().__init__(holdout, server_optimizer)

  def create_round(
      self, value_type: tff.Type, weight_type: Optional[tff.Type]
  ) -> FLTrustRound:
    """See `model_aware.ModelAwareFactory`."""
    del weight_type
    return FLTrustRound(value_type, self._holdout)


fltrust_factory = FLTrustFactory
