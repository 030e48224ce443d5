"""Tests for image_models."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tasks import image_models

_SHAPE = (28, 28, 1)


def _batch(size, shape=_SHAPE, num_classes=10):
  rng = np.random.default_rng(7)
  x = rng.uniform(size=(size,) + shape).astype(np.float32)
  return x, rng.integers(num_classes, size=size)


def _num_parameters(model):
  trainable, non_trainable = model.initial_weights
  assert non_trainable == ()
  return sum(weight.size for weight in trainable)


def _losses(logits, labels):
  """The cross entropy of every example, in float64."""
  logits = logits.astype(np.float64)
  top = logits.max(axis=-1, keepdims=True)
  log_sum = top[:, 0] + np.log(np.exp(logits - top).sum(axis=-1))
  return log_sum - logits[np.arange(labels.size), labels]


def _mlp_forward(weights, x):
  hidden = x.reshape(len(x), -1).astype(np.float64)
  for kernel, bias in zip(weights[:-2:2], weights[1:-2:2]):
    hidden = np.maximum(hidden @ kernel + bias, 0.0)
  return hidden @ weights[-2] + weights[-1]


def _cnn_forward(weights, x):
  features = x.astype(np.float64)
  for kernel, bias in zip(weights[:-4:2], weights[1:-4:2]):
    windows = np.lib.stride_tricks.sliding_window_view(
        features, (3, 3), axis=(1, 2)
    )
    features = np.einsum('bhwcij,ijco->bhwo', windows, kernel) + bias
    features = np.maximum(features, 0.0)
    batch, height, width, channels = features.shape
    height, width = height // 2, width // 2
    features = features[:, : 2 * height, : 2 * width]
    features = features.reshape(batch, height, 2, width, 2, channels)
    features = features.max(axis=(2, 4))
  return _mlp_forward(weights[-4:], features)


def _shifted(weights):
  """Weights with biases that are not zero, so that they count."""
  rng = np.random.default_rng(1)
  return tuple(
      (w + 0.1 * rng.standard_normal(w.shape)).astype(np.float32)
      for w in weights
  )


@pytest.mark.parametrize(
    'model, expected',
    [
        (lambda: image_models.mlp(_SHAPE, 10), 79510),
        (lambda: image_models.mlp((30,), 2, hidden_sizes=(16, 8)), 650),
        (lambda: image_models.mlp((30,), 2, hidden_sizes=()), 62),
        (lambda: image_models.cnn(_SHAPE, 10), 56714),
        (lambda: image_models.cnn((32, 32, 3), 100), 85380),
        (lambda: image_models.cnn_dropout(_SHAPE, 62), 1206590),
        (lambda: image_models.cnn_dropout(_SHAPE, 10), 1199882),
    ],
)
def test_number_of_parameters(model, expected):
  assert _num_parameters(model()) == expected


@pytest.mark.parametrize(
    'build, forward',
    [(image_models.mlp, _mlp_forward), (image_models.cnn, _cnn_forward)],
)
@pytest.mark.parametrize('shape', [_SHAPE, (11, 12, 3)])
def test_forward_pass_and_loss_against_numpy(build, forward, shape):
  model = build(shape, 7, seed=1)
  weights = _shifted(model.initial_weights[0])
  x, y = _batch(5, shape, 7)
  logits = model.predict_on_batch((weights, ()), x, training=False)
  expected = forward(weights, x)
  assert logits.shape == [5, 7]
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
      model.loss(logits, y), _losses(expected, y).mean(), rtol=1e-4
  )


def _cnn_dropout_forward(weights, x):
  features = x.astype(np.float64)
  for kernel, bias in zip(weights[:4:2], weights[1:4:2]):
    windows = np.lib.stride_tricks.sliding_window_view(
        features, (3, 3), axis=(1, 2)
    )
    features = np.einsum('bhwcij,ijco->bhwo', windows, kernel) + bias
    features = np.maximum(features, 0.0)
  batch, height, width, channels = features.shape
  height, width = height // 2, width // 2
  features = features[:, : 2 * height, : 2 * width]
  features = features.reshape(batch, height, 2, width, 2, channels)
  return _mlp_forward(weights[4:], features.max(axis=(2, 4)))


def test_cnn_dropout_in_inference_against_numpy():
  model = image_models.cnn_dropout((11, 12, 2), 7, seed=1)
  weights = _shifted(model.initial_weights[0])
  x, _ = _batch(5, (11, 12, 2))
  logits = model.predict_on_batch((weights, ()), x, training=False)
  np.testing.assert_allclose(
      logits, _cnn_dropout_forward(weights, x), rtol=1e-4, atol=1e-4
  )


def test_dropout_rates():
  """With all features 1, a logit is the mean of the dropout masks."""
  model = image_models.cnn_dropout((26, 26, 1), 2)
  zeros = [np.zeros_like(weight) for weight in model.initial_weights[0]]
  x, _ = _batch(50, (26, 26, 1))
  # The features before the first dropout are 1; a hidden unit is their sum.
  first = list(zeros)
  first[3] = np.ones(64, np.float32)
  first[4] = np.zeros([7744, 128], np.float32)
  first[4][:, 0] = 1 / 7744
  first[6] = np.zeros([128, 2], np.float32)
  first[6][0] = 1.0
  sums = model.predict_on_batch((tuple(first), ()), x, training=True).numpy()
  # The hidden unit itself is dropped in half of the images and doubled else.
  kept = sums[:, 0] > 0
  assert 10 < kept.sum() < 40
  np.testing.assert_allclose(sums[kept], 2.0, rtol=0.05)
  assert np.std(sums[kept, 0]) > 0.005
  # The standard deviation of the mean of 7,744 masks that are 4/3 or 0.
  np.testing.assert_allclose(
      np.std(sums[kept, 0] / 2), np.sqrt(1 / 3 / 7744), rtol=0.4
  )


def test_dropout_is_a_function_of_the_batch():
  model = image_models.cnn_dropout(_SHAPE, 10)
  x, _ = _batch(4)
  predict = lambda x, training: model.predict_on_batch(
      model.initial_weights, x, training
  ).numpy()
  once = predict(x, True)
  np.testing.assert_array_equal(once, predict(x, True))
  assert not np.array_equal(once, predict(x, False))
  assert not np.allclose(once[::-1], predict(x[::-1], True))
  # Copies of an image in a batch have masks of their own.
  copies = predict(np.repeat(x[:1], 2, axis=0), True)
  assert not np.allclose(copies[0], copies[1])


def test_hidden_sizes():
  model = image_models.mlp((6,), 3, hidden_sizes=(5, 4))
  weights = _shifted(model.initial_weights[0])
  x, _ = _batch(4, (6,))
  np.testing.assert_allclose(
      model.predict_on_batch((weights, ()), x),
      _mlp_forward(weights, x),
      rtol=1e-5,
      atol=1e-5,
  )


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


@pytest.mark.parametrize(
    'build', [image_models.mlp, image_models.cnn, image_models.cnn_dropout]
)
def test_gradients_reach_every_weight(build):
  model = build(_SHAPE, 10)
  weights = model.initial_weights[0]
  weights = tuple(tf.constant(weight) for weight in weights)
  x, y = _batch(20)
  with tf.GradientTape() as tape:
    tape.watch(weights)
    loss = model.loss(model.predict_on_batch((weights, ()), x), y)
  for gradient in tape.gradient(loss, weights):
    assert np.isfinite(gradient).all()
    assert np.any(gradient)


@pytest.mark.parametrize(
    'build', [image_models.mlp, image_models.cnn, image_models.cnn_dropout]
)
def test_initial_weights_come_from_the_seed(build):
  first, again, other = (
      build(_SHAPE, 10, seed=seed).initial_weights[0] for seed in (3, 3, 4)
  )
  for a, b, c in zip(first, again, other):
    assert isinstance(a, np.ndarray)
    assert a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    if a.ndim == 1:
      assert not a.any()
    else:
      assert not np.array_equal(a, c)
      fan_in = a.size / a.shape[-1]
      np.testing.assert_allclose(a.std(), np.sqrt(2 / fan_in), rtol=0.2)


def test_metrics():
  model = image_models.mlp((6,), 3)
  labels = [np.array([0, 1, 2, 2]), np.array([1])]
  logits = [
      np.array([[2, 1, 0], [2, 1, 0], [0, 1, 2], [0, 1, 2]], np.float32),
      np.array([[0, 1, 0]], np.float32),
  ]
  state = model.initialize_metrics_state()
  for y, output in zip(labels, logits):
    state = model.update_metrics_state(
        state,
        labels=y,
        batch_output=tff.learning.models.BatchOutput(
            loss=model.loss(output, y), predictions=output, num_examples=len(y)
        ),
    )
  metrics = model.finalize_metrics(state)
  assert set(metrics) == {'loss', 'accuracy', 'num_examples'}
  expected = _losses(np.concatenate(logits), np.concatenate(labels)).mean()
  np.testing.assert_allclose(metrics['loss'], expected, rtol=1e-5)
  np.testing.assert_allclose(metrics['accuracy'], 0.8)
  assert metrics['num_examples'] == 5
  empty = model.finalize_metrics(model.initialize_metrics_state())
  assert [float(value) for value in empty.values()] == [0.0, 0.0, 0.0]


def test_input_spec():
  spec = image_models.cnn(_SHAPE, 10).input_spec
  assert list(spec) == ['x', 'y']
  assert spec['x'] == tf.TensorSpec([None, 28, 28, 1], tf.float32)
  assert spec['y'] == tf.TensorSpec([None], tf.int64)


@pytest.mark.parametrize(
    'call, message',
    [
        (lambda: image_models.mlp((0, 28), 10), r'`input_shape`.*\(0, 28\)'),
        (lambda: image_models.mlp((9,), 1), '`num_classes`.*found 1'),
        (
            lambda: image_models.mlp((9,), 2, hidden_sizes=(4.0,)),
            '`hidden_sizes`',
        ),
        (lambda: image_models.cnn((28, 28), 10), '`input_shape`.*channels'),
        (lambda: image_models.cnn((9, 28, 1), 10), 'too small'),
        (lambda: image_models.cnn_dropout((28, 5, 1), 10), 'too small'),
        (lambda: image_models.cnn_dropout((28, 28), 10), 'channels'),
        (lambda: image_models.cnn_dropout(_SHAPE, 1), '`num_classes`'),
        (lambda: image_models.cnn(_SHAPE, 10, filters=(0,)), '`filters`'),
        (lambda: image_models.cnn(_SHAPE, 10, hidden_size=0), '`hidden_size`'),
    ],
)
def test_wrong_arguments_raise(call, message):
  with pytest.raises(ValueError, match=message):
    call()
