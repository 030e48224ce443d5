"""Rules of `fedaot.rules` as TFF factories, and wrappers around any factory."""

import collections
import functools
from typing import Any, Callable, Mapping

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot import rules
from fedaot.rules import cohort as cohort_lib
from fedaot.rules import rule as rule_lib
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import registry
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import summaries
from fedaot_tff.namespace import TENSORFLOW


class RuleFactory(tff.aggregators.WeightedAggregationFactory):
  """A rule for processes that weight their clients.

  A client without a positive weight has nothing to say and is as if it were not
  there; `num_empty` counts such. Else the weights are ignored: clients report
  them, so a Byzantine client could claim any. `unweighted` is the same rule for
  processes without, where every update is a vote, zero ones too.

  Each update is flattened to float32 and gathered once, a table of `4 * N * d`
  bytes at the server. The state is an OrderedDict: `round_num`, int64, for
  rules that draw random numbers; `reference`, float32 `[d]` in the order of
  `flat_updates.flatten`, for those that remember the last aggregate. The
  measurements are an OrderedDict of the rule's, floats as float32 and integers
  as int32, clients in the order in which they were gathered.
  """

  def __init__(self, rule: rules.Rule):
    self._rule = rule

  @property
  def rule(self) -> rules.Rule:
    """The rule on arrays."""
    return self._rule

  @property
  def unweighted(self) -> 'UnweightedRuleFactory':
    """The same rule as an unweighted factory."""
    return UnweightedRuleFactory(self._rule)

  def create(
      self, value_type: tff.Type, weight_type: tff.Type
  ) -> tff.templates.AggregationProcess:
    """Creates the process for a structure of float tensors of known shapes."""
    return _create_rule_process(self._rule, value_type, weight_type)


class UnweightedRuleFactory(tff.aggregators.UnweightedAggregationFactory):
  """A rule for processes without weights; see `RuleFactory`.

  Not for `value_sum_factory` of a TFF mean, which would divide the aggregate by
  the number of clients; TFF cannot tell it from a sum.
  """

  def __init__(self, rule: rules.Rule):
    self._rule = rule

  @property
  def rule(self) -> rules.Rule:
    """The rule on arrays."""
    return self._rule

  def create(self, value_type: tff.Type) -> tff.templates.AggregationProcess:
    """Creates the process for a structure of float tensors of known shapes."""
    return _create_rule_process(self._rule, value_type, None)


def apply_rule(
    rule: rules.Rule, rows: Any, value_type: tff.Type, **state: Any
) -> Any:
  """Aggregate, `[d]`, and measurements of gathered rows, see `map_rows`."""
  specs = tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type))
  update, measurements = rule.aggregate(
      rows['update'],
      rows['is_finite'],
      TENSORFLOW,
      is_empty=rows['is_empty'],
      shapes=[spec.shape.as_list() for spec in specs],
      **state,
  )
  update = tf.ensure_shape(update, rows['update'].shape[1:])
  return update, _report(measurements)


def _create_rule_process(rule, value_type, weight_type):
  flat_updates.check_float_value_type(value_type)
  specs = tff.types.type_to_tf_tensor_specs(value_type)
  dimension = flat_updates.num_coordinates(value_type)

  @tff.tensorflow.computation
  def initial_state():
    state = collections.OrderedDict()
    if rule.is_random:
      state['round_num'] = tf.constant(0, tf.int64)
    if rule.remembers:
      state['reference'] = tf.zeros([dimension])
    return state

  def next_fn(state, value, *weight):
    table = row_gather.federated_gather(map_rows(value, weight))

    @tff.tensorflow.computation(
        state.type_signature.member, table.type_signature.member
    )
    def apply(state, rows):
      update, measurements = apply_rule(rule, rows, value_type, **state)
      if rule.is_random:
        state['round_num'] += 1
      if rule.remembers:
        some = tf.reduce_any(~rows['is_empty'])
        state['reference'] = tf.where(some, update, state['reference'])
      return state, flat_updates.unflatten(update, specs), measurements

    return tff.templates.MeasuredProcessOutput(
        *tff.federated_map(apply, (state, table))
    )

  @tff.federated_computation
  def initialize():
    return tff.federated_eval(initial_state, tff.SERVER)

  return _create_process(initialize, next_fn, value_type, weight_type)


