"""Small image classifiers as functional models.

The models take `x` of shape `[batch, height, width, channels]`, float32, and
return logits. There is no normalisation or other state. The trainable weights
are a tuple of alternating kernels (`[3, 3, inputs, filters]` of a convolution,
`[inputs, outputs]` of a dense layer) and biases, drawn with NumPy from `seed`,
so that equal arguments give equal initial weights in every process.

Only `cnn_dropout` differs between training and inference, which keeps it from
being a Keras model: `tff.learning.models.functional_model_from_keras` takes
none that does.

All builders raise TypeError for an argument of the wrong kind and ValueError
for a size that is not positive, fewer than two classes, or too small an image.
"""

import collections
import math
from typing import Any, Callable, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from tasks import batch_seed

_KERNEL_SIZE = 3
_POOL_SIZE = 2


def mlp(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    hidden_sizes: Sequence[int] = (100,),
    seed: int = 0,
) -> tff.learning.models.FunctionalModel:
  """A multilayer perceptron on the flattened input, which has any rank."""
  return _network(
      input_shape, num_classes, hidden_sizes=hidden_sizes, seed=seed
  )


def cnn(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int] = (16, 32),
    hidden_size: int = 64,
    seed: int = 0,
) -> tff.learning.models.FunctionalModel:
  """A convolutional network: (3 x 3 convolution, 2 x 2 max pooling), dense."""
  return _network(
      check_image_shape(input_shape),
      num_classes,
      filters=filters,
      pooled=range(len(filters)),
      hidden_sizes=(hidden_size,),
      seed=seed,
  )


def cnn_dropout(
    input_shape: Sequence[int], num_classes: int, *, seed: int = 0
) -> tff.learning.models.FunctionalModel:
  """The convolutional network with dropout of the federated EMNIST task.

  Two 3 x 3 convolutions with 32 and 64 filters, 2 x 2 max pooling, dropout of
  1/4, a dense layer of 128 units, dropout of 1/2 and the logits: the model of
  Reddi et al., "Adaptive Federated Optimization", ICLR 2021. Dropout applies in
  training only and is a function of the batch, see `tasks.batch_seed`.
  """
  return _network(
      check_image_shape(input_shape),
      num_classes,
      filters=(32, 64),
      pooled=(1,),
      hidden_sizes=(128,),
      dropout=(
          (0.25, batch_seed.Purpose.DROPOUT),
          (0.5, batch_seed.Purpose.HIDDEN_DROPOUT),
      ),
      seed=seed,
  )


@tf.autograph.experimental.do_not_convert
def cross_entropy(
    output: tf.Tensor, label: tf.Tensor, sample_weight: Optional[Any] = None
) -> tf.Tensor:
  """The mean softmax cross entropy of a batch, weighted if weights are given.

  It is 0 if the batch is empty or all weights are 0. `output` are the logits
  `[batch, num_classes]`.
  """
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=label, logits=output
  )
  if sample_weight is None:
    sample_weight = tf.ones_like(losses)
  weights = tf.cast(sample_weight, losses.dtype)
  return tf.math.divide_no_nan(
      tf.reduce_sum(losses * weights), tf.reduce_sum(weights)
  )


def classifier(
    weights: Tuple[np.ndarray, ...],
    logits: Callable[..., tf.Tensor],
    input_shape: Sequence[int],
) -> tff.learning.models.FunctionalModel:
  """A model with these trainable weights and no others.

  `logits` is a function of them, `x` and `training`. The loss is the mean cross
  entropy; the metrics are `loss`, `accuracy` and `num_examples`.
  """

  @tf.function(autograph=False)
  def predict_on_batch(model_weights, x, training):
    trainable, _ = model_weights
    return logits(trainable, x, training)

  return tff.learning.models.FunctionalModel(
      initial_weights=(weights, ()),
      predict_on_batch_fn=predict_on_batch,
      loss_fn=cross_entropy,
      metrics_fns=(_initialize_metrics, _update_metrics, _finalize_metrics),
      input_spec=collections.OrderedDict(
          x=tf.TensorSpec((None, *input_shape), tf.float32),
          y=tf.TensorSpec((None,), tf.int64),
      ),
  )


def he_normal(rng: np.random.Generator, shape: Tuple[int, ...]) -> np.ndarray:
  """The initial kernel, float32, of a layer that ReLU follows.

  It is normal with variance 2 / fan-in (He et al., "Delving Deep into
  Rectifiers", ICCV 2015, section 2.2); the last dimension counts the outputs.
  """
  scale = math.sqrt(2.0 / math.prod(shape[:-1]))
  return scale * rng.standard_normal(shape, dtype=np.float32)


