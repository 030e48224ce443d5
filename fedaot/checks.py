"""Checks of arguments: TypeError for a wrong kind, ValueError for a value."""

import math
import numbers
import secrets
from typing import Any, Optional, Sequence, Union


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
  _check_type(name, value, numbers.Real, 'a number')
  bounds = [
      f'{sign} {bound:g}'
      for sign, bound in (
          ('>=', minimum),
          ('>', above),
          ('<=', maximum),
          ('<', below),
      )
      if math.isfinite(bound)
  ]
  inside = minimum <= value <= maximum and above < value < below
  if not inside or value in (-math.inf, math.inf):
    raise ValueError(
        f'{name} must be {" and ".join(bounds) or "finite"}; found {value!r}.'
    )
  _check_fits(name, value, 2.0**-126 <= abs(value) < 2.0**128 or not value)
  return float(value)


def check_int(
    name: str, value: Any, *, minimum: int, maximum: Optional[int] = None
) -> int:
  """An int, or an integer of NumPy, in [minimum, maximum]."""
  _check_type(name, value, numbers.Integral, 'an int')
  if value < minimum or (maximum is not None and value > maximum):
    upper = '' if maximum is None else f' and <= {maximum}'
    raise ValueError(f'{name} must be >= {minimum}{upper}; found {value!r}.')
  _check_fits(name, value, maximum is not None or abs(value) < 2**31)
  return int(value)


def _check_fits(name: str, value: Any, fits: bool) -> None:
  if not fits:
    raise ValueError(f'{name} must fit into 32 bits; found {value!r}.')


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
  """A string that is one of `choices`."""
  _check_type(name, value, str, 'a string')
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


def _check_type(name: str, value: Any, kind: type, wanted: str) -> None:
  if isinstance(value, bool) or not isinstance(value, kind):
    raise TypeError(
        f'{name} must be {wanted}; found {value!r} of type'
        f' {type(value).__name__}.'
    )
