"""The federated task: all that an experiment must know about its problem."""

import collections
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
  """A classification problem on federated data, with its training defaults.

  A task says what is learned from which data; how clients are sampled, batched,
  attacked and aggregated is up to the experiment. Everything but the examples
  of the clients, which are not read, is checked when a task is made: TypeError
  for a field of the wrong kind, ValueError for one that has a wrong value or
  disagrees with another.

  An example is an `OrderedDict` with keys `x`, the features, and `y`, the class
  label. `x` has the dtype and, but for the batch dimension, the shape of the
  `x` in `model.input_spec`; `y` is an integer scalar in [0, num_classes).

  Attributes:
    name: The name of the task, for reports.
    client_data: The unbatched, unshuffled clean examples of every client. The
      `client_ids` are sorted.
    holdout: Clean examples that belong to the server, for aggregators that use
      a hold-out: `OrderedDict(x=[h, ...], y=[h])` of NumPy arrays, `h >= 1`.
      Disjoint from the data of the clients.
    test: Examples that measure the trained model, with the structure of
      `holdout`. Disjoint from both others. A task of the registry has them in
      random order, so that every part is a fair sample.
    model: The model to train. `input_spec` is `OrderedDict(x=..., y=...)` or
      `(x, y)`, both with an unknown batch dimension; `predict_on_batch` returns
      logits of shape `[batch, num_classes]`; the loss is a mean over the batch.
    num_classes: The number of classes, at least 2.
    batch_size: Examples in a client's training batch.
    client_epochs: Passes a client makes over its data in one round.
    client_learning_rate: Of the clients' SGD.
    rounds: Enough for federated averaging without attackers to come close to
      its best accuracy.
    cohort_size: The number of clients sampled for a round.
  """

  name: str
  client_data: tff.simulation.datasets.ClientData
  holdout: 'collections.OrderedDict[str, np.ndarray]'
  test: 'collections.OrderedDict[str, np.ndarray]'
  model: tff.learning.models.FunctionalModel
  num_classes: int
  batch_size: int
  client_epochs: int
  client_learning_rate: float
  rounds: int
  cohort_size: int

  def __post_init__(self):
    checks.check_kind('name', self.name, str)
    if not self.name:
      raise ValueError('name must not be empty.')
    checks.check_kind(
        'client_data', self.client_data, tff.simulation.datasets.ClientData
    )
    checks.check_kind('model', self.model, tff.learning.models.FunctionalModel)
    checks.check_int('num_classes', self.num_classes, minimum=2)
    for field in ('batch_size', 'client_epochs', 'rounds', 'cohort_size'):
      checks.check_int(field, getattr(self, field), minimum=1)
    checks.check_number(
        'client_learning_rate', self.client_learning_rate, above=0
    )
    specs = _input_specs(self.model)
    _check_logits(self.model, specs['x'], self.num_classes)
    _check_element_spec(
        'client_data', self.client_data.element_type_structure, specs
    )
    for field in ('holdout', 'test'):
      _check_examples(field, getattr(self, field), specs, self.num_classes)
    ids = list(self.client_data.client_ids)
    if ids != sorted(set(ids)):
      raise ValueError(
          'client_data.client_ids must be sorted and without repetition.'
      )
    if self.cohort_size > len(ids):
      raise ValueError(
          f'cohort_size is {self.cohort_size} but there are only'
          f' {len(ids)} clients; use a smaller cohort.'
      )


def _input_specs(model) -> 'collections.OrderedDict[str, tf.TensorSpec]':
  """Returns the specs of `x` and `y` in the model's input, or raises."""
  spec = model.input_spec
  if isinstance(spec, Mapping) and list(spec) == ['x', 'y']:
    spec = tuple(spec.values())
  if not (
      isinstance(spec, (list, tuple))
      and len(spec) == 2
      and all(isinstance(part, tf.TensorSpec) for part in spec)
  ):
    raise ValueError(
        'model.input_spec must be OrderedDict(x=..., y=...) or (x, y) of'
        f' TensorSpecs; found {model.input_spec!r}.'
    )
  for name, part in zip('xy', spec):
    if not part.shape.rank or part.shape[0] is not None:
      raise ValueError(
          f'model.input_spec.{name} must have an unknown batch dimension; found'
          f' shape {part.shape}.'
      )
  x, y = spec
  if not x.shape[1:].is_fully_defined():
    raise ValueError(
        'model.input_spec.x must be known but for the batch dimension; found'
        f' shape {x.shape}.'
    )
  if y.shape.rank != 1 or not y.dtype.is_integer:
    raise ValueError(
        'model.input_spec.y must be a vector of integers; found shape'
        f' {y.shape} of {y.dtype.name}.'
    )
  return collections.OrderedDict(x=x, y=y)


def _check_logits(model, x: tf.TensorSpec, num_classes: int) -> None:
  """Raises unless the model returns one logit a class."""
  with tf.Graph().as_default():
    logits = model.predict_on_batch(
        model.initial_weights,
        tf.compat.v1.placeholder(x.dtype, x.shape),
        training=False,
    )
  if not tf.is_tensor(logits):
    raise ValueError(
        'model.predict_on_batch must return a tensor of logits; found a'
        f' {type(logits).__name__}.'
    )
  if not logits.shape.is_compatible_with([None, num_classes]):
    raise ValueError(
        'model.predict_on_batch must return logits of shape [batch,'
        f' {num_classes}]; found shape {logits.shape}.'
    )


def _check_element_spec(
    field: str, found: Any, specs: Mapping[str, tf.TensorSpec]
) -> None:
  """Raises unless the examples of a data set are what the model takes."""
  expected = [
      (key, tf.TensorSpec(spec.shape[1:], spec.dtype))
      for key, spec in specs.items()
  ]
  if not isinstance(found, Mapping) or list(found.items()) != expected:
    raise ValueError(
        f'{field} must hold examples OrderedDict({expected}) as the model'
        f' takes; found {found!r}.'
    )


def _check_examples(field: str, examples: Any, specs, num_classes: int) -> None:
  """Raises unless `examples` are non-empty, sound and what the model takes."""
  checks.check_kind(field, examples, Mapping)
  for key, array in examples.items():
    checks.check_kind(f'{field}.{key}', array, np.ndarray)
  _check_element_spec(
      field,
      collections.OrderedDict(
          (key, tf.TensorSpec(array.shape[1:], array.dtype))
          for key, array in examples.items()
      ),
      specs,
  )
  x, y = examples['x'], examples['y']
  if not y.size or y.shape != x.shape[:1]:
    raise ValueError(
        f'{field} must have one label an example and not be empty; found shapes'
        f' {x.shape} and {y.shape}.'
    )
  if np.issubdtype(x.dtype, np.floating) and not np.isfinite(x).all():
    raise ValueError(f'{field}.x must be finite; found NaN or infinity.')
  if y.min() < 0 or y.max() >= num_classes:
    raise ValueError(
        f'{field}.y must be between 0 and {num_classes - 1}; found labels'
        f' from {y.min()} to {y.max()}.'
    )
