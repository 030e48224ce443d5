"""Rules that use the hold-out: FLTrust, others, and a mean fine-tuned on it.

Like FedAOT with a hold-out they must know the global model; see
`fedaot_tff.fedaot_factory` on its mirror in the state, which is all the state
there is. A client without a positive weight has nothing to say and is left out;
else they ignore weights: clients report them.
"""

import collections
import functools
import inspect
from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import rules
from fedaot.rules.fltrust import trust_scores
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.aggregators import registry
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import rule_factory
from fedaot_tff.aggregators import weighted_sum
from fedaot_tff.namespace import TENSORFLOW


class _WeighedUpdates(NamedTuple):
  """Placed values between the two halves of a round.

  Attributes:
    result: The aggregate, at the server.
    table: What is known of each client, at the server.
    measured: What is measured besides, at the server.
  """

  result: Any
  table: Any
  measured: Any


class _MemorylessRound(model_aware.ModelAwareRound):
  """A round of a rule that has no state and learns nothing."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    flat_updates.check_float_value_type(value_type)
    holdout.check_update_type(value_type)
    self.holdout = holdout
    self.initialize = tff.tensorflow.computation(
        lambda: collections.OrderedDict()
    )

  def learn(self, state, weighed: _WeighedUpdates, model_after=None):
    """See `model_aware.ModelAwareRound`."""
    del model_after
    measure = tff.tensorflow.computation(
        self.measure,
        [
            weighed.table.type_signature.member,
            weighed.measured.type_signature.member,
        ],
    )
    return state, tff.federated_map(measure, (weighed.table, weighed.measured))


class _RootRound(_MemorylessRound):
  """A round in which the server makes an update of its own, `train_root`."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    super().__init__(value_type, holdout)

    @tff.tensorflow.computation(holdout.model_type(value_type))
    def train_root(model):
      update = flat_updates.flatten(
          holdout.root_update(model, tf.range(holdout.num_examples))
      )
      usable = flat_updates.is_finite_update(update)
      return tf.where(usable, update, tf.zeros_like(update))

    self._train_root = train_root


class FLTrustRound(_RootRound):
  """The computations of an FLTrust round; see `fltrust_factory`."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    super().__init__(value_type, holdout)

    @tff.tensorflow.computation(
        value_type, np.bool_, self._train_root.type_signature.result
    )
    def judge(value, is_empty, root):
      update = flat_updates.flatten(value)
      is_finite = flat_updates.is_finite_update(update)
      counts = is_finite & ~is_empty
      norm = tf.where(counts, tf.norm(update), 0.0)
      product = tf.where(counts, tf.tensordot(update, root, 1), 0.0)
      root_norm = tf.norm(root)
      score = trust_scores(product, norm, root_norm, TENSORFLOW)
      return collections.OrderedDict(
          score=score,
          norm=norm,
          coefficient=score * tf.math.divide_no_nan(root_norm, norm),
          is_empty=is_empty,
          is_lost=~is_finite & ~is_empty,
      )

    self._judge = judge

  def weigh(self, state, value, weight=None, model=None) -> _WeighedUpdates:
    """See `model_aware.ModelAwareRound`."""
    del state
    root = tff.federated_map(self._train_root, model)
    judgments = tff.federated_map(
        self._judge,
        (value, _map_is_empty(value, weight), tff.federated_broadcast(root)),
    )
    result = weighted_sum.federated_weighted_mean(
        value, judgments['coefficient'], judgments['score']
    )
    return _WeighedUpdates(result, row_gather.federated_gather(judgments), root)

  def measure(self, table, root):
    """The measurements, in TensorFlow."""
    score = table['score']

    def count(condition):
      return tf.reduce_sum(tf.cast(condition, tf.int32))

    return collections.OrderedDict(
        weights=tf.math.divide_no_nan(score, tf.reduce_sum(score)),
        trust_scores=score,
        norms=table['norm'],
        root_norm=tf.norm(root),
        num_trusted=count(score > 0),
        num_non_finite=count(table['is_lost']),
        num_empty=count(table['is_empty']),
    )


class RootRuleRound(_RootRound):
  """The computations of a round of a rule that needs the server's update."""

  def __init__(
      self,
      value_type: tff.Type,
      holdout: holdout_lib.HoldOut,
      rule: rules.Rule,
  ):
    super().__init__(value_type, holdout)
    specs = tff.types.type_to_tf_tensor_specs(value_type)

    def apply(rows, root):
      update, measured = rule_factory.apply_rule(
          rule, rows, value_type, reference=root
      )
      return flat_updates.unflatten(update, specs), measured

    self._apply = apply

  def weigh(self, state, value, weight=None, model=None) -> _WeighedUpdates:
    """See `model_aware.ModelAwareRound`."""
    del state
    root = tff.federated_map(self._train_root, model)
    weights = [] if weight is None else [weight]
    table = row_gather.federated_gather(rule_factory.map_rows(value, weights))
    apply = tff.tensorflow.computation(
        self._apply, [table.type_signature.member, root.type_signature.member]
    )
    result, measured = tff.federated_map(apply, (table, root))
    return _WeighedUpdates(result, table, measured)

  def measure(self, table, measured):
    """The measurements, in TensorFlow."""
    del table
    return measured


