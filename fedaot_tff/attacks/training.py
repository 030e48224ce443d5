"""What attackers who train in a way of their own are made of."""

import abc
import collections
from typing import Any, Callable, NamedTuple, Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.learning import adversary

Weights = Tuple[tf.Tensor, ...]

# How many examples of other classes the success is measured on, at most.
_MAX_EXAMPLES = 1000
_BATCH_SIZE = 20


class Learner(NamedTuple):
  """A client's model and optimizer, in a round."""

  model: tff.learning.models.FunctionalModel
  optimizer: tff.learning.optimizers.Optimizer
  non_trainable: Weights

  def loss(self, weights: Weights, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """The mean loss of trainable weights on a batch."""
    return self.model.loss(self.predict(weights, x, training=True), y)

  def predict(
      self, weights: Weights, x: tf.Tensor, training: bool
  ) -> tf.Tensor:
    """The logits."""
    weights = tf.nest.pack_sequence_as(
        self.model.initial_weights, [*weights, *self.non_trainable]
    )
    return self.model.predict_on_batch(weights, x, training=training)

  def gradient(self, weights: Weights, x: tf.Tensor, y: tf.Tensor) -> Weights:
    """That of the loss in the trainable weights."""
    with tf.GradientTape() as tape:
      tape.watch(weights)
      loss = self.loss(weights, x, y)
    return tape.gradient(loss, weights)

  def descend(
      self,
      weights: Weights,
      gradient: Callable[[Weights, Any], Weights],
      batches: tf.data.Dataset,
  ) -> Weights:
    """Trains with the gradient of weights and a batch."""

    def step(state, batch):
      weights, of_optimizer = state
      of_optimizer, weights = self.optimizer.next(
          of_optimizer, weights, gradient(weights, batch)
      )
      return weights, of_optimizer

    return fold(step, (weights, self.initial_state(weights)), batches)[0]

  def initial_state(self, weights: Weights) -> Any:
    """The optimizer's, as tensors."""
    specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, weights)
    return tf.nest.map_structure(
        tf.convert_to_tensor, self.optimizer.initialize(specs)
    )


def fold(
    step: Callable[[Any, Any], Any], state: Any, batches: tf.data.Dataset
) -> Any:
  """`state = step(state, batch)` for each batch."""

  # As TFF trains: `reduce` takes several times as long.
  @tf.function
  def loop(state):
    for batch in iter(batches):
      state = step(state, batch)
    return state

  return loop(state)


class BackdoorTraining(adversary.TrainingPoisoning):
  """Training that teaches a trigger; its success is measured like a backdoor's.

  Attributes:
    target: The class that the trigger shall bring about.
  """

  def __init__(self, target: int):
    self.target = checks.check_int('target', target, minimum=0)

  @abc.abstractmethod
  def train(
      self,
      learner: Learner,
      weights: Weights,
      honest: Weights,
      batches: tf.data.Dataset,
  ) -> Weights:
    """The weights after a training that starts from `weights`.

    `honest` are those after honest training on the same batches, which are
    `OrderedDict(x=..., y=...)`.
    """

  @abc.abstractmethod
  def trigger(self, shape: Sequence[int]) -> np.ndarray:
    """As `attack.DataPoisoning.trigger`."""

  @abc.abstractmethod
  def present(self, x: tf.Tensor, trigger: Any) -> tf.Tensor:
    """Features [n, ...] with the trigger."""

  def find_trigger(
      self, learner: Learner, weights: Weights, batches: tf.data.Dataset
  ) -> Any:
    """What is presented to a model; empty if that is always the same."""
    del learner, weights, batches
    return ()

  def wanted(self, y: tf.Tensor) -> tf.Tensor:
    """Labels like y, all of them the target."""
    return tf.fill(tf.shape(y), tf.cast(self.target, y.dtype))

  def create(self, model, optimizer):
    def make_update(update, weights, batches):
      before = tuple(tf.nest.flatten(weights.trainable))
      learner = Learner(
          model, optimizer, tuple(tf.nest.flatten(weights.non_trainable))
      )
      honest = tuple(map(tf.subtract, before, tf.nest.flatten(update)))
      after = self.train(learner, before, honest, batches)
      return tf.nest.pack_sequence_as(
          update, list(map(tf.subtract, before, after))
      )

    return make_update

  def build_success(
      self,
      model: tff.learning.models.FunctionalModel,
      optimizer: tff.learning.optimizers.Optimizer,
      x: np.ndarray,
      y: np.ndarray,
      *,
      num_classes: int,
  ) -> Callable[[tff.learning.models.ModelWeights], float]:
    """The function from a model to the rate of success on test examples.

    Of at most 1,000 examples of other classes than the target, a half is there
    to find the trigger for the model and the other to measure how often the
    target is predicted.
    """
    checks.check_int('target', self.target, minimum=0, maximum=num_classes - 1)
    others = np.flatnonzero(y != self.target)[:_MAX_EXAMPLES]
    found_on, measured = others[::2], x[others[1::2]]
    batches = tf.data.Dataset.from_tensor_slices(
        collections.OrderedDict(x=x[found_on], y=y[found_on])
    ).batch(_BATCH_SIZE)

    @tf.function(autograph=False)
    def count(trainable, non_trainable):
      learner = Learner(model, optimizer, non_trainable)
      trigger = self.find_trigger(learner, trainable, batches)
      logits = learner.predict(
          trainable, self.present(measured, trigger), training=False
      )
      # The greatest of logits with a NaN may be any.
      is_target = tf.equal(tf.argmax(logits, axis=-1), self.target)
      is_number = ~tf.reduce_any(tf.math.is_nan(logits), axis=-1)
      return tf.math.count_nonzero(is_target & is_number)

    def measure(weights):
      flat = [
          tuple(map(tf.convert_to_tensor, tf.nest.flatten(part)))
          for part in (weights.trainable, weights.non_trainable)
      ]
      return int(count(*flat)) / len(measured)

    return measure
