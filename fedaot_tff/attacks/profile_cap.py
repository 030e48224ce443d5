"""The own update, with no block of weights louder than honest ones have it."""

from typing import Sequence

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors
from fedaot_tff.learning import adversary

_NUM_BLOCKS = 256
# The part of the caps that is spread evenly: honest clients of images with a
# margin touch some blocks never.
_SMOOTHING = 0.05


def number_blocks(sizes: Sequence[int]) -> np.ndarray:
  """The block of each coordinate, int32 [d], of tensors of these sizes.

  Blocks are runs of ceil(d / 256) coordinates within a tensor, numbered from 0;
  the last one of a tensor may be shorter.
  """
  length = -(-sum(sizes) // _NUM_BLOCKS)
  runs = [min(length, s - b) for s in sizes for b in range(0, s, length)]
  return np.repeat(np.arange(len(runs), dtype=np.int32), runs)


def shares(update: tf.Tensor, block_of: np.ndarray) -> tf.Tensor:
  """Each block's share, [B], of the squared norm; zeros if that is zero."""
  # The squares of a tiny update would be zero.
  return tf.math.segment_sum(vectors.unit(update) ** 2, block_of)


def cap(found: tf.Tensor, caps: tf.Tensor) -> tf.Tensor:
  """Energies [B] of at most `found`, whose shares are at most `caps` [B] > 0.

  From shares p and caps c they are min(p, c E), with the largest E that is
  their sum. If no E > 0 is, as the caps of the blocks with p > 0 sum to less
  than 1, they are these caps: too large shares, in the proportion of the caps.
  """
  order = tf.argsort(found / caps, direction='DESCENDING')
  # E if the first k blocks are at their caps, for k = 0, ..., B; it is the
  # least of them, as a minimum never exceeds p nor c E.
  at_caps = tf.cumsum(tf.pad(tf.gather(caps, order), [[1, 0]]))
  below = tf.cumsum(tf.pad(tf.gather(found, order), [[0, 1]]), reverse=True)
  energy = tf.reduce_min(
      tf.where(at_caps < 1, tf.math.divide_no_nan(below, 1 - at_caps), 1.0)
  )
  return tf.where(
      energy > 0,
      tf.minimum(found, caps * energy),
      tf.where(found > 0, caps, 0.0),
  )


class CappedUpdates(attack.CollusivePoisoning):
  """The attack on updates with the given blocks; see `ProfileCap`."""

  sees_table = True

  def __init__(self, block_of: np.ndarray, multiple: float):
    self._block_of, self._multiple = block_of, multiple

  def agree(self, knowledge, state):
    num_blocks = int(self._block_of[-1]) + 1
    profiles = tf.map_fn(
        lambda row: shares(row, self._block_of),
        knowledge.honest,
        # Says the shape where there are no honest clients.
        fn_output_signature=tf.TensorSpec([num_blocks]),
    )
    # The appended zeros are the median of no profiles.
    ordered = tf.pad(tf.sort(profiles, axis=0), [[0, 1], [0, 0]])
    lower = ordered[tf.maximum(knowledge.num_honest - 1, 0) // 2]
    median = (lower + ordered[knowledge.num_honest // 2]) / 2
    usual = tf.math.divide_no_nan(median, tf.reduce_sum(median))
    smooth = (1 - _SMOOTHING) * usual + _SMOOTHING / num_blocks
    return self._multiple * smooth, state

  def send(self, update, vector, attacker):
    del attacker
    found = shares(update, self._block_of)
    factors = tf.sqrt(tf.math.divide_no_nan(cap(found, vector), found))
    sent = update * tf.gather(factors, self._block_of)
    return tf.norm(update) * vectors.unit(sent)


class ProfileCap(adversary.UpdatePoisoning):
  """Holds each block's share of the energy below a multiple of the usual one.

  A backdoor teaches few weights much. Of the B blocks of `number_blocks`, p_ib
  is the share of block b in the squared norm of the honest update i, m_b the
  median of p_ib over i, and M the sum of the m_b. An attacker makes its own
  update shorter in the blocks whose share exceeds

    c_b = multiple * (.95 m_b / M + .05 / B),    multiple >= 1,

  by `cap`, and sends it at its old length.

  Knowledge: the own update and the honest ones. It stems from no paper, but
  answers defences that compare the profile of an update with the cohort's.
  """

  def __init__(self, *, multiple: float = 3.0):
    self._multiple = checks.check_number('multiple', multiple, minimum=1)

  def create(self, value_type, context=adversary.Context()):
    specs = tf.nest.flatten(tff.types.type_to_tf_tensor_specs(value_type))
    block_of = number_blocks([spec.shape.num_elements() for spec in specs])
    return CappedUpdates(block_of, self._multiple).create(value_type, context)
