"""Tests for image_preprocessing."""

import numpy as np
import pytest
import tensorflow as tf

from tasks import image_models
from tasks import image_preprocessing

_MEAN = (0.5, 0.25)
_STDDEV = (0.5, 0.125)
_SHAPE = (9, 8, 2)
_X = np.random.default_rng(0).uniform(size=(300,) + _SHAPE).astype(np.float32)


def _model():
  return image_models.mlp(_SHAPE, 3, hidden_sizes=())


def _standardized(**kwargs):
  return image_preprocessing.standardized(_model(), _MEAN, _STDDEV, **kwargs)


def _logits(model, x, training):
  return model.predict_on_batch(model.initial_weights, x, training).numpy()


def test_standardisation():
  x = (_X - np.float32(_MEAN)) / np.float32(_STDDEV)
  expected = _logits(_model(), x, False)
  for model, training in (
      (_standardized(), False),
      (_standardized(augment=False), True),
  ):
    np.testing.assert_allclose(
        _logits(model, _X, training), expected, rtol=1e-4, atol=1e-5
    )


def test_augmentation_is_for_training_and_comes_first():
  augmented = image_preprocessing.augmented(tf.constant(_X))
  model = _standardized()
  np.testing.assert_allclose(
      _logits(model, _X, True),
      _logits(model, augmented, False),
      rtol=1e-4,
      atol=1e-5,
  )
  assert not np.allclose(_logits(model, _X, True), _logits(model, _X, False))


def test_the_rest_is_that_of_the_model():
  model, standardized = _model(), _standardized()
  for a, b in zip(model.initial_weights[0], standardized.initial_weights[0]):
    np.testing.assert_array_equal(a, b)
  assert standardized.input_spec == model.input_spec
  logits, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
  np.testing.assert_array_equal(
      standardized.loss(logits, labels), model.loss(logits, labels)
  )
  metrics = standardized.finalize_metrics(
      standardized.initialize_metrics_state()
  )
  assert set(metrics) == {'loss', 'accuracy', 'num_examples'}


def test_augmented_images_are_crops_of_padded_images():
  padded = np.pad(_X, [(0, 0), (4, 4), (4, 4), (0, 0)])
  places, mirrored = set(), 0
  for image, wide in zip(
      image_preprocessing.augmented(tf.constant(_X)).numpy(), padded
  ):
    found = [
        (row, column, is_mirrored)
        for row in range(9)
        for column in range(9)
        for is_mirrored in (False, True)
        if np.array_equal(
            image[:, ::-1] if is_mirrored else image,
            wide[row : row + 9, column : column + 8],
        )
    ]
    assert len(found) == 1
    places.add(found[0][:2])
    mirrored += found[0][2]
  # All 81 places are equally likely, so 300 images meet about 79 of them.
  assert len(places) > 70
  assert {row for row, _ in places} == {column for _, column in places}
  assert 110 < mirrored < 190


def test_augmentation_is_a_function_of_the_batch():
  once, again = (
      image_preprocessing.augmented(tf.constant(_X)).numpy() for _ in range(2)
  )
  np.testing.assert_array_equal(once, again)
  head = image_preprocessing.augmented(tf.constant(_X[:10])).numpy()
  assert not np.array_equal(head, once[:10])
  empty = image_preprocessing.augmented(tf.constant(_X[:0]))
  assert empty.shape == (0,) + _SHAPE


@pytest.mark.parametrize(
    'mean, stddev, message',
    [
        ((0.5,), (0.5, 0.5), '2 channels, found 1 and 2'),
        ((0.5, 0.5), (0.5,), '2 channels, found 2 and 1'),
        ((0.5, 0.5), (0.5, 0.0), '`stddev` must be positive, found 0.0'),
    ],
)
def test_wrong_arguments_raise(mean, stddev, message):
  with pytest.raises(ValueError, match=message):
    image_preprocessing.standardized(_model(), mean, stddev)
