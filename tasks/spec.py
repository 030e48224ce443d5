"""What a task's module says about it: its options' defaults and its data.

Nothing here imports TensorFlow, so that programs can list the tasks and check
flags at once.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import types
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np

from fedaot import checks
from tasks import partition

# How examples that have no owner by nature are spread over simulated clients.
SIMULATED_CLIENTS = types.MappingProxyType(
    {'partition': 'dirichlet', 'alpha': 0.5, 'shards_per_client': 2}
)


@dataclasses.dataclass(frozen=True)
class LabelledSets:
  """A labelled data set and the indices of its three disjoint parts.

  `x` are features, float32, or uint8 for pixels from 0 to 255, which the task
  has as floats from 0 to 1; `y` are labels, int64.
  """

  x: np.ndarray
  y: np.ndarray
  train: np.ndarray
  holdout: np.ndarray
  test: np.ndarray


@dataclasses.dataclass(frozen=True)
class TaskSpec:
  """A task before it is loaded."""

  summary: str  # What the task is, in one line.
  # The task's options, which `tasks.registry.OPTIONS` describes.
  defaults: Mapping[str, Any]
  # The models that the task offers and what their builders in `tasks.loading`
  # are given besides the shape, the classes and the seed. Without the option
  # `model` there is one.
  models: Mapping[str, Mapping[str, Any]]
  num_classes: int  # Unless there is an option `classes`.
  # From the options, defaults filled in, and an iterator of seeds to
  # `LabelledSets`, or, for a task without the option `partition`, whose clients
  # are given, `(client_data, holdout, test)` as a `Task` has them.
  read: Callable[[Mapping[str, Any], Iterator[int]], Any]
  # The most examples that there are for the clients, and to draw the hold-out
  # from; None if it is drawn from the former.
  max_examples: int
  max_pool: Optional[int] = None
  # Without the option `partition`.
  max_clients: Optional[int] = None
  # Raises, for some options, if a data file is missing or unsound.
  find: Callable[[Mapping[str, Any]], Any] = lambda options: None
  # Means and standard deviations of the channels, for models that standardise
  # and augment images.
  pixel_moments: Optional[Tuple[Tuple[float, ...], Tuple[float, ...]]] = None
  min_client_examples: int = 10  # In a Dirichlet partition.
  # Where the defaults of a model differ from those of the task.
  model_defaults: Mapping[str, Mapping[str, Any]] = dataclasses.field(
      default_factory=dict
  )

  def complete(self, options: Mapping[str, Any]) -> Dict[str, Any]:
    """All options: these, and the model's and the task's defaults."""
    model = options.get('model', self.defaults.get('model'))
    return {**self.defaults, **self.model_defaults.get(model, {}), **options}

  def check_sizes(self, options: Mapping[str, Any]) -> None:
    """Raises ValueError for sizes for which there are too few data."""
    num_examples = self.max_examples
    if self.max_pool is None:
      num_examples -= options['holdout_size']
    for name, maximum in (
        ('holdout_size', (self.max_pool or self.max_examples) - 1),
        ('batch_size', self.max_examples),
        ('num_clients', self.max_clients),
    ):
      if options[name] is not None:
        checks.check_int(
            f'option `{name}`', options[name], minimum=1, maximum=maximum
        )
    num_clients = options['num_clients'] or self.max_clients
    if options['cohort_size'] > num_clients:
      raise ValueError(
          f'option `cohort_size` is {options["cohort_size"]} but there are only'
          f' {num_clients} clients; set a smaller cohort_size.'
      )
    if 'partition' in options:
      partition.check_enough(
          options['partition'],
          min(num_examples, options.get('max_examples') or num_examples),
          num_clients,
          shards_per_client=options['shards_per_client'],
          min_examples=self.min_client_examples,
      )


def split_one_set(
    x: np.ndarray,
    y: np.ndarray,
    *,
    test_size: int,
    holdout_size: int,
    seed: int,
) -> LabelledSets:
  """Draws test set and hold-out, stratified; the clients get the rest.

  The test set of a seed is the same whatever the size of the hold-out.
  """
  test, holdout, train = partition.stratified_split(
      y, {'test_size': test_size, 'holdout_size': holdout_size}, seed
  )
  return LabelledSets(x, y, train, holdout, test)


def split_given_sets(
    train: Tuple[np.ndarray, np.ndarray],
    pool: Tuple[np.ndarray, np.ndarray],
    test: Optional[Tuple[np.ndarray, np.ndarray]] = None,
    *,
    holdout_size: int,
    seed: int,
) -> LabelledSets:
  """Draws the hold-out, stratified, from `pool`, which is not the clients'.

  Without a test set, what the hold-out leaves of the pool is one.
  """
  sets = (train, pool) if test is None else (train, pool, test)
  x, y = map(np.concatenate, zip(*sets))
  starts = np.cumsum([len(labels) for _, labels in sets])
  train_indices, pool_indices, *test_indices = np.split(
      np.arange(len(y)), starts[:-1]
  )
  holdout, rest = (
      pool_indices[drawn]
      for drawn in partition.stratified_split(
          y[pool_indices], {'holdout_size': holdout_size}, seed
      )
  )
  return LabelledSets(x, y, train_indices, holdout, *(test_indices or [rest]))
