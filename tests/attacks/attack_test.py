"""What attackers know, and the type of an adversary."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors
from fedaot_tff.learning import adversary

_HONEST = adversary.HONEST
_TYPE = tff.TensorType(np.float32, [5])


class _OwnUpdate(attack.OwnUpdatePoisoning):
  """Sends what a function makes of update and attacker."""

  def __init__(self, poison_fn):
    self._poison_fn = poison_fn

  def poison(self, update, attacker):
    return self._poison_fn(update, attacker)


class _Collusive(attack.CollusivePoisoning):
  """Sends what a function makes of the knowledge; remembers the sum."""

  def __init__(self, agree_fn, *, sees_table=False):
    self._agree_fn = agree_fn
    self.sees_table = sees_table

  def initial_state(self, num_coordinates):
    return collections.OrderedDict(total=tf.zeros([num_coordinates]))

  def agree(self, knowledge, state):
    vector = self._agree_fn(knowledge)
    return vector, collections.OrderedDict(total=state['total'] + vector)


def _run(poisoning, rounds, index, seed=0):
  """Outputs of rounds of updates [N, 5], whose model is 0, 1, 2, 3, 4."""
  process = poisoning.create(_TYPE, adversary.Context(seed=seed))
  outputs, state = [], process.initialize()
  for updates in rounds:
    outputs.append(
        process.next(
            state,
            list(np.float32(updates)),
            [np.int32(i) for i in index],
            np.arange(5, dtype=np.float32),
            (),
        )
    )
    state = outputs[-1].state
  return outputs


def _stack(*values):
  return tf.stack([tf.cast(value, tf.float32) for value in values])


def _fingerprint(seed):
  return tf.random.stateless_uniform([], seed)


def test_an_attack_on_the_attackers_alone_cannot_fail_honest_clients():

  def fail(update, attacker):
    del attacker
    with tf.control_dependencies([tf.debugging.Assert(False, ['attacker'])]):
      return tf.identity(update)

  (output,) = _run(_OwnUpdate(fail), [np.ones([1, 5])], [_HONEST])
  np.testing.assert_array_equal(output.result[0], np.ones(5))


def test_attackers_know_who_they_are_and_have_seeds_of_their_own():

  def reveal(update, attacker):
    del update
    return _stack(
        attacker.index,
        attacker.round_num,
        attacker.num_attackers,
        attacker.num_clients,
        _fingerprint(attacker.seed),
    )

  sent = np.array(
      [
          [output.result[0], output.result[2]]
          for seed in (5, 6, 2**62 + 5)
          for output in _run(
              _OwnUpdate(reveal), np.zeros([2, 3, 5]), [7, _HONEST, 3], seed
          )
      ]
  )
  expected = [[[7, 1, 2, 3], [3, 1, 2, 3]], [[7, 2, 2, 3], [3, 2, 2, 3]]] * 3
  np.testing.assert_array_equal(sent[..., :4], expected)
  assert len(np.unique(sent[..., 4])) == 12


@pytest.mark.parametrize(
    'poisoning',
    [
        _OwnUpdate(lambda update, _: tf.concat([update, update], axis=0)),
        _Collusive(lambda _: tf.zeros([5, 1])),
    ],
)
def test_refuses_poison_of_another_shape_than_the_update(poisoning):
  with pytest.raises(ValueError):
    poisoning.create(_TYPE)


# --- Attackers who know the honest updates -----------------------------------


def _reveal_honest(knowledge):
  moments = knowledge.honest
  if not isinstance(moments, attack.HonestMoments):
    moments = vectors.moments(moments)
  return tf.concat(
      [moments.mean[:2], moments.stddev[:2], _stack(knowledge.num_honest)],
      axis=0,
  )


# The first honest clients, two that are not finite, and one more.
_OFFSET = 4096.0
_CLIENTS = np.zeros([7, 5], np.float32)
_CLIENTS[0, :2] = [_OFFSET + 0.25, -1]
_CLIENTS[1, :2] = [np.nan, 0]
_CLIENTS[2, :2] = [_OFFSET - 0.25, 2]
_CLIENTS[3, 4] = 1e20
_CLIENTS[4, :2] = [_OFFSET, -1]
_INDEX = [_HONEST] * 5 + [0, 1]


@pytest.mark.parametrize('attackers', [[0.0, 0.0], [1e6, np.nan]])
@pytest.mark.parametrize('sees_table', [False, True])
def test_knows_finite_honest_updates_of_the_round_and_no_others(
    sees_table, attackers
):
  clients = _CLIENTS.copy()
  clients[5:] = np.array(attackers)[:, np.newaxis]
  # What was sent in the first round must not count in the second.
  _, output = _run(
      _Collusive(_reveal_honest, sees_table=sees_table),
      [np.full([7, 5], 7.0), clients],
      _INDEX,
  )
  spread = np.sqrt(0.125 / 3)
  for i in (5, 6):
    np.testing.assert_allclose(
        output.result[i], [_OFFSET, 0, spread, np.sqrt(2), 3], rtol=1e-6
    )


@pytest.mark.parametrize('offset', [2.0**20, -(2.0**30), 2.0**36])
@pytest.mark.parametrize('sees_table', [False, True])
def test_moments_beside_a_large_offset(sees_table, offset):
  """Steps of what float32 can hold there, on which a spread of 1e-7 rests."""
  step = abs(offset) * 2.0**-23
  clients = np.zeros([5, 5])
  clients[:, :2] = offset + step * np.outer([0, 3, 5, 1e4, 1e9], [1, -1])
  (output,) = _run(
      _Collusive(_reveal_honest, sees_table=sees_table),
      [clients],
      [_HONEST] * 3 + [0, 1],
  )
  mean = offset + 8 / 3 * step * np.array([1, -1])
  spread = step * np.sqrt(38) / 3
  found = output.result[3]
  np.testing.assert_allclose(found[:2], mean, rtol=1e-7)
  np.testing.assert_allclose(found[2:4], [spread, spread], rtol=1e-6)


def test_moments_without_honest_clients_are_zero():
  (output,) = _run(_Collusive(_reveal_honest), [np.ones([1, 5])], [0])
  np.testing.assert_array_equal(output.result[0], np.zeros(5))


@pytest.mark.parametrize('sees_table', [False, True])
def test_knows_round_model_and_a_seed_and_remembers(sees_table):

  def reveal(knowledge):
    return tf.concat(
        [
            _stack(
                knowledge.round_num,
                knowledge.num_attackers,
                _fingerprint(knowledge.seed),
            ),
            knowledge.model[3:],
        ],
        axis=0,
    )

  poisoning = _Collusive(reveal, sees_table=sees_table)
  sent = []
  for seed in (1, 2):
    outputs = _run(poisoning, [_CLIENTS] * 2, _INDEX, seed)
    for output in outputs:
      np.testing.assert_array_equal(output.result[5], output.result[6])
    sent.append([output.result[5] for output in outputs])
    round_num, memory = outputs[1].state
    assert round_num == 2
    np.testing.assert_allclose(memory['total'], np.sum(sent[-1], axis=0))
  sent = np.concatenate(sent)
  np.testing.assert_array_equal(
      np.delete(sent, 2, axis=1), [[1, 2, 3, 4], [2, 2, 3, 4]] * 2
  )
  assert len(np.unique(sent[:, 2])) == 4


class _SendApart(_Collusive):
  """Each adds a number of its own."""

  def send(self, update, vector, attacker):
    return vector + _fingerprint(attacker.seed)


def test_attackers_may_send_apart_what_they_agreed_on():
  (output,) = _run(
      _SendApart(lambda _: tf.ones([5])), [np.zeros([3, 5])], [_HONEST, 0, 1]
  )
  noise = np.array(output.result[1:]) - 1
  assert np.all((noise > 0) & (noise < 1))
  assert noise[0, 0] != noise[1, 0]


# --- The type of an adversary ------------------------------------------------

_STATE = tff.FederatedType(adversary.NO_DEFENCE_STATE, tff.SERVER)
_PARAMETERS = dict(
    update=tff.FederatedType(_TYPE, tff.CLIENTS),
    index=tff.FederatedType(np.int32, tff.CLIENTS),
    model=tff.FederatedType(_TYPE, tff.SERVER),
    defence=_STATE,
)


def _make_adversary(result=lambda update, index: update, **changes):
  """An adversary whose `next` has these parameters besides the state."""
  parameters = {**_PARAMETERS, **changes}

  @tff.federated_computation
  def init_fn():
    return tff.federated_value((), tff.SERVER)

  @tff.federated_computation([_STATE, *filter(None, parameters.values())])
  def next_fn(arguments):
    return tff.templates.MeasuredProcessOutput(
        arguments[0],
        result(*arguments[1:3]),
        tff.federated_value((), tff.SERVER),
    )

  return adversary.AdversaryProcess(init_fn, next_fn)


def test_accepts_an_adversary_of_the_right_type():
  assert not _make_adversary().knows_defence


@pytest.mark.parametrize(
    'changes',
    [
        dict(model=None),
        dict(index=tff.FederatedType(np.bool_, tff.CLIENTS)),
        dict(index=tff.FederatedType(np.int32, tff.SERVER)),
        dict(result=lambda update, index: tff.federated_sum(update)),
        dict(result=lambda update, index: index),
    ],
    ids=['no_model', 'flags', 'index_at_server', 'sum', 'index_as_result'],
)
def test_refuses_an_adversary_of_a_wrong_type(changes):
  with pytest.raises(TypeError, match='must take state, updates') as info:
    _make_adversary(**changes)
  assert '\n' not in str(info.value)
