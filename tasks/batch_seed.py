"""Randomness of a model in training, as a function of the batch.

Dropout and augmentation need random numbers, but a learning process must give
the same result whenever it runs on the same data. So the seed is a hash of the
batch's features: the same examples in the same order always meet the same
random numbers. Clients that shuffle their data in every round and epoch, as
`fedaot_tff.simulation` makes them do, have new numbers in every step. Any
change of a pixel or of the order changes them, so two runs that differ in one
poisoned image differ in the dropout of its batch too.
"""

import enum

import tensorflow as tf


class Purpose(enum.IntEnum):
  """What the random numbers are for; each purpose has its own."""

  DROPOUT = 1
  HIDDEN_DROPOUT = 2
  FLIP = 3
  CROP = 4


def from_batch(x: tf.Tensor, purpose: Purpose) -> tf.Tensor:
  """Returns a seed for stateless random operations, int64 of shape `[2]`.

  It is equal for equal features `x` and `purpose` in every process.
  """
  # The fingerprint is taken on the host, of bytes, so that it is the same on
  # every device.
  fingerprint = tf.strings.to_hash_bucket_fast(
      tf.io.serialize_tensor(x), tf.int64.max
  )
  return tf.stack([fingerprint, tf.constant(int(purpose), tf.int64)])
