"""Attacks by name. TensorFlow is imported when one is made."""

import dataclasses
import functools
import importlib
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from fedaot_tff import named_spec

_ALL = 'all'
_NO_OPTIONS: Mapping[str, Any] = {}


class _Part(NamedTuple):
  """How to make one half of an attack.

  Attributes:
    path: Module and class below `fedaot_tff.attacks`.
    options: The options of the class and their parsers.
    fixed: Arguments of the class that are not options.
  """

  path: str
  options: Mapping[str, named_spec.Parser] = _NO_OPTIONS
  fixed: Mapping[str, Any] = _NO_OPTIONS

  def make(self, options: Mapping[str, Any]) -> Any:
    """Makes it with those of the options that are its own."""
    module, _, name = self.path.partition('.')
    module = importlib.import_module(f'fedaot_tff.attacks.{module}')
    own = {key: options[key] for key in self.options if key in options}
    return getattr(module, name)(**self.fixed, **own)


class _Entry(NamedTuple):
  """How to make an attack.

  Attributes:
    data: Makes the `DataPoisoning`, or None.
    update: Makes the `UpdatePoisoning`, or None.
    has_success_rate: See `Attack`.
  """

  data: Optional[_Part] = None
  update: Optional[_Part] = None
  has_success_rate: bool = False

  @property
  def options(self) -> Dict[str, named_spec.Parser]:
    """The options of both parts; one of the same name goes to both."""
    options = {}
    for part in (self.data, self.update):
      options.update(part.options if part else {})
    return options


def _parse_attack(text: str) -> str:
  """Parses the name of an attack on updates alone; a `Parser`."""
  entry = _ENTRIES.get(text)
  if entry is None or entry.update is None or entry.data is not None:
    known = [
        name
        for name, e in _ENTRIES.items()
        if e.update is not None and e.data is None
    ]
    raise ValueError(
        f'must be an attack on updates alone, one of {", ".join(known)};'
        f' found {text!r}'
    )
  return text


def _parse_attacks(text: str) -> Tuple[str, ...]:
  """Parses the names of attacks on updates, as in `alie/ipm`; a `Parser`."""
  return tuple(map(_parse_attack, text.split('/')))


_POSITIVE = named_spec.parse_positive_number
_NONNEGATIVE = named_spec.parse_nonnegative_number
_COUNT = named_spec.parse_positive_int

_BACKDOOR_OPTIONS = {
    'target': named_spec.parse_int,
    'fraction': named_spec.parse_share,
    'size': _COUNT,
    'value': named_spec.parse_number,
}
_SWAP_OPTIONS = {'first': named_spec.parse_int, 'second': named_spec.parse_int}
_PERTURBATIONS = named_spec.choice_parser('unit_vector', 'stddev', 'sign')
_ADAPTIVE_OPTIONS = {
    'mode': named_spec.choice_parser('auto', 'holdout', 'agreement'),
    'steps': _COUNT,
    'jitter': _NONNEGATIVE,
    'max_scale': _POSITIVE,
}

