"""What attackers know, and the type of an adversary."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from tests import small_problem

_HONEST = attack.HONEST


def _vector_type(length):
  return tff.TensorType(np.float32, [length])


def _next(process, state, updates, index, model=None):
  """A round with an attack that does not know the defence."""
  if model is None:
    model = np.zeros_like(updates[0])
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


def test_an_attack_on_the_attackers_alone_cannot_fail_honest_clients():

  def fail(update, attacker):
    del attacker
    with tf.control_dependencies([tf.debugging.Assert(False, ['attacker'])]):
      return tf.identity(update)

  process = _OwnUpdate(fail).create(_vector_type(2))
  update = np.array([1, 2], np.float32)
  output = _next(process, process.initialize(), [update], [_HONEST])
  small_problem.assert_bit_identical(output.result[0], update)


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
  return np.array(rounds)


def test_attackers_know_who_they_are_and_have_seeds_of_their_own():
  first, other, large = map(_reveal_attackers, (5, 6, 2**62 + 5))
  expected = [[[7, 1], [3, 1]], [[7, 2], [3, 2]]]
  np.testing.assert_array_equal(first[:, :, :2], expected)
  np.testing.assert_array_equal(first[:, :, 2:4], np.full([2, 2, 2], [2, 3]))
  fingerprints = np.stack([first, other, large])[..., 4]
  assert len(np.unique(fingerprints)) == fingerprints.size


@pytest.mark.parametrize(
    'poisoning',
    [
        _OwnUpdate(lambda update, _: tf.concat([update, update], axis=0)),
        _Collusive(lambda _: tf.zeros([3])),
    ],
)
def test_refuses_poison_of_another_size_than_the_update(poisoning):
  with pytest.raises(ValueError):
    poisoning.create(_vector_type(2))


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
    noise = np.array(output.result[1:]) - [i, 2 * i]
    assert np.all((noise > 0) & (noise < 1))
    assert noise[0, 0] != noise[1, 0]
    np.testing.assert_allclose(noise[:, 0], noise[:, 1], atol=1e-6)


# --- The type of an adversary ------------------------------------------------

_VALUES = tff.FederatedType(tff.TensorType(np.float32, [2]), tff.CLIENTS)
_MODEL = tff.FederatedType(tff.TensorType(np.float32, [2]), tff.SERVER)
_INDICES = tff.FederatedType(np.int32, tff.CLIENTS)


@tff.federated_computation
def _no_state():
  return tff.federated_value((), tff.SERVER)


_STATE = _no_state.type_signature.result


def _make_next(*parameters, result=lambda update, index: update):
  """A `next` of these parameters besides the state."""

  @tff.federated_computation([_STATE, *parameters])
  def next_fn(arguments):
    return tff.templates.MeasuredProcessOutput(
        arguments[0],
        result(*arguments[1:3]),
        tff.federated_value((), tff.SERVER),
    )

  return next_fn


def test_accepts_an_adversary_of_the_right_type():
  next_fn = _make_next(_VALUES, _INDICES, _MODEL, _STATE)
  process = attack.AdversaryProcess(_no_state, next_fn)
  assert process.next is next_fn
  assert not process.knows_defence


@pytest.mark.parametrize(
    'parameters, result',
    [
        ((_VALUES, _INDICES), lambda update, index: update),
        (
            (_VALUES, tff.FederatedType(np.bool_, tff.CLIENTS), _MODEL, _STATE),
            lambda update, index: update,
        ),
        (
            (_VALUES, tff.FederatedType(np.int32, tff.SERVER), _MODEL, _STATE),
            lambda update, index: update,
        ),
        (
            (_VALUES, _INDICES, _MODEL, _STATE),
            lambda update, index: tff.federated_sum(update),
        ),
        ((_VALUES, _INDICES, _MODEL, _STATE), lambda update, index: index),
    ],
    ids=['no_model', 'flags', 'index_at_server', 'sum', 'index_as_result'],
)
def test_refuses_an_adversary_of_a_wrong_type(parameters, result):
  with pytest.raises(TypeError, match='must take state, updates') as info:
    attack.AdversaryProcess(_no_state, _make_next(*parameters, result=result))
  assert '\n' not in str(info.value)
