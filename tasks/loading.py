"""Makes a `Task` of what the task's module says."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow_federated as tff

from tasks import image_models
from tasks import image_preprocessing
from tasks import partition
from tasks import pixels
from tasks import residual_models
from tasks import spec as spec_lib
from tasks import task

MODEL_BUILDERS = {
    'mlp': image_models.mlp,
    'cnn': image_models.cnn,
    'cnn_dropout': image_models.cnn_dropout,
    'resnet20': residual_models.resnet20,
    'resnet18': residual_models.resnet18,
}
_TRAINING_OPTIONS = (
    'batch_size',
    'client_epochs',
    'client_learning_rate',
    'rounds',
    'cohort_size',
)
# More than any task draws from; the words of a seed do not depend on how many.
_NUM_SEEDS = 8


def load(
    name: str, spec: spec_lib.TaskSpec, options: Mapping[str, Any]
) -> task.Task:
  """Reads the data, partitions them and builds the model; see `load_task`."""
  # The order in which these are taken is part of what a seed means.
  seeds = map(
      int, np.random.SeedSequence(options['seed']).generate_state(_NUM_SEEDS)
  )
  data = spec.read(options, seeds)
  if 'partition' in options:
    data = _partitioned(data, spec.min_client_examples, options, next(seeds))
  client_data, holdout, test = data
  # By class, or as the file has it, a part of it would be no sample of it.
  order = np.random.default_rng(0).permutation(len(test['y']))
  test = collections.OrderedDict((k, array[order]) for k, array in test.items())
  num_classes = options.get('classes', spec.num_classes)
  name_of_model = options.get('model', next(iter(spec.models)))
  model = MODEL_BUILDERS[name_of_model](
      holdout['x'].shape[1:],
      num_classes,
      seed=next(seeds),
      **spec.models[name_of_model],
  )
  if spec.pixel_moments is not None:
    model = image_preprocessing.standardized(model, *spec.pixel_moments)
  return task.Task(
      name=name,
      client_data=client_data,
      holdout=holdout,
      test=test,
      model=model,
      num_classes=num_classes,
      **{option: options[option] for option in _TRAINING_OPTIONS},
  )


def _partitioned(sets, min_examples, options, seed):
  """Client data, the hold-out and the test set of `spec.LabelledSets`."""
  parts = partition.by_name(
      options['partition'],
      sets.y[sets.train],
      options['num_clients'],
      seed,
      alpha=options['alpha'],
      shards_per_client=options['shards_per_client'],
      min_examples=min_examples,
  )

  def examples(indices):
    return collections.OrderedDict(
        x=pixels.to_floats(sets.x[indices]), y=sets.y[indices]
    )

  # As many digits as the last client needs keep the ids sorted.
  digits = len(str(len(parts) - 1))
  client_data = tff.simulation.datasets.TestClientData(
      {
          f'client_{index:0{digits}d}': examples(sets.train[part])
          for index, part in enumerate(parts)
      }
  )
  return client_data, examples(sets.holdout), examples(sets.test)
