"""The settings of an experiment. TensorFlow is not imported."""

import dataclasses
import re
import types
from typing import Any, Dict, Mapping, Optional

from fedaot_tff.aggregators import registry as aggregators
from fedaot_tff.attacks import registry as attacks
from tasks import registry as tasks

# What a comparison has several of, and a single run one.
AXES = ('aggregator', 'attack', 'byzantine_fraction', 'seed')


def _setting(default: Any, kind: type, description: str, **limits: Any) -> Any:
  """A field that an `Option` describes, which also checks its value."""
  option = tasks.Option(kind, description, **limits)
  return dataclasses.field(default=default, metadata={'option': option})


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The settings of an experiment; equal settings give equal results.

  `SETTINGS` describes the fields but for `task_options`, the task's options
  without the seed; those that are left out get the defaults of the task and
  its model. TypeError or ValueError for a setting that is not allowed.
  """

  task: str = _setting(
      'mnist5k',
      str,
      'What is learned: '
      + ', '.join(f'{n} ({t.summary})' for n, t in tasks.TASKS.items()),
      choices=tuple(tasks.TASKS),
  )
  task_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  aggregator: str = _setting(
      'fedaot',
      str,
      'How the server aggregates, NAME or NAME:OPTION=VALUE,...; one of '
      f'{", ".join(aggregators.aggregator_names())}. Wrapped as in'
      ' WRAPPER+NAME or WRAPPER:OPTION=VALUE+NAME; one of'
      f' {", ".join(aggregators.wrapper_names())}.',
  )
  attack: str = _setting(
      'none',
      str,
      'What the attackers do, NAME or NAME:OPTION=VALUE,...; one of '
      f'{", ".join(attacks.attack_names())}.',
  )
  byzantine_fraction: float = _setting(
      0.4,
      float,
      'The fraction of attackers among the clients, in [0, 1). The'
      ' aggregators that ask for it are told. With the attack "none" they are'
      ' told, too, but there are no attackers.',
      minimum=0,
  )
  byzantine_sampling: str = _setting(
      'exact',
      str,
      'exact: in each round the fraction of attackers is the same; random: it'
      ' varies, as clients are drawn uniformly.',
      choices=('exact', 'random'),
  )
  forged_examples: Optional[float] = _setting(
      None,
      float,
      'The number of examples that attackers claim to have. With it, honest'
      ' clients report theirs, which aggregators may weigh by; by default all'
      ' clients count the same.',
      above=0,
  )
  server_optimizer: str = _setting(
      'sgd',
      str,
      'What the server applies the aggregate with.',
      choices=('sgd', 'adam', 'yogi'),
  )
  server_learning_rate: float = _setting(
      1.0, float, 'The learning rate of the server.', above=0
  )
  evaluate_every: int = _setting(
      1,
      int,
      'Evaluate on the test set every so many rounds, and after the last.',
      minimum=1,
  )
  context: str = _setting(
      'in_process',
      str,
      'Where computations run. native: in a worker process of TFF, on the CPU;'
      ' in_process: in the process of the program, on its GPUs if it has any;'
      ' ray: clients on a Ray cluster, or all cores without --ray_address.'
      ' Results agree but for rounding.',
      choices=('native', 'in_process', 'ray'),
  )
  seed: int = _setting(
      0,
      int,
      'Fixes everything that is random: the split of the data, the initial'
      ' model, attackers, cohorts and the order of examples.',
      minimum=0,
      maximum=tasks.MAX_SEED,
  )

  def __post_init__(self):
    for name, option in SETTINGS.items():
      value = getattr(self, name)
      if value is not None or getattr(type(self), name) is not None:
        option.check(name, value)
    if self.byzantine_fraction >= 1:
      raise ValueError(
          'option `byzantine_fraction` must be less than 1, found'
          f' {self.byzantine_fraction!r}.'
      )
    aggregators.get_aggregator(self.aggregator)
    attacks.get_attack(self.attack)
    options = tasks.check_options(self.task, **self.task_options)
    del options['seed']
    object.__setattr__(self, 'task_options', options)

  @property
  def attacker_fraction(self) -> float:
    """The fraction of clients that attack: none without an attack."""
    if attacks.get_attack(self.attack).name == 'none':
      return 0.0
    return self.byzantine_fraction

  @property
  def name(self) -> str:
    """A name to tell experiments of a comparison apart, fit for a folder."""
    return run_name(self.task, **{n: getattr(self, n) for n in AXES})

  def to_dict(self) -> Dict[str, Any]:
    """All settings by name, the task's options among them."""
    return {n: getattr(self, n) for n in SETTINGS} | dict(self.task_options)


# What the settings of an experiment may be, besides the options of its task.
SETTINGS = types.MappingProxyType(
    {
        field.name: field.metadata['option']
        for field in dataclasses.fields(Experiment)
        if field.metadata
    }
)


def run_name(
    task: str,
    *,
    aggregator: str,
    attack: str,
    byzantine_fraction: float,
    seed: int,
) -> str:
  """The name of an experiment, of names that need not be registered."""
  parts = (task, aggregator, attack, repr(float(byzantine_fraction)), str(seed))
  return re.sub(r'[^\w.=-]', '_', '-'.join(parts), flags=re.ASCII)
