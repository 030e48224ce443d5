"""Tests for cifar_models."""

import numpy as np
import pytest

from tasks import cifar_models

_SCALES = {'mean': (0.5, 0.4, 0.3), 'stddev': (0.2, 0.3, 0.4)}


@pytest.mark.parametrize(
    'name, num_classes, expected',
    [
        ('resnet20', 10, 269722),
        ('resnet20', 100, 275572),
        ('resnet18', 10, 11173962),
        ('resnet18', 100, 11220132),
        ('cnn', 10, 79530),
        ('cnn', 100, 85380),
        ('mlp', 10, 308310),
        ('mlp', 100, 317400),
    ],
)
def test_number_of_parameters(name, num_classes, expected):
  model = cifar_models.by_name(name, num_classes, **_SCALES, seed=0)
  assert model.input_spec['x'].shape.as_list() == [None, 32, 32, 3]
  weights, _ = model.initial_weights
  assert sum(weight.size for weight in weights) == expected
  assert weights[-1].shape == (num_classes,)


def test_input_is_standardised():
  mean_images = np.broadcast_to(np.float32(_SCALES['mean']), [2, 32, 32, 3])
  for name in ('cnn', 'mlp'):
    model = cifar_models.by_name(name, 10, **_SCALES, seed=0)
    # A mean image is standardised to zeros, which no layer turns into more.
    logits = model.predict_on_batch(model.initial_weights, mean_images, False)
    np.testing.assert_allclose(logits, np.zeros([2, 10]), atol=1e-4)


def test_unknown_name_raises():
  with pytest.raises(ValueError, match="resnet20, resnet18, cnn, mlp.*'vgg'"):
    cifar_models.by_name('vgg', 10, **_SCALES, seed=0)
