"""The model of a hold-out: a functional one, or a function that makes one.

Both are used alike: `bind` gives a function of weights and examples. It is
called where the computation is built, as it may create variables.
"""

from typing import Any, Callable, NamedTuple, Tuple, Union

import tensorflow as tf
import tensorflow_federated as tff

Model = Union[
    tff.learning.models.FunctionalModel,
    Callable[[], tff.learning.models.VariableModel],
]
# (trainable, non_trainable, x, y, training) -> (loss, gradients), where
# weights are flat tuples, as are the gradients in the trainable ones.
LossAndGradient = Callable[..., Tuple[tf.Tensor, Tuple[Any, ...]]]


class TrainedModel(NamedTuple):
  """What a hold-out must know of its model.

  Attributes:
    input_spec: The model's.
    initial_weights: Returns the trainable and the other weights, tensors in two
      flat tuples.
    bind: Returns a `LossAndGradient`.
  """

  input_spec: Any
  initial_weights: Callable[[], Tuple[Tuple[Any, ...], Tuple[Any, ...]]]
  bind: Callable[[], LossAndGradient]


def trained_model(model: Model) -> TrainedModel:
  """Makes a `TrainedModel`; TypeError for what is neither."""
  if isinstance(model, tff.learning.models.FunctionalModel):
    return TrainedModel(
        model.input_spec,
        lambda: _tensors(*model.initial_weights),
        lambda: _of_functional_model(model),
    )
  with tf.Graph().as_default():
    made = None
    if callable(model) and not isinstance(model, tf.keras.Model):
      made = model()
  if not isinstance(made, tff.learning.models.VariableModel):
    raise TypeError(
        'model must be a tff.learning.models.FunctionalModel or a function that'
        ' returns a tff.learning.models.VariableModel, such as'
        ' tff.learning.models.from_keras_model makes; found'
        f' {type(model if made is None else made).__name__}.'
    )

  def initial_weights():
    weights = tff.learning.models.ModelWeights.from_model(model())
    return _tensors(weights.trainable, weights.non_trainable)

  return TrainedModel(
      made.input_spec, initial_weights, lambda: _of_variable_model(model())
  )


def _tensors(trainable: Any, non_trainable: Any) -> Any:
  return tuple(
      tuple(tf.convert_to_tensor(w) for w in tf.nest.flatten(weights))
      for weights in (trainable, non_trainable)
  )


def _of_functional_model(
    model: tff.learning.models.FunctionalModel,
) -> LossAndGradient:
  """The `LossAndGradient` of a functional model."""

  # What it calls are tf.functions, which TFF sees to, and are converted.
  @tf.autograph.experimental.do_not_convert
  def loss_and_gradient(trainable, non_trainable, x, y, training):
    with tf.GradientTape() as tape:
      tape.watch(trainable)
      weights = tuple(
          tf.nest.pack_sequence_as(*pair)
          for pair in zip(model.initial_weights, (trainable, non_trainable))
      )
      output = model.predict_on_batch(weights, x, training=training)
      loss = model.loss(output, y)
    return loss, _gradient(tape, loss, trainable)

  return loss_and_gradient


def _of_variable_model(
    model: tff.learning.models.VariableModel,
) -> LossAndGradient:
  """The `LossAndGradient` of a model, whose variables it overwrites."""
  variables = tff.learning.models.ModelWeights.from_model(model)
  others = tf.nest.flatten(variables.non_trainable)

  # A tf.function, so that reads come after assignments.
  @tf.function
  def loss_and_gradient(trainable, non_trainable, x, y, training):
    flat = tf.nest.flatten(variables.trainable)
    tf.nest.map_structure(
        lambda variable, value: variable.assign(value),
        flat + others,
        [*trainable, *non_trainable],
    )
    batch = tf.nest.pack_sequence_as(model.input_spec, tf.nest.flatten((x, y)))
    with tf.GradientTape() as tape:
      output = model.forward_pass(batch, training=training)
    return output.loss, _gradient(tape, output.loss, tuple(flat))

  return loss_and_gradient


def _gradient(tape: tf.GradientTape, loss: tf.Tensor, weights: Any) -> Any:
  """The gradient in `weights`, dense; an unused weight has gradient 0."""
  gradient = tape.gradient(
      loss, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
  )
  # An embedding's gradient is sparse; made dense, it has no static shape.
  return tuple(
      tf.ensure_shape(tf.convert_to_tensor(g), w.shape)
      for w, g in zip(weights, gradient)
  )
