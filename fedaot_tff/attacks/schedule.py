"""Attacks that change from round to round."""

from collections.abc import Sequence
from typing import Any, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import registry


class Switching(attack.UpdatePoisoning):
  """Another attack every few rounds, in turn.

  A defence that has adapted to one attack meets the next. Knowledge: that of
  the attacks. Each of them observes all rounds, so that one with a memory is
  ready when its turn comes.
  """

  def __init__(
      self, attacks: Sequence[attack.UpdatePoisoning], *, rounds: int = 5
  ):
    """Initializes `Switching`.

    Args:
      attacks: Two attacks or more.
      rounds: How many rounds in succession each is used.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If there are fewer than two attacks, or `rounds` is below 1.
    """
    self._attacks = _check_attacks(attacks)
    if len(self._attacks) < 2:
      raise ValueError(
          f'attacks must be two or more; found {len(self._attacks)}.'
      )
    self._rounds = checks.check_int('rounds', rounds, minimum=1)

  def create(
      self, value_type: tff.Type, context: attack.Context = attack.Context()
  ) -> attack.AdversaryProcess:
    """See `UpdatePoisoning.create`."""

    def choose(round_num):
      return (round_num - 1) // self._rounds % len(self._attacks)

    return _create_scheduled(self._attacks, choose, value_type, context)


class Intermittent(attack.UpdatePoisoning):
  """An attack that begins after some honest rounds.

  The attackers earn the trust of a defence with a memory before they betray it.
  Knowledge: that of the attack, which observes the honest rounds, too.
  """

  def __init__(
      self, poisoning: attack.UpdatePoisoning, *, honest_rounds: int = 10
  ):
    """Initializes `Intermittent`.

    Args:
      poisoning: The attack.
      honest_rounds: How many rounds the attackers send honest updates first.

    Raises:
      TypeError: If an argument is of another kind.
      ValueError: If `honest_rounds` is below 1.
    """
    self._attacks = _check_attacks([poisoning])
    self._honest_rounds = checks.check_int(
        'honest_rounds', honest_rounds, minimum=1
    )

  def create(
      self, value_type: tff.Type, context: attack.Context = attack.Context()
  ) -> attack.AdversaryProcess:
    """See `UpdatePoisoning.create`."""

    def choose(round_num):
      # One past the attacks stands for the honest update.
      return tf.where(round_num > self._honest_rounds, 0, 1)

    return _create_scheduled(self._attacks, choose, value_type, context)


def _create_scheduled(attacks, choose, value_type, context):
  """A process that runs all attacks and sends what `choose` selects.

  Args:
    attacks: The attacks.
    choose: From the round, a scalar int32 from 1, to the position of an attack,
      or to the number of attacks for the honest update.
    value_type: The unplaced type of an update.
    context: What the attacks are made for.

  Returns:
    An `attack.AdversaryProcess`.
  """
  processes = [a.create(value_type, context) for a in attacks]

  @tff.tensorflow.computation
  def first_round():
    return tf.constant(0, tf.int32)

  @tff.federated_computation
  def init_fn():
    return tff.federated_zip((
        tff.federated_eval(first_round, tff.SERVER),
        tuple(process.initialize() for process in processes),
    ))

  @tff.tensorflow.computation(np.int32)
  def count_round(round_num):
    return round_num + 1

  @tff.tensorflow.computation(
      [value_type] * (len(processes) + 1), np.int32, np.int32
  )
  def select(updates, round_num, index):
    # The honest update comes last and is all that an honest client sends.
    position = tf.where(
        index >= 0, choose(round_num), tf.constant(len(processes), tf.int32)
    )
    return tf.switch_case(
        position, [lambda update=update: update for update in updates]
    )

  @tff.federated_computation(
      init_fn.type_signature.result,
      *attack.next_parameters(value_type, context),
  )
  def next_fn(state, update, index, model, defence_state):
    round_num = tff.federated_map(count_round, state[0])
    states, results = [], []
    for position, process in enumerate(processes):
      output = process.next(
          state[1][position], update, index, model, defence_state
      )
      states.append(output.state)
      results.append(output.result)
    selected = tff.federated_map(
        select,
        (
            tff.federated_zip((*results, update)),
            tff.federated_broadcast(round_num),
            index,
        ),
    )
    return tff.templates.MeasuredProcessOutput(
        tff.federated_zip((round_num, tuple(states))),
        selected,
        tff.federated_value((), tff.SERVER),
    )

  return attack.AdversaryProcess(init_fn, next_fn)


def _check_attacks(attacks: Any) -> Tuple[attack.UpdatePoisoning, ...]:
  attacks = tuple(attacks)
  for poisoning in attacks:
    if not isinstance(poisoning, attack.UpdatePoisoning):
      raise TypeError(
          'attacks must be UpdatePoisonings; found'
          f' {type(poisoning).__name__}.'
      )
  return attacks


def make_switching(
    *, attacks: Sequence[str] = ('sign_flip', 'alie', 'ipm'), rounds: int = 5
) -> Switching:
  """Makes a `Switching` of attacks by name, with their defaults.

  Args:
    attacks: Names in the registry, of attacks on updates alone.
    rounds: See `Switching`.
  """
  return Switching(
      [registry.get_attack(name).update_poisoning for name in attacks],
      rounds=rounds,
  )


def make_intermittent(
    *, attack: str = 'sign_flip', honest_rounds: int = 10
) -> Intermittent:
  """Makes an `Intermittent` of an attack by name, with its defaults.

  Args:
    attack: A name in the registry, of an attack on updates alone.
    honest_rounds: See `Intermittent`.
  """
  return Intermittent(
      registry.get_attack(attack).update_poisoning,
      honest_rounds=honest_rounds,
  )
