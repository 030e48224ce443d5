"""What an attack is: poisoned data, poisoned updates, or both."""

import abc
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


class DataPoisoning(abc.ABC):
  """An attack through the training data of the attackers.

  It needs no knowledge but the attackers' own data and works with every
  learning process.
  """

  @abc.abstractmethod
  def poison(
      self, dataset: tf.data.Dataset, num_classes: int, seed: int
  ) -> tf.data.Dataset:
    """The data that an attacker trains on.

    Args:
      dataset: Unbatched clean examples, `OrderedDict(x=..., y=...)` with an
        integer scalar `y` in [0, num_classes).
      num_classes: The number of classes C.
      seed: The attacker's own seed.

    Returns:
      A dataset of the same element type.
    """


class AdversaryProcess(tff.templates.MeasuredProcess):
  """A stateful process that turns the attackers' updates into poisoned ones.

  `initialize` has the type `( -> S@SERVER)`, `next` the type `(<S@SERVER,
  V@CLIENTS, bool@CLIENTS> -> <state=S@SERVER, result=V@CLIENTS,
  measurements=M@SERVER>)`, where the bool tells the attackers. The updates of
  honest clients pass it bit for bit.
  """

  def __init__(
      self, initialize_fn: tff.Computation, next_fn: tff.Computation
  ):
    """Initializes `AdversaryProcess`.

    Args:
      initialize_fn: The computation of the initial state.
      next_fn: The computation of a round.

    Raises:
      TypeError: If a computation does not have the type above.
    """
    super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
    parameter = next_fn.type_signature.parameter
    if len(parameter) != 3:
      raise TypeError(
          'The next_fn of an adversary must take state, updates and attacker'
          f' flags; found {parameter}.'
      )
    flags = tff.FederatedType(np.bool_, tff.CLIENTS)
    if not parameter[2].is_assignable_from(flags):
      raise TypeError(
          'The third argument of the next_fn of an adversary must be'
          f' {flags}; found {parameter[2]}.'
      )
    result = next_fn.type_signature.result.result
    if not parameter[1].is_assignable_from(result):
      raise TypeError(
          'The result of the next_fn of an adversary must be of its updates'
          f' type {parameter[1]}; found {result}.'
      )


class UpdatePoisoning(abc.ABC):
  """An attack through the updates that the attackers send."""

  @abc.abstractmethod
  def create(self, value_type: tff.Type) -> AdversaryProcess:
    """Creates the process for updates of `value_type`."""


class OwnUpdatePoisoning(UpdatePoisoning):
  """Poisons an attacker's update knowing nothing but this update."""

  def __init__(self, poison_fn: Callable[[Any], Any]):
    """Initializes `OwnUpdatePoisoning`.

    Args:
      poison_fn: A TensorFlow function from an update, a structure of tensors,
        to one of the same type.
    """
    self._poison_fn = poison_fn

  def create(self, value_type: tff.Type) -> AdversaryProcess:
    """Creates the process, which has no state and no measurements."""

    @tff.federated_computation
    def init_fn():
      return tff.federated_value((), tff.SERVER)

    @tff.tensorflow.computation(value_type, np.bool_)
    def poison(update, is_byzantine):
      return tf.cond(
          is_byzantine, lambda: self._poison_fn(update), lambda: update
      )

    @tff.federated_computation(
        init_fn.type_signature.result,
        tff.FederatedType(value_type, tff.CLIENTS),
        tff.FederatedType(np.bool_, tff.CLIENTS),
    )
    def next_fn(state, update, is_byzantine):
      return tff.templates.MeasuredProcessOutput(
          state,
          tff.federated_map(poison, (update, is_byzantine)),
          tff.federated_value((), tff.SERVER),
      )

    return AdversaryProcess(init_fn, next_fn)
