"""Attackers in a learning process: what comes between work and aggregator."""

import abc
from typing import Any, Callable, NamedTuple, Optional

import numpy as np
import tensorflow_federated as tff

# The index of a client that is no attacker, and of one that has nothing to say.
HONEST = -1
EMPTY = -2


class Defence(NamedTuple):
  """The defence at hand, for attackers that know it.

  `aggregate(state@SERVER, updates@CLIENTS, attacker_index@CLIENTS,
  model@SERVER)`, called inside a federated computation, returns the aggregate
  at SERVER that the defence would make of these updates, with equal example
  counts but for clients whose index is `EMPTY`, who have none.
  `root(state@SERVER, model@SERVER)` returns the update, at SERVER, that the
  server makes of its whole hold-out; None if it has none.
  """

  state_type: tff.Type
  aggregate: Callable[[tff.Value, tff.Value, tff.Value, tff.Value], tff.Value]
  root: Optional[Callable[[tff.Value, tff.Value], tff.Value]] = None


# The type of the state of a defence that nobody looks at.
NO_DEFENCE_STATE = tff.StructWithPythonType([], tuple)


class Context(NamedTuple):
  """What an attack on the updates is made for."""

  seed: int = 0  # Fixes what the attackers draw at random; in [0, 2^63).
  defence: Optional[Defence] = None  # None if it is not known.

  @property
  def defence_state_type(self) -> tff.Type:
    return NO_DEFENCE_STATE if self.defence is None else self.defence.state_type


class AdversaryProcess(tff.templates.MeasuredProcess):
  """A stateful process that turns the attackers' updates into poisoned ones.

  `initialize` has the type `( -> S@SERVER)`, `next` the type `(<S@SERVER,
  V@CLIENTS, int32@CLIENTS, V@SERVER, D@SERVER> -> <state=S@SERVER,
  result=V@CLIENTS, measurements=M@SERVER>)`. Its arguments are the state, the
  updates, the attackers' indices (`HONEST` for honest clients, `EMPTY` for
  those of weight 0, who do not count in the round), the trainable weights of
  the global model and the state of the defence. The updates of
  honest clients pass it bit for bit.
  """

  def __init__(self, initialize_fn: tff.Computation, next_fn: tff.Computation):
    """Raises TypeError if a computation does not have the type above."""
    super().__init__(initialize_fn, next_fn, next_is_multi_arg=True)
    parameter = next_fn.type_signature.parameter
    if (
        len(parameter) != 5
        or not parameter[2].is_assignable_from(
            tff.FederatedType(np.int32, tff.CLIENTS)
        )
        or not parameter[1].is_assignable_from(
            next_fn.type_signature.result.result
        )
    ):
      raise TypeError(
          'The next_fn of an adversary must take state, updates V@CLIENTS,'
          ' attacker indices int32@CLIENTS, model and state of the defence, and'
          ' result in updates V@CLIENTS; found'
          f' {next_fn.type_signature.compact_representation()}.'
      )

  @property
  def knows_defence(self) -> bool:
    """Whether it was made with a defence in its context."""
    defence_state = self.next.type_signature.parameter[4].member
    return not defence_state.is_assignable_from(NO_DEFENCE_STATE)


class UpdatePoisoning(abc.ABC):
  """An attack through the updates that the attackers send."""

  @abc.abstractmethod
  def create(
      self, value_type: tff.Type, context: Context = Context()
  ) -> AdversaryProcess:
    """Creates the process for a context.

    The unplaced type of an update is a structure of float tensors with static
    shapes, d floats in all.
    """


class TrainingPoisoning(abc.ABC):
  """An attack through how the attackers train."""

  @abc.abstractmethod
  def create(
      self,
      model: tff.learning.models.FunctionalModel,
      optimizer: tff.learning.optimizers.Optimizer,
  ) -> Callable[[Any, tff.learning.models.ModelWeights, Any], Any]:
    """Makes the training, a function of TensorFlow.

    It takes the update that honest training made, the weights of the global
    model, and the batches of the attacker's data, a `tf.data.Dataset`, and
    returns another update, in the same structure: weights before less weights
    after the training.
    """