_ENTRIES = {
    'none': _Entry(),
    # On the data.
    'label_flip': _Entry(data=_Part('label_flip.LabelFlip')),
    'multi_label_flip': _Entry(data=_Part('multi_label_flip.MultiLabelFlip')),
    'label_swap': _Entry(
        data=_Part('label_swap.LabelSwap', _SWAP_OPTIONS),
        has_success_rate=True,
    ),
    'label_noise': _Entry(
        data=_Part('label_noise.LabelNoise', {'fraction': named_spec.parse_share})
    ),
    'backdoor': _Entry(
        data=_Part('backdoor.Backdoor', _BACKDOOR_OPTIONS),
        has_success_rate=True,
    ),
    'distributed_backdoor': _Entry(
        data=_Part(
            'distributed_backdoor.DistributedBackdoor',
            {**_BACKDOOR_OPTIONS, 'num_parts': _COUNT},
        ),
        has_success_rate=True,
    ),
    # On the updates, knowing the own one.
    'gaussian_noise': _Entry(
        update=_Part(
            'gaussian_noise.GaussianNoise',
            {'scale': _POSITIVE, 'stddev': _POSITIVE},
        )
    ),
    'sign_flip': _Entry(
        update=_Part('sign_flip.SignFlip', {'scale': _POSITIVE})
    ),
    'scaling': _Entry(update=_Part('scaling.Scaling', {'factor': _POSITIVE})),
    'zero': _Entry(update=_Part('zero.Zero')),
    'random_nan_inf': _Entry(
        update=_Part(
            'random_nan_inf.RandomNanInf',
            {'fraction': named_spec.parse_share},
        )
    ),
    # On the updates, knowing all honest ones.
    'alie': _Entry(update=_Part('alie.Alie', {'z': _POSITIVE})),
    'ipm': _Entry(update=_Part('ipm.Ipm', {'epsilon': _POSITIVE})),
    'min_max': _Entry(
        update=_Part('min_max.MinMax', {'direction': _PERTURBATIONS})
    ),
    'min_sum': _Entry(
        update=_Part('min_sum.MinSum', {'direction': _PERTURBATIONS})
    ),
    'fang_trimmed_mean': _Entry(
        update=_Part('fang.FangTrimmedMean', {'factor': _POSITIVE})
    ),
    'fang_krum': _Entry(
        update=_Part('fang.FangKrum', {'threshold': _POSITIVE})
    ),
    'mimic': _Entry(
        update=_Part(
            'mimic.Mimic',
            {
                'warmup_rounds': _COUNT,
                'target': named_spec.choice_parser('variance', 'first'),
            },
        )
    ),
    'reference_mimic': _Entry(
        update=_Part(
            'reference_mimic.ReferenceMimic',
            {
                'scale': _POSITIVE,
                'jitter': _NONNEGATIVE,
                'poison': _NONNEGATIVE,
                'memory': named_spec.parse_fraction,
            },
        )
    ),
    # On both.
    'model_replacement': _Entry(
        data=_Part('backdoor.Backdoor', _BACKDOOR_OPTIONS),
        update=_Part(
            'model_replacement.ModelReplacement', {'boost': _POSITIVE}
        ),
        has_success_rate=True,
    ),
    'noise_backdoor': _Entry(
        data=_Part('noise_backdoor.NoiseBackdoorData', _BACKDOOR_OPTIONS),
        update=_Part(
            'noise_backdoor.NoiseBackdoorUpdates',
            {'noise_scale': _POSITIVE, 'boost': _POSITIVE},
        ),
        has_success_rate=True,
    ),
    'swap_scaling': _Entry(
        data=_Part('swap_scaling.data_poisoning', _SWAP_OPTIONS),
        update=_Part('swap_scaling.update_poisoning', {'factor': _POSITIVE}),
        has_success_rate=True,
    ),
    # Over time.
    'switching': _Entry(
        update=_Part(
            'schedule.make_switching',
            {'attacks': _parse_attacks, 'rounds': _COUNT},
        )
    ),
    'intermittent': _Entry(
        update=_Part(
            'schedule.make_intermittent',
            {'attack': _parse_attack, 'honest_rounds': _COUNT},
        )
    ),
    # Knowing the defence.
    'adaptive_fedaot': _Entry(
        update=_Part('adaptive_fedaot.AdaptiveFedAOT', _ADAPTIVE_OPTIONS)
    ),
    'adaptive_fedaot_jittered': _Entry(
        update=_Part(
            'adaptive_fedaot.AdaptiveFedAOT',
            {k: v for k, v in _ADAPTIVE_OPTIONS.items() if k != 'jitter'},
            {'jitter': 0.3},
        )
    ),
    'optimal_alie': _Entry(update=_Part('optimal_strength.OptimalAlie')),
    'optimal_ipm': _Entry(update=_Part('optimal_strength.OptimalIpm')),
}


@dataclasses.dataclass(frozen=True)
class Attack:
  """An attack of the registry, with options; see `get_attack`.

  Attributes:
    name: Its name in the registry, without options.
    options: The options that were given.
  """

  name: str
  options: Dict[str, Any]

  @property
  def known_options(self) -> Tuple[str, ...]:
    """The options that it may be given."""
    return tuple(_ENTRIES[self.name].options)

  @property
  def has_success_rate(self) -> bool:
    """Whether it has an aim that is measured apart from the accuracy."""
    return _ENTRIES[self.name].has_success_rate

  @functools.cached_property
  def data_poisoning(self) -> Optional[Any]:
    """The `attack.DataPoisoning`; None if the attack leaves data alone."""
    part = _ENTRIES[self.name].data
    return None if part is None else part.make(self.options)

  @functools.cached_property
  def update_poisoning(self) -> Optional[Any]:
    """The `attack.UpdatePoisoning`; None if it leaves updates alone."""
    part = _ENTRIES[self.name].update
    return None if part is None else part.make(self.options)


def attack_names() -> Tuple[str, ...]:
  """The names of the known attacks."""
  return tuple(_ENTRIES)


def split_list(text: str) -> Tuple[str, ...]:
  """Splits comma-separated attacks, with or without options.

  Args:
    text: What `get_attack` takes, with commas in between; `all` stands for all
      `attack_names`.

  Returns:
    An attack each, not looked up yet.
  """
  attacks = []
  for spec in named_spec.split_list(text):
    attacks.extend(_ENTRIES if spec == _ALL else [spec])
  return tuple(attacks)


def get_attack(text: str) -> Attack:
  """Looks an attack up. Imports no TensorFlow.

  Args:
    text: A name, or `name:key=value,key=value`.

  Returns:
    An `Attack`.

  Raises:
    TypeError: If `text` is not a string.
    ValueError: If name, key or value is not known; one line.
  """
  spec = named_spec.parse(
      text,
      kind='attack',
      known={name: entry.options for name, entry in _ENTRIES.items()},
  )
  return Attack(spec.name, spec.options)
