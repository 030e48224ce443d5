"""Checks of arguments: TypeError for a wrong kind, ValueError for a value."""

import math
import numbers
import secrets
from typing import Any, Sequence, Union

import numpy as np

_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
_LARGEST_INT32 = int(np.iinfo(np.int32).max)


def check_number(
    name: str,
    value: Any,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
  """A finite number with minimum <= value <= maximum, above < value < below."""
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise TypeError(f'{name} must be a number; {_found(value)}.')
  bounds = [
      f'{sign} {bound:g}'
      for sign, bound in (
          ('>=', minimum), ('>', above), ('<=', maximum), ('<', below)
      )
      if math.isfinite(bound)
  ]
  inside = minimum <= value <= maximum and above < value < below
  # Computed with in float32. An int may be too large even for a float.
  if not inside or not abs(value) <= _LARGEST_FLOAT32:
    bounds = bounds if not inside else ['finite in float32']
    raise ValueError(
        f'{name} must be {" and ".join(bounds) or "finite"}; found {value!r}.'
    )
  return float(value)


def check_int(
    name: str, value: Any, *, minimum: int, maximum: int = _LARGEST_INT32
) -> int:
  """An int, or an integer of NumPy, in [minimum, maximum]."""
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise TypeError(f'{name} must be an int; {_found(value)}.')
  if not minimum <= value <= maximum:
    is_told = value > maximum or maximum != _LARGEST_INT32
    upper = f' and <= {maximum}' if is_told else ''
    raise ValueError(f'{name} must be >= {minimum}{upper}; found {value!r}.')
  return int(value)


def check_32_bits(name: str, value: Any) -> None:
  """Lets pass what 32 bits hold: a float but for rounding, an int exactly."""
  if isinstance(value, numbers.Integral):
    fits = abs(value) < 2**31
  else:
    fits = not value or 2.0**-126 <= abs(value) < 2.0**128
  if not fits:
    raise ValueError(f'{name} must fit into 32 bits; found {value!r}.')


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
  """A string that is one of `choices`."""
  if not isinstance(value, str):
    raise TypeError(f'{name} must be a string; {_found(value)}.')
  if value not in choices:
    raise ValueError(
        f'{name} must be one of {", ".join(choices)}; found {value!r}.'
    )
  return value


def check_kind(name: str, value: Any, *kinds: type) -> Any:
  """An instance of one of the classes."""
  if not isinstance(value, kinds):
    raise TypeError(
        f'{name} must be a {" or ".join(k.__name__ for k in kinds)}; found'
        f' {type(value).__name__}.'
    )
  return value


def check_num_byzantine(value: Any) -> Union[int, float]:
  """A number of clients (int >= 0) or a fraction of a cohort (float < 1)."""
  if isinstance(value, numbers.Integral):
    return check_int('num_byzantine', value, minimum=0)
  return check_number('num_byzantine', value, minimum=0, below=1)


def check_seed(value: Any) -> int:
  """A seed in [0, 2^63), drawn at random for None."""
  if value is None:
    return secrets.randbits(63)
  return check_int('seed', value, minimum=0, maximum=2**63 - 1)


def _found(value: Any) -> str:
  return f'found {value!r} of type {type(value).__name__}'
