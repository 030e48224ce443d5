"""The models of the CIFAR tasks."""

from typing import Sequence

import tensorflow_federated as tff

from tasks import image_models
from tasks import image_preprocessing
from tasks import residual_models

IMAGE_SHAPE = (32, 32, 3)

_BUILDERS = {
    'resnet20': residual_models.resnet20,
    'resnet18': residual_models.resnet18,
    'cnn': image_models.cnn,
    'mlp': image_models.mlp,
}

NAMES = tuple(_BUILDERS)


def by_name(
    name: str,
    num_classes: int,
    *,
    mean: Sequence[float],
    stddev: Sequence[float],
    seed: int,
) -> tff.learning.models.FunctionalModel:
  """Builds a model that takes 32 x 32 colour images with pixels from 0 to 1.

  Args:
    name: One of `NAMES`.
    num_classes: The number of classes.
    mean: The mean pixel of every channel; standardisation is in the model, and
      so is random mirroring and cropping in training, see
      `tasks.image_preprocessing`.
    stddev: The standard deviation of every channel.
    seed: A non-negative integer that fixes the initial weights.

  Returns:
    A `tff.learning.models.FunctionalModel`.

  Raises:
    ValueError: If the name is unknown.
  """
  if name not in _BUILDERS:
    raise ValueError(
        f'`model` must be one of {", ".join(NAMES)}, found {name!r}.'
    )
  model = _BUILDERS[name](IMAGE_SHAPE, num_classes, seed=seed)
  return image_preprocessing.standardized(model, mean, stddev)
