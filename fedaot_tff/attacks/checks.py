"""Checks of the options of attacks."""

import math
import numbers
from typing import Any, Sequence


def check_positive(name: str, value: Any) -> float:
  """Returns a positive, finite number as a float.

  Raises:
    TypeError: If `value` is not a number.
    ValueError: If it is not positive and finite.
  """
  value = check_number(name, value)
  if value <= 0:
    raise ValueError(f'{name} must be positive and finite; found {value!r}.')
  return value


def check_number(name: str, value: Any) -> float:
  """Returns a finite number as a float.

  Raises:
    TypeError: If `value` is not a number.
    ValueError: If it is not finite.
  """
  if isinstance(value, bool) or not isinstance(value, numbers.Real):
    raise TypeError(f'{name} must be a number; found {value!r}.')
  if not math.isfinite(value):
    raise ValueError(f'{name} must be finite; found {value!r}.')
  return float(value)


def check_fraction(name: str, value: Any) -> float:
  """Returns a number in (0, 1] as a float.

  Raises:
    TypeError: If `value` is not a number.
    ValueError: If it is outside.
  """
  value = check_number(name, value)
  if not 0 < value <= 1:
    raise ValueError(f'{name} must be in (0, 1]; found {value!r}.')
  return value


def check_int(name: str, value: Any, *, minimum: int) -> int:
  """Returns an int of at least `minimum`.

  Raises:
    TypeError: If `value` is not an int.
    ValueError: If it is smaller.
  """
  if isinstance(value, bool) or not isinstance(value, numbers.Integral):
    raise TypeError(f'{name} must be an int; found {value!r}.')
  if value < minimum:
    raise ValueError(f'{name} must be at least {minimum}; found {value}.')
  return int(value)


def check_class(name: str, value: int, num_classes: int) -> int:
  """Returns a class, an int that is not negative, of `num_classes`.

  Raises:
    ValueError: If there are not as many classes.
  """
  if value >= num_classes:
    raise ValueError(
        f'{name} must be a class below {num_classes}; found {value}.'
    )
  return value


def check_nonnegative(name: str, value: Any) -> float:
  """Returns a finite number of at least 0 as a float.

  Raises:
    TypeError: If `value` is not a number.
    ValueError: If it is negative or not finite.
  """
  value = check_number(name, value)
  if value < 0:
    raise ValueError(f'{name} must not be negative; found {value!r}.')
  return value


def check_choice(name: str, value: Any, choices: Sequence[str]) -> str:
  """Returns a text that is one of `choices`.

  Raises:
    TypeError: If `value` is not a string.
    ValueError: If it is none of them.
  """
  if not isinstance(value, str):
    raise TypeError(f'{name} must be a string; found {value!r}.')
  if value not in choices:
    raise ValueError(
        f'{name} must be one of {", ".join(choices)}; found {value!r}.'
    )
  return value
