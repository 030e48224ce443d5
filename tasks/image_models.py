"""Small image classifiers as functional models.

The models take `x` of shape `[batch, height, width, channels]`, float32, and
return logits. Their weights are plain arrays drawn with NumPy from a seed, so
that equal arguments give equal initial weights in every process. There is no
normalisation or other state: the non-trainable weights are empty. Only
`cnn_dropout` differs between training and inference.
"""

import collections
import math
from typing import Any, Callable, Optional, Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

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
  """A multilayer perceptron with ReLU units on the flattened input.

  For 28 x 28 grey images and 10 classes it has 79,510 parameters.

  Args:
    input_shape: The shape of one example, of any rank.
    num_classes: The number of classes, at least 2.
    hidden_sizes: The widths of the hidden layers; none make a linear model.
    seed: A non-negative integer that fixes the initial weights.

  Returns:
    A `tff.learning.models.FunctionalModel`; its trainable weights are a tuple
    of alternating kernels `[inputs, outputs]` and biases `[outputs]`.

  Raises:
    ValueError: If a size is not positive or `num_classes` is below 2.
  """
  input_shape = _check_sizes('input_shape', input_shape)
  hidden_sizes = _check_sizes('hidden_sizes', hidden_sizes)
  check_num_classes(num_classes)
  num_inputs = math.prod(input_shape)
  widths = (num_inputs,) + hidden_sizes + (num_classes,)
  rng = np.random.default_rng(seed)
  weights = ()
  for shape in zip(widths[:-1], widths[1:]):
    weights += _layer(rng, shape)

  @tf.function
  def predict_on_batch(model_weights, x, training):
    del training  # The model is the same in training and inference.
    trainable, _ = model_weights
    hidden = tf.reshape(x, [-1, num_inputs])
    for kernel, bias in zip(trainable[:-2:2], trainable[1:-2:2]):
      hidden = tf.nn.relu(tf.linalg.matmul(hidden, kernel) + bias)
    return tf.linalg.matmul(hidden, trainable[-2]) + trainable[-1]

  return classifier(weights, predict_on_batch, input_shape)


def cnn(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    filters: Sequence[int] = (16, 32),
    hidden_size: int = 64,
    seed: int = 0,
) -> tff.learning.models.FunctionalModel:
  """A convolutional network: (3 x 3 convolution, 2 x 2 max pooling), dense.

  The convolutions are unpadded and, like the hidden dense layer, followed by
  ReLU. For 28 x 28 grey images and 10 classes it has 56,714 parameters.

  Args:
    input_shape: The shape of one image, `[height, width, channels]`.
    num_classes: The number of classes, at least 2.
    filters: The number of filters of every convolution.
    hidden_size: The width of the hidden dense layer.
    seed: A non-negative integer that fixes the initial weights.

  Returns:
    A `tff.learning.models.FunctionalModel`; its trainable weights are a tuple
    of alternating kernels (`[3, 3, inputs, filters]`, then `[inputs, outputs]`)
    and biases.

  Raises:
    ValueError: If a size is not positive, `num_classes` is below 2,
      `input_shape` is not that of an image, or the image is too small for the
      convolutions.
  """
  input_shape = check_image_shape(input_shape)
  filters = _check_sizes('filters', filters)
  (hidden_size,) = _check_sizes('hidden_size', (hidden_size,))
  check_num_classes(num_classes)
  rng = np.random.default_rng(seed)
  weights = ()
  height, width, channels = input_shape
  for outputs in filters:
    weights += _layer(rng, (_KERNEL_SIZE, _KERNEL_SIZE, channels, outputs))
    height = (height - _KERNEL_SIZE + 1) // _POOL_SIZE
    width = (width - _KERNEL_SIZE + 1) // _POOL_SIZE
    channels = outputs
  if min(height, width) < 1:
    raise ValueError(
        f'`input_shape` {input_shape} is too small for {len(filters)}'
        ' convolutions with pooling; use fewer filters or the mlp.'
    )
  num_features = height * width * channels
  weights += _layer(rng, (num_features, hidden_size))
  weights += _layer(rng, (hidden_size, num_classes))

  @tf.function
  def predict_on_batch(model_weights, x, training):
    del training  # The model is the same in training and inference.
    trainable, _ = model_weights
    features = x
    for kernel, bias in zip(trainable[:-4:2], trainable[1:-4:2]):
      features = tf.nn.conv2d(features, kernel, strides=1, padding='VALID')
      features = tf.nn.relu(features + bias)
      features = tf.nn.max_pool2d(
          features, _POOL_SIZE, strides=_POOL_SIZE, padding='VALID'
      )
    features = tf.reshape(features, [-1, num_features])
    kernel, bias, logit_kernel, logit_bias = trainable[-4:]
    hidden = tf.nn.relu(tf.linalg.matmul(features, kernel) + bias)
    return tf.linalg.matmul(hidden, logit_kernel) + logit_bias

  return classifier(weights, predict_on_batch, input_shape)


