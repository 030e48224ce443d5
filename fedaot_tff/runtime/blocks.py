"""Blocks of a round's clients, whose sums are merged along a tree.

Blocks and tree depend on the number of clients alone. So no bit of a result
depends on how many processes work on the blocks, or on which does what.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Optional, TypeVar

import tensorflow as tf

from fedaot_tff.runtime import graph_function

# Stands for the number of clients among the inputs of a function.
NUM_CLIENTS = -1

_MIN_BLOCK = 4
_MAX_BLOCKS = 256
# So many can be divided evenly among workers, also if some are slower.
_UNITS_PER_WORKER = 4

_T = TypeVar('_T')


class BlockStage(NamedTuple):
  """What the clients of a block do in a stage. Numbers are of tensors.

  Attributes:
    run: Of the tensors of `inputs`; returns those of `kept`, then tables, then
      sums. What clients have is a list of TensorFlow, one value a client.
    inputs: Numbers, or `NUM_CLIENTS`.
    shared: Those that come from the server.
    kept: Those that clients make for later stages.
    needed_later: Those that later stages need of what clients have.
    num_tables: How many tables there are.
    merge: The sums of two neighbours from `merge_inputs` of those of the first
      and then the second; None if there are no sums.
    merge_inputs: Positions.
  """

  run: graph_function.GraphFunction
  inputs: tuple[int, ...]
  shared: tuple[int, ...]
  kept: tuple[int, ...]
  needed_later: frozenset[int]
  num_tables: int
  merge: Optional[graph_function.GraphFunction]
  merge_inputs: tuple[int, ...]


class BlockProgram(NamedTuple):
  """All that clients do in a round.

  Attributes:
    stages: In order.
    client_types: The types of a client's values, serialized.
    specs: The numbers and types of the tensors of these values.
  """

  stages: tuple[BlockStage, ...]
  client_types: tuple[bytes, ...]
  specs: tuple[tuple[int, tf.TensorSpec], ...]


def cut(clients: Sequence[_T], num_workers: int) -> list[list[Sequence[_T]]]:
  """Units of work, which are lists of blocks of clients.

  The number of workers decides on the units, but not on the blocks. Each unit
  is a whole branch of the tree. Without clients there is an empty block.
  """
  block = _MIN_BLOCK
  while len(clients) > block * _MAX_BLOCKS:
    block *= 2
  starts = range(0, len(clients) or 1, block)
  blocks = [clients[start : start + block] for start in starts]
  unit = 1
  while len(blocks) > unit * num_workers * _UNITS_PER_WORKER:
    unit *= 2
  return [blocks[i : i + unit] for i in range(0, len(blocks), unit)]


def merge_tree(parts: Iterable[_T], merge: Callable[[_T, _T], _T]) -> _T:
  """Merges pairs of neighbours, then pairs of these, until there is one.

  One that is left over in a row goes on into the next. Few parts are held.
  """
  branches = []
  for part in parts:
    size = 1
    while branches and branches[-1][0] == size:
      part, size = merge(branches.pop()[1], part), 2 * size
    branches.append((size, part))
  merged = branches.pop()[1]
  while branches:
    merged = merge(branches.pop()[1], merged)
  return merged
