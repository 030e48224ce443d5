"""Poisoned updates pass between the clients' work and the aggregator."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from tests import small_problem

_NESTED = tff.to_type(
    collections.OrderedDict(
        dense=(
            tff.TensorType(np.float32, [2, 2]),
            tff.TensorType(np.float64, [3]),
        ),
        scale=tff.TensorType(np.float16, []),
    )
)


def _value(seed):
  rng = np.random.default_rng(seed)
  return collections.OrderedDict(
      dense=(
          rng.normal(size=[2, 2]).astype(np.float32),
          rng.normal(size=[3]),
      ),
      scale=np.float16(rng.normal()),
  )


def test_poisons_attackers_only_in_nested_structures_of_mixed_dtypes():
  process = attack.OwnUpdatePoisoning(
      lambda update: tf.nest.map_structure(lambda t: 1 - 2 * t, update)
  ).create(_NESTED)
  honest = _value(1)
  honest['dense'][0][0] = [np.nan, -0.0]
  updates = [_value(0), honest, _value(2)]
  output = process.next(process.initialize(), updates, [True, False, True])
  small_problem.assert_bit_identical(output.result[1], honest)
  for i in (0, 2):
    poisoned = tf.nest.map_structure(
        lambda t: (1 - 2 * t).astype(t.dtype), updates[i]
    )
    small_problem.assert_bit_identical(output.result[i], poisoned)
  assert tff.structure.flatten(output.measurements) == []


def test_an_attack_on_the_attackers_alone_cannot_fail_honest_clients():

  def fail(update):
    with tf.control_dependencies([tf.debugging.Assert(False, ['attacker'])]):
      return tf.nest.map_structure(tf.identity, update)

  process = attack.OwnUpdatePoisoning(fail).create(_NESTED)
  output = process.next(process.initialize(), [_value(0)], [False])
  small_problem.assert_bit_identical(output.result[0], _value(0))


# --- The type of an adversary ------------------------------------------------

_VALUES = tff.FederatedType(tff.TensorType(np.float32, [2]), tff.CLIENTS)
_FLAGS = tff.FederatedType(np.bool_, tff.CLIENTS)


@tff.federated_computation
def _no_state():
  return tff.federated_value((), tff.SERVER)


_STATE = _no_state.type_signature.result


def _output(state, result):
  return tff.templates.MeasuredProcessOutput(
      state, result, tff.federated_value((), tff.SERVER)
  )


@tff.federated_computation(_STATE, _VALUES, _FLAGS)
def _good_next(state, update, is_byzantine):
  del is_byzantine
  return _output(state, update)


@tff.federated_computation(_STATE, _VALUES)
def _next_without_flags(state, update):
  return _output(state, update)


@tff.federated_computation(
    _STATE, _VALUES, tff.FederatedType(np.int32, tff.CLIENTS)
)
def _next_with_int_flags(state, update, is_byzantine):
  del is_byzantine
  return _output(state, update)


@tff.federated_computation(
    _STATE, _VALUES, tff.FederatedType(np.bool_, tff.SERVER)
)
def _next_with_flags_at_the_server(state, update, is_byzantine):
  del is_byzantine
  return _output(state, update)


@tff.federated_computation(_STATE, _VALUES, _FLAGS)
def _next_with_sum(state, update, is_byzantine):
  del is_byzantine
  return _output(state, tff.federated_sum(update))


@tff.federated_computation(_STATE, _VALUES, _FLAGS)
def _next_with_flags_as_result(state, update, is_byzantine):
  del update
  return _output(state, is_byzantine)


def test_accepts_an_adversary_of_the_right_type():
  process = attack.AdversaryProcess(_no_state, _good_next)
  assert process.next is _good_next


@pytest.mark.parametrize(
    'next_fn, message',
    [
        (_next_without_flags, 'must take state, updates and attacker flags'),
        (_next_with_int_flags, 'third argument'),
        (_next_with_flags_at_the_server, 'third argument'),
        (_next_with_sum, 'must be of its updates type'),
        (_next_with_flags_as_result, 'must be of its updates type'),
    ],
)
def test_refuses_an_adversary_of_a_wrong_type(next_fn, message):
  with pytest.raises(TypeError, match=message) as info:
    attack.AdversaryProcess(_no_state, next_fn)
  assert '\n' not in str(info.value)


def test_refuses_poison_of_another_type_than_the_update():

  def to_float32(update):
    return tf.nest.map_structure(lambda t: tf.cast(t, tf.float32), update)

  with pytest.raises(TypeError, match='dtype'):
    attack.OwnUpdatePoisoning(to_float32).create(_NESTED)

  def double(update):
    return tf.concat([update, update], axis=0)

  with pytest.raises(TypeError, match='must be of its updates type'):
    attack.OwnUpdatePoisoning(double).create(_VALUES.member)
