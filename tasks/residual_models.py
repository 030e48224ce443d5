"""Residual networks for small images, with group normalisation.

Batch normalisation keeps statistics of the data, which differ from client to
client; group normalisation (Wu and He, "Group Normalization", ECCV 2018) needs
none, so these models have no state. Otherwise they are as those of
`tasks.image_models`. Their trainable weights are a tuple: kernel `[3, 3,
inputs, filters]`, scale and offset `[filters]` of every convolution and its
normalisation (the shortcut's come last in a block), and at the end kernel and
bias of the logits.

The scale after the last convolution of a block that keeps the number of filters
starts at 0, so that the block starts as the identity (Goyal et al., "Accurate,
Large Minibatch SGD", 2017, section 5.1); with 1 in all blocks the first logits
would be far too large.
"""

import functools
from typing import Sequence, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from tasks import image_models

_KERNEL_SIZE = 3
_EPSILON = 1e-5


def _resnet(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    stages: Sequence[int],
    blocks_per_stage: int,
    num_groups: int,
    projection: bool,
    seed: int = 0,
) -> tff.learning.models.FunctionalModel:
  """Builds a residual network of basic blocks after a 3 x 3 convolution.

  `stages` has the filters of each; all but the first begin with a stride of 2.
  There the shortcut is a 1 x 1 convolution if `projection`; otherwise it leaves
  pixels out and fills up with channels of zeros.
  """
  *_, channels = image_models.check_image_shape(input_shape)
  checks.check_int('num_classes', num_classes, minimum=2)
  # The filters before and in every block.
  filters = np.repeat(stages, blocks_per_stage).tolist()
  blocks = list(zip([stages[0], *filters], filters))
  rng = np.random.default_rng(seed)
  weights = _layer(rng, _KERNEL_SIZE, channels, stages[0], scale=1)
  for inputs, outputs in blocks:
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

  def logits(trainable, x, training):
    del training  # The model is the same in training and inference.
    *layers, logit_kernel, logit_bias = trainable
    layers = iter(zip(layers[::3], layers[1::3], layers[2::3]))

    def convolve(features, stride):
      kernel, scale, offset = next(layers)
      features = tf.nn.conv2d(features, kernel, strides=stride, padding='SAME')
      return _group_norm(features, num_groups) * scale + offset

    features = tf.nn.relu(convolve(x, 1))
    for inputs, outputs in blocks:
      stride = 1 if inputs == outputs else 2
      residual = tf.nn.relu(convolve(features, stride))
      residual = convolve(residual, 1)
      if stride > 1 and projection:
        features = convolve(features, stride)
      elif stride > 1:
        before = (outputs - inputs) // 2
        features = tf.pad(
            features[:, ::stride, ::stride],
            [[0, 0], [0, 0], [0, 0], [before, outputs - inputs - before]],
        )
      features = tf.nn.relu(features + residual)
    features = tf.reduce_mean(features, axis=[1, 2])
    return tf.linalg.matmul(features, logit_kernel) + logit_bias

  return image_models.classifier(weights, logits, input_shape)


def _layer(rng, size, inputs, outputs, *, scale: int) -> Tuple[np.ndarray, ...]:
  """Returns the kernel of a convolution and the scale and offset after it."""
  kernel = image_models.he_normal(rng, (size, size, inputs, outputs))
  offset = np.zeros(outputs, np.float32)
  return kernel, np.full_like(offset, scale), offset


def _group_norm(features: tf.Tensor, num_groups: int) -> tf.Tensor:
  """Gives every group of channels of every image mean 0 and variance 1."""
  per_group = features.shape[-1] // num_groups

  def group_mean(x):
    # Reducing the pixels first keeps the large tensors at four dimensions.
    means = tf.reshape(
        tf.reduce_mean(x, axis=[1, 2]), [-1, num_groups, per_group]
    )
    means = tf.repeat(tf.reduce_mean(means, axis=2), per_group, axis=1)
    return means[:, tf.newaxis, tf.newaxis]

  centred = features - group_mean(features)
  return centred * tf.math.rsqrt(group_mean(tf.square(centred)) + _EPSILON)


# The 20-layer residual network for CIFAR: shortcuts have no parameters (He et
# al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2,
# shortcuts A).
resnet20 = functools.partial(
    _resnet,
    stages=(16, 32, 64),
    blocks_per_stage=3,
    num_groups=8,
    projection=False,
)
# The 18-layer residual network of that paper (table 1, shortcuts B). The first
# convolution is 3 x 3 and no pooling follows, since the images are small.
resnet18 = functools.partial(
    _resnet,
    stages=(64, 128, 256, 512),
    blocks_per_stage=2,
    num_groups=32,
    projection=True,
)
