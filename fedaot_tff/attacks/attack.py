"""What an attack is: poisoned data, poisoned updates, or both.

What the attackers send depends on what they know. `OwnUpdatePoisoning` knows
an attacker's own update, `CollusivePoisoning` all honest updates of the round
and the global model, and an `UpdatePoisoning` of its own can try the defence
itself. The mathematics of an attack is a method on flat vectors.
"""

import abc
import collections
from typing import (
    Any,
    Callable,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.aggregators import flat_updates
from fedaot_tff.aggregators import row_gather
from fedaot_tff.learning import adversary


class DataPoisoning(abc.ABC):
  """An attack through the training data of the attackers."""

  @abc.abstractmethod
  def poison(
      self,
      dataset: tf.data.Dataset,
      *,
      num_classes: int,
      attacker_index: int,
      seed: int,
  ) -> tf.data.Dataset:
    """The data that an attacker trains on, of the same element type.

    Attackers are numbered from 0 and each has its own `seed`. `dataset` has
    unbatched clean examples, `OrderedDict(x=..., y=...)` with an integer scalar
    `y` in [0, num_classes); ValueError for others, see `examples.check`.
    """

  def success_examples(
      self, x: np.ndarray, y: np.ndarray, *, num_classes: int
  ) -> Optional[Tuple[np.ndarray, np.ndarray]]:
    """What the attack wants to be classified how, apart from the accuracy.

    From clean test examples, x float [n, ...] and y integer [n], to features
    [m, ...] as the attacker presents them and the classes [m] that it wants;
    None if it only lowers the accuracy.
    """
    del x, y, num_classes
    return None

  def trigger(self, shape: Sequence[int]) -> Optional[np.ndarray]:
    """Which features of an example, bool of its shape, bear a trigger.

    None if the attack has none.
    """
    del shape
    return None


class Attacker(NamedTuple):
  """An attacker in a round, as the mathematics of an attack sees it."""

  index: tf.Tensor  # Scalar int32, its number among all attackers, from 0.
  seed: tf.Tensor  # int32 [2], its own in this round for stateless draws.
  round_num: tf.Tensor  # Scalar int32, from 1.
  num_attackers: tf.Tensor  # Scalar int32, in the cohort.
  num_clients: tf.Tensor  # Scalar int32, the size of the cohort.


class OwnUpdatePoisoning(adversary.UpdatePoisoning):
  """An attack of which each attacker knows nothing but its own update."""

  @abc.abstractmethod
  def poison(self, update: tf.Tensor, attacker: Attacker) -> tf.Tensor:
    """What an attacker sends instead of `update`; both float32 [d]."""

  def create(self, value_type, context=adversary.Context()):
    return _create_process(
        value_type,
        context,
        observe=lambda *_: tff.federated_value(((), np.int32(0)), tff.SERVER),
        initial_memory=lambda: (),
        agree=lambda knowledge, memory: ((), memory),
        send=lambda update, _, attacker: self.poison(update, attacker),
    )


class HonestMoments(NamedTuple):
  """Moments of the honest updates of a round, coordinate by coordinate."""

  mean: tf.Tensor  # Float32 [d]; zero if there are no honest clients.
  stddev: tf.Tensor  # Float32 [d], the population standard deviation.


class Knowledge(NamedTuple):
  """What colluding attackers know in a round."""

  # `HonestMoments`, or the updates, float32 [h, d], for attacks that set
  # `sees_table`. Updates with non-finite entries are left out.
  honest: Union[HonestMoments, tf.Tensor]
  num_honest: tf.Tensor  # Scalar int32, h.
  num_attackers: tf.Tensor  # Scalar int32, in the cohort.
  round_num: tf.Tensor  # Scalar int32, from 1.
  seed: tf.Tensor  # int32 [2], of the round for stateless draws.
  model: tf.Tensor  # Float32 [d], the trainable weights of the global model.
  defence_state: Any = ()  # Empty if it is not known.
  # Float32 [d], what the server makes of its hold-out, for attacks that set
  # `sees_root`; empty if it has none.
  root: Any = ()


class CollusivePoisoning(adversary.UpdatePoisoning):
  """An attack of which all attackers know the honest updates of the round."""

  # Whether `Knowledge.honest` is the table of the honest updates, which costs a
  # gather, and not their moments, which cost two sums.
  sees_table = False
  # Whether `Knowledge.root` is told, which costs a training.
  sees_root = False

  def initial_state(self, num_coordinates: int) -> Any:
    """The tensors that the attackers remember before the first round."""
    del num_coordinates
    return ()

  @abc.abstractmethod
  def agree(self, knowledge: Knowledge, state: Any) -> Tuple[tf.Tensor, Any]:
    """What they agree on, a float32 vector, and what they remember."""

  def send(
      self, update: tf.Tensor, vector: tf.Tensor, attacker: Attacker
  ) -> tf.Tensor:
    """What one of them sends, [d], who trained `update`; the vector as is."""
    del update, attacker
    return vector

  def create(self, value_type, context=adversary.Context()):
    num_coordinates = flat_updates.num_coordinates(value_type)
    return _create_process(
        value_type,
        context,
        observe=observe_table if self.sees_table else observe_moments,
        sees_root=self.sees_root,
        initial_memory=lambda: self.initial_state(num_coordinates),
        agree=self.agree,
        send=self.send,
    )


def next_parameters(
    value_type: tff.Type, context: adversary.Context
) -> Tuple[tff.Type, ...]:
  """The types of the arguments of an adversary's `next` after the state."""
  return (
      tff.FederatedType(value_type, tff.CLIENTS),
      tff.FederatedType(np.int32, tff.CLIENTS),
      tff.FederatedType(value_type, tff.SERVER),
      tff.FederatedType(context.defence_state_type, tff.SERVER),
  )


def replace_if_attacker(
    update: Any, index: tf.Tensor, poison_fn: Callable[[tf.Tensor], tf.Tensor]
) -> Any:
  """An honest client's update as it is, an attacker's poisoned.

  `update` is a structure of float tensors, `index` a scalar int32 (`HONEST` or
  the attacker's), and `poison_fn` maps the flat update, float32 [d], to another
  in a branch that honest clients do not take.
  """

  def poisoned():
    flat = flat_updates.flatten(update)
    return flat_updates.unflatten(
        tf.ensure_shape(poison_fn(flat), flat.shape), update
    )

  return tf.cond(index >= 0, poisoned, lambda: update)


def observe_moments(update: tff.Value, index: tff.Value) -> tff.Value:
  """`HonestMoments` and the int32 number of finite honest updates, at SERVER.

  From the updates and the attackers' indices, scalar int32, at CLIENTS.
  """

  @tff.tensorflow.computation(update.type_signature.member, np.int32)
  def to_terms(update, index):
    flat = flat_updates.flatten(update)
    is_honest = tf.equal(index, adversary.HONEST)
    counts = tf.logical_and(is_honest, flat_updates.is_finite_update(flat))
    # The sum of many float32 keeps their digits in float64.
    flat = tf.where(counts, tf.cast(flat, tf.float64), 0.0)
    return flat, tf.cast(counts, tf.int32)

  terms = tff.federated_map(to_terms, (update, index))
  sums = tff.federated_sum(terms)

  @tff.tensorflow.computation(sums.type_signature.member)
  def to_mean(sums):
    return tf.math.divide_no_nan(sums[0], tf.cast(sums[1], tf.float64))

  mean = tff.federated_map(to_mean, sums)

  # About the mean: squares about zero lose the spread beside an offset.
  @tff.tensorflow.computation(
      terms.type_signature.member, mean.type_signature.member
  )
  def to_squares(terms, mean):
    return tf.cast(terms[1], tf.float64) * (terms[0] - mean) ** 2

  squares = tff.federated_sum(
      tff.federated_map(to_squares, (terms, tff.federated_broadcast(mean)))
  )

  @tff.tensorflow.computation(
      *(value.type_signature.member for value in (mean, squares, sums))
  )
  def to_moments(mean, squares, sums):
    variance = tf.math.divide_no_nan(squares, tf.cast(sums[1], tf.float64))
    return (
        HonestMoments(
            tf.cast(mean, tf.float32), tf.cast(tf.sqrt(variance), tf.float32)
        ),
        sums[1],
    )

  return tff.federated_map(to_moments, (mean, squares, sums))


def observe_table(update: tff.Value, index: tff.Value) -> tff.Value:
  """The finite honest updates [h, d] and h; see `observe_moments`."""

  @tff.tensorflow.computation(update.type_signature.member, np.int32)
  def to_row(update, index):
    flat = flat_updates.flatten(update)
    is_finite = flat_updates.is_finite_update(flat)
    return collections.OrderedDict(
        update=tf.where(is_finite, flat, 0.0),
        counts=tf.logical_and(tf.equal(index, adversary.HONEST), is_finite),
    )

  rows = row_gather.federated_gather(tff.federated_map(to_row, (update, index)))

  @tff.tensorflow.computation(rows.type_signature.member)
  def only_honest(rows):
    honest = tf.boolean_mask(rows['update'], rows['counts'])
    return honest, tf.shape(honest)[0]

  return tff.federated_map(only_honest, rows)


def _create_process(
    value_type,
    context,
    *,
    observe,
    initial_memory,
    agree,
    send,
    sees_root=False,
) -> adversary.AdversaryProcess:
  """The process of attackers who observe, agree, and then send.

  Its state is the number of rounds so far, and what the attackers remember, at
  first `initial_memory()`. `observe` is like `observe_moments`; `agree` maps
  `Knowledge` and memory to what all are told and a new memory, `send` the flat
  update, what all are told and the `Attacker` to a flat update.
  """

  @tff.tensorflow.computation
  def initial_state():
    return tf.constant(0, tf.int32), initial_memory()

  @tff.federated_computation
  def init_fn():
    return tff.federated_eval(initial_state, tff.SERVER)

  @tff.tensorflow.computation(np.int32)
  def to_counts(index):
    is_counted = tf.not_equal(index, adversary.EMPTY)
    return tf.cast(index >= 0, tf.int32), tf.cast(is_counted, tf.int32)

  @tff.federated_computation(
      init_fn.type_signature.result, *next_parameters(value_type, context)
  )
  def next_fn(state, update, index, model, defence_state):
    counts = tff.federated_sum(tff.federated_map(to_counts, index))
    root = tff.federated_value((), tff.SERVER)
    if sees_root and context.defence is not None and context.defence.root:
      root = context.defence.root(defence_state, model)
    observed = observe(update, index)
    arguments = (state, observed, model, defence_state, root, counts)

    @tff.tensorflow.computation(*(a.type_signature.member for a in arguments))
    def agree_in_round(state, observed, model, defence_state, root, counts):
      round_num = state[0] + 1
      told, memory = agree(
          Knowledge(
              *observed,
              num_attackers=counts[0],
              round_num=round_num,
              seed=_round_seed(context.seed, round_num),
              model=flat_updates.flatten(model),
              defence_state=defence_state,
              root=flat_updates.flatten(root) if tf.nest.flatten(root) else (),
          ),
          state[1],
      )
      return (round_num, memory), (told, round_num, counts)

    new_state, agreed = tff.federated_map(agree_in_round, arguments)

    @tff.tensorflow.computation(
        value_type, np.int32, agreed.type_signature.member
    )
    def send_in_round(update, index, agreed):
      told, round_num, counts = agreed
      seed = tf.random.experimental.stateless_fold_in(
          _round_seed(context.seed, round_num), index
      )
      attacker = Attacker(index, seed, round_num, *counts)
      return replace_if_attacker(
          update, index, lambda flat: send(flat, told, attacker)
      )

    poisoned = tff.federated_map(
        send_in_round, (update, index, tff.federated_broadcast(agreed))
    )
    return tff.templates.MeasuredProcessOutput(
        new_state, poisoned, tff.federated_value((), tff.SERVER)
    )

  return adversary.AdversaryProcess(init_fn, next_fn)


def _round_seed(seed: int, round_num: tf.Tensor) -> tf.Tensor:
  """A seed [2] of the round."""
  checks.check_int('seed', seed, minimum=0, maximum=2**63 - 1)
  halves = tf.constant([seed % 2**31, seed >> 31], tf.int64)
  return tf.random.experimental.stateless_fold_in(
      tf.bitcast(tf.cast(halves, tf.uint32), tf.int32), round_num
  )
