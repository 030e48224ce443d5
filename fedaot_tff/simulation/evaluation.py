"""Evaluates a model on the test examples."""

import collections
from collections.abc import Mapping
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks


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
    test: The examples, a mapping of arrays `x` [n, ...] and integer `y` [n];
      ValueError if there are none or they do not fit the model.
    batch_size: Of effect on memory and time only.

  Returns:
    A function from `tff.learning.models.ModelWeights` to an OrderedDict of
    `accuracy` and `loss`, means over all examples. An example with a NaN among
    its logits counts as wrong.
  """
  checks.check_kind('model', model, tff.learning.models.FunctionalModel)
  checks.check_int('batch_size', batch_size, minimum=1)
  spec = model.input_spec
  x_spec, y_spec = spec.values() if isinstance(spec, Mapping) else spec
  x, y = _check_examples(test, x_spec, y_spec)

  @tf.function(
      autograph=False,  # As in TFF; it would wrap errors in many lines.
      input_signature=[
          tf.nest.map_structure(
              lambda w: tf.TensorSpec.from_tensor(tf.convert_to_tensor(w)),
              model.initial_weights,
          ),
          x_spec,
          y_spec,
      ],
  )
  def evaluate_batch(weights, batch_x, batch_y):
    logits = model.predict_on_batch(weights, batch_x, training=False)
    if not logits.shape.is_compatible_with([None, None]):
      raise ValueError(
          "The model's predictions must be logits [b, C]; found the shape"
          f' {logits.shape}.'
      )
    correct = tf.logical_and(
        tf.equal(tf.argmax(logits, axis=-1), tf.cast(batch_y, tf.int64)),
        tf.logical_not(tf.reduce_any(tf.math.is_nan(logits), axis=-1)),
    )
    return tf.math.count_nonzero(correct), model.loss(logits, batch_y)

  def evaluate(model_weights):
    # As lists or tuples, as the process has them.
    weights = tf.nest.pack_sequence_as(
        model.initial_weights,
        tf.nest.flatten((model_weights.trainable, model_weights.non_trainable)),
    )
    weights = tf.nest.map_structure(tf.convert_to_tensor, weights)
    num_correct, loss = 0, 0.0
    for start in range(0, len(y), batch_size):
      batch_y = y[start : start + batch_size]
      batch_correct, batch_loss = evaluate_batch(
          weights, x[start : start + batch_size], batch_y
      )
      num_correct += int(batch_correct)
      loss += float(batch_loss) * len(batch_y)
    return collections.OrderedDict(
        accuracy=num_correct / len(y), loss=loss / len(y)
    )

  return evaluate


def _check_examples(test: Any, x_spec: tf.TensorSpec, y_spec: tf.TensorSpec):
  """x and y in the dtypes of the specs."""
  if set(checks.check_kind('test', test, Mapping)) != {'x', 'y'}:
    raise ValueError(f"test must have arrays 'x' and 'y'; found {list(test)}.")
  # Labels of any other shape would be broadcast against the predictions.
  if not y_spec.dtype.is_integer or y_spec.shape.rank != 1:
    raise ValueError(
        'The labels of the model must be integer classes [None], not one-hot'
        f' and without a last dimension of 1; found {y_spec.dtype.name}'
        f' {y_spec.shape} in its input_spec.'
    )
  arrays = []
  for name, spec in (('x', x_spec), ('y', y_spec)):
    array = np.asarray(test[name])
    is_bool_label = name == 'y' and array.dtype == np.bool_
    if (
        is_bool_label
        or not spec.shape.is_compatible_with(array.shape)
        or not np.can_cast(array.dtype, spec.dtype.as_numpy_dtype, 'same_kind')
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
