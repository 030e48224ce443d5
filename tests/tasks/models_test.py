"""Tests for image_models and residual_models, against NumPy."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tasks import image_models
from tasks import loading
from tasks import residual_models

_SHAPE = (12, 12, 3)
_X = np.random.default_rng(7).uniform(size=(6,) + _SHAPE).astype(np.float32)
_Y = np.random.default_rng(8).integers(10, size=6)


def _shifted(model):
  """Weights of which none is 0 or 1, so that all count."""
  rng = np.random.default_rng(1)
  return tuple(
      (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32)
      for w in model.initial_weights[0]
  )


def _losses(logits, labels):
  """The cross entropy of every example, in float64."""
  logits = logits.astype(np.float64)
  top = logits.max(axis=-1, keepdims=True)
  log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))
  return log_sum - logits[np.arange(labels.size), labels]


def _convolve(features, kernel, stride=1):
  windows = np.lib.stride_tricks.sliding_window_view(
      features, kernel.shape[:2], axis=(1, 2)
  )[:, ::stride, ::stride]
  return np.einsum('bhwcij,ijco->bhwo', windows, kernel)


def _max_pool(features):
  batch, height, width, channels = features.shape
  height, width = height // 2, width // 2
  features = features[:, : 2 * height, : 2 * width]
  features = features.reshape(batch, height, 2, width, 2, channels)
  return features.max(axis=(2, 4))


def _mlp(weights, x):
  hidden = x.reshape(len(x), -1).astype(np.float64)
  for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
    hidden = np.maximum(hidden @ kernel + bias, 0.0)
  return hidden @ weights[-2] + weights[-1]


def _cnn(weights, x, pooled=(0, 1)):
  features = x.astype(np.float64)
  for index, (kernel, bias) in enumerate(zip(weights[:-4:2], weights[1:-4:2])):
    features = np.maximum(_convolve(features, kernel) + bias, 0.0)
    if index in pooled:
      features = _max_pool(features)
  return _mlp(weights[-4:], features)


def _resnet(weights, x, stages, num_blocks, num_groups, projection):
  *layers, logit_kernel, logit_bias = weights
  layers = iter(zip(layers[::3], layers[1::3], layers[2::3]))

  def convolve(features, stride=1):
    kernel, scale, offset = next(layers)
    # The padding that TensorFlow calls SAME.
    size, out = features.shape[1], -(-features.shape[1] // stride)
    total = max((out - 1) * stride + kernel.shape[0] - size, 0)
    border = (total // 2, total - total // 2)
    features = np.pad(features, [(0, 0), border, border, (0, 0)])
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


_FORWARD = {
    'mlp': _mlp,
    'cnn': _cnn,
    'cnn_dropout': functools.partial(_cnn, pooled=(1,)),
    # The stages, blocks in a stage, groups, and whether shortcuts project.
    'resnet20': lambda w, x: _resnet(w, x, (16, 32, 64), 3, 8, False),
    'resnet18': lambda w, x: _resnet(w, x, (64, 128, 256, 512), 2, 32, True),
}


def _build(name, num_classes=10, **options):
  return loading.MODEL_BUILDERS[name](_SHAPE, num_classes, **options)


@pytest.mark.parametrize('name', _FORWARD)
def test_forward_pass_and_loss(name):
  model = _build(name, seed=1)
  weights = _shifted(model)
  logits = model.predict_on_batch((weights, ()), _X, training=False)
  expected = _FORWARD[name](weights, _X)
  np.testing.assert_allclose(logits, expected, rtol=2e-3, atol=2e-3)
  np.testing.assert_allclose(
      model.loss(logits, _Y), _losses(logits.numpy(), _Y).mean(), rtol=1e-4
  )


@pytest.mark.parametrize(
    'name, options',
    [
        ('mlp', {'hidden_sizes': (5, 4)}),
        ('mlp', {'hidden_sizes': ()}),
        ('cnn', {'filters': (5,), 'hidden_size': 6}),
    ],
)
def test_other_layers(name, options):
  model = _build(name, **options)
  weights = _shifted(model)
  logits = model.predict_on_batch((weights, ()), _X, training=False)
  expected = _FORWARD[name](weights, _X)
  np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', ['mlp', 'cnn', 'cnn_dropout', 'resnet20'])
def test_gradients_reach_every_weight(name):
  model = _build(name)
  # With the initial scales of 0 the gradient stops at the end of a block.
  weights = tuple(map(tf.constant, _shifted(model)))
  with tf.GradientTape() as tape:
    tape.watch(weights)
    loss = model.loss(model.predict_on_batch((weights, ()), _X), _Y)
  for gradient in tape.gradient(loss, weights):
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


@pytest.mark.parametrize('name', _FORWARD)
def test_initial_weights_come_from_the_seed(name):
  first, again, other = (
      _build(name, seed=seed).initial_weights[0] for seed in (3, 3, 4)
  )
  for a, b, c in zip(first, again, other):
    assert isinstance(a, np.ndarray)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    if a.ndim == 1:
      # A bias, an offset or a scale.
      assert np.unique(a).tolist() in ([0.0], [1.0])
    else:
      assert not np.array_equal(a, c)
      fan_in = a.size / a.shape[-1]
      np.testing.assert_allclose(a.std(), np.sqrt(2 / fan_in), rtol=0.4)


def test_start_of_training_of_a_residual_network():
  """The first loss is near that of equal probabilities; all features live."""
  model = residual_models.resnet20((8, 8, 3), 10)
  weights = tuple(map(tf.constant, model.initial_weights[0]))
  x = np.random.default_rng(7).uniform(size=(64, 8, 8, 3)).astype(np.float32)
  y = np.random.default_rng(8).integers(10, size=64)
  x[0] = 0.5  # In an image of one colour the variance of a group is 0.
  with tf.GradientTape() as tape:
    tape.watch(weights[-2])
    loss = model.loss(model.predict_on_batch((weights, ()), x - 0.5), y)
  np.testing.assert_allclose(loss, np.log(10), atol=0.7)
  gradient = tape.gradient(loss, weights[-2]).numpy()
  assert np.any(gradient, axis=1).all()


def test_dropout_rates():
  """With all features 1, a logit is the mean of the dropout masks."""
  model = image_models.cnn_dropout((26, 26, 1), 2)
  # The features before the first dropout are 1; a hidden unit is their sum.
  first = [np.zeros_like(weight) for weight in model.initial_weights[0]]
  first[3] = np.ones(64, np.float32)
  first[4][:, 0] = 1 / 7744
  first[6][0] = 1.0
  x = np.random.default_rng(7).uniform(size=(50, 26, 26, 1)).astype(np.float32)
  sums = model.predict_on_batch((tuple(first), ()), x, training=True).numpy()
  # The hidden unit itself is dropped in half of the images and doubled else.
  kept = sums[:, 0] > 0
  assert 10 < kept.sum() < 40
  np.testing.assert_allclose(sums[kept], 2.0, rtol=0.05)
  # The standard deviation of the mean of 7,744 masks that are 4/3 or 0.
  np.testing.assert_allclose(
      np.std(sums[kept, 0] / 2), np.sqrt(1 / 3 / 7744), rtol=0.4
  )


def test_dropout_is_a_function_of_the_batch():
  model = _build('cnn_dropout')
  predict = lambda x, training: model.predict_on_batch(
      model.initial_weights, x, training
  ).numpy()
  once = predict(_X, True)
  np.testing.assert_array_equal(once, predict(_X, True))
  assert not np.array_equal(once, predict(_X, False))
  assert not np.allclose(once[::-1], predict(_X[::-1], True))
  # Copies of an image in a batch have masks of their own.
  copies = predict(np.repeat(_X[:1], 2, axis=0), True)
  assert not np.allclose(copies[0], copies[1])


def test_loss_honours_sample_weights():
  logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  labels = np.array([0, 2, 1, 1])
  weights = np.array([1.0, 0.0, 2.0, 0.5], np.float32)
  np.testing.assert_allclose(
      image_models.cross_entropy(logits, labels, weights),
      np.average(_losses(logits, labels), weights=weights),
      rtol=1e-5,
  )
  assert image_models.cross_entropy(logits, labels, np.zeros(4)) == 0.0
  assert image_models.cross_entropy(logits[:0], labels[:0]) == 0.0


def test_metrics():
  model = image_models.mlp((6,), 3)
  state = model.initialize_metrics_state()
  empty = model.finalize_metrics(state)
  assert [float(value) for value in empty.values()] == [0.0, 0.0, 0.0]
  y = np.array([0, 1, 2, 2, 1])
  logits = np.float32([[2, 1, 0], [2, 1, 0], [0, 1, 2], [0, 1, 2], [0, 1, 0]])
  for batch in (slice(4), slice(4, 5)):
    output = tff.learning.models.BatchOutput(
        loss=model.loss(logits[batch], y[batch]),
        predictions=logits[batch],
        num_examples=len(y[batch]),
    )
    state = model.update_metrics_state(
        state, labels=y[batch], batch_output=output
    )
  metrics = model.finalize_metrics(state)
  assert set(metrics) == {'loss', 'accuracy', 'num_examples'}
  np.testing.assert_allclose(
      metrics['loss'], _losses(logits, y).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(metrics['accuracy'], 0.8)
  assert metrics['num_examples'] == 5


@pytest.mark.parametrize('name', loading.MODEL_BUILDERS)
def test_wrong_arguments_of_any_model_raise(name):
  build = loading.MODEL_BUILDERS[name]
  with pytest.raises(ValueError, match='input_shape must be >= 1; found 0'):
    build((8, 0, 3), 10)
  with pytest.raises(TypeError, match='input_shape must be an int'):
    build((8, 8.0, 3), 10)
  with pytest.raises(ValueError, match='num_classes must be >= 2; found 1'):
    build((8, 8, 3), 1)
  if name != 'mlp':
    with pytest.raises(ValueError, match='height, width, channels'):
      build((28, 28), 10)


@pytest.mark.parametrize(
    'name, shape, options, message',
    [
        ('cnn', (9, 28, 1), {}, 'too small for 2 convolutions'),
        ('cnn_dropout', (28, 5, 1), {}, 'too small for 2 convolutions'),
        ('cnn', (28, 28, 1), {'filters': (0,)}, 'filters'),
        ('cnn', (28, 28, 1), {'hidden_size': 0}, 'hidden_size'),
        ('mlp', (9,), {'hidden_sizes': (0,)}, 'hidden_sizes'),
    ],
)
def test_what_a_model_cannot_be_raises(name, shape, options, message):
  with pytest.raises(ValueError, match=message):
    loading.MODEL_BUILDERS[name](shape, 10, **options)
