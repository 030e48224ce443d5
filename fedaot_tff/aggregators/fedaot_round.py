"""A round of FedAOT in TFF: where the equations run and what is kept.

The pieces are composed twice, by `model_aware` into a
`tff.templates.AggregationProcess` and by `fedaot_tff.learning` into a learning
process that hands over the global model. Each reads an update twice: for its
summary and for the weighted sum. Inner products with the hold-out's directions
are taken from random projections, p floats an update.

The maps over client values compute what the aggregator must know, not what a
device would send: in a deployment they run on the trusted aggregator.
"""

import collections
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot_config
from fedaot_tff.aggregators import fedaot_equations as equations
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import weighted_sum

# Purposes of the secret seed, folded into it so that they share no bits.
_SIGNS, _FINGERPRINT, _SPLIT = range(3)


class WeighedUpdates(NamedTuple):
  """Placed values between the two halves of a round.

  Attributes:
    result: The aggregate, of the value type, at the server.
    table: The clients' summaries, at the server.
    decision: Weights and statistics of the round, at the server.
    root: Root update's norm and the loss before, at the server; None in
      agreement mode.
    signs: The signs of the projection, at the server.
    fingerprints: That of each client's summary, at the clients.
    projections: Each client's projection, float32 [p], at the clients.
  """

  result: Any
  table: Any
  decision: Any
  root: Any
  signs: Any
  fingerprints: Any
  projections: Any


