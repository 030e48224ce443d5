"""Norm and random projection of an update, in one read of it.

An update of d coordinates is multiplied by random signs and folded: every p-th
coordinate is added up. Such a fold sketch is linear and keeps inner products:
E <S(a), S(b)> = <a, b>; for d <= p it is exact. With a sign for each
coordinate, that is for up to two blocks of 2^16 coordinates, the variance is at
most 2 sum_c |a_c|^2 |b_c|^2, where a_c is what is added up at place c: 2 |a|^2
|b|^2 / p where places share evenly, up to 2 |a|^2 |b|^2 where one holds all.
Beyond, the signs of two rows of a block have the same products in other blocks,
too. That adds nothing where entries vary at random and up to a half where all
are equal; a few coordinates that are chosen for it have up to 32 times the
variance.

Coordinates are taken in this order: of each tensor in turn as many as fill
whole rows of p, then what is left of each tensor in turn. So no large tensor is
copied. `fedaot_tff` has the same in TensorFlow.
"""

import itertools
import math
from typing import Iterable, List, NamedTuple, Sequence, Tuple

import numpy as np

from fedaot import config as config_lib

# Coordinates in a block, 256 KiB, and the most blocks that an update is cut
# into, but for the ends of its tensors.
_BLOCK_SIZE = 2**16
_MAX_BLOCKS = 64
# Blocks that have signs of their own; further ones reuse these, moved by a
# multiple of so many coordinates that a slice of them need not be copied.
_NUM_SIGN_BLOCKS = 2
_SHIFT = 16


class Group(NamedTuple):
  """Consecutive tensors of an update that have a sketch of their own.

  Attributes:
    num_tensors: Their number.
    num_coordinates: d, of all of them.
    length: p, of their projection: a multiple of m, so that it folds into the
      sketch.
    sketch_length: m.
  """

  num_tensors: int
  num_coordinates: int
  length: int
  sketch_length: int


