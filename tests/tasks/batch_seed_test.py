"""Tests for batch_seed."""

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tasks import batch_seed

_PURPOSE = batch_seed.Purpose.DROPOUT
_X = np.random.default_rng(0).uniform(size=[4, 3, 3, 1]).astype(np.float32)


def _seed(x, purpose=_PURPOSE):
  return tuple(batch_seed.from_batch(tf.constant(x), purpose).numpy().tolist())


def test_is_a_seed():
  seed = batch_seed.from_batch(_X, _PURPOSE)
  assert seed.shape == [2]
  assert seed.dtype == tf.int64
  # This very number everywhere, or a run could not be repeated elsewhere.
  assert _seed(np.arange(3, dtype=np.float32)) == (1488390016016888629, 1)


def test_depends_on_every_pixel_and_the_order():
  changed = _X.copy()
  changed[3, 2, 2, 0] = np.nextafter(changed[3, 2, 2, 0], np.float32(2))
  seeds = {_seed(x) for x in (_X, changed, _X[::-1], _X[:3], _X[:0])}
  assert len(seeds) == 5
  assert len({_seed(_X, purpose) for purpose in batch_seed.Purpose}) == 4


def test_is_the_same_in_a_computation():
  @tff.tensorflow.computation(tff.TensorType(np.float32, [None, 3, 3, 1]))
  def computation(x):
    return batch_seed.from_batch(x, _PURPOSE)

  assert tuple(computation(_X)) == _seed(_X) == _seed(_X.copy())