class FedAOTRound(model_aware.ModelAwareRound):
  """The computations of a FedAOT round for one type of update."""

  def __init__(
      self,
      value_type: tff.Type,
      *,
      weight_type: Optional[tff.Type],
      holdout: Optional[holdout_lib.HoldOut],
      config: fedaot_config.FedAOTConfig,
      seed: int,
  ):
    """Initializes `FedAOTRound`.

    Args:
      value_type: The `tff.Type` of a client update, a structure of floats.
      weight_type: The type of a client's example count, None if unweighted.
      holdout: The hold-out, None for agreement mode.
      config: A `FedAOTConfig`.
      seed: The secret seed of the sketch and of the hold-out's split.

    Raises:
      TypeError: If `value_type` is not a structure of float tensors.
      ValueError: If it does not match the hold-out's model.
    """
    flat_updates.check_float_value_type(value_type)
    if holdout is not None:
      holdout.check_update_type(value_type)
    self._value_type = value_type
    self._holdout = holdout
    self._config = config
    self._dimension = flat_updates.num_coordinates(value_type)
    self._projection_length = equations.projection_length(
        self._dimension, config
    )
    self._use_examples = (
        weight_type is not None and config.max_example_ratio is not None
    )
    self._weight_type = weight_type
    self._statistics = (
        equations.AGREEMENT_STATISTICS
        if holdout is None
        else equations.HOLDOUT_STATISTICS
    )
    self._build_initial_state(seed)
    self._build_summaries()
    self._build_weights()
    self._build_learning()

  @property
  def initialize(self) -> tff.Computation:
    """Unplaced computation of the initial state, an OrderedDict.

    *   `round`: int32 scalar, rounds so far.
    *   `seed`: int64 [2], the secret seed.
    *   `reference`: the EMA of aggregates in a random projection: float32 [p]
        with a hold-out and float32 [m], as long as a sketch, without.
    *   `weighting`: the weighting variables, see `initial_weighting`.
    *   `meta_optimizer`: Adam's slots, see `initial_meta_optimizer`.
    *   `previous` (agreement mode only): last round's `sketches` float32 [N,
        m], clipped and divided by the norm bound, `z` float32 [N, K] and
        `finite` float32 [N]; N = 0 before the first round.
    """
    return self._initialize

  # --- Composition, to be called inside of a federated computation ---

  def weigh(self, state, value, weight=None, model=None) -> WeighedUpdates:
    """The first half: weights and the aggregate.

    Args:
      state: The state, at the server.
      value: The client updates, at the clients.
      weight: The example counts, at the clients; None if unweighted.
      model: The trainable weights of the global model that the clients started
        from, at the server; None in agreement mode.

    Returns:
      `WeighedUpdates`.
    """
    shared, root = self.share(state, model)
    summaries, projections = self.summarize(value, shared, weight)
    table = row_gather.federated_gather(summaries)
    decision, lookup = self.decide(state, table, root)
    return WeighedUpdates(
        self.add_up(value, summaries, lookup),
        table,
        decision,
        root,
        shared.signs,
        summaries.fingerprint,
        projections,
    )

  def learn(self, state, weighed: WeighedUpdates, model_after=None):
    """The second half: the meta step and the reference.

    Args:
      state: The state that `weigh` was given.
      weighed: What `weigh` returned.
      model_after: The trainable weights of the global model after the
        aggregate was applied, at the server; None in agreement mode.

    Returns:
      A pair of the new state and the measurements, at the server.
    """
    if self._holdout is None:
      return tff.federated_map(
          self._finish, (state, weighed.table, weighed.decision)
      )
    evaluation = self.evaluate(state, weighed, model_after)
    return tff.federated_map(
        self._finish_holdout,
        (
            state,
            weighed.table,
            weighed.decision,
            weighed.result,
            weighed.root,
            weighed.signs,
            evaluation,
            self.multiply(weighed, evaluation),
        ),
    )

  # --- The steps of both halves, for those who want to time them ---

  def share(self, state, model=None):
    """What the clients' summaries need, and the root update's measures.

    Args:
      state: As for `weigh`.
      model: As for `weigh`.

    Returns:
      A pair at the server: signs, seed and directions of the summaries, and the
      root update's norm with the loss before; the latter is None in agreement
      mode.
    """
    if self._holdout is None:
      return tff.federated_map(self._share, state), None
    return tuple(tff.federated_map(self._share_root, (state, model)))

  def summarize(self, value, shared, weight=None):
    """Summaries and projections of the updates, at the clients.

    Args:
      value: As for `weigh`.
      shared: What `share` returned first.
      weight: As for `weigh`.

    Returns:
      A pair at the clients; see `equations.summarize_update`.
    """
    arguments = [value, tff.federated_broadcast(shared)]
    if self._use_examples:
      arguments.append(weight)
    return tuple(tff.federated_map(self._summarize, tuple(arguments)))

  def decide(self, state, table, root=None):
    """The weights.

    Args:
      state: As for `weigh`.
      table: The gathered summaries, at the server.
      root: What `share` returned second.

    Returns:
      A pair at the server: the decision, and what `add_up` looks up in.
    """
    arguments = (state, table) if root is None else (state, table, root)
    return tuple(tff.federated_map(self._decide, arguments))

  def add_up(self, value, summaries, lookup):
    """The aggregate.

    Args:
      value: As for `weigh`.
      summaries: What `summarize` returned first.
      lookup: What `decide` returned second.

    Returns:
      The aggregate, of the value type, at the server.
    """
    coefficients = tff.federated_zip((
        summaries.fingerprint,
        summaries.finite,
        tff.federated_broadcast(lookup),
    ))
    return weighted_sum.federated_weighted_sum(
        value, coefficients, _look_up_coefficient
    )

  def evaluate(self, state, weighed, model_after):
    """Loss of the updated model on the hold-out, its gradient's projection.

    Args:
      state: As for `learn`.
      weighed: As for `learn`.
      model_after: As for `learn`.

    Returns:
      An OrderedDict of `loss`, `norm` and `projection` at the server.
    """
    return tff.federated_map(
        self._evaluate, (state, model_after, weighed.signs)
    )

  def multiply(self, weighed, evaluation):
    """Inner products of the updates and the gradient.

    Args:
      weighed: As for `learn`.
      evaluation: What `evaluate` returned.

    Returns:
      float32 [N] at the server; see `_federated_inner_products`.
    """
    return _federated_inner_products(
        weighed.fingerprints,
        weighed.projections,
        tff.federated_broadcast(weighed.table.fingerprint),
        tff.federated_broadcast(evaluation.projection),
    )

  # --- The computations ---

  def _build_initial_state(self, seed: int) -> None:
    config = self._config
    num_statistics = len(self._statistics)
    self._start = lambda: equations.initial_weighting(num_statistics, config)

    @tff.tensorflow.computation
    def initialize():
      weighting = self._start()
      in_agreement_mode = self._holdout is None
      state = collections.OrderedDict(
          round=tf.constant(0, tf.int32),
          seed=tf.constant([seed, 0], tf.int64),
          reference=tf.zeros([
              config.sketch_dimension
              if in_agreement_mode
              else self._projection_length
          ]),
          weighting=weighting,
          meta_optimizer=equations.initial_meta_optimizer(weighting),
      )
      if in_agreement_mode:
        state['previous'] = collections.OrderedDict(
            sketches=_no_rows([config.sketch_dimension]),
            z=_no_rows([num_statistics]),
            finite=_no_rows([]),
        )
      return state

    self._initialize = initialize
    self._state_type = initialize.type_signature.result

  def _build_summaries(self) -> None:
    config, holdout = self._config, self._holdout

    def make_signs(state):
      return equations.sketch_signs(
          tf.random.experimental.stateless_fold_in(state['seed'], _SIGNS),
          self._dimension,
          self._projection_length,
      )

    def share(state, signs, directions):
      return collections.OrderedDict(
          signs=signs,
          seed=tf.random.experimental.stateless_fold_in(
              state['seed'], _FINGERPRINT
          ),
          directions=directions,
      )

    if holdout is None:

      @tff.tensorflow.computation(self._state_type)
      def share_computation(state):
        return share(state, make_signs(state), collections.OrderedDict())

      self._share = share_computation
      shared_type = share_computation.type_signature.result
    else:

      @tff.tensorflow.computation(self._state_type, self._value_type)
      def share_root(state, model):
        split = self._split(state)
        signs = make_signs(state)
        norm, projection = _norm_and_projection(
            holdout.root_update(tuple(tf.nest.flatten(model)), split.training),
            signs,
        )
        root = collections.OrderedDict(
            norm=norm,
            loss=tf.cast(
                holdout.loss(tuple(tf.nest.flatten(model)), split.evaluation),
                tf.float32,
            ),
        )
        directions = collections.OrderedDict(
            reference=state['reference'], root=projection
        )
        return share(state, signs, directions), root

      self._share_root = share_root
      shared_type = share_root.type_signature.result[0]
      self._root_type = share_root.type_signature.result[1]

    def summarize(value, shared):
      return equations.summarize_update(
          _float_tensors(value),
          shared['signs'],
          shared['seed'],
          shared['directions'],
          config,
      )

    if not self._use_examples:
      self._summarize = tff.tensorflow.computation(
          summarize, [self._value_type, shared_type]
      )
    else:

      @tff.tensorflow.computation(
          self._value_type, shared_type, self._weight_type
      )
      def summarize_with_examples(value, shared, weight):
        summary, projection = summarize(value, shared)
        count = tf.cast(weight, tf.float32)
        valid = tf.math.is_finite(count) & (count > 0)
        summary['finite'] *= tf.cast(valid, tf.float32)
        summary['num_examples'] = tf.where(valid, count, 0.0)
        # Equal updates with other counts have other weights, so that they must
        # not find each other's row.
        summary['fingerprint'] += equations.fingerprint(
            tf.stack([summary['finite'], summary['num_examples']]),
            tf.random.experimental.stateless_fold_in(shared['seed'], 0),
        )
        return summary, projection

      self._summarize = summarize_with_examples
    self._table_type = _rows_type(self._summarize.type_signature.result[0])

  def _build_weights(self) -> None:
    config, holdout = self._config, self._holdout

    def decide(state, table, statistics_fn):
      # A client that takes no part keeps every reduction below defined for an
      # empty cohort; it changes no result.
      padded = tf.nest.map_structure(_append_zero_row, table)
      statistics = statistics_fn(padded)
      log_base = statistics.log_discount
      if self._use_examples:
        log_base += equations.log_example_weights(
            padded['num_examples'], padded['finite'], config.max_example_ratio
        )
      weights = equations.softmax_weights(
          equations.scores(state['weighting'], statistics.z) + log_base,
          padded['finite'],
      )
      decision = collections.OrderedDict(
          weights=weights[:-1],
          log_base=log_base[:-1],
          values=statistics.values[:-1],
          z=statistics.z[:-1],
          clip=statistics.clip[:-1],
          norm_bound=statistics.norm_bound,
      )
      lookup = collections.OrderedDict(
          fingerprint=table['fingerprint'],
          coefficient=decision['weights'] * decision['clip'],
      )
      return decision, lookup

    if holdout is None:

      @tff.tensorflow.computation(self._state_type, self._table_type)
      def decide_computation(state, table):
        return decide(
            state,
            table,
            lambda rows: equations.agreement_statistics(
                rows, state['reference'], config
            ),
        )

    else:

      @tff.tensorflow.computation(
          self._state_type, self._table_type, self._root_type
      )
      def decide_computation(state, table, root):
        return decide(
            state,
            table,
            lambda rows: equations.holdout_statistics(
                rows, tf.norm(state['reference']), root['norm'], config
            ),
        )

    self._decide = decide_computation
    self._decision_type = decide_computation.type_signature.result[0]

  def _build_learning(self) -> None:
    config, holdout = self._config, self._holdout

    if holdout is None:

      @tff.tensorflow.computation(
          self._state_type, self._table_type, self._decision_type
      )
      def finish(state, table, decision):
        return self._learn_from_agreement(state, table, decision)

      self._finish = finish
      return

    signs_type = self._share_root.type_signature.result[0].signs

    @tff.tensorflow.computation(self._state_type, self._value_type, signs_type)
    def evaluate(state, model, signs):
      loss, gradient = holdout.loss_and_gradient(
          tuple(tf.nest.flatten(model)), self._split(state).evaluation
      )
      norm, projection = _norm_and_projection(gradient, signs)
      return collections.OrderedDict(
          loss=tf.cast(loss, tf.float32), norm=norm, projection=projection
      )

    self._evaluate = evaluate

    @tff.tensorflow.computation(
        self._state_type,
        self._table_type,
        self._decision_type,
        self._value_type,
        self._root_type,
        signs_type,
        evaluate.type_signature.result,
        tff.TensorType(np.float32, [None]),
    )
    def finish_holdout(
        state, table, decision, aggregate, root, signs, evaluation, products
    ):
      return self._learn_from_holdout(
          state, table, decision, aggregate, root, signs, evaluation, products
      )

    self._finish_holdout = finish_holdout

  def _split(self, state) -> holdout_lib.HoldOutSplit:
    seed = tf.random.experimental.stateless_fold_in(state['seed'], _SPLIT)
    seed = tf.random.experimental.stateless_fold_in(seed, state['round'])
    return self._holdout.split(seed, self._config.min_examples_to_split)

  def _learn_from_holdout(
      self, state, table, decision, aggregate, root, signs, evaluation, products
  ):
    """State and measurements after a round with a hold-out."""
    finite = table['finite']
    # Equal updates have each received the products of all of them.
    num_equal = tf.reduce_sum(
        tf.cast(
            tf.equal(
                table['fingerprint'][:, None], table['fingerprint'][None, :]
            ),
            tf.float32,
        ),
        axis=1,
    )
    # An empty cohort leaves the one zero that the sum began with.
    dots = products[: tf.size(finite)] / num_equal
    alignments = equations.holdout_alignments(
        dots,
        decision['clip'],
        evaluation['norm'],
        decision['norm_bound'],
    )

    def objective(theta):
      score = equations.scores(theta, decision['z']) + decision['log_base']
      return equations.holdout_objective(
          equations.softmax_weights(score, finite), alignments
      )

    any_finite = tf.reduce_sum(finite) > 0
    theta, slots, meta = self._meta_step(state, objective, any_finite)
    theta = equations.bound_holdout(theta, self._config)
    decay = self._config.reference_decay
    _, projection = equations.norm_and_sketch(_float_tensors(aggregate), signs)
    reference = tf.where(
        any_finite,
        decay * state['reference'] + (1 - decay) * projection,
        state['reference'],
    )
    new_state = collections.OrderedDict(
        round=state['round'] + 1,
        seed=state['seed'],
        reference=reference,
        weighting=theta,
        meta_optimizer=slots,
    )
    measurements = self._measure(state, table, decision, meta)
    measurements.update(
        root_norm=root['norm'],
        holdout_loss_before=root['loss'],
        holdout_loss_after=evaluation['loss'],
    )
    return new_state, measurements

  def _learn_from_agreement(self, state, table, decision):
    """State and measurements after a round without a hold-out."""
    config = self._config
    finite, previous = table['finite'], state['previous']
    clipped = table['sketch'] * decision['clip'][:, None]
    aggregate = tf.linalg.matvec(
        clipped, decision['weights'], transpose_a=True
    )
    alignments = equations.agreement_alignments(previous['sketches'], aggregate)

    def objective(theta):
      return equations.agreement_objective(
          equations.softmax_weights(
              equations.scores(theta, _append_zero_row(previous['z'])),
              _append_zero_row(previous['finite']),
          ),
          _append_zero_row(alignments),
          config.concentration_penalty,
      )

    any_finite = tf.reduce_sum(finite) > 0
    can_learn = any_finite & (tf.reduce_sum(previous['finite']) > 0)
    theta, slots, meta = self._meta_step(state, objective, can_learn)
    theta = equations.bound_agreement(theta, self._start(), config)

    # The reference must not confirm itself, so its own statistic has no say
    # in the weights that update it.
    without_reference = tf.constant(
        [float(s != 'reference_cosine') for s in self._statistics]
    )
    reference_weights = equations.softmax_weights(
        equations.scores(state['weighting'], decision['z'], without_reference)
        + decision['log_base'],
        finite,
    )
    trusted = tf.linalg.matvec(clipped, reference_weights, transpose_a=True)
    decay = config.reference_decay
    reference = tf.where(
        any_finite,
        decay * state['reference'] + (1 - decay) * trusted,
        state['reference'],
    )
    current = collections.OrderedDict(
        sketches=equations.divide(clipped, decision['norm_bound']),
        z=decision['z'],
        finite=finite,
    )
    new_state = collections.OrderedDict(
        round=state['round'] + 1,
        seed=state['seed'],
        reference=reference,
        weighting=theta,
        meta_optimizer=slots,
        previous=tf.cond(any_finite, lambda: current, lambda: previous),
    )
    return new_state, self._measure(state, table, decision, meta)

  def _meta_step(self, state, objective, can_learn):
    """Weighting variables and slots after the step, and what it measured."""
    theta, slots = state['weighting'], state['meta_optimizer']
    gradient = equations.meta_gradient(theta, objective)
    stepped = equations.meta_step(
        theta, slots, gradient, self._start(), self._config
    )
    theta, slots = tf.nest.map_structure(
        lambda new, old: tf.where(can_learn, new, old), stepped, (theta, slots)
    )
    meta = collections.OrderedDict(
        meta_objective=tf.where(can_learn, objective(state['weighting']), 0.0),
        meta_gradient_norm=tf.where(
            can_learn, tf.linalg.global_norm(tf.nest.flatten(gradient)), 0.0
        ),
    )
    return theta, slots, meta

  def _measure(self, state, table, decision, meta):
    """The measurements that both modes share; see `fedaot.fedaot_factory`."""
    weights, finite, theta = (
        decision['weights'],
        table['finite'],
        state['weighting'],
    )
    num_clients = tf.size(weights)
    num_finite = tf.reduce_sum(finite)
    fair_share = equations.divide(1.0, num_finite)

    def count(condition):
      return tf.reduce_sum(tf.cast(condition, tf.int32))

    return collections.OrderedDict(
        [
            ('weights', weights),
            ('statistics', decision['values']),
            ('z', decision['z']),
            ('norms', table['norm']),
            ('norm_bound', decision['norm_bound']),
            ('num_clients', num_clients),
            ('num_non_finite', num_clients - tf.cast(num_finite, tf.int32)),
            (
                'num_attenuated',
                count((finite > 0) & (weights < fair_share / 2)),
            ),
            ('num_clipped', count((finite > 0) & (decision['clip'] < 1))),
            (
                'effective_clients',
                equations.divide(1.0, tf.reduce_sum(tf.square(weights))),
            ),
            (
                'weighting',
                collections.OrderedDict(
                    slope=tf.math.softplus(theta['raw_slope']),
                    margin=theta['margin'],
                    log_sharpness=theta['log_sharpness'],
                ),
            ),
        ]
        + list(meta.items())
    )


