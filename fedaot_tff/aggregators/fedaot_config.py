"""Configuration of the FedAOT aggregation rule."""

import dataclasses
import math
from typing import Optional, Tuple

_Range = Tuple[float, float]


def _field(default, minimum=None, maximum=None, *, strict=False):
  """A number field with the bounds that `FedAOTConfig` checks.

  Args:
    default: The default value; an int default makes the field integer.
    minimum: Smallest allowed value, None for no bound.
    maximum: Largest allowed value, None for no bound.
    strict: Whether `minimum` itself is not allowed.

  Returns:
    A dataclass field.
  """
  return dataclasses.field(
      default=default,
      metadata=dict(minimum=minimum, maximum=maximum, strict=strict),
  )


@dataclasses.dataclass(frozen=True)
class FedAOTConfig:
  """Every constant of FedAOT, with its meaning.

  The defaults are meant to be left alone: none of them is tuned to an attack.
  Cosines are in [-1, 1]; norms are Euclidean norms of the whole flattened
  client update; `z` is a statistic after standardization over the cohort.

  Both modes:
    sketch_dimension: Length m of the fold sketch of an update.
    projection_dimension: Length p of the random projection that inner products
      with an update are taken from; their standard deviation is at most
      sqrt(2 / p) of the product of the norms, 0 for updates of up to p floats.
    max_norm: An update with an entry that is not finite or a norm not below
      this gets weight 0 and counts as a zero update.
    reference_decay: Decay of the exponential moving average (EMA) reference.
    initial_slope: Start of softplus(b_k), the price of a bad statistic.
    initial_margin: Start of m_k, how far below the median a statistic may be
      (in units of z) before it costs much.
    initial_log_sharpness: Start of l; scores are multiplied by exp(l).
    max_abs_z: Bound on |z|.
    meta_learning_rate: Step size of Adam on the weighting variables; 0 freezes
      the weighting.
    meta_beta_1: Decay of Adam's first moment.
    meta_beta_2: Decay of Adam's second moment.
    meta_epsilon: Adam's epsilon.
    meta_anchor: Fraction of the way back to their start that the weighting
      variables go each round.
    reference_floor: Scale floor of the cosine with the reference.
    copies_floor: Scale floor of the copies statistic.
    max_example_ratio: None (default) ignores the example counts that clients
      report, as they are under an attacker's control. A number uses them,
      capped at this multiple of the cohort's median count.

  Hold-out mode:
    min_examples_to_split: Fewer hold-out examples than this are not split in
      two halves.
    copy_cosine: Cosine of two updates at which they count as half a copy.
    copy_temperature: Width of that transition.
    min_trust: Absolute trust of an update that points away from the root
      update.
    full_trust_cosine: Cosine with the root update that gives trust 1.
    root_norm_factor: The norm bound is at most this times the root's norm.
    holdout_clip_factor: Updates are clipped at this times the norm bound.
    root_floor: Scale floor of the cosine with the root update.
    norm_scale: Unit of the absolute norm statistic (natural logarithm).
    holdout_log_sharpness: Allowed range of l.

  Agreement mode:
    agreement_clip_factor: Updates are clipped at this times the norm bound.
    crowd_cosine: Cosine of two updates at which they count as half a copy.
    crowd_temperature: Width of that transition.
    norm_floor: Scale floor of the relative norm statistic.
    norm_tolerance: Norms above the bound are free of charge up to this
      fraction of the cohort's own lower log-quartile.
    min_norm_ratio: Smallest norm, relative to the bound, that enters that
      quartile.
    spectral_floor: Scale floor of the spectral statistic.
    agreement_log_sharpness: Allowed range of l.
    concentration_penalty: Factor of the sum of squared weights in the
      predictive meta loss.

  Raises:
    TypeError: If a field is not a number (a pair of numbers for a range).
    ValueError: If a field is out of its bounds.
  """

  sketch_dimension: int = _field(256, 2)
  projection_dimension: int = _field(8192, 2)
  max_norm: float = _field(1e15, 0.0, 1e16, strict=True)
  reference_decay: float = _field(0.9, 0.0, 1.0)
  initial_slope: float = _field(1.5, 0.0, strict=True)
  initial_margin: float = _field(2.0)
  initial_log_sharpness: float = _field(0.0, -5.0, 5.0)
  max_abs_z: float = _field(10.0, 0.0, strict=True)
  meta_learning_rate: float = _field(0.05, 0.0)
  meta_beta_1: float = _field(0.9, 0.0, 0.9999)
  meta_beta_2: float = _field(0.99, 0.0, 0.9999)
  meta_epsilon: float = _field(1e-3, 0.0, strict=True)
  meta_anchor: float = _field(0.01, 0.0, 1.0)
  reference_floor: float = _field(0.05, 0.0, strict=True)
  copies_floor: float = _field(0.25, 0.0, strict=True)
  max_example_ratio: Optional[float] = _field(None, 1.0)

  min_examples_to_split: int = _field(50, 2)
  copy_cosine: float = _field(0.95, -1.0, 1.0)
  copy_temperature: float = _field(0.02, 0.0, strict=True)
  min_trust: float = _field(0.05, 0.0, 1.0, strict=True)
  full_trust_cosine: float = _field(0.05, 0.0, 1.0, strict=True)
  root_norm_factor: float = _field(1.2, 0.0, strict=True)
  holdout_clip_factor: float = _field(2.0, 0.0, strict=True)
  root_floor: float = _field(0.05, 0.0, strict=True)
  norm_scale: float = _field(0.2, 0.0, strict=True)
  holdout_log_sharpness: _Range = (-1.0, 1.5)

  agreement_clip_factor: float = _field(1.0, 0.0, strict=True)
  crowd_cosine: float = _field(0.9, -1.0, 1.0)
  crowd_temperature: float = _field(1.0 / 60.0, 0.0, strict=True)
  norm_floor: float = _field(0.2, 0.0, strict=True)
  norm_tolerance: float = _field(0.5, 0.0)
  min_norm_ratio: float = _field(1e-2, 0.0, 1.0, strict=True)
  spectral_floor: float = _field(0.05, 0.0, strict=True)
  agreement_log_sharpness: _Range = (0.0, 1.5)
  concentration_penalty: float = _field(1.0, 0.0)

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if isinstance(field.default, tuple):
        _check_range(field.name, value)
      elif not (value is None and field.default is None):
        _check_number(field, value)
    for name in ('holdout_log_sharpness', 'agreement_log_sharpness'):
      low, high = getattr(self, name)
      if not low <= self.initial_log_sharpness <= high:
        raise ValueError(
            f'initial_log_sharpness must be inside {name} [{low}, {high}];'
            f' found {self.initial_log_sharpness}.'
        )


