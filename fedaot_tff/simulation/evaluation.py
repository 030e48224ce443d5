"""Evaluates a model on the test examples."""

import collections
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


def build_evaluation(
    model: tff.learning.models.FunctionalModel,
    test: Mapping[str, Any],
    *,
    batch_size: int = 500,
) -> Callable[
    [tff.learning.models.ModelWeights], 'collections.OrderedDict[str, float]'
]:
  """Builds the evaluation of a classifier, run by TensorFlow in this process.

  Args:
    model: A model whose predictions are logits [b, C] and whose loss is a mean
      over examples.
    test: The examples, a mapping of arrays `x` [n, ...] and `y` [n].
    batch_size: Examples in a batch; of effect on memory and time only.

  Returns:
    A function from `tff.learning.models.ModelWeights` to an OrderedDict of
    `accuracy` and `loss`, means over all examples. An example with a NaN among
    its logits counts as wrong.

  Raises:
    TypeError: If an argument is of another kind.
    ValueError: If there are no examples or they do not fit the model.
  """
  if not isinstance(model, tff.learning.models.FunctionalModel):
    raise TypeError(
        'model must be a tff.learning.models.FunctionalModel; found'
        f' {type(model).__name__}.'
    )
  if isinstance(batch_size, bool) or not isinstance(batch_size, int):
    raise TypeError(f'batch_size must be an int; found {batch_size!r}.')
  if batch_size < 1:
    raise ValueError(f'batch_size must be at least 1; found {batch_size}.')
  spec = model.input_spec
  x_spec, y_spec = spec.values() if isinstance(spec, Mapping) else spec
  x, y = _check_examples(test, x_spec, y_spec)

  @tf.function(
      input_signature=[
          tf.nest.map_structure(_spec_of, model.initial_weights[0]),
          tf.nest.map_structure(_spec_of, model.initial_weights[1]),
          x_spec,
          y_spec,
      ]
  )
  def evaluate_batch(trainable, non_trainable, batch_x, batch_y):
    logits = model.predict_on_batch(
        (trainable, non_trainable), batch_x, training=False
    )
    correct = tf.logical_and(
        tf.equal(tf.argmax(logits, axis=-1), tf.cast(batch_y, tf.int64)),
        tf.logical_not(tf.reduce_any(tf.math.is_nan(logits), axis=-1)),
    )
    return tf.math.count_nonzero(correct), model.loss(logits, batch_y)

  def evaluate(
      model_weights: tff.learning.models.ModelWeights,
  ) -> 'collections.OrderedDict[str, float]':
    trainable, non_trainable = tf.nest.map_structure(
        tf.convert_to_tensor,
        (
            _pack_like(model.initial_weights[0], model_weights.trainable),
            _pack_like(model.initial_weights[1], model_weights.non_trainable),
        ),
    )
    num_correct, loss = 0, 0.0
    for start in range(0, len(y), batch_size):
      batch_y = y[start : start + batch_size]
      batch_correct, batch_loss = evaluate_batch(
          trainable, non_trainable, x[start : start + batch_size], batch_y
      )
      num_correct += int(batch_correct)
      loss += float(batch_loss) * len(batch_y)
    return collections.OrderedDict(
        accuracy=num_correct / len(y), loss=loss / len(y)
    )

  return evaluate


def _check_examples(test: Any, x_spec: tf.TensorSpec, y_spec: tf.TensorSpec):
  """x and y in the dtypes of the specs."""
  if not isinstance(test, Mapping) or set(test) != {'x', 'y'}:
    found = list(test) if isinstance(test, Mapping) else type(test).__name__
    raise TypeError(
        f"test must be a mapping of arrays 'x' and 'y'; found {found}."
    )
  arrays = []
  for name, spec in (('x', x_spec), ('y', y_spec)):
    array = np.asarray(test[name])
    if not spec.shape.is_compatible_with(array.shape) or not np.can_cast(
        array.dtype, spec.dtype.as_numpy_dtype, 'same_kind'
    ):
      raise ValueError(
          f"test[{name!r}] must match the model's input_spec,"
          f' {spec.dtype.name} {spec.shape}; found {array.dtype}'
          f' {array.shape}.'
      )
    arrays.append(array.astype(spec.dtype.as_numpy_dtype))
  x, y = arrays
  if not len(y) or len(x) != len(y):
    raise ValueError(
        'test must hold at least one example and as many x as y; found'
        f' {len(x)} and {len(y)}.'
    )
  return x, y


def _spec_of(weight: Any) -> tf.TensorSpec:
  weight = tf.convert_to_tensor(weight)
  return tf.TensorSpec(weight.shape, weight.dtype)


def _pack_like(structure: Any, weights: Any) -> Any:
  return tf.nest.pack_sequence_as(structure, tf.nest.flatten(weights))
