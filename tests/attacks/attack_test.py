"""Poisoned updates pass between the clients' work and the aggregator."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import alie
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import fang
from fedaot_tff.attacks import gaussian_noise
from fedaot_tff.attacks import ipm
from fedaot_tff.attacks import mimic
from fedaot_tff.attacks import min_max
from fedaot_tff.attacks import min_sum
from fedaot_tff.attacks import model_replacement
from fedaot_tff.attacks import random_nan_inf
from fedaot_tff.attacks import reference_mimic
from fedaot_tff.attacks import scaling
from fedaot_tff.attacks import sign_flip
from fedaot_tff.attacks import zero
from tests import small_problem

_HONEST = attack.HONEST

_NESTED = tff.to_type(
    collections.OrderedDict(
        dense=(
            tff.TensorType(np.float32, [2]),
            tff.TensorType(np.float64, [1]),
        ),
        scale=tff.TensorType(np.float16, []),
    )
)


def _value(seed):
  rng = np.random.default_rng(seed)
  return collections.OrderedDict(
      dense=(rng.normal(size=[2]).astype(np.float32), rng.normal(size=[1])),
      scale=np.float16(rng.normal()),
  )


def _vector_type(length):
  return tff.TensorType(np.float32, [length])


def _next(process, state, updates, index, model=None):
  """A round with an attack that does not know the defence."""
  if model is None:
    model = tf.nest.map_structure(np.zeros_like, updates[0])
  index = [np.int32(i) for i in index]
  return process.next(state, updates, index, model, ())


class _OwnUpdate(attack.OwnUpdatePoisoning):
  """Sends what a function makes of update and attacker."""

  def __init__(self, poison_fn):
    self._poison_fn = poison_fn

  def poison(self, update, attacker):
    return self._poison_fn(update, attacker)


class _Collusive(attack.CollusivePoisoning):
  """Sends what a function makes of the knowledge."""

  def __init__(self, agree_fn, *, sees_table=False):
    self._agree_fn = agree_fn
    self.sees_table = sees_table

  def agree(self, knowledge, state):
    return self._agree_fn(knowledge), state


def _fingerprint(seed):
  return tf.random.stateless_uniform([], seed)


# --- Attackers who know their own update -------------------------------------


def test_poisons_attackers_only_in_nested_structures_of_mixed_dtypes():
  process = _OwnUpdate(lambda update, _: 1 - 2 * update).create(_NESTED)
  honest = _value(1)
  honest['dense'][0][:] = [np.nan, -0.0]
  updates = [_value(0), honest, _value(2)]
  output = _next(process, process.initialize(), updates, [0, _HONEST, 1])
  small_problem.assert_bit_identical(output.result[1], honest)
  for i in (0, 2):
    for found, clean in zip(
        tf.nest.flatten(output.result[i]), tf.nest.flatten(updates[i])
    ):
      assert found.dtype == clean.dtype
      np.testing.assert_allclose(found, 1 - 2 * clean, rtol=2e-3, atol=2e-3)
  assert tff.structure.flatten(output.measurements) == []


def test_an_attack_on_the_attackers_alone_cannot_fail_honest_clients():

  def fail(update, attacker):
    del attacker
    with tf.control_dependencies([tf.debugging.Assert(False, ['attacker'])]):
      return tf.identity(update)

  process = _OwnUpdate(fail).create(_NESTED)
  output = _next(process, process.initialize(), [_value(0)], [_HONEST])
  small_problem.assert_bit_identical(output.result[0], _value(0))


def _reveal_attackers(seed):
  """What two attackers see in each of two rounds: [2, 2, 5]."""

  def reveal(update, attacker):
    del update
    fields = (
        attacker.index,
        attacker.round_num,
        attacker.num_attackers,
        attacker.num_clients,
        _fingerprint(attacker.seed),
    )
    return tf.stack([tf.cast(field, tf.float32) for field in fields])

  process = _OwnUpdate(reveal).create(
      _vector_type(5), attack.Context(seed=seed)
  )
  state, rounds = process.initialize(), []
  for _ in range(2):
    output = _next(
        process, state, [np.zeros(5, np.float32)] * 3, [7, _HONEST, 3]
    )
    state = output.state
    rounds.append([output.result[0], output.result[2]])
  assert state == 2
  return np.array(rounds)


def test_attackers_know_who_they_are_and_have_seeds_of_their_own():
  first, again, other, large = map(_reveal_attackers, (5, 5, 6, 2**62 + 5))
  expected = [[[7, 1], [3, 1]], [[7, 2], [3, 2]]]
  np.testing.assert_array_equal(first[:, :, :2], expected)
  np.testing.assert_array_equal(first[:, :, 2:4], np.full([2, 2, 2], [2, 3]))
  np.testing.assert_array_equal(first, again)
  fingerprints = np.stack([first, other, large])[..., 4]
  assert len(np.unique(fingerprints)) == fingerprints.size


def test_refuses_poison_of_another_size_than_the_update():
  double = _OwnUpdate(lambda update, _: tf.concat([update, update], axis=0))
  with pytest.raises(ValueError):
    double.create(_vector_type(2))
  agree_on_three = _Collusive(lambda _: tf.zeros([3]))
  with pytest.raises(ValueError):
    agree_on_three.create(_vector_type(2))


# --- Attackers who know the honest updates -----------------------------------


def _reveal_moments(knowledge):
  return tf.concat(
      [
          knowledge.honest.mean[:2],
          knowledge.honest.stddev[:2],
          [tf.cast(knowledge.num_honest, tf.float32)],
      ],
      axis=0,
  )


def _reveal_table(knowledge):
  mean = tf.reduce_mean(knowledge.honest, axis=0)
  stddev = tf.math.reduce_std(knowledge.honest, axis=0)
  moments = attack.HonestMoments(mean, stddev)
  return _reveal_moments(knowledge._replace(honest=moments))


# The first honest clients, two that are not finite, and one more.
_OFFSET = 4096.0
_CLIENTS = np.zeros([7, 5], np.float32)
_CLIENTS[0, :2] = [_OFFSET + 0.25, -1]
_CLIENTS[1, :2] = [np.nan, 0]
_CLIENTS[2, :2] = [_OFFSET - 0.25, 2]
_CLIENTS[3, 4] = 1e20
_CLIENTS[4, :2] = [_OFFSET, -1]
_INDEX = [_HONEST] * 5 + [0, 1]


@pytest.mark.parametrize(
    'attackers', [[0.0, 0.0], [1e6, np.nan]], ids=['zero', 'large']
)
@pytest.mark.parametrize(
    'poisoning',
    [
        _Collusive(_reveal_moments),
        _Collusive(_reveal_table, sees_table=True),
    ],
    ids=['moments', 'table'],
)
def test_knows_finite_honest_updates_of_the_round_and_no_others(
    poisoning, attackers
):
  process = poisoning.create(_vector_type(5))
  clients = _CLIENTS.copy()
  clients[5:] = np.array(attackers)[:, np.newaxis]
  # What was sent in the first round must not count in the second.
  state = _next(
      process,
      process.initialize(),
      [np.full([5], 7.0, np.float32)] * 2,
      [_HONEST, 0],
  ).state
  output = _next(process, state, list(clients), _INDEX)
  spread = np.sqrt(0.125 / 3)
  for i in (5, 6):
    np.testing.assert_allclose(
        output.result[i], [_OFFSET, 0, spread, np.sqrt(2), 3], rtol=1e-6
    )
  small_problem.assert_bit_identical(output.result[:5], list(_CLIENTS[:5]))


def test_moments_without_honest_clients_are_zero():
  process = _Collusive(_reveal_moments).create(_vector_type(5))
  output = _next(process, process.initialize(), [np.ones(5, np.float32)], [0])
  np.testing.assert_array_equal(output.result[0], np.zeros(5))


def _reveal_round(knowledge):
  return tf.concat(
      [
          [tf.cast(knowledge.round_num, tf.float32)],
          [tf.cast(knowledge.num_attackers, tf.float32)],
          [_fingerprint(knowledge.seed)],
          knowledge.model[3:],
      ],
      axis=0,
  )


@pytest.mark.parametrize('sees_table', [False, True])
def test_knows_round_model_and_a_seed(sees_table):
  poisoning = _Collusive(_reveal_round, sees_table=sees_table)
  sent = []
  for seed in (1, 2):
    process = poisoning.create(_vector_type(5), attack.Context(seed=seed))
    state = process.initialize()
    for _ in range(2):
      output = _next(
          process,
          state,
          list(_CLIENTS),
          _INDEX,
          model=np.arange(5, dtype=np.float32),
      )
      state = output.state
      np.testing.assert_array_equal(output.result[5], output.result[6])
      sent.append(output.result[5])
  np.testing.assert_array_equal(
      np.delete(sent, 2, axis=1), [[1, 2, 3, 4], [2, 2, 3, 4]] * 2
  )
  assert len(np.unique(np.array(sent)[:, 2])) == 4


class _Remember(attack.CollusivePoisoning):
  """Sums honest means over rounds; each attacker adds its fingerprint."""

  def initial_state(self, num_coordinates):
    return collections.OrderedDict(total=tf.zeros([num_coordinates]))

  def agree(self, knowledge, state):
    total = state['total'] + knowledge.honest.mean
    return total, collections.OrderedDict(total=total)

  def send(self, vector, attacker):
    return vector + _fingerprint(attacker.seed)


def test_remembers_and_sends_apart():
  process = _Remember().create(_vector_type(2))
  updates = [np.array(u, np.float32) for u in ([1, 2], [0, 0], [0, 0])]
  state = process.initialize()
  for i in range(1, 3):
    output = _next(process, state, updates, [_HONEST, 0, 1])
    state = output.state
    assert state[0] == i
    np.testing.assert_array_equal(state[1]['total'], [i, 2 * i])
    np.testing.assert_array_equal(output.result[0], [1, 2])
    noise = np.array(output.result[1:]) - [i, 2 * i]
    assert np.all((noise > 0) & (noise < 1))
    assert noise[0, 0] != noise[1, 0]
    np.testing.assert_allclose(noise[:, 0], noise[:, 1], atol=1e-6)


def test_takes_the_state_of_the_defence_it_is_made_for():
  defence = attack.Defence(tff.TensorType(np.int32), lambda *args: args[1])
  for poisoning in (sign_flip.SignFlip(), ipm.Ipm()):
    process = poisoning.create(
        _vector_type(2), attack.Context(defence=defence)
    )
    last = process.next.type_signature.parameter[4]
    assert last == tff.FederatedType(np.int32, tff.SERVER)


# --- All of them -------------------------------------------------------------


@pytest.mark.parametrize(
    'poisoning',
    [
        alie.Alie(),
        fang.FangKrum(),
        fang.FangTrimmedMean(),
        gaussian_noise.GaussianNoise(),
        gaussian_noise.GaussianNoise(stddev=1.0),
        ipm.Ipm(),
        mimic.Mimic(),
        mimic.Mimic(target='first'),
        min_max.MinMax(direction='stddev'),
        min_sum.MinSum(),
        model_replacement.ModelReplacement(),
        random_nan_inf.RandomNanInf(),
        reference_mimic.ReferenceMimic(),
        scaling.Scaling(),
        sign_flip.SignFlip(),
        zero.Zero(),
    ],
    ids=lambda poisoning: type(poisoning).__name__,
)
def test_poisons_rounds_with_and_without_honest_clients(poisoning):
  process = poisoning.create(_NESTED, attack.Context(seed=3))
  updates = [_value(i) for i in range(5)]
  state = process.initialize()
  for i, index in enumerate(
      ([_HONEST, 1, _HONEST, 0, _HONEST], [1, 0, 2, 3, 4])
  ):
    output = _next(process, state, updates, index, model=_value(10 + i))
    state = output.state
    for j, (found, clean) in enumerate(zip(output.result, updates)):
      if index[j] == _HONEST:
        small_problem.assert_bit_identical(found, clean)
        continue
      for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(clean)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
      assert any(
          np.any(a != b)
          for a, b in zip(tf.nest.flatten(found), tf.nest.flatten(clean))
      )
      if not isinstance(poisoning, random_nan_inf.RandomNanInf):
        assert all(np.all(np.isfinite(a)) for a in tf.nest.flatten(found))


# --- The type of an adversary ------------------------------------------------

_VALUES = tff.FederatedType(tff.TensorType(np.float32, [2]), tff.CLIENTS)
_MODEL = tff.FederatedType(tff.TensorType(np.float32, [2]), tff.SERVER)
_INDICES = tff.FederatedType(np.int32, tff.CLIENTS)


@tff.federated_computation
def _no_state():
  return tff.federated_value((), tff.SERVER)


_STATE = _no_state.type_signature.result


def _output(state, result):
  return tff.templates.MeasuredProcessOutput(
      state, result, tff.federated_value((), tff.SERVER)
  )


@tff.federated_computation(_STATE, _VALUES, _INDICES, _MODEL, _STATE)
def _good_next(state, update, index, model, defence_state):
  del index, model, defence_state
  return _output(state, update)


@tff.federated_computation(_STATE, _VALUES, _INDICES)
def _next_without_model(state, update, index):
  del index
  return _output(state, update)


@tff.federated_computation(
    _STATE,
    _VALUES,
    tff.FederatedType(np.bool_, tff.CLIENTS),
    _MODEL,
    _STATE,
)
def _next_with_flags(state, update, index, model, defence_state):
  del index, model, defence_state
  return _output(state, update)


@tff.federated_computation(
    _STATE,
    _VALUES,
    tff.FederatedType(np.int32, tff.SERVER),
    _MODEL,
    _STATE,
)
def _next_with_index_at_the_server(state, update, index, model, defence_state):
  del index, model, defence_state
  return _output(state, update)


@tff.federated_computation(_STATE, _VALUES, _INDICES, _MODEL, _STATE)
def _next_with_sum(state, update, index, model, defence_state):
  del index, model, defence_state
  return _output(state, tff.federated_sum(update))


@tff.federated_computation(_STATE, _VALUES, _INDICES, _MODEL, _STATE)
def _next_with_index_as_result(state, update, index, model, defence_state):
  del update, model, defence_state
  return _output(state, index)


def test_accepts_an_adversary_of_the_right_type():
  process = attack.AdversaryProcess(_no_state, _good_next)
  assert process.next is _good_next


@pytest.mark.parametrize(
    'next_fn, message',
    [
        (_next_without_model, 'must take state, updates, attacker indices'),
        (_next_with_flags, 'third argument'),
        (_next_with_index_at_the_server, 'third argument'),
        (_next_with_sum, 'must be of its updates type'),
        (_next_with_index_as_result, 'must be of its updates type'),
    ],
)
def test_refuses_an_adversary_of_a_wrong_type(next_fn, message):
  with pytest.raises(TypeError, match=message) as info:
    attack.AdversaryProcess(_no_state, next_fn)
  assert '\n' not in str(info.value)