class HoldOutFinetunedMeanRound(_MemorylessRound):
  """The computations of a round; see `holdout_finetuned_mean_factory`."""

  def __init__(self, value_type: tff.Type, holdout: holdout_lib.HoldOut):
    super().__init__(value_type, holdout)

    @tff.tensorflow.computation(value_type, np.bool_)
    def judge(value, is_empty):
      is_finite = flat_updates.is_finite_update(flat_updates.flatten(value))
      return collections.OrderedDict(
          counts=tf.cast(is_finite & ~is_empty, tf.float32),
          is_empty=tf.cast(is_empty, tf.int32),
      )

    @tff.tensorflow.computation(holdout.model_type(value_type), value_type)
    def finetune(model, mean):
      trainable = tf.nest.map_structure(tf.subtract, model.trainable, mean)
      update = holdout.root_update(
          model._replace(trainable=trainable), tf.range(holdout.num_examples)
      )
      flat = flat_updates.flatten(update)
      usable = flat_updates.is_finite_update(flat)
      update = tf.nest.pack_sequence_as(mean, tf.nest.flatten(update))
      result = tf.nest.map_structure(
          lambda m, u: tf.where(usable, m + u, m), mean, update
      )
      return result, tf.where(usable, tf.norm(flat), 0.0)

    self._judge = judge
    self._finetune = finetune

  def weigh(self, state, value, weight=None, model=None) -> _WeighedUpdates:
    """See `model_aware.ModelAwareRound`."""
    del state
    judgments = tff.federated_map(
        self._judge, (value, _map_is_empty(value, weight))
    )
    mean = weighted_sum.federated_weighted_mean(
        value, judgments['counts'], judgments['counts']
    )
    result, norm = tff.federated_map(self._finetune, (model, mean))
    return _WeighedUpdates(result, row_gather.federated_gather(judgments), norm)

  def measure(self, table, norm):
    """The measurements, in TensorFlow."""
    counts, is_empty = table['counts'], table['is_empty']
    return collections.OrderedDict(
        weights=tf.math.divide_no_nan(counts, tf.reduce_sum(counts)),
        finetuning_norm=norm,
        num_non_finite=tf.reduce_sum(1 - tf.cast(counts, tf.int32) - is_empty),
        num_empty=tf.reduce_sum(is_empty),
    )


def _map_is_empty(value, weight):
  """Whether each client has nothing to say, at the clients."""
  # Without weights any value at the clients will do.
  source = value if weight is None else weight

  @tff.tensorflow.computation(source.type_signature.member)
  def is_empty(source):
    return flat_updates.is_empty_update(1.0 if weight is None else source)

  return tff.federated_map(is_empty, source)


