"""Attacks by name. TensorFlow is imported when one is made."""

import dataclasses
import functools
import importlib
import inspect
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from fedaot_tff import named_spec

_ALL = 'all'


class _Entry(NamedTuple):
  """How to make the parts of an attack.

  `data`, `training` and `update` are module and class of the `DataPoisoning`,
  the `TrainingPoisoning` and the `UpdatePoisoning` below `fedaot_tff.attacks`,
  which take those of the options that are among their arguments; `defaults` are
  arguments without options.
  """

  options: Mapping[str, named_spec.Parser] = {}
  data: Optional[str] = None
  training: Optional[str] = None
  update: Optional[str] = None
  defaults: Mapping[str, Any] = {}

  def make(self, path: Optional[str], options: Mapping[str, Any]) -> Any:
    """Makes one of the parts; None for none."""
    if path is None:
      return None
    module, _, name = path.partition('.')
    module = importlib.import_module(f'fedaot_tff.attacks.{module}')
    arguments = {**self.defaults, **options}
    known = inspect.signature(getattr(module, name)).parameters
    return getattr(module, name)(
        **{k: v for k, v in arguments.items() if k in known}
    )


def _data(path: str, **options) -> _Entry:
  return _Entry(options, data=path)


def _updates(path: str, **options) -> _Entry:
  return _Entry(options, update=path)


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
    'edge_case': _data(
        'edge_case.EdgeCase', target=_CLASS, fraction=_SHARE, tail_share=_SHARE
    ),
    'distributed_backdoor': _Entry(
        dict(_TRIGGER, num_parts=_COUNT),
        data='backdoor.Backdoor',
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
        dict(_TRIGGER, boost=_POSITIVE),
        data='backdoor.Backdoor',
        update='multiples.ModelReplacement',
    ),
    'neurotoxin': _Entry(
        dict(_TRIGGER, top=named_spec.parse_fraction),
        data='backdoor.Backdoor',
        update='neurotoxin.Neurotoxin',
    ),
    'capped_backdoor': _Entry(
        dict(_TRIGGER, multiple=_POSITIVE),
        data='backdoor.Backdoor',
        update='profile_cap.ProfileCap',
    ),
    'alternating_minimization': _Entry(
        dict(
            target=_CLASS,
            size=_COUNT,
            value=named_spec.parse_number,
            boost=_POSITIVE,
            rho=_NONNEGATIVE,
        ),
        training='alternating_minimization.AlternatingMinimization',
    ),
    'optimized_trigger': _Entry(
        dict(_TRIGGER, passes=_COUNT),
        training='optimized_trigger.OptimizedTrigger',
    ),
    'noise_backdoor': _Entry(
        dict(_TRIGGER, noise_scale=_POSITIVE, boost=_POSITIVE),
        data='noise_backdoor.NoiseBackdoorData',
        update='noise_backdoor.NoiseBackdoorUpdates',
    ),
    'swap_scaling': _Entry(
        dict(_SWAP, factor=_POSITIVE),
        data='label_map.LabelSwap',
        update='multiples.Scaling',
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
    'adaptive_fedaot_jittered': _Entry(
        _ADAPTIVE,
        update='adaptive_fedaot.AdaptiveFedAOT',
        defaults=dict(jitter=0.3),
    ),
    'fltrust_adaptive': _updates('fltrust_adaptive.FLTrustAdaptive'),
    'optimal_alie': _updates('optimal_strength.optimal_alie'),
    'optimal_ipm': _updates('optimal_strength.optimal_ipm'),
}


@dataclasses.dataclass(frozen=True)
class Attack:
  """An attack of the registry, with the options given; see `get_attack`."""

  name: str
  options: Dict[str, Any]

  @functools.cached_property
  def data_poisoning(self) -> Optional[Any]:
    """The `attack.DataPoisoning`; None if the attack leaves data alone."""
    entry = _ENTRIES[self.name]
    return entry.make(entry.data, self.options)

  @functools.cached_property
  def training_poisoning(self) -> Optional[Any]:
    """The `TrainingPoisoning`; None if attackers train like the others."""
    entry = _ENTRIES[self.name]
    return entry.make(entry.training, self.options)

  @functools.cached_property
  def update_poisoning(self) -> Optional[Any]:
    """The `UpdatePoisoning`; None if it leaves updates alone."""
    entry = _ENTRIES[self.name]
    return entry.make(entry.update, self.options)


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
  """Looks up `name` or `name:key=value,key=value`. Imports no TensorFlow.

  Raises TypeError if `text` is not a string, and ValueError, in one line, if
  name, key or value is not known.
  """
  spec = named_spec.parse(
      text,
      kind='attack',
      known={name: entry.options for name, entry in _ENTRIES.items()},
  )
  return Attack(spec.name, spec.options)