def group_tensors(
    shapes: Sequence[Sequence[int]],
    config: config_lib.FedAOTConfig,
    *,
    has_holdout: bool,
) -> Tuple[Group, ...]:
  """The groups of an update with tensors of these shapes.

  With a hold-out it is one. In agreement mode consecutive layers are dealt out
  to at most `config.max_groups`; a layer is a tensor of two or more dimensions
  and the smaller ones after it, such as its bias.
  """
  starts = [i for i, shape in enumerate(shapes) if len(shape) > 1][1:]
  bounds = [0, *starts]  # What comes before the first kernel is of its layer.
  num_groups = 1 if has_holdout else min(len(bounds), config.max_groups)
  firsts = [bounds[g * len(bounds) // num_groups] for g in range(num_groups)]
  total = (
      config.sketch_dimension
      if has_holdout
      else config.agreement_sketch_dimension
  )
  sketch_length = max(1, total // num_groups)
  groups = []
  for first, end in zip(firsts, [*firsts[1:], len(shapes)]):
    size = sum(math.prod(shape) for shape in shapes[first:end])
    length = min(config.projection_dimension, size)
    length = sketch_length * math.ceil(length / sketch_length)
    groups.append(Group(end - first, size, length, sketch_length))
  return tuple(groups)


class SignLayout(NamedTuple):
  """Where the signs of an update's rows are; rows have p coordinates.

  Rows are grouped into blocks. A block's signs are consecutive in the table of
  signs, flattened, and those of different blocks begin at different places
  modulo p. So coordinates that are added up have signs of different places.

  Attributes:
    block_rows: The rows of a block; the last one may have fewer.
    num_blocks: The number of blocks.
    table_rows: The rows of the table of signs, as long as an update's.
    is_reused: Whether places of the table are the signs of several rows. Then
      a block has a sign of its own as well.
    shift: The distance of two blocks' places that share signs.
    num_apart: The number of blocks that share none.
  """

  block_rows: int
  num_blocks: int
  table_rows: int
  is_reused: bool
  shift: int
  num_apart: int

  def first_sign(self, block: int, length: int) -> int:
    """The place of a block's first sign in the flattened table."""
    group, position = divmod(block, self.num_apart)
    return position * self.block_rows * length + group * self.shift


def sign_layout(num_rows: int, length: int) -> SignLayout:
  """The layout of the signs of R rows of p coordinates."""
  # Blocks that stay in a core's cache from the product to the sums, but not so
  # many that the graph of a huge model is long.
  block_rows = max(1, _BLOCK_SIZE // length, math.ceil(num_rows / _MAX_BLOCKS))
  num_blocks = math.ceil(num_rows / block_rows)
  shift = min(_SHIFT, length)
  # So few groups of blocks that no shift is as long as a row.
  num_apart = max(_NUM_SIGN_BLOCKS, math.ceil(num_blocks / (length // shift)))
  is_reused = num_blocks > num_apart
  return SignLayout(
      block_rows,
      num_blocks,
      num_apart * block_rows + 1 if is_reused else num_rows,
      is_reused,
      shift,
      num_apart,
  )


class Signs(NamedTuple):
  """Random signs; secret, as who knows them can hide from the sketch.

  Attributes:
    table: float32 [rows, p] of -1 and 1; fewer than d for a large d, so that
      they stay in a core's cache, which an update does not.
    blocks: float32 [number of blocks] of -1 and 1.
  """

  table: np.ndarray
  blocks: np.ndarray


def draw_signs(
    generator: np.random.Generator, num_coordinates: int, length: int
) -> Signs:
  """Draws the signs for updates of d coordinates and projections [p]."""
  layout = sign_layout(math.ceil(num_coordinates / length), length)
  draw = lambda *shape: np.float32(1) - 2 * generator.integers(
      0, 2, shape, np.int8
  ).astype(np.float32)
  return Signs(draw(layout.table_rows, length), draw(layout.num_blocks))


def block_size(groups: Sequence[Group], config: config_lib.FedAOTConfig) -> int:
  """The coordinates in a block of the profile, see `block_energies`."""
  num_coordinates = sum(group.num_coordinates for group in groups)
  return math.ceil(num_coordinates / config.profile_blocks)


def block_energies(tensor: np.ndarray, size: int) -> np.ndarray:
  """Sums of squares of runs of `size` coordinates; the last may be shorter."""
  whole = tensor.shape[0] // size * size
  rows, rest = tensor[:whole].reshape(-1, size), tensor[whole:]
  energies = np.einsum('ij,ij->i', rows, rows)
  return np.append(energies, np.dot(rest, rest)) if len(rest) else energies


def energies_and_projections(
    tensors: Iterable[np.ndarray],
    groups: Sequence[Group],
    signs: Sequence[Signs],
    size: int,
) -> Tuple[np.ndarray, List[np.ndarray]]:
  """What is seen of an update.

  Args:
    tensors: Flat float32 arrays; read one at a time.
    groups: See `group_tensors`.
    signs: Those of each group, see `draw_signs`.
    size: The coordinates in a block.

  Returns:
    The energies of all blocks, tensor by tensor, and each group's projection,
    float32 [p]. The norm is the root of the sum of energies.
  """
  energies = []

  def measured():
    for tensor in tensors:
      energies.append(block_energies(tensor, size))
      yield tensor

  rest = measured()
  with np.errstate(over='ignore', invalid='ignore'):  # Forged updates overflow.
    projections = [
        _projection(itertools.islice(rest, group.num_tensors), group, own)
        for group, own in zip(groups, signs)
    ]
  return np.concatenate(energies), projections


def _projection(
    tensors: Iterable[np.ndarray], group: Group, signs: Signs
) -> np.ndarray:
  length = signs.table.shape[1]
  table = signs.table.reshape(-1)
  num_rows = math.ceil(group.num_coordinates / length)
  layout = sign_layout(num_rows, length)
  scratch = np.empty([layout.block_rows, length], np.float32)
  sketch = np.zeros(length, np.float32)
  parts, row = [], 0

  def add(rows):
    """Adds rows, the first of which is number `row` of the update."""
    nonlocal row
    while len(rows):
      block, position = divmod(row, layout.block_rows)
      part = rows[: layout.block_rows - position]
      start = layout.first_sign(block, length) + position * length
      signed = np.multiply(
          part,
          table[start : start + part.size].reshape(part.shape),
          out=scratch[: len(part)],
      )
      total = signed.sum(axis=0)
      sketch[:] += total * signs.blocks[block] if layout.is_reused else total
      rows, row = rows[len(part) :], row + len(part)

  for tensor in tensors:
    whole = tensor.shape[0] // length * length
    add(tensor[:whole].reshape(-1, length))
    parts.append(tensor[whole:].copy())
  ends = np.zeros([num_rows - row, length], np.float32)
  rest = np.concatenate(parts)
  ends.reshape(-1)[: rest.shape[0]] = rest
  add(ends)
  return sketch
