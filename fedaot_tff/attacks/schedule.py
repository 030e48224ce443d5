"""Attacks that change from round to round."""

import abc
from collections.abc import Sequence
from typing import Union

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import registry
from fedaot_tff.learning import adversary

# An attack, or its name in the registry if it is on updates alone.
_Attack = Union[str, adversary.UpdatePoisoning]


class _Schedule(adversary.UpdatePoisoning):
  """One of some attacks, or the honest update, as the round tells.

  Each of them observes all rounds, so that one with a memory is ready when its
  turn comes. Knowledge: that of the attacks.
  """

  def __init__(self, attacks: Sequence[_Attack]):
    checks.check_kind('attacks', attacks, Sequence)
    self._attacks = tuple(map(_make_attack, attacks))

  @abc.abstractmethod
  def choose(self, round_num: tf.Tensor) -> tf.Tensor:
    """The position of an attack, or their number for the honest update."""

  def create(self, value_type, context=adversary.Context()):
    processes = [a.create(value_type, context) for a in self._attacks]

    @tff.federated_computation
    def init_fn():
      return tff.federated_zip(
          (
              tff.federated_value(np.int32(0), tff.SERVER),
              tuple(process.initialize() for process in processes),
          )
      )

    @tff.tensorflow.computation(np.int32)
    def count_round(round_num):
      return round_num + 1

    @tff.tensorflow.computation(
        [value_type] * (len(processes) + 1), np.int32, np.int32
    )
    def select(updates, round_num, index):
      # The honest update comes last and is all that an honest client sends.
      position = tf.where(index >= 0, self.choose(round_num), len(processes))
      return tf.switch_case(
          position, [lambda update=update: update for update in updates]
      )

    @tff.federated_computation(
        init_fn.type_signature.result,
        *attack.next_parameters(value_type, context),
    )
    def next_fn(state, update, index, model, defence_state):
      round_num = tff.federated_map(count_round, state[0])
      outputs = [
          process.next(state[1][i], update, index, model, defence_state)
          for i, process in enumerate(processes)
      ]
      updates = tff.federated_zip((*(o.result for o in outputs), update))
      selected = tff.federated_map(
          select, (updates, tff.federated_broadcast(round_num), index)
      )
      return tff.templates.MeasuredProcessOutput(
          tff.federated_zip((round_num, tuple(o.state for o in outputs))),
          selected,
          tff.federated_value((), tff.SERVER),
      )

    return adversary.AdversaryProcess(init_fn, next_fn)


class Switching(_Schedule):
  """Another of two or more attacks every `rounds` rounds, in turn.

  A defence that has adapted to one attack meets the next.
  """

  def __init__(
      self,
      *,
      attacks: Sequence[_Attack] = ('sign_flip', 'alie', 'ipm'),
      rounds: int = 5,
  ):
    super().__init__(attacks)
    checks.check_int('the number of attacks', len(self._attacks), minimum=2)
    self._rounds = checks.check_int('rounds', rounds, minimum=1)

  def choose(self, round_num):
    return (round_num - 1) // self._rounds % len(self._attacks)


class Intermittent(_Schedule):
  """An attack that begins after `honest_rounds` honest ones.

  The attackers earn the trust of a defence with a memory before they betray it.
  """

  def __init__(
      self,
      *,
      # Named like the option, at the cost of hiding the module in here.
      attack: _Attack = 'sign_flip',  # pylint: disable=redefined-outer-name
      honest_rounds: int = 10,
  ):
    super().__init__([attack])
    self._honest_rounds = checks.check_int(
        'honest_rounds', honest_rounds, minimum=1
    )

  def choose(self, round_num):
    return tf.where(round_num > self._honest_rounds, 0, 1)


def _make_attack(found: _Attack) -> adversary.UpdatePoisoning:
  checks.check_kind('an attack', found, adversary.UpdatePoisoning, str)
  if not isinstance(found, str):
    return found
  registry.check_update_attack('an attack', found)
  return registry.get_attack(found).update_poisoning
