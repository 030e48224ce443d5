"""Names with options, as flags give them: `krum:num_byzantine=3`."""

from collections.abc import Mapping
import functools
import math
from typing import Any, Callable, Dict, NamedTuple, Tuple, Union

from fedaot import checks

# Checks an option: takes what it is called in errors and what was given, a
# number where the text is one and else the text, and returns the value.
Parser = Callable[[str, Any], Any]


class NamedSpec(NamedTuple):
  """A name with the values of the options that were given for it."""

  name: str
  options: Dict[str, Any]


def split_list(text: str) -> Tuple[str, ...]:
  """Splits comma-separated specs, whose options hold commas themselves.

  `a:x=1, y=2,b` becomes `('a:x=1,y=2', 'b')`: a part `key=value` without a name
  belongs to the spec before it; empty parts are dropped.
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
    label = f'option {key!r} of {kind} {name!r}'
    try:
      options[key] = parsers[key](label, _literal(value))
    except (TypeError, ValueError) as error:
      raise ValueError(str(error)) from None
  return NamedSpec(name, options)


def _literal(text: str) -> Union[int, float, str]:
  """The number that a text stands for, or the text."""
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  return text


parse_int = functools.partial(checks.check_int, minimum=-math.inf)
parse_nonnegative_int = functools.partial(checks.check_int, minimum=0)
parse_positive_int = functools.partial(checks.check_int, minimum=1)
parse_number = checks.check_number
parse_positive_number = functools.partial(checks.check_number, above=0)
parse_nonnegative_number = functools.partial(checks.check_number, minimum=0)
parse_share = functools.partial(checks.check_number, above=0, maximum=1)
parse_fraction = functools.partial(checks.check_number, minimum=0, below=1)


def parse_count_or_fraction(name: str, value: Any) -> Union[int, float]:
  """A number of clients, or a fraction of them in [0, 1); a `Parser`.

  A decimal point tells a fraction: 0.0 is one, 0 is none.
  """
  parser = parse_nonnegative_int if isinstance(value, int) else parse_fraction
  return parser(name, value)


def choice_parser(*choices: str) -> Parser:
  """Makes a `Parser` that accepts the given texts."""
  return functools.partial(checks.check_choice, choices=choices)
