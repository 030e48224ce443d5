"""A round of FedAOT in TFF: where the equations run and what is kept.

`FedAOTRound.weigh` and `.learn` are the only composition of a round;
`model_aware` makes an aggregation process of them and `fedaot_tff.learning` a
learning process. Each reads an update twice: for its summary and for the
weighted sum. Inner products with the hold-out's directions are taken from
random projections, p floats an update.

The maps over client values compute what the aggregator must know, not what a
device would send: in a deployment they run on the trusted aggregator.
"""

import collections
from typing import Any, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import config as config_lib
from fedaot import equations
from fedaot import sketch
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import model_aware
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import summaries
from fedaot_tff.aggregators import weighted_sum
from fedaot_tff.namespace import TENSORFLOW

# Purposes of the secret seed, folded into it so that they share no bits.
_SIGNS, _FINGERPRINT, _SPLIT = range(3)


class WeighedUpdates(NamedTuple):
  """Placed values between the two halves of a round.

  Attributes:
    result: The aggregate, of the value type, at the server.
    table: The clients' summaries, at the server.
    decision: The `equations.Decision`, at the server.
    shared: What the summaries were made with, at the server.
    root: Root update's norm and the loss before, at the server; empty in
      agreement mode.
    fingerprints: That of each client's summary, at the clients.
    projections: Each client's projection (of the first group), float32 [p], at
      the clients.
  """

  result: Any
  table: Any
  decision: Any
  shared: Any
  root: Any
  fingerprints: Any
  projections: Any