def check_image_shape(input_shape: Sequence[int]) -> Tuple[int, ...]:
  """Returns the shape as a tuple, or raises unless it is that of an image."""
  input_shape = _check_sizes('input_shape', input_shape)
  if len(input_shape) != 3:
    raise ValueError(
        f'input_shape must be (height, width, channels); found {input_shape}.'
    )
  return input_shape


def _network(
    input_shape,
    num_classes,
    *,
    hidden_sizes,
    seed,
    filters=(),
    pooled=(),
    dropout=(),
) -> tff.learning.models.FunctionalModel:
  """Unpadded convolutions, of which those in `pooled` are, and dense layers.

  ReLU follows every layer but the last. `dropout` has a rate and its random
  numbers for the first dense layers' inputs.
  """
  input_shape = _check_sizes('input_shape', input_shape)
  filters = _check_sizes('filters', filters)
  hidden_sizes = _check_sizes('hidden_sizes', hidden_sizes)
  checks.check_int('num_classes', num_classes, minimum=2)
  rng = np.random.default_rng(seed)
  weights = ()
  *sides, channels = input_shape
  for index, outputs in enumerate(filters):
    weights += _layer(rng, (_KERNEL_SIZE, _KERNEL_SIZE, channels, outputs))
    shrink = _POOL_SIZE if index in pooled else 1
    sides = [(side - _KERNEL_SIZE + 1) // shrink for side in sides]
    channels = outputs
  if min(sides, default=1) < 1:
    raise ValueError(
        f'input_shape {input_shape} is too small for {len(filters)}'
        ' convolutions with pooling; use the mlp.'
    )
  num_features = math.prod(sides) * channels
  widths = (num_features, *hidden_sizes, num_classes)
  for shape in zip(widths, widths[1:]):
    weights += _layer(rng, shape)

  def logits(trainable, x, training):
    layers = list(zip(trainable[::2], trainable[1::2]))
    features = x
    for index, (kernel, bias) in enumerate(layers[: len(filters)]):
      features = tf.nn.conv2d(features, kernel, strides=1, padding='VALID')
      features = tf.nn.relu(features + bias)
      if index in pooled:
        features = tf.nn.max_pool2d(features, _POOL_SIZE, _POOL_SIZE, 'VALID')
    features = tf.reshape(features, [-1, num_features])
    for index, (kernel, bias) in enumerate(layers[len(filters) :]):
      if index:
        features = tf.nn.relu(features)
      if training and index < len(dropout):
        rate, purpose = dropout[index]
        features = tf.nn.experimental.stateless_dropout(
            features, rate, batch_seed.from_batch(x, purpose), rng_alg='philox'
        )
      features = tf.linalg.matmul(features, kernel) + bias
    return features

  return classifier(weights, logits, input_shape)


def _layer(
    rng: np.random.Generator, shape: Tuple[int, ...]
) -> Tuple[np.ndarray, np.ndarray]:
  """An initial kernel and a zero bias."""
  return he_normal(rng, shape), np.zeros(shape[-1], np.float32)


def _check_sizes(name: str, sizes: Sequence[int]) -> Tuple[int, ...]:
  return tuple(checks.check_int(name, size, minimum=1) for size in sizes)


@tf.function(autograph=False)
def _initialize_metrics():
  return collections.OrderedDict(
      loss_sum=tf.zeros([]), num_correct=tf.zeros([]), num_examples=tf.zeros([])
  )


@tf.function(autograph=False)
def _update_metrics(state, labels, batch_output, sample_weight=None):
  """Adds a batch; sums only, since this runs in every step of every client."""
  del sample_weight  # Clients train on unweighted examples.
  predicted = tf.argmax(
      batch_output.predictions, axis=-1, output_type=labels.dtype
  )
  correct = tf.cast(tf.equal(predicted, labels), tf.float32)
  num_examples = tf.cast(tf.size(labels), tf.float32)
  return collections.OrderedDict(
      loss_sum=state['loss_sum'] + batch_output.loss * num_examples,
      num_correct=state['num_correct'] + tf.reduce_sum(correct),
      num_examples=state['num_examples'] + num_examples,
  )


@tf.function(autograph=False)
def _finalize_metrics(state):
  num_examples = state['num_examples']
  return collections.OrderedDict(
      loss=tf.math.divide_no_nan(state['loss_sum'], num_examples),
      accuracy=tf.math.divide_no_nan(state['num_correct'], num_examples),
      num_examples=num_examples,
  )
