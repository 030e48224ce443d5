"""Residual networks for small images, with group normalisation.

Batch normalisation keeps statistics of the data, which differ from client to
client; group normalisation (Wu and He, "Group Normalization", ECCV 2018) needs
none, so these models have no state: the non-trainable weights are empty. As in
`tasks.image_models`, the weights are arrays drawn with NumPy from a seed and
`predict_on_batch` returns logits.

The scale after the last convolution of a block that keeps the number of filters
starts at 0, so that the block starts as the identity (Goyal et al., "Accurate,
Large Minibatch SGD", 2017, section 5.1); with 1 in all blocks the first logits
would be far too large.
"""

from typing import List, Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import image_models

_KERNEL_SIZE = 3
_EPSILON = 1e-5


def resnet20(
    input_shape: Sequence[int], num_classes: int, *, seed: int = 0
) -> tff.learning.models.FunctionalModel:
  """The 20-layer residual network for CIFAR.

  A 3 x 3 convolution with 16 filters, then three stages of three blocks with
  16, 32 and 64 filters; shortcuts have no parameters (He et al., "Deep Residual
  Learning for Image Recognition", CVPR 2016, section 4.2, shortcuts A).
  Normalisation is over 8 groups of channels. For colour images it has 269,722
  parameters with 10 classes and 275,572 with 100, whatever their size.

  Args:
    input_shape: The shape of one image, `[height, width, channels]`.
    num_classes: The number of classes, at least 2.
    seed: A non-negative integer that fixes the initial weights.

  Returns:
    A `tff.learning.models.FunctionalModel`. Its trainable weights are a tuple:
    kernel `[3, 3, inputs, filters]`, scale and offset `[filters]` of every
    convolution and its normalisation, and last the kernel `[64, num_classes]`
    and bias of the logits.

  Raises:
    ValueError: If `input_shape` is not that of an image or `num_classes` is
      below 2.
  """
  return _resnet(
      input_shape,
      num_classes,
      stages=(16, 32, 64),
      blocks_per_stage=3,
      num_groups=8,
      projection=False,
      seed=seed,
  )


def resnet18(
    input_shape: Sequence[int], num_classes: int, *, seed: int = 0
) -> tff.learning.models.FunctionalModel:
  """The 18-layer residual network, with the first layers made for CIFAR.

  Four stages of two blocks with 64, 128, 256 and 512 filters; shortcuts between
  stages are 1 x 1 convolutions (He et al., "Deep Residual Learning for Image
  Recognition", CVPR 2016, table 1, shortcuts B). The first convolution is 3 x 3
  and no pooling follows, since the images are small. Normalisation is over 32
  groups of channels. For colour images it has 11,173,962 parameters with 10
  classes and 11,220,132 with 100, whatever their size.

  Args:
    input_shape: The shape of one image, `[height, width, channels]`.
    num_classes: The number of classes, at least 2.
    seed: A non-negative integer that fixes the initial weights.

  Returns:
    A `tff.learning.models.FunctionalModel`. Its trainable weights are a tuple:
    kernel, scale and offset of every convolution and its normalisation (in a
    block that changes the number of filters the shortcut's come last), and at
    the end the kernel `[512, num_classes]` and bias of the logits.

  Raises:
    ValueError: If `input_shape` is not that of an image or `num_classes` is
      below 2.
  """
  return _resnet(
      input_shape,
      num_classes,
      stages=(64, 128, 256, 512),
      blocks_per_stage=2,
      num_groups=32,
      projection=True,
      seed=seed,
  )