def _float_tensors(struct):
  """The tensors of a structure, cast to float32."""
  return [tf.cast(tensor, tf.float32) for tensor in tf.nest.flatten(struct)]


def _norm_and_projection(struct, signs):
  """Norm and projection of a vector; 0, which says nothing, if not finite."""
  norm, projection = equations.norm_and_sketch(_float_tensors(struct), signs)
  usable = tf.math.is_finite(norm)
  return tf.where(usable, norm, 0.0), tf.where(usable, projection, 0.0)


def _look_up_coefficient(arguments):
  """A client's coefficient, from its fingerprint and those of the cohort."""
  fingerprint, finite, lookup = arguments
  # Equal fingerprints are equal updates with equal coefficients, but for
  # updates that are not finite: they all share the zero update's.
  row = tf.argmax(tf.equal(lookup['fingerprint'], fingerprint))
  return finite * lookup['coefficient'][row]


def _federated_inner_products(fingerprint, projection, table, gradient):
  """Inner products of the clients' projections with one vector.

  A sum in which each client adds to its rows costs less than a gather.

  Args:
    fingerprint: Each client's fingerprint, int64.
    projection: Each client's projection, float32 [p].
    table: The fingerprints of all rows at each client, int64 [N].
    gradient: The vector at each client, float32 [p].

  Returns:
    float32 [N] at the server (of length 1 for N = 0): for each row the sum of
    the products of all clients that have its fingerprint.
  """

  @tff.tensorflow.computation
  def zero():
    return tf.compat.v1.placeholder_with_default(tf.zeros([1]), [None])

  total_type = zero.type_signature.result
  value = tff.federated_zip((fingerprint, projection, table, gradient))

  @tff.tensorflow.computation(total_type, value.type_signature.member)
  def accumulate(total, value):
    fingerprint, projection, table, gradient = value
    is_own = tf.cast(tf.equal(table, fingerprint), tf.float32)
    return total + is_own * tf.tensordot(projection, gradient, 1)

  @tff.tensorflow.computation(total_type, total_type)
  def merge(a, b):
    return a + b

  @tff.tensorflow.computation(total_type)
  def report(total):
    return total

  return tff.federated_aggregate(value, zero(), accumulate, merge, report)


def _no_rows(row_shape):
  """A table of no rows whose number of rows is not part of its type."""
  return tf.compat.v1.placeholder_with_default(
      tf.zeros([0] + row_shape), [None] + row_shape
  )


def _append_zero_row(table: tf.Tensor) -> tf.Tensor:
  """The table with one more row, of zeros."""
  row = tf.zeros([1] + table.shape[1:].as_list(), table.dtype)
  return tf.concat([table, row], axis=0)


def _rows_type(row_type: tff.Type) -> tff.Type:
  """The type of a gathered table with rows of `row_type`."""
  return tff.to_type(
      collections.OrderedDict(
          (name, tff.TensorType(t.dtype, [None] + list(t.shape)))
          for name, t in tff.structure.iter_elements(row_type)
      )
  )