def map_rows(value, weight, **extra):
  """A row of each client: update, is_finite, is_empty, and what is extra.

  Args:
    value: The updates, at the clients.
    weight: A list of their weights, or an empty one if there are none.
    **extra: Functions of the flat update.
  """

  @tff.tensorflow.computation(
      [v.type_signature.member for v in (value, *weight)]
  )
  def to_row(arguments):
    value, *weight = arguments
    flat = flat_updates.flatten(value)
    row = collections.OrderedDict(
        update=flat,
        is_finite=flat_updates.is_finite_update(flat),
        is_empty=flat_updates.is_empty_update(weight[0] if weight else 1.0),
    )
    row.update((name, function(flat)) for name, function in extra.items())
    return row

  return tff.federated_map(to_row, tff.federated_zip((value, *weight)))


def _create_process(initialize, next_fn, value_type, weight_type):
  """A process of `next_fn(state, value, *weight)`."""
  unplaced = [value_type] if weight_type is None else [value_type, weight_type]
  types = [tff.FederatedType(t, tff.CLIENTS) for t in unplaced]
  state_type = initialize.type_signature.result
  if weight_type is None:

    @tff.federated_computation(state_type, *types)
    def next_computation(state, value):
      return next_fn(state, value)

  else:

    @tff.federated_computation(state_type, *types)
    def next_computation(state, value, weight):
      return next_fn(state, value, weight)

  return tff.templates.AggregationProcess(initialize, next_computation)


def _report(measurements: Mapping[str, Any]) -> 'collections.OrderedDict':
  """Measurements in the order and the dtypes in which they are reported."""
  result = collections.OrderedDict()
  for name, value in measurements.items():
    if isinstance(value, Mapping):
      result[name] = _report(value)
      continue
    value = tf.convert_to_tensor(value)
    if value.dtype.is_floating:
      value = tf.cast(value, tf.float32)
    elif value.dtype.is_integer:
      value = tf.cast(value, tf.int32)
    result[name] = value
  return result


class _MixedProcess:
  """A wrapper before a process on values at clients.

  The updates are gathered and mixed, and the mixed table is broadcast, of which
  each client takes its own row, found by a fingerprint of its update.
  """

  def __init__(
      self,
      mixing: rule_lib.Mixing,
      inner: tff.aggregators.AggregationFactory,
      *types: tff.Type,
  ):
    self._value_type = types[0]
    flat_updates.check_float_value_type(self._value_type)
    self._mixing = mixing
    self._inner = inner.create(*types)
    # Clients that knew it could make two updates with one fingerprint.
    self._seed = checks.check_seed(None)

  @property
  def initialize(self) -> tff.Computation:
    """The inner initial state, with `round_num` for random wrappers."""
    if not self._mixing.is_random:
      return self._inner.initialize
    inner = self._inner.initialize

    @tff.federated_computation
    def initialize():
      return tff.federated_zip(
          collections.OrderedDict(
              round_num=tff.federated_value(np.int64(0), tff.SERVER),
              inner=inner(),
          )
      )

    return initialize

  def next(self, state, value, *weight):
    """Mixes, then runs the inner process; for use in a computation."""
    if not self._mixing.is_random:
      mixed, measurements = self._mix(value, weight, None)
      output = self._inner.next(state, mixed, *weight)
      new_state = output.state
    else:
      mixed, measurements = self._mix(value, weight, state['round_num'])
      output = self._inner.next(state['inner'], mixed, *weight)
      count = tff.tensorflow.computation(lambda n: n + 1, np.int64)
      new_state = tff.federated_zip(
          collections.OrderedDict(
              round_num=tff.federated_map(count, state['round_num']),
              inner=output.state,
          )
      )

    @tff.tensorflow.computation(
        measurements.type_signature.member,
        output.measurements.type_signature.member,
    )
    def add_inner(measurements, inner):
      return collections.OrderedDict(measurements, inner=inner)

    return tff.templates.MeasuredProcessOutput(
        new_state,
        output.result,
        tff.federated_map(add_inner, (measurements, output.measurements)),
    )

  def _mix(self, value, weight, round_num):
    """Returns the mixed updates at clients and measurements at the server."""
    specs = tff.types.type_to_tf_tensor_specs(self._value_type)

    def fingerprint(flat):
      return summaries.fingerprint(flat, tf.constant([self._seed, 0], tf.int64))

    rows = map_rows(value, weight, fingerprint=fingerprint)
    fingerprints = rows['fingerprint']
    rows = row_gather.federated_gather(rows)
    if round_num is None:
      round_num = tff.federated_value(np.int64(0), tff.SERVER)

    @tff.tensorflow.computation(rows.type_signature.member, np.int64)
    def mix_rows(rows, round_num):
      return self._mix_table(rows, round_num)

    table, measurements = tff.federated_map(mix_rows, (rows, round_num))

    @tff.tensorflow.computation(np.int64, table.type_signature.member)
    def take_row(own_fingerprint, table):
      is_own = tf.equal(table['fingerprint'], own_fingerprint)
      # Of equal updates any row will do. The last one is for those that are not
      # finite.
      row = tf.argmax(tf.concat([is_own, [True]], axis=0))
      return flat_updates.unflatten(table['mixed'][row], specs)

    mixed = tff.federated_map(
        take_row, (fingerprints, tff.federated_broadcast(table))
    )
    return mixed, measurements

  def _mix_table(self, rows, round_num):
    """The rows that clients take, and measurements."""
    cohort = cohort_lib.Cohort(
        rows['update'],
        rows['is_finite'],
        TENSORFLOW,
        is_empty=rows['is_empty'],
        round_num=round_num,
    )
    matrix, measurements = self._mixing.matrix(cohort)
    measurements.update(cohort.counts())
    # A client takes its own row or else, as of buckets, one that it is part of.
    part_of = tf.cast(matrix > 0, tf.float64)
    own = tf.eye(tf.shape(matrix)[0], tf.shape(matrix)[1], dtype=tf.float64)
    by_client = tf.gather(matrix, tf.argmax(part_of * (1 + own), axis=0))
    mean = tf.reduce_mean(by_client, axis=0, keepdims=True)
    factors = tf.cast(tf.concat([by_client, mean], axis=0), tf.float32)
    table = collections.OrderedDict(
        mixed=tf.matmul(factors, cohort.block(0, cohort.dimension)),
        fingerprint=cohort.clients_of(rows['fingerprint']),
    )
    return table, _report(measurements)