def _resnet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    stages: Sequence[int],
    blocks_per_stage: int,
    num_groups: int,
    projection: bool,
    seed: int,
) -> tff.learning.models.FunctionalModel:
  """Builds a residual network of basic blocks.

  Args:
    input_shape: The shape of one image.
    num_classes: The number of classes.
    stages: The number of filters in every stage. All but the first stage begin
      with a stride of 2.
    blocks_per_stage: The number of blocks in every stage.
    num_groups: The number of groups of channels to normalise.
    projection: Whether a shortcut between stages is a convolution; otherwise it
      leaves pixels out and fills up with channels of zeros.
    seed: Fixes the initial weights.

  Returns:
    The model.
  """
  input_shape = image_models.check_image_shape(input_shape)
  image_models.check_num_classes(num_classes)
  rng = np.random.default_rng(seed)
  blocks = _blocks(stages, blocks_per_stage)
  weights = _layer(rng, _KERNEL_SIZE, input_shape[-1], stages[0], scale=1)
  for inputs, outputs, _ in blocks:
    weights += _layer(rng, _KERNEL_SIZE, inputs, outputs, scale=1)
    # With 0 the ReLU of new channels that the shortcut does not fill would be
    # at 0 and have no gradient for ever.
    scale = 0 if inputs == outputs else 1
    weights += _layer(rng, _KERNEL_SIZE, outputs, outputs, scale=scale)
    if projection and inputs != outputs:
      weights += _layer(rng, 1, inputs, outputs, scale=1)
  weights += (
      image_models.he_normal(rng, (stages[-1], num_classes)),
      np.zeros(num_classes, np.float32),
  )

  @tf.function
  def predict_on_batch(model_weights, x, training):
    del training  # The model is the same in training and inference.
    trainable, _ = model_weights
    *layers, logit_kernel, logit_bias = trainable
    layers = iter(zip(layers[::3], layers[1::3], layers[2::3]))

    def convolve(features, stride):
      kernel, scale, offset = next(layers)
      features = tf.nn.conv2d(features, kernel, strides=stride, padding='SAME')
      return _group_norm(features, num_groups) * scale + offset

    features = tf.nn.relu(convolve(x, 1))
    for inputs, outputs, stride in blocks:
      residual = tf.nn.relu(convolve(features, stride))
      residual = convolve(residual, 1)
      if inputs != outputs:
        if projection:
          features = convolve(features, stride)
        else:
          features = _without_parameters(features, stride, outputs - inputs)
      features = tf.nn.relu(features + residual)
    features = tf.reduce_mean(features, axis=[1, 2])
    return tf.linalg.matmul(features, logit_kernel) + logit_bias

  return image_models.classifier(weights, predict_on_batch, input_shape)


def _blocks(
    stages: Sequence[int], blocks_per_stage: int
) -> List[Tuple[int, int, int]]:
  """Returns the input filters, output filters and stride of every block."""
  blocks = []
  inputs = stages[0]
  for outputs in stages:
    for _ in range(blocks_per_stage):
      blocks.append((inputs, outputs, 1 if inputs == outputs else 2))
      inputs = outputs
  return blocks


def _layer(
    rng: np.random.Generator,
    kernel_size: int,
    inputs: int,
    outputs: int,
    *,
    scale: float,
) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the kernel of a convolution and the scale and offset after it."""
  kernel = image_models.he_normal(
      rng, (kernel_size, kernel_size, inputs, outputs)
  )
  offset = np.zeros(outputs, np.float32)
  return kernel, np.full_like(offset, scale), offset


def _group_norm(features: tf.Tensor, num_groups: int) -> tf.Tensor:
  """Gives every group of channels of every image mean 0 and variance 1."""
  centred = features - _group_mean(features, num_groups)
  variance = _group_mean(tf.square(centred), num_groups)
  return centred * tf.math.rsqrt(variance + _EPSILON)


def _group_mean(features: tf.Tensor, num_groups: int) -> tf.Tensor:
  """Returns the mean of the group of every channel, `[b, 1, 1, channels]`."""
  channels = features.shape[-1]
  per_group = channels // num_groups
  # Reducing the pixels first keeps the large tensors at four dimensions.
  means = tf.reshape(
      tf.reduce_mean(features, axis=[1, 2]), [-1, num_groups, per_group]
  )
  means = tf.reduce_mean(means, axis=2)
  return tf.repeat(means, per_group, axis=1)[:, tf.newaxis, tf.newaxis]


def _without_parameters(
    features: tf.Tensor, stride: int, new_channels: int
) -> tf.Tensor:
  """Leaves pixels out and puts channels of zeros around the others."""
  before = new_channels // 2
  return tf.pad(
      features[:, ::stride, ::stride],
      [[0, 0], [0, 0], [0, 0], [before, new_channels - before]],
  )
