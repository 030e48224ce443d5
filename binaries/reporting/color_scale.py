"""How the values of a table become colours, and the text on them readable."""

from typing import NamedTuple

import matplotlib
from matplotlib import colors

# The part of matplotlib's maps that is used; symmetric, so that zero is white
# in maps that diverge from it.
_RANGE = (0.08, 0.92)


class Scale(NamedTuple):
  """The values of the first and last colour of one of matplotlib's maps."""

  colormap: str
  low: float
  high: float

  def color(self, value: float) -> str:
    """The colour of a value, such as '#08306b'."""
    position = 0.5
    if self.high > self.low:
      position = (value - self.low) / (self.high - self.low)
    first, last = _RANGE
    position = first + (last - first) * min(max(position, 0.0), 1.0)
    return colors.to_hex(matplotlib.colormaps[self.colormap](position))


def text_color(background: str) -> str:
  """Black or white, whichever has the higher contrast to a colour."""
  return max(
      ('#000000', '#ffffff'), key=lambda color: contrast(color, background)
  )


def contrast(color: str, other: str) -> float:
  """The contrast ratio of two colours, in [1, 21], as WCAG 2 defines it."""
  low, high = sorted([_luminance(color), _luminance(other)])
  return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
  """The relative luminance of a colour as WCAG 2 defines it."""
  red, green, blue = (
      c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
      for c in colors.to_rgb(color)
  )
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
