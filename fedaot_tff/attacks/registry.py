"""Attacks by name. TensorFlow is imported when one is made."""

import dataclasses
import functools
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from fedaot_tff import named_spec


class _Entry(NamedTuple):
  """How to make an attack.

  Attributes:
    data_poisoning: Makes the `DataPoisoning` from the options, or None.
    update_poisoning: Makes the `UpdatePoisoning` from the options, or None.
    options: The options and their parsers.
    has_success_rate: See `Attack`.
  """

  data_poisoning: Optional[Callable[..., Any]] = None
  update_poisoning: Optional[Callable[..., Any]] = None
  options: Mapping[str, named_spec.Parser] = {}
  has_success_rate: bool = False


def _label_flip():
  from fedaot_tff.attacks import label_flip

  return label_flip.LabelFlip()


def _sign_flip(**options):
  from fedaot_tff.attacks import sign_flip

  return sign_flip.SignFlip(**options)


_ENTRIES = {
    'none': _Entry(),
    'label_flip': _Entry(data_poisoning=_label_flip),
    'sign_flip': _Entry(
        update_poisoning=_sign_flip,
        options={'scale': named_spec.parse_positive_number},
    ),
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
  def has_success_rate(self) -> bool:
    """Whether it has an aim that is measured apart from the accuracy."""
    return _ENTRIES[self.name].has_success_rate

  @functools.cached_property
  def data_poisoning(self) -> Optional[Any]:
    """The `attack.DataPoisoning`; None if the attack leaves data alone."""
    make = _ENTRIES[self.name].data_poisoning
    return None if make is None else make(**self.options)

  @functools.cached_property
  def update_poisoning(self) -> Optional[Any]:
    """The `attack.UpdatePoisoning`; None if it leaves updates alone."""
    make = _ENTRIES[self.name].update_poisoning
    return None if make is None else make(**self.options)


def attack_names() -> Tuple[str, ...]:
  """The names of the known attacks."""
  return tuple(_ENTRIES)


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
