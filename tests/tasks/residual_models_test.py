"""Tests for residual_models, on images smaller than those of CIFAR."""

import numpy as np
import pytest
import tensorflow as tf

from tasks import residual_models

_SHAPE = (8, 8, 3)
_BUILDERS = [residual_models.resnet20, residual_models.resnet18]


def _batch(size, shape=_SHAPE):
  rng = np.random.default_rng(7)
  x = rng.uniform(size=(size,) + shape).astype(np.float32)
  return x, rng.integers(10, size=size)


def _shifted(weights):
  """Weights with scales and offsets that are not 1 and 0."""
  rng = np.random.default_rng(1)
  return tuple(
      (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32)
      for w in weights
  )


def _convolve(features, kernel, stride):
  """Convolution with the padding that TensorFlow calls SAME."""
  size, out = features.shape[1], -(-features.shape[1] // stride)
  total = max((out - 1) * stride + kernel.shape[0] - size, 0)
  border = (total // 2, total - total // 2)
  features = np.pad(features, [(0, 0), border, border, (0, 0)])
  windows = np.lib.stride_tricks.sliding_window_view(
      features, kernel.shape[:2], axis=(1, 2)
  )[:, ::stride, ::stride]
  return np.einsum('bhwcij,ijco->bhwo', windows, kernel)


def _forward(weights, x, stages, num_blocks, num_groups, projection):
  """The architecture, written down in NumPy."""
  *layers, logit_kernel, logit_bias = weights
  layers = iter(zip(layers[::3], layers[1::3], layers[2::3]))

  def convolve(features, stride=1):
    kernel, scale, offset = next(layers)
    features = _convolve(features, kernel, stride)
    batch, height, width, channels = features.shape
    groups = features.reshape(batch, height, width, num_groups, -1)
    mean = groups.mean(axis=(1, 2, 4), keepdims=True)
    variance = groups.var(axis=(1, 2, 4), keepdims=True)
    groups = (groups - mean) / np.sqrt(variance + 1e-5)
    return groups.reshape(batch, height, width, channels) * scale + offset

  features = np.maximum(convolve(x.astype(np.float64)), 0)
  for stage, filters in enumerate(stages):
    for block in range(num_blocks):
      stride = 2 if stage and not block else 1
      residual = convolve(np.maximum(convolve(features, stride), 0))
      if stride == 2 and projection:
        features = convolve(features, 2)
      elif stride == 2:
        quarter = filters // 4
        features = np.pad(
            features[:, ::2, ::2], [(0, 0)] * 3 + [(quarter, quarter)]
        )
      features = np.maximum(features + residual, 0)
  return features.mean(axis=(1, 2)) @ logit_kernel + logit_bias


@pytest.mark.parametrize(
    'build, num_classes, expected',
    [
        # 3*3*3*16 + 6*3*3*16*16 + 3*3*16*32 + 5*3*3*32*32 + 3*3*32*64
        # + 5*3*3*64*64 = 267,696 of the convolutions, 2 * (7*16 + 6*32 + 6*64)
        # = 1,376 of the normalisations, 64*10 + 10 of the logits.
        (residual_models.resnet20, 10, 269722),
        (residual_models.resnet20, 100, 275572),
        # 3*3*3*64 + 4*3*3*64*64 + 3*3*(64*128 + 128*256 + 256*512)
        # + 3*3*3*(128**2 + 256**2 + 512**2) + 64*128 + 128*256 + 256*512
        # = 11,159,232; 2 * (5*64 + 5*128 + 5*256 + 5*512) = 9,600; 512*10 + 10.
        (residual_models.resnet18, 10, 11173962),
        (residual_models.resnet18, 100, 11220132),
    ],
)
def test_number_of_parameters(build, num_classes, expected):
  trainable, non_trainable = build((32, 32, 3), num_classes).initial_weights
  assert non_trainable == ()
  assert sum(weight.size for weight in trainable) == expected


@pytest.mark.parametrize(
    'build, architecture',
    [
        (residual_models.resnet20, ((16, 32, 64), 3, 8, False)),
        (residual_models.resnet18, ((64, 128, 256, 512), 2, 32, True)),
    ],
)
def test_forward_pass_against_numpy(build, architecture):
  model = build(_SHAPE, 10, seed=1)
  weights = _shifted(model.initial_weights[0])
  x, _ = _batch(2)
  logits = model.predict_on_batch((weights, ()), x, training=False)
  assert logits.shape == [2, 10]
  expected = _forward(weights, x, *architecture)
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_gradients_reach_every_weight():
  model = residual_models.resnet20(_SHAPE, 10)
  # With the initial scales of 0 the gradient stops at the end of a block.
  weights = tuple(map(tf.constant, _shifted(model.initial_weights[0])))
  x, y = _batch(4)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    loss = model.loss(model.predict_on_batch((weights, ()), x), y)
  for gradient in tape.gradient(loss, weights):
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


def test_start_of_training():
  """The first loss is near that of equal probabilities; all features live."""
  model = residual_models.resnet20(_SHAPE, 10)
  weights = tuple(map(tf.constant, model.initial_weights[0]))
  x, y = _batch(64)
  x[0] = 0.5  # In an image of one colour the variance of a group is 0.
  with tf.GradientTape() as tape:
    tape.watch(weights[-2])
    loss = model.loss(model.predict_on_batch((weights, ()), x - 0.5), y)
  np.testing.assert_allclose(loss, np.log(10), atol=0.7)
  gradient = tape.gradient(loss, weights[-2]).numpy()
  assert np.any(gradient, axis=1).all()


@pytest.mark.parametrize('build', _BUILDERS)
def test_initial_weights_come_from_the_seed(build):
  first, again, other = (
      build(_SHAPE, 10, seed=seed).initial_weights[0] for seed in (3, 3, 4)
  )
  for a, b, c in zip(first, again, other):
    assert isinstance(a, np.ndarray)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    if a.ndim == 1:
      assert np.unique(a).tolist() in ([0.0], [1.0])
    else:
      assert not np.array_equal(a, c)
      fan_in = a.size / a.shape[-1]
      np.testing.assert_allclose(a.std(), np.sqrt(2 / fan_in), rtol=0.2)


@pytest.mark.parametrize('build', _BUILDERS)
@pytest.mark.parametrize(
    'shape, num_classes, message',
    [
        ((8, 8), 10, '`input_shape`.*channels'),
        ((0, 8, 3), 10, '`input_shape`'),
        (_SHAPE, 1, '`num_classes`'),
    ],
)
def test_wrong_arguments_raise(build, shape, num_classes, message):
  with pytest.raises(ValueError, match=message):
    build(shape, num_classes)