def cnn_dropout(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    seed: int = 0,
) -> tff.learning.models.FunctionalModel:
  """The convolutional network with dropout of the federated EMNIST task.

  Two unpadded 3 x 3 convolutions with 32 and 64 filters, 2 x 2 max pooling,
  dropout of 1/4, a dense layer of 128 units, dropout of 1/2 and the logits,
  with ReLU after every layer but the last: the model of the EMNIST task in
  Reddi et al., "Adaptive Federated Optimization", ICLR 2021. For 28 x 28 grey
  images it has 1,206,590 parameters with 62 classes and 1,199,882 with 10.

  Dropout applies in training only and is a function of the batch, see
  `tasks.batch_seed`.

  Args:
    input_shape: The shape of one image, `[height, width, channels]`.
    num_classes: The number of classes, at least 2.
    seed: A non-negative integer that fixes the initial weights.

  Returns:
    A `tff.learning.models.FunctionalModel`; its trainable weights are a tuple
    of alternating kernels (`[3, 3, inputs, filters]`, then `[inputs, outputs]`)
    and biases.

  Raises:
    ValueError: If a size is not positive, `num_classes` is below 2,
      `input_shape` is not that of an image, or the image is smaller than 6 x 6.
  """
  input_shape = check_image_shape(input_shape)
  check_num_classes(num_classes)
  height, width, channels = input_shape
  height, width = ((side - 4) // _POOL_SIZE for side in (height, width))
  if min(height, width) < 1:
    raise ValueError(
        f'`input_shape` {input_shape} is too small for two convolutions and'
        ' pooling; give images of at least 6 x 6 or use the mlp.'
    )
  num_features = height * width * 64
  rng = np.random.default_rng(seed)
  weights = _layer(rng, (_KERNEL_SIZE, _KERNEL_SIZE, channels, 32))
  weights += _layer(rng, (_KERNEL_SIZE, _KERNEL_SIZE, 32, 64))
  weights += _layer(rng, (num_features, 128))
  weights += _layer(rng, (128, num_classes))

  @tf.function
  def predict_on_batch(model_weights, x, training):
    trainable, _ = model_weights
    features = x
    for kernel, bias in zip(trainable[:4:2], trainable[1:4:2]):
      features = tf.nn.conv2d(features, kernel, strides=1, padding='VALID')
      features = tf.nn.relu(features + bias)
    features = tf.nn.max_pool2d(
        features, _POOL_SIZE, strides=_POOL_SIZE, padding='VALID'
    )
    features = tf.reshape(features, [-1, num_features])
    kernel, bias, logit_kernel, logit_bias = trainable[4:]
    if training:
      features = _dropout(features, 0.25, x, batch_seed.Purpose.DROPOUT)
    hidden = tf.nn.relu(tf.linalg.matmul(features, kernel) + bias)
    if training:
      hidden = _dropout(hidden, 0.5, x, batch_seed.Purpose.HIDDEN_DROPOUT)
    return tf.linalg.matmul(hidden, logit_kernel) + logit_bias

  return classifier(weights, predict_on_batch, input_shape)


def cross_entropy(
    output: tf.Tensor, label: tf.Tensor, sample_weight: Optional[Any] = None
) -> tf.Tensor:
  """The mean softmax cross entropy of a batch.

  Args:
    output: Logits, shape `[batch, num_classes]`, float32.
    label: Integer classes, shape `[batch]`.
    sample_weight: Optional non-negative weights, shape `[batch]`.

  Returns:
    A float32 scalar: the mean of the examples' losses, weighted if weights are
    given; 0 if the batch is empty or all weights are 0.
  """
  losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
      labels=label, logits=output
  )
  if sample_weight is None:
    weights = tf.ones_like(losses)
  else:
    weights = tf.cast(sample_weight, losses.dtype)
  return tf.math.divide_no_nan(
      tf.reduce_sum(losses * weights), tf.reduce_sum(weights)
  )


