"""Names with options, as flags give them: `krum:num_byzantine=3`."""

from collections.abc import Mapping
import math
from typing import Any, Callable, Dict, NamedTuple, Tuple, Union

# Turns the text of an option into its value. The message of the ValueError it
# raises goes on after "option 'scale' of attack 'sign_flip' ".
Parser = Callable[[str], Any]


class NamedSpec(NamedTuple):
  """A name with the options that were given for it.

  Attributes:
    name: The name.
    options: The parsed values of the given options, in the order of the text.
  """

  name: str
  options: Dict[str, Any]


def split_list(text: str) -> Tuple[str, ...]:
  """Splits comma-separated specs, whose options hold commas themselves.

  `a:x=1,y=2,b` becomes `('a:x=1,y=2', 'b')`: a part `key=value` without a name
  belongs to the spec before it. Spaces around parts are dropped, as are empty
  parts.

  Args:
    text: The specs.

  Returns:
    A spec each.
  """
  specs = []
  for part in filter(None, map(str.strip, text.split(','))):
    if specs and '=' in part and ':' not in part.split('=')[0]:
      specs[-1] += f',{part}'
    else:
      specs.append(part)
  return tuple(specs)


def parse(
    text: str, *, kind: str, known: Mapping[str, Mapping[str, Parser]]
) -> NamedSpec:
  """Parses `name` or `name:key=value,key=value`.

  Args:
    text: The spec.
    kind: What the names stand for, such as 'aggregator'; for errors.
    known: The known names, each with its options and their parsers.

  Returns:
    A `NamedSpec`.

  Raises:
    TypeError: If `text` is not a string.
    ValueError: If a name or key is not known, or a key has no value, has two of
      them, or one that its parser rejects.
  """
  if not isinstance(text, str):
    raise TypeError(
        f'the name of an {kind} must be a string; found {text!r} of type'
        f' {type(text).__name__}'
    )
  name, colon, tail = text.partition(':')
  if name not in known:
    raise ValueError(f'unknown {kind} {name!r}; known: {", ".join(known)}')
  parsers = known[name]
  options = {}
  for item in tail.split(',') if colon else ():
    key, equals, value = item.partition('=')
    if not equals:
      raise ValueError(
          f'options of {kind} {name!r} must be key=value; found {item!r}'
      )
    if key not in parsers:
      raise ValueError(
          f'{kind} {name!r} has no option {key!r}; known:'
          f' {", ".join(parsers) or "none"}'
      )
    if key in options:
      raise ValueError(f'option {key!r} of {kind} {name!r} is given twice')
    try:
      options[key] = parsers[key](value)
    except ValueError as error:
      raise ValueError(f'option {key!r} of {kind} {name!r} {error}') from None
  return NamedSpec(name, options)


def parse_int(text: str) -> int:
  """Parses an integer; a `Parser`."""
  try:
    return int(text)
  except ValueError:
    raise ValueError(f'must be an integer; found {text!r}') from None


def parse_number(text: str) -> float:
  """Parses a finite number; a `Parser`."""
  try:
    number = float(text)
  except ValueError:
    number = math.nan
  if not math.isfinite(number):
    raise ValueError(f'must be a finite number; found {text!r}')
  return number


def parse_positive_int(text: str) -> int:
  """Parses an integer above 0; a `Parser`."""
  number = parse_int(text)
  if number <= 0:
    raise ValueError(f'must be at least 1; found {text!r}')
  return number


def parse_positive_number(text: str) -> float:
  """Parses a finite number above 0; a `Parser`."""
  number = parse_number(text)
  if number <= 0:
    raise ValueError(f'must be positive; found {text!r}')
  return number


def parse_nonnegative_number(text: str) -> float:
  """Parses a finite number of at least 0; a `Parser`."""
  number = parse_number(text)
  if number < 0:
    raise ValueError(f'must not be negative; found {text!r}')
  return number


def parse_share(text: str) -> float:
  """Parses a number in (0, 1]; a `Parser`."""
  number = parse_positive_number(text)
  if number > 1:
    raise ValueError(f'must be at most 1; found {text!r}')
  return number


def parse_fraction(text: str) -> float:
  """Parses a number in [0, 1); a `Parser`."""
  number = parse_nonnegative_number(text)
  if number >= 1:
    raise ValueError(f'must be below 1; found {text!r}')
  return number


def parse_count_or_fraction(text: str) -> Union[int, float]:
  """Parses an integer of at least 0, or a fraction in [0, 1); a `Parser`.

  A decimal point tells a fraction: 0.0 is one, 0 is none.
  """
  try:
    number = int(text)
  except ValueError:
    number = parse_number(text)
  if number < 0 or (isinstance(number, float) and number >= 1):
    raise ValueError(
        f'must be a number of clients or a fraction below 1; found {text!r}'
    )
  return number


def choice_parser(*choices: str) -> Parser:
  """Makes a `Parser` that accepts the given texts."""

  def parse_choice(text: str) -> str:
    if text not in choices:
      raise ValueError(f'must be one of {", ".join(choices)}; found {text!r}')
    return text

  return parse_choice
