"""Attacks by name. TensorFlow is imported when one is made."""

import dataclasses
import functools
import importlib
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from fedaot_tff import named_spec
from fedaot_tff.learning import adversary

_ALL = 'all'


class _Part(NamedTuple):
  """How to make one half of an attack.

  Attributes:
    path: Module and class below `fedaot_tff.attacks`.
    options: The options and their parsers.
    defaults: Arguments, of which options may take the place.
  """

  path: str
  options: Mapping[str, named_spec.Parser]
  defaults: Mapping[str, Any]

  def make(self, options: Mapping[str, Any]) -> Any:
    """Makes it with those of the options that are its own."""
    module, _, name = self.path.partition('.')
    module = importlib.import_module(f'fedaot_tff.attacks.{module}')
    own = {key: options[key] for key in self.options if key in options}
    return getattr(module, name)(**{**self.defaults, **own})


def _part(path: str, *, defaults: Any = (), **options) -> _Part:
  return _Part(path, options, dict(defaults))


class _Entry(NamedTuple):
  """The halves of an attack: `DataPoisoning` and `UpdatePoisoning`, or None."""

  data: Optional[_Part] = None
  update: Optional[_Part] = None

  @property
  def options(self) -> Dict[str, named_spec.Parser]:
    """The options of both halves."""
    return {
        k: v for part in filter(None, self) for k, v in part.options.items()
    }


def _data(path: str, **arguments) -> _Entry:
  return _Entry(data=_part(path, **arguments))


def _updates(path: str, **arguments) -> _Entry:
  return _Entry(update=_part(path, **arguments))


def check_update_attack(name: str, value: Any) -> str:
  """The name of an attack on updates alone; a `named_spec.Parser`."""
  known = [k for k, e in _ENTRIES.items() if e.update and not e.data]
  return named_spec.choice_parser(*known)(name, value)


def _check_update_attacks(name: str, value: Any) -> Tuple[str, ...]:
  """Several of them, as in `alie/ipm`; a `named_spec.Parser`."""
  return tuple(check_update_attack(name, v) for v in str(value).split('/'))


_CLASS = named_spec.parse_nonnegative_int
_COUNT = named_spec.parse_positive_int
_NONNEGATIVE = named_spec.parse_nonnegative_number
_POSITIVE = named_spec.parse_positive_number
_SHARE = named_spec.parse_share

_SWAP = dict(first=_CLASS, second=_CLASS)
_TRIGGER = dict(
    target=_CLASS, fraction=_SHARE, size=_COUNT, value=named_spec.parse_number
)
_DIRECTION = named_spec.choice_parser('unit_vector', 'stddev', 'sign')
_ADAPTIVE = dict(
    mode=named_spec.choice_parser('auto', 'holdout', 'agreement'),
    steps=_COUNT,
    jitter=_NONNEGATIVE,
    max_scale=_POSITIVE,
)

_ENTRIES = {
    'none': _Entry(),
    # On the data.
    'label_flip': _data('label_map.LabelFlip'),
    'multi_label_flip': _data('label_map.MultiLabelFlip'),
    'label_swap': _data('label_map.LabelSwap', **_SWAP),
    'label_noise': _data('label_noise.LabelNoise', fraction=_SHARE),
    'backdoor': _data('backdoor.Backdoor', **_TRIGGER),
    'distributed_backdoor': _data(
        'backdoor.Backdoor',
        **_TRIGGER,
        num_parts=_COUNT,
        defaults=dict(size=4, num_parts=4),
    ),
    # On the updates, knowing the own one.
    'gaussian_noise': _updates(
        'gaussian_noise.GaussianNoise', scale=_POSITIVE, stddev=_POSITIVE
    ),
    'sign_flip': _updates('multiples.SignFlip', scale=_POSITIVE),
    'scaling': _updates('multiples.Scaling', factor=_POSITIVE),
    'zero': _updates('multiples.Zero'),
    'random_nan_inf': _updates('random_nan_inf.RandomNanInf', fraction=_SHARE),
    # On the updates, knowing all honest ones.
    'alie': _updates('alie.Alie', z=_POSITIVE),
    'ipm': _updates('ipm.Ipm', epsilon=_POSITIVE),
    'min_max': _updates('perturbed_mean.MinMax', direction=_DIRECTION),
    'min_sum': _updates('perturbed_mean.MinSum', direction=_DIRECTION),
    'fang_trimmed_mean': _updates('fang.FangTrimmedMean', factor=_POSITIVE),
    'fang_krum': _updates('fang.FangKrum', threshold=_POSITIVE),
    'mimic': _updates(
        'mimic.Mimic',
        warmup_rounds=_COUNT,
        target=named_spec.choice_parser('variance', 'first'),
    ),
    'reference_mimic': _updates(
        'reference_mimic.ReferenceMimic',
        scale=_POSITIVE,
        jitter=_NONNEGATIVE,
        poison=_NONNEGATIVE,
        memory=named_spec.parse_fraction,
    ),
    # On both.
    'model_replacement': _Entry(
        _part('backdoor.Backdoor', **_TRIGGER),
        _part('multiples.ModelReplacement', boost=_POSITIVE),
    ),
    'noise_backdoor': _Entry(
        _part('noise_backdoor.NoiseBackdoorData', **_TRIGGER),
        _part(
            'noise_backdoor.NoiseBackdoorUpdates',
            noise_scale=_POSITIVE,
            boost=_POSITIVE,
        ),
    ),
    'swap_scaling': _Entry(
        _part('label_map.LabelSwap', **_SWAP),
        _part('multiples.Scaling', factor=_POSITIVE),
    ),
    # Over time.
    'switching': _updates(
        'schedule.Switching', attacks=_check_update_attacks, rounds=_COUNT
    ),
    'intermittent': _updates(
        'schedule.Intermittent',
        attack=check_update_attack,
        honest_rounds=_COUNT,
    ),
    # Knowing the defence.
    'adaptive_fedaot': _updates('adaptive_fedaot.AdaptiveFedAOT', **_ADAPTIVE),
    'adaptive_fedaot_jittered': _updates(
        'adaptive_fedaot.AdaptiveFedAOT', **_ADAPTIVE, defaults=dict(jitter=0.3)
    ),
    'optimal_alie': _updates('optimal_strength.optimal_alie'),
    'optimal_ipm': _updates('optimal_strength.optimal_ipm'),
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

  @functools.cached_property
  def data_poisoning(self) -> Optional[Any]:
    """The `attack.DataPoisoning`; None if the attack leaves data alone."""
    part = _ENTRIES[self.name].data
    return part and part.make(self.options)

  @functools.cached_property
  def update_poisoning(self) -> Optional[Any]:
    """The `adversary.UpdatePoisoning`; None if it leaves updates alone."""
    part = _ENTRIES[self.name].update
    return part and part.make(self.options)


def attack_names() -> Tuple[str, ...]:
  """The names of the known attacks."""
  return tuple(_ENTRIES)


def split_list(text: str) -> Tuple[str, ...]:
  """Splits what `get_attack` takes at commas; `all` stands for all names."""
  attacks = []
  for spec in named_spec.split_list(text):
    attacks.extend(_ENTRIES if spec == _ALL else [spec])
  return tuple(attacks)


def get_attack(text: str) -> Attack:
  """Looks an attack up. Imports no TensorFlow.

  Args:
    text: A name, or `name:key=value,key=value`.

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