class FedAOTRound(model_aware.ModelAwareRound):
  """The computations of a FedAOT round for one type of update.

  The state is an OrderedDict, floats in float32:

  *   `round`: int32 scalar, rounds so far.
  *   `seed`: int64 [2], the secret seed.
  *   `reference`: the EMA of aggregates: with a hold-out in a random
      projection, [p]; without in sketch space, [G, m] for G groups of tensors.
  *   `weighting`: the weighting variables, `equations.Theta`.
  *   `meta_optimizer`: Adam's slots, see `equations.initial_meta_optimizer`.

  In agreement mode further

  *   `camp_memory` [G, m], `support` and `age`: see `equations.Memory`.
  *   `previous`: last round's `sketches` [N, G, m], clipped and divided by the
      norm bound, `z` [N, K], `log_base` [N] and `finite` [N]; N = 0 before the
      first round.
  """

  def __init__(
      self,
      value_type: tff.Type,
      *,
      weight_type: Optional[tff.Type],
      holdout: Optional[holdout_lib.HoldOut],
      config: config_lib.FedAOTConfig,
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
    self.holdout = holdout
    self._config = config
    self._seed = seed
    self._groups = sketch.group_tensors(
        [
            spec.shape.as_list()
            for spec in tf.nest.flatten(
                tff.types.type_to_tf_tensor_specs(value_type)
            )
        ],
        config,
        has_holdout=holdout is not None,
    )
    self._use_examples = (
        weight_type is not None and config.max_example_ratio is not None
    )

    computation = tff.tensorflow.computation
    self.initialize = computation(self._initial_state)
    state_type = self.initialize.type_signature.result
    model_type = () if holdout is None else holdout.model_type(value_type)
    self._share_map = computation(self._share, [state_type, model_type])
    shared_type, root_type = self._share_map.type_signature.result
    self._has_weights = weight_type is not None
    if self._has_weights:
      self._summarize_map = computation(
          self._summarize, [value_type, shared_type, weight_type]
      )
    else:
      self._summarize_map = computation(
          lambda value, shared: self._summarize(value, shared, 1.0),
          [value_type, shared_type],
      )
    table_type = _rows_type(self._summarize_map.type_signature.result[0])
    self._decide_map = computation(
        self._decide, [state_type, table_type, root_type]
    )
    decision_type, _ = self._decide_map.type_signature.result
    if holdout is None:
      self._learn_map = computation(
          self._learn_from_agreement, [state_type, table_type, decision_type]
      )
      return
    self._evaluate_map = computation(
        self._evaluate, [state_type, shared_type, value_type, model_type]
    )
    self._learn_map = computation(
        self._learn_from_holdout,
        [
            state_type,
            table_type,
            decision_type,
            root_type,
            self._evaluate_map.type_signature.result,
            tff.TensorType(np.float32, [None]),
        ],
    )

  # --- Composition, to be called inside of a federated computation ---

  def weigh(self, state, value, weight=None, model=None) -> WeighedUpdates:
    """See `model_aware.ModelAwareRound`; a weight is an example count."""
    if self.holdout is None:
      model = tff.federated_value((), tff.SERVER)
    shared, root = tff.federated_map(self._share_map, (state, model))
    arguments = (value, tff.federated_broadcast(shared))
    if self._has_weights:
      arguments += (weight,)
    rows, projections = tff.federated_map(self._summarize_map, arguments)
    table = row_gather.federated_gather(rows)
    decision, lookup = tff.federated_map(self._decide_map, (state, table, root))
    result = weighted_sum.federated_weighted_sum(
        value,
        tff.federated_zip(
            (rows.fingerprint, rows.finite, tff.federated_broadcast(lookup))
        ),
        _look_up_coefficient,
    )
    return WeighedUpdates(
        result, table, decision, shared, root, rows.fingerprint, projections
    )

  def learn(self, state, weighed: WeighedUpdates, model_after=None):
    """See `model_aware.ModelAwareRound`."""
    arguments = (state, weighed.table, weighed.decision)
    if self.holdout is not None:
      evaluation = tff.federated_map(
          self._evaluate_map,
          (state, weighed.shared, weighed.result, model_after),
      )
      products = _federated_inner_products(
          weighed.fingerprints,
          weighed.projections,
          tff.federated_broadcast(weighed.table.fingerprint),
          tff.federated_broadcast(evaluation.gradient),
      )
      arguments += (
          weighed.root,
          evaluation,
          products,
      )
    return tuple(tff.federated_map(self._learn_map, arguments))

  # --- The computations, in TensorFlow ---

  def _initial_state(self):
    has_holdout, first_group = self.holdout is not None, self._groups[0]
    theta = equations.initial_weighting(
        TENSORFLOW, self._config, has_holdout=has_holdout
    )
    sketch_shape = [len(self._groups), first_group.sketch_length]
    state = collections.OrderedDict(
        round=tf.constant(0, tf.int32),
        seed=tf.constant([self._seed, 0], tf.int64),
        reference=tf.zeros(
            [first_group.length] if has_holdout else sketch_shape
        ),
        weighting=_narrow(theta),
        meta_optimizer=_narrow(
            equations.initial_meta_optimizer(TENSORFLOW, theta)
        ),
    )
    if not has_holdout:
      state.update(
          camp_memory=tf.zeros(sketch_shape),
          support=tf.constant(1.0),
          age=tf.constant(0.0),
          previous=collections.OrderedDict(
              sketches=_no_rows(sketch_shape),
              z=_no_rows([len(equations.AGREEMENT_STATISTICS)]),
              log_base=_no_rows([]),
              finite=_no_rows([]),
          ),
      )
    return state

  def _share(self, state, model):
    """What the clients' summaries need, and the root update's measures."""
    signs = summaries.draw_group_signs(
        _fold(state['seed'], _SIGNS), self._groups
    )
    directions, root = collections.OrderedDict(), ()
    if self.holdout is not None:
      split = self._split(state)
      norm, profile, projection = self._see(
          self.holdout.root_update(model, split.training), signs
      )
      loss = self.holdout.loss(model, split.evaluation)
      root = collections.OrderedDict(
          norm=norm, profile=profile, loss=tf.cast(loss, tf.float32)
      )
      directions.update(reference=state['reference'], root=projection)
    shared = collections.OrderedDict(
        signs=signs,
        seed=_fold(state['seed'], _FINGERPRINT),
        directions=directions,
    )
    return shared, root

  def _summarize(self, value, shared, weight):
    """A client's row of the table and its projection."""
    row, projection = summaries.summarize_update(
        tf.nest.flatten(value),
        self._groups,
        shared['signs'],
        shared['seed'],
        shared['directions'],
        self._config,
        flat_updates.is_empty_update(weight),
    )
    if not self._use_examples:
      return row, projection
    count = tf.cast(weight, tf.float32)
    valid = tf.math.is_finite(count) & (count > 0)
    row['finite'] *= tf.cast(valid, tf.float32)
    row['num_examples'] = tf.where(valid, count, 0.0)
    # Equal updates with other counts have other weights, so that they must not
    # find each other's row.
    row['fingerprint'] += summaries.fingerprint(
        tf.stack([row['finite'], row['num_examples']]), _fold(shared['seed'], 0)
    )
    return row, projection

  def _decide(self, state, table, root):
    """The decision, and what clients look their coefficients up in."""
    decision = equations.decide(
        TENSORFLOW,
        _widen(state['weighting']),
        _widen({k: v for k, v in table.items() if k != 'fingerprint'}),
        _widen(self._known(state)),
        None if self.holdout is None else _widen(root),
        self._config,
    )
    lookup = collections.OrderedDict(
        fingerprint=table['fingerprint'],
        coefficient=_narrow(decision.weights * decision.clip),
    )
    return _narrow(decision), lookup

  def _known(self, state):
    """What the decision knows of earlier rounds, see `equations.decide`."""
    if self.holdout is not None:
      return state['reference']
    return equations.Memory(*(state[name] for name in equations.Memory._fields))

  def _evaluate(self, state, shared, result, model):
    """Loss of the updated model; projections of what to learn from."""
    loss, gradient = self.holdout.loss_and_gradient(
        model, self._split(state).evaluation
    )
    norm, _, gradient = self._see(gradient, shared['signs'])
    _, _, step = self._see(result, shared['signs'])
    gradient = equations.without_overshoot(TENSORFLOW, gradient, step)
    return collections.OrderedDict(
        loss=tf.cast(loss, tf.float32), norm=norm, gradient=gradient, step=step
    )

  def _see(self, struct, signs):
    """Norm, profile, projection; 0, which says nothing, if not finite."""
    norm, profile, (projection,) = summaries.profile_and_projections(
        tf.nest.flatten(struct),
        self._groups,
        signs,
        sketch.block_size(self._groups, self._config),
    )
    usable = tf.math.is_finite(norm)
    return tuple(
        tf.where(usable, seen, 0.0) for seen in (norm, profile, projection)
    )

  def _split(self, state) -> holdout_lib.HoldOutSplit:
    seed = _fold(_fold(state['seed'], _SPLIT), state['round'])
    return self.holdout.split(seed, self._config.min_examples_to_split)

  def _learn_from_holdout(
      self, state, table, decision, root, evaluation, products
  ):
    """State and measurements after a round with a hold-out."""
    found, finite = _widen(decision), _widen(table['finite'])
    # Equal updates have each received the products of all of them.
    fingerprints = table['fingerprint']
    num_equal = tf.reduce_sum(
        tf.cast(tf.equal(fingerprints[:, None], fingerprints), tf.float64), 1
    )
    # An empty cohort leaves the one zero that the sum began with.
    dots = _widen(products[: tf.size(finite)]) / num_equal
    judgement = equations.Judgement(
        found.z,
        found.log_base,
        finite,
        equations.holdout_alignments(
            TENSORFLOW,
            dots,
            found.clip,
            _widen(evaluation['norm']),
            found.norm_bound,
        ),
        penalty=0.0,
    )
    any_finite = tf.reduce_sum(finite) > 0
    learned, meta = self._meta_step(state, judgement, any_finite)
    reference = equations.follow(
        state['reference'], evaluation['step'], self._config.reference_decay
    )
    new_state = self._next_state(
        state, learned, tf.where(any_finite, reference, state['reference'])
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
    found, finite = _widen(decision), _widen(table['finite'])
    previous = _widen(state['previous'])
    clipped = _widen(table['sketch']) * found.clip[:, None, None]
    judgement = equations.Judgement(
        previous['z'],
        previous['log_base'],
        previous['finite'],
        equations.agreement_alignments(
            TENSORFLOW,
            previous['sketches'],
            tf.tensordot(found.weights, clipped, 1),
        ),
        penalty=self._config.concentration_penalty,
    )
    any_finite = tf.reduce_sum(finite) > 0
    learned, meta = self._meta_step(
        state, judgement, any_finite & (tf.reduce_sum(previous['finite']) > 0)
    )
    memory = decision.memory
    new_state = self._next_state(state, learned, memory.reference)
    new_state.update(
        camp_memory=memory.camp_memory, support=memory.support, age=memory.age
    )
    current = _narrow(
        collections.OrderedDict(
            sketches=equations.divide(TENSORFLOW, clipped, found.norm_bound),
            z=found.z,
            log_base=found.log_base,
            finite=finite,
        )
    )
    new_state['previous'] = tf.cond(
        any_finite, lambda: current, lambda: state['previous']
    )
    return new_state, self._measure(state, table, decision, meta)

  def _meta_step(self, state, judgement, can_learn):
    """Weighting variables with slots after the step, and its measurements."""
    before = state['weighting'], state['meta_optimizer']
    theta, slots = _widen(before)
    with tf.GradientTape() as tape:
      tape.watch(theta)
      objective = equations.objective(TENSORFLOW, theta, judgement)
    gradient = tape.gradient(objective, theta)
    theta, slots = equations.learn(
        TENSORFLOW,
        theta,
        slots,
        gradient,
        has_holdout=self.holdout is not None,
        config=self._config,
    )
    learned = tf.nest.map_structure(
        lambda new, old: tf.where(can_learn, new, old),
        (_narrow(theta), _narrow(slots)),
        before,
    )
    meta = collections.OrderedDict(
        meta_objective=objective,
        meta_gradient_norm=tf.linalg.global_norm(tf.nest.flatten(gradient)),
    )
    return learned, tf.nest.map_structure(
        lambda t: tf.where(can_learn, _narrow(t), 0.0), meta
    )

  def _next_state(self, state, learned, reference):
    weighting, slots = learned
    return collections.OrderedDict(
        round=state['round'] + 1,
        seed=state['seed'],
        reference=reference,
        weighting=weighting,
        meta_optimizer=slots,
    )

  def _measure(self, state, table, decision, meta):
    """The measurements that both modes share; see `fedaot.fedaot_factory`."""
    weights, finite = decision.weights, table['finite']
    theta = state['weighting']
    num_finite = tf.reduce_sum(finite)
    num_empty = tf.cast(tf.reduce_sum(table['is_empty']), tf.int32)

    def count(condition):
      return tf.reduce_sum(tf.cast((finite > 0) & condition, tf.int32))

    return collections.OrderedDict(
        weights=weights,
        statistics=decision.values,
        z=decision.z,
        norms=table['norm'],
        norm_bound=decision.norm_bound,
        num_clients=tf.size(weights),
        num_non_finite=(
            tf.size(weights) - tf.cast(num_finite, tf.int32) - num_empty
        ),
        num_empty=num_empty,
        num_attenuated=count(weights < tf.math.divide_no_nan(0.5, num_finite)),
        num_clipped=count(decision.clip < 1),
        effective_clients=tf.math.divide_no_nan(
            1.0, tf.reduce_sum(tf.square(weights))
        ),
        weighting=collections.OrderedDict(
            slope=tf.math.softplus(theta['raw_slope']),
            margin=theta['margin'],
            log_sharpness=theta['log_sharpness'],
        ),
        **meta,
    )


def _fold(seed: tf.Tensor, number) -> tf.Tensor:
  return tf.random.experimental.stateless_fold_in(seed, number)


def _widen(struct):
  """Float32, as state and values are, to float64, as the equations are."""
  return tf.nest.map_structure(lambda t: tf.cast(t, tf.float64), struct)


def _narrow(struct):
  """The inverse of `_widen`; what was a dict has its order as its type."""
  if isinstance(struct, dict):
    return collections.OrderedDict((k, _narrow(v)) for k, v in struct.items())
  return tf.nest.map_structure(lambda t: tf.cast(t, tf.float32), struct)


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


def _rows_type(row_type: tff.Type) -> tff.Type:
  """The type of a gathered table with rows of `row_type`."""
  return tff.to_type(
      collections.OrderedDict(
          (name, tff.TensorType(t.dtype, [None] + list(t.shape)))
          for name, t in tff.structure.iter_elements(row_type)
      )
  )