class FLTrustFactory(model_aware.ModelAwareFactory):
  """FLTrust; the rule is `fedaot.rules.fltrust`.

  The root update g_0 is made from the whole hold-out, with its optimizer, batch
  size and number of steps. It is zero if it is not finite, and so is then the
  aggregate.

  No update is gathered: one pass for norm and product with g_0, one for the
  sum, memory as a plain mean's and `8 * d` bytes for g_0 and its broadcast.

  The measurements are an OrderedDict; N clients in the order in which they were
  given:
    * `weights`, float32 `[N]`: TS_i / sum of TS; zero if none is trusted;
    * `trust_scores`, float32 `[N]`: TS_i;
    * `norms`, float32 `[N]`: ||g_i||, zero if not finite;
    * `root_norm`, float32: ||g_0||;
    * `num_trusted`, int32: the number of positive scores;
    * `num_non_finite`, int32: the number of updates left out;
    * `num_empty`, int32: that of the clients who had nothing to say.
  """

  def create_round(self, value_type, weight_type) -> FLTrustRound:
    """See `model_aware.ModelAwareFactory`."""
    del weight_type
    return FLTrustRound(value_type, self._holdout)


class HoldOutFinetunedMeanFactory(model_aware.ModelAwareFactory):
  """The mean, fine-tuned on the hold-out.

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

  The measurements are an OrderedDict; N clients in the order in which they were
  given:
    * `weights`, float32 `[N]`: the weights of the mean, equal for finite
      updates and zero for the others;
    * `finetuning_norm`, float32: ||u(x - m)||, zero if not finite;
    * `num_non_finite`, int32: the number of updates left out;
    * `num_empty`, int32: that of the clients who had nothing to say.
  """

  def create_round(self, value_type, weight_type) -> HoldOutFinetunedMeanRound:
    """See `model_aware.ModelAwareFactory`."""
    del weight_type
    return HoldOutFinetunedMeanRound(value_type, self._holdout)


class RootRuleFactory(model_aware.ModelAwareFactory):
  """A rule whose reference is the server's own update.

  The root update is made from the whole hold-out, with its optimizer, batch
  size and number of steps; it is zero if it is not finite. Updates are gathered
  as by `rule_factory.RuleFactory`, which tells what is measured.
  """

  def __init__(self, rule: rules.Rule, holdout: holdout_lib.HoldOut, **options):
    """See `model_aware.ModelAwareFactory` for the hold-out and options."""
    super().__init__(holdout, **options)
    self._rule = rule

  @property
  def rule(self) -> rules.Rule:
    """The rule on arrays."""
    return self._rule

  def create_round(self, value_type, weight_type) -> RootRuleRound:
    """See `model_aware.ModelAwareFactory`."""
    del weight_type
    return RootRuleRound(value_type, self._holdout, self._rule)


def root_factory_of(
    make: Callable[..., rules.Rule],
) -> Callable[..., model_aware.ModelAwareFactory]:
  """The function that takes a hold-out first, where `make` makes a rule."""
  if make is rules.fltrust:
    return FLTrustFactory

  @functools.wraps(make)
  def create(holdout, *arguments, server_optimizer=None, **options):
    return RootRuleFactory(
        make(*arguments, **options),
        holdout,
        server_optimizer=server_optimizer,
    )

  own = [
      inspect.Parameter('holdout', inspect.Parameter.POSITIONAL_OR_KEYWORD),
      *inspect.signature(make).parameters.values(),
      inspect.Parameter(
          'server_optimizer', inspect.Parameter.KEYWORD_ONLY, default=None
      ),
  ]
  create.__signature__ = inspect.Signature(own)
  return create


for _name, _make in registry.FACTORIES.items():
  if _make.needs_root:
    globals()[_name] = root_factory_of(_make)
holdout_finetuned_mean_factory = HoldOutFinetunedMeanFactory
