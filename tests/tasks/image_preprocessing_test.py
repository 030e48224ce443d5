"""Tests for image_preprocessing, and for pixels and batch_seed below it."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import batch_seed
from tasks import image_models
from tasks import image_preprocessing
from tasks import pixels

_MEAN = (0.5, 0.25)
_STDDEV = (0.5, 0.125)
_SHAPE = (9, 8, 2)
_X = np.random.default_rng(0).uniform(size=(300,) + _SHAPE).astype(np.float32)


def _logits(model, x, training):
  return model.predict_on_batch(model.initial_weights, x, training).numpy()


def test_standardisation_and_augmentation_before_a_model():
  model = image_models.mlp(_SHAPE, 3, hidden_sizes=())
  found = image_preprocessing.standardized(model, _MEAN, _STDDEV)
  augmented = image_preprocessing.augmented(tf.constant(_X)).numpy()
  # Augmentation is for training only, and comes first.
  for x, training in ((_X, False), (augmented, True)):
    np.testing.assert_allclose(
        _logits(found, _X, training),
        _logits(model, (x - np.float32(_MEAN)) / np.float32(_STDDEV), False),
        rtol=1e-4,
        atol=1e-5,
    )
  assert not np.allclose(_logits(found, _X, True), _logits(found, _X, False))
  # The rest is that of the model.
  assert found.initial_weights is model.initial_weights
  assert found.input_spec == model.input_spec
  logits, labels = np.eye(3, dtype=np.float32), np.array([0, 1, 1])
  assert found.loss(logits, labels) == model.loss(logits, labels)
  metrics = found.finalize_metrics(found.initialize_metrics_state())
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
  whole, again, head, empty = (
      image_preprocessing.augmented(tf.constant(x)).numpy()
      for x in (_X, _X, _X[:10], _X[:0])
  )
  np.testing.assert_array_equal(whole, again)
  assert not np.array_equal(head, whole[:10])
  assert empty.shape == (0,) + _SHAPE


def _seed(x, purpose=batch_seed.Purpose.DROPOUT):
  return tuple(batch_seed.from_batch(tf.constant(x), purpose).numpy().tolist())


def test_batch_seed():
  # This very number everywhere, or a run could not be repeated elsewhere.
  assert _seed(np.arange(3, dtype=np.float32)) == (1488390016016888629, 1)
  # It depends on every pixel, the order and the purpose.
  changed = _X.copy()
  changed[3, 2, 2, 0] = np.nextafter(changed[3, 2, 2, 0], np.float32(2))
  seeds = {_seed(x) for x in (_X, changed, _X[::-1], _X[:3], _X[:0])}
  assert len(seeds) == 5
  assert len({_seed(_X, purpose) for purpose in batch_seed.Purpose}) == 4

  @tff.tensorflow.computation(tff.TensorType(np.float32, [None, 9, 8, 2]))
  def computation(x):
    return batch_seed.from_batch(x, batch_seed.Purpose.DROPOUT)

  assert tuple(computation(_X)) == _seed(_X)


def test_pixels():
  every = np.arange(256, dtype=np.uint8)
  floats = pixels.to_floats(every)
  assert floats.dtype == np.float32
  np.testing.assert_allclose(floats, every / 255, rtol=1e-7)
  assert pixels.to_floats(floats) is floats
  # A graph gives the same bits.
  mapped = tf.data.Dataset.from_tensors(every).map(pixels.to_float_tensor)
  for tensor in (pixels.to_float_tensor(every), mapped.get_single_element()):
    assert tensor.dtype == tf.float32
    np.testing.assert_array_equal(tensor, floats)