class _MixedFactory(tff.aggregators.WeightedAggregationFactory):
  """A wrapper around a weighted factory."""

  def __init__(self, mixing, inner):
    self._mixing = mixing
    self._inner = inner

  def create(self, value_type, weight_type):
    process = _MixedProcess(self._mixing, self._inner, value_type, weight_type)
    return _create_process(
        process.initialize, process.next, value_type, weight_type
    )


class _UnweightedMixedFactory(tff.aggregators.UnweightedAggregationFactory):
  """A wrapper around an unweighted factory."""

  def __init__(self, mixing, inner):
    self._mixing = mixing
    self._inner = inner

  def create(self, value_type):
    process = _MixedProcess(self._mixing, self._inner, value_type)
    return _create_process(process.initialize, process.next, value_type, None)


def factory_of(make: Callable[..., rules.Rule]) -> Callable[..., RuleFactory]:
  """The function that makes a `RuleFactory` where `make` makes a rule."""

  @functools.wraps(make)
  def create(*arguments, **options):
    return RuleFactory(make(*arguments, **options))

  return create


def wrapped_factory_of(
    make: Callable[..., rules.Rule],
) -> Callable[..., tff.aggregators.AggregationFactory]:
  """The function that wraps factories where `make` wraps rules.

  Around a rule's factory the result is one, for the wrapped rule. Around any
  other, weighted or not, so is the result: the updates are gathered and mixed
  before the inner process gets them, a second and a third table at the server;
  a client whose update is left out gets the mean of the mixed ones, and keeps
  its weight. The state is the inner one, for random wrappers an OrderedDict of
  `round_num` and `inner`; the measurements are the wrapper's and `inner`.
  `num_byzantine` must then be given.
  """

  @functools.wraps(make)
  def create(inner, *arguments, **options):
    if isinstance(inner, (RuleFactory, UnweightedRuleFactory)):
      return type(inner)(make(inner.rule, *arguments, **options))
    if isinstance(inner, tff.aggregators.WeightedAggregationFactory):
      return _MixedFactory(make.mixing(*arguments, **options), inner)
    if isinstance(inner, tff.aggregators.UnweightedAggregationFactory):
      return _UnweightedMixedFactory(make.mixing(*arguments, **options), inner)
    raise TypeError(
        'inner must be a tff.aggregators.AggregationFactory; found'
        f' {inner!r}.'
    )

  return create


# `krum_factory` and so on. Rules that need the server's own update are in
# `holdout_rules`.
for _name, _make in registry.FACTORIES.items():
  if _make in rules.WRAPPERS.values():
    globals()[_name] = wrapped_factory_of(_make)
  elif not _make.needs_root:
    globals()[_name] = factory_of(_make)
