"""What FedAOT sees of an update, read once; `fedaot.sketch` in TensorFlow."""

import collections
import math
from typing import List, Sequence, Tuple

import tensorflow as tf

from fedaot import config as config_lib
from fedaot import sketch


def draw_signs(
    seed: tf.Tensor, num_coordinates: int, length: int
) -> sketch.Signs:
  """The signs for updates of d coordinates and projections [p].

  Args:
    seed: int64 [2]; the same seed gives the same signs on every device.
    num_coordinates: d.
    length: p.

  Returns:
    `sketch.Signs` of tensors.
  """
  layout = sketch.sign_layout(math.ceil(num_coordinates / length), length)
  return sketch.Signs(
      _random_signs(seed, [layout.table_rows, length]),
      _random_signs(
          tf.random.experimental.stateless_fold_in(seed, 0), [layout.num_blocks]
      ),
  )


def draw_group_signs(
    seed: tf.Tensor, groups: Sequence[sketch.Group]
) -> Tuple[sketch.Signs, ...]:
  """The signs of each group, see `draw_signs`."""
  fold_in = tf.random.experimental.stateless_fold_in
  return tuple(
      draw_signs(
          fold_in(seed, i) if i else seed, group.num_coordinates, group.length
      )
      for i, group in enumerate(groups)
  )


def _random_signs(seed: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
  num_signs = math.prod(shape)
  # Every byte of a random word gives a sign: random bits are what costs.
  words = tf.random.stateless_uniform(
      [math.ceil(num_signs / 4)], seed, None, None, tf.int32, alg='philox'
  )
  signed_bytes = tf.reshape(tf.bitcast(words, tf.int8), [-1])[:num_signs]
  return tf.where(tf.reshape(signed_bytes, shape) < 0, -1.0, 1.0)


def profile_and_projections(
    tensors: Sequence[tf.Tensor],
    groups: Sequence[sketch.Group],
    signs: Sequence[sketch.Signs],
    size: int,
) -> Tuple[tf.Tensor, tf.Tensor, List[tf.Tensor]]:
  """What is seen of an update.

  Args:
    tensors: Float tensors of any static shapes.
    groups: Which of them are projected together.
    signs: See `draw_group_signs`.
    size: The coordinates in a block.

  Returns:
    The norm, each block's share of the energy, [B], and the projection of each
    group, [p]; float32.
  """
  flat = [tf.reshape(tf.cast(t, tf.float32), [-1]) for t in tensors]
  energies = tf.concat([_block_energies(t, size) for t in flat], axis=0)
  total = tf.reduce_sum(energies)
  projections, first = [], 0
  for group, own in zip(groups, signs):
    projections.append(project(flat[first : first + group.num_tensors], own))
    first += group.num_tensors
  return (
      tf.sqrt(total),
      tf.math.divide_no_nan(energies, total),
      projections,
  )


def _block_energies(flat: tf.Tensor, size: int) -> tf.Tensor:
  """See `sketch.block_energies`."""
  squares = tf.square(flat)
  whole = flat.shape[0] // size * size
  energies = tf.reduce_sum(tf.reshape(squares[:whole], [-1, size]), axis=1)
  if whole == flat.shape[0]:
    return energies
  return tf.concat([energies, [tf.reduce_sum(squares[whole:])]], axis=0)


def project(flat: Sequence[tf.Tensor], signs: sketch.Signs) -> tf.Tensor:
  """The projection, float32 [p], of float32 tensors [d_i]."""
  length = signs.table.shape[1]
  table = tf.reshape(signs.table, [-1])
  num_rows = math.ceil(sum(tensor.shape[0] for tensor in flat) / length)
  layout = sketch.sign_layout(num_rows, length)
  sums, rest, row = [], [], 0

  def add(rows, row):
    """Adds rows, the first of which is number `row` of the update."""
    first = 0
    while first < rows.shape[0]:
      block, position = divmod(row + first, layout.block_rows)
      size = min(layout.block_rows - position, rows.shape[0] - first)
      start = layout.first_sign(block, length) + position * length
      signed = rows[first : first + size] * tf.reshape(
          table[start : start + size * length], [size, length]
      )
      total = tf.reduce_sum(signed, axis=0)
      sums.append(total * signs.blocks[block] if layout.is_reused else total)
      first += size
    return row + first

  for tensor in flat:
    num_whole = tensor.shape[0] // length
    row = add(
        tf.reshape(tensor[: num_whole * length], [num_whole, length]), row
    )
    rest.append(tensor[num_whole * length :])
  rest = tf.concat(rest, axis=0)
  padding = (num_rows - row) * length - rest.shape[0]
  add(tf.reshape(tf.pad(rest, [[0, padding]]), [num_rows - row, length]), row)
  return tf.add_n(sums)


def fingerprint(numbers: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
  """Keyed 64-bit hash of floats [k] by which a client finds its row in a table.

  Multilinear hashing modulo 2^64: different rows collide with a probability of
  at most 2^-33 whatever they are, as long as the seed, int64 [2], is secret.
  """
  factors = tf.random.stateless_uniform(
      [numbers.shape[0]], seed, None, None, tf.int64, alg='philox'
  )
  bits = tf.cast(tf.bitcast(numbers, tf.int32), tf.int64)
  return tf.reduce_sum(factors * bits)


def summarize_update(
    tensors: Sequence[tf.Tensor],
    groups: Sequence[sketch.Group],
    signs: Sequence[sketch.Signs],
    seed: tf.Tensor,
    directions: 'collections.OrderedDict[str, tf.Tensor]',
    config: config_lib.FedAOTConfig,
    is_empty: tf.Tensor,
) -> Tuple['collections.OrderedDict[str, tf.Tensor]', tf.Tensor]:
  """Summary of one client update: all that the weighting sees of it.

  Args:
    tensors: See `profile_and_projections`.
    groups: Which of them are sketched together.
    signs: See `draw_group_signs`.
    seed: int64 [2], of the fingerprint.
    directions: Named float32 [p] sketches of vectors to project the update on.
    config: A `FedAOTConfig`.
    is_empty: Whether the client has nothing to say, see
      `flat_updates.is_empty_update`.

  Returns:
    A pair. First a row of the table of `fedaot.equations` in float32, with the
    row's `fingerprint`, int64, and `is_empty`; second the projection, float32
    [p], of the first group. All but these is 0 for an update that is not
    usable.
  """
  norm, profile, projections = profile_and_projections(
      tensors, groups, signs, sketch.block_size(groups, config)
  )
  # No entry is larger than the norm, and a NaN compares false.
  usable = (norm < config.max_norm) & ~is_empty
  norm, profile = tf.where(usable, norm, 0.0), tf.where(usable, profile, 0.0)
  projections = [tf.where(usable, p, 0.0) for p in projections]
  # A projection of p floats folds into a sketch of a length that divides p.
  sketches = tf.stack(
      [
          tf.reduce_sum(tf.reshape(p, [-1, group.sketch_length]), axis=0)
          for p, group in zip(projections, groups)
      ]
  )
  dots = [tf.tensordot(projections[0], v, 1) for v in directions.values()]
  row = collections.OrderedDict(
      fingerprint=fingerprint(
          tf.concat(
              [tf.stack([norm] + dots), tf.reshape(sketches, [-1]), profile],
              axis=0,
          ),
          seed,
      ),
      finite=tf.cast(usable, tf.float32),
      is_empty=tf.cast(is_empty, tf.float32),
      norm=norm,
      sketch=sketches,
      profile=profile,
  )
  row.update((f'dot_{name}', dot) for name, dot in zip(directions, dots))
  return row, projections[0]
