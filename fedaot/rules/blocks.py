"""Passes over a wide table by blocks of columns, so that no copy is held."""

from typing import Any, Callable

BLOCK_COLUMNS = 1024


def fold(
    add: Callable[[Any, Any, int], Any], total: Any, dimension: int, xp: Any
) -> Any:
  """Adds blocks up: `total = add(total, start, width)` for each."""
  num_full, rest = divmod(dimension, BLOCK_COLUMNS)
  end = num_full * BLOCK_COLUMNS
  if num_full:
    _, total = xp.while_loop(
        lambda start, total: start < end,
        lambda start, total: (
            start + BLOCK_COLUMNS,
            add(total, start, BLOCK_COLUMNS),
        ),
        (0, total),
    )
  return add(total, end, rest) if rest else total


def concatenate(
    entries: Callable[[Any, int], Any], dimension: int, dtype: Any, xp: Any
) -> Any:
  """The vector `[dimension]` of which `entries(start, width)` are a block."""
  width = min(BLOCK_COLUMNS, dimension)
  # The last block begins early enough to be full; what it has in common with
  # the block before is cut off.
  starts = [min(s, dimension - width) for s in range(0, dimension, width)]
  rows = xp.map_starts(lambda start: entries(start, width), starts, dtype)
  num_full, rest = divmod(dimension, width)
  return xp.concatenate(
      [xp.reshape(rows[:num_full], [-1]), rows[-1][width - rest :]], axis=0
  )
