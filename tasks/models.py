"""The models of the tasks by name."""

import types

from tasks import image_models
from tasks import residual_models

BUILDERS = types.MappingProxyType({
    'mlp': image_models.mlp,
    'cnn': image_models.cnn,
    'cnn_dropout': image_models.cnn_dropout,
    'resnet20': residual_models.resnet20,
    'resnet18': residual_models.resnet18,
})