def classifier(
    weights: Tuple[np.ndarray, ...],
    predict_on_batch: Callable[..., tf.Tensor],
    input_shape: Tuple[int, ...],
) -> tff.learning.models.FunctionalModel:
  """Puts weights and a forward pass together with loss, metrics and spec.

  Args:
    weights: The initial trainable weights; there are no others.
    predict_on_batch: A `tf.function` of `(weights, ())`, `x` and `training`
      that returns logits.
    input_shape: The shape of one example.

  Returns:
    A `tff.learning.models.FunctionalModel` with mean cross entropy as its loss
    and the metrics `loss`, `accuracy` and `num_examples`.
  """
  return tff.learning.models.FunctionalModel(
      initial_weights=(weights, ()),
      predict_on_batch_fn=predict_on_batch,
      loss_fn=cross_entropy,
      metrics_fns=(_initialize_metrics, _update_metrics, _finalize_metrics),
      input_spec=collections.OrderedDict(
          x=tf.TensorSpec((None,) + input_shape, tf.float32),
          y=tf.TensorSpec((None,), tf.int64),
      ),
  )


def he_normal(rng: np.random.Generator, shape: Tuple[int, ...]) -> np.ndarray:
  """Returns the initial kernel of a layer that ReLU follows.

  It is normal with variance 2 / fan-in (He et al., "Delving Deep into
  Rectifiers", ICCV 2015, section 2.2).

  Args:
    rng: The source of randomness.
    shape: The shape of the kernel; the last dimension counts the outputs.

  Returns:
    The float32 kernel.
  """
  scale = math.sqrt(2.0 / math.prod(shape[:-1]))
  return scale * rng.standard_normal(shape, dtype=np.float32)


def check_image_shape(input_shape: Sequence[int]) -> Tuple[int, ...]:
  """Returns the shape as a tuple, or raises unless it is that of an image."""
  input_shape = _check_sizes('input_shape', input_shape)
  if len(input_shape) != 3:
    raise ValueError(
        '`input_shape` must be (height, width, channels), found'
        f' {input_shape}.'
    )
  return input_shape


def check_num_classes(num_classes: int) -> None:
  """Raises unless there are two classes or more."""
  if not isinstance(num_classes, int) or num_classes < 2:
    raise ValueError(
        f'`num_classes` must be an integer of at least 2, found {num_classes}.'
    )


@tf.function
def _initialize_metrics():
  return collections.OrderedDict(
      loss_sum=tf.zeros([]), num_correct=tf.zeros([]), num_examples=tf.zeros([])
  )


@tf.function
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


@tf.function
def _finalize_metrics(state):
  num_examples = state['num_examples']
  return collections.OrderedDict(
      loss=tf.math.divide_no_nan(state['loss_sum'], num_examples),
      accuracy=tf.math.divide_no_nan(state['num_correct'], num_examples),
      num_examples=num_examples,
  )


def _layer(
    rng: np.random.Generator, shape: Tuple[int, ...]
) -> Tuple[np.ndarray, np.ndarray]:
  """Returns an initial kernel and a zero bias, both float32."""
  return he_normal(rng, shape), np.zeros(shape[-1], np.float32)


def _dropout(
    features: tf.Tensor, rate: float, x: tf.Tensor, purpose: batch_seed.Purpose
) -> tf.Tensor:
  """Sets a share `rate` of the features to zero and scales up the others."""
  return tf.nn.experimental.stateless_dropout(
      features, rate, batch_seed.from_batch(x, purpose), rng_alg='philox'
  )


def _check_sizes(name: str, sizes: Sequence[int]) -> Tuple[int, ...]:
  """Returns `sizes` as a tuple, or raises unless all are positive integers."""
  sizes = tuple(sizes)
  if any(not isinstance(size, int) or size < 1 for size in sizes):
    raise ValueError(f'`{name}` must be positive integers, found {sizes}.')
  return sizes
