"""The tasks known by name, and their options.

This module does not import TensorFlow, so that a program can list the tasks and
check its flags at once; `load_task` does.
"""

import dataclasses
import functools
import types
import typing
from typing import Any, Dict, Optional, Tuple

from fedaot import checks
from tasks import breast_cancer
from tasks import cifar10
from tasks import cifar100
from tasks import digits
from tasks import fashion_mnist
from tasks import femnist
from tasks import mnist5k
from tasks import partition
from tasks import pneumonia

if typing.TYPE_CHECKING:
  from tasks import task  # pylint: disable=g-import-not-at-top

TASKS = types.MappingProxyType(
    {
        'femnist': femnist.TASK,
        'cifar10': cifar10.TASK,
        'cifar100': cifar100.TASK,
        'pneumonia': pneumonia.TASK,
        'fashion_mnist': fashion_mnist.TASK,
        'mnist5k': mnist5k.TASK,
        'digits': digits.TASK,
        'breast_cancer': breast_cancer.TASK,
    }
)


@dataclasses.dataclass(frozen=True)
class Option:
  """What a setting may be; an `int` may stand for a `float`.

  One without a `maximum` must fit into 32 bits, as computations take it.

  `help` says in one line what it sets. An option without `choices` takes all
  values within the bounds, of which `above` is not allowed itself.
  """

  kind: type
  help: str
  above: Optional[float] = None
  minimum: Optional[float] = None
  maximum: Optional[float] = None
  choices: Tuple[Any, ...] = ()

  def check(self, name: str, value: Any) -> None:
    """Raises TypeError or ValueError unless `value` is allowed for `name`."""
    label = f'option `{name}`'
    if self.kind is str:
      # Without choices any string is one.
      checks.check_choice(label, value, self.choices or (value,))
      return
    check = checks.check_int if self.kind is int else checks.check_number
    limits = {
        limit: getattr(self, limit) for limit in ('above', 'minimum', 'maximum')
    }
    limits = {k: v for k, v in limits.items() if v is not None}
    check(label, value, **limits)
    if self.choices and value not in self.choices:
      raise ValueError(
          f'{label} must be one of {", ".join(map(str, self.choices))}; found'
          f' {value!r}.'
      )


# What `numpy.random.SeedSequence` and TensorFlow both take.
MAX_SEED = 2**63 - 1

_count = functools.partial(Option, int, minimum=1)

# An option means the same in every task that has it.
OPTIONS = types.MappingProxyType(
    {
        'seed': Option(
            int,
            'Fixes the splits, the partition and the initial weights.',
            minimum=0,
            maximum=MAX_SEED,
        ),
        'model': Option(
            str,
            'The model to train; not every task has each.',
            choices=tuple(
                sorted({m for t in TASKS.values() for m in t.models})
            ),
        ),
        'classes': Option(
            int,
            '62 for digits and letters, 10 for digits only.',
            minimum=10,
            choices=(10, 62),
        ),
        'num_clients': _count(
            'The number of clients; by default all of a natural partition.'
        ),
        'max_client_examples': _count(
            'The most training examples of a client.'
        ),
        'max_examples': _count('The most training examples.'),
        'max_test_examples': _count('The most test examples.'),
        'partition': Option(
            str,
            'How the training examples are spread over the clients.',
            choices=partition.NAMES,
        ),
        'alpha': Option(
            float,
            'The concentration of the Dirichlet partition; no other uses it.',
            minimum=partition.MIN_ALPHA,
            maximum=partition.MAX_ALPHA,
        ),
        'shards_per_client': _count(
            'Shards a client in the shards partition; unused by the others.'
        ),
        'holdout_size': _count(
            'The number of clean examples that the server holds.'
        ),
        'batch_size': _count('Examples in a training batch of a client.'),
        'client_epochs': _count(
            'Passes of a client over its data in a round.', maximum=10**4
        ),
        'client_learning_rate': Option(
            float, 'The learning rate of the clients.', above=0
        ),
        'rounds': _count('The number of rounds.'),
        'cohort_size': _count('The number of clients in a round.'),
        'data_dir': Option(
            str, 'The folder with the data files; by default the usual place.'
        ),
    }
)


def check_options(name: str, **options) -> Dict[str, Any]:
  """All options of a task of which these are to differ from the defaults.

  Raises TypeError or ValueError unless the task takes them; a default is always
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
    if value is not None or defaults[option] is not None:
      OPTIONS[option].check(option, value)
  chosen = TASKS[name].complete(options)
  if 'model' in defaults:
    checks.check_choice(
        f'option `model` of task {name!r}', chosen['model'], TASKS[name].models
    )
  TASKS[name].check_sizes(chosen)
  return chosen


def find_data(name: str, **options) -> None:
  """Raises as `load_task` does if a file that it does not load is at fault."""
  TASKS[name].find(TASKS[name].complete(options))


def load_task(name: str, **options) -> 'task.Task':
  """Loads a task in `TASKS`, with options that differ from its defaults.

  Raises TypeError for an option of the wrong kind; ValueError if the task or an
  option is unknown, a value is not allowed or does not fit the others or the
  data, or a data file is not what it should be; FileNotFoundError if a data
  file is missing and cannot be downloaded.
  """
  chosen = check_options(name, **options)
  from tasks import loading  # pylint: disable=g-import-not-at-top

  return loading.load(name, TASKS[name], chosen)