def _check_number(field: dataclasses.Field, value) -> None:
  """Raises unless `value` is a finite number inside the field's bounds."""
  integer = isinstance(field.default, int)
  kinds = int if integer else (int, float)
  if isinstance(value, bool) or not isinstance(value, kinds):
    raise TypeError(
        f'{field.name} must be {"an int" if integer else "a number"};'
        f' found {value!r} of type {type(value).__name__}.'
    )
  minimum, maximum = field.metadata['minimum'], field.metadata['maximum']
  strict = field.metadata['strict']
  too_low = minimum is not None and (
      value <= minimum if strict else value < minimum
  )
  too_high = maximum is not None and value > maximum
  if too_low or too_high or not math.isfinite(value):
    bounds = []
    if minimum is not None:
      bounds.append(f'{">" if strict else ">="} {minimum}')
    if maximum is not None:
      bounds.append(f'<= {maximum}')
    raise ValueError(
        f'{field.name} must be {" and ".join(bounds) or "finite"};'
        f' found {value!r}.'
    )


def _check_range(name: str, value) -> None:
  """Raises unless `value` is a pair of finite numbers in ascending order."""
  if (
      not isinstance(value, tuple)
      or len(value) != 2
      or not all(
          isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
      )
  ):
    raise TypeError(f'{name} must be a pair of numbers; found {value!r}.')
  if not all(map(math.isfinite, value)) or value[0] > value[1]:
    raise ValueError(
        f'{name} must be finite and in ascending order; found {value!r}.'
    )
