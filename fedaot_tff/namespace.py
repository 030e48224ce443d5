"""TensorFlow as the namespace of `fedaot`'s equations and rules."""

import tensorflow as tf
import tensorflow.experimental.numpy as tnp


class TensorFlowNamespace:
  """`tf.experimental.numpy`, and the operations beyond it."""

  def __getattr__(self, name):
    return getattr(tnp, name)

  eigh = staticmethod(tf.linalg.eigh)
  softplus = staticmethod(tf.math.softplus)
  stop_gradient = staticmethod(tf.stop_gradient)

  @staticmethod
  def size(array):
    return tf.shape(array, out_type=tf.int64)[0]

  @staticmethod
  def arange(*bounds):
    return tf.range(*bounds, dtype=tf.int64)

  @staticmethod
  def eye(num_rows, dtype=tf.float64):
    return tf.cast(tf.eye(num_rows), dtype)

  @staticmethod
  def take(array, indices, axis):
    return tf.gather(array, indices, axis=axis)

  @staticmethod
  def take_along_axis(array, indices, axis):
    assert axis == -1  # NumPy's general one makes a graph of hundreds of nodes.
    return tf.gather(array, indices, axis=-1, batch_dims=array.shape.rank - 1)

  @staticmethod
  def while_loop(condition, body, state, *, growing=False):
    state = tf.nest.map_structure(tf.convert_to_tensor, tuple(state))
    shapes = tf.nest.map_structure(
        lambda a: tf.TensorShape([None, *a.shape[1:]] if a.shape.rank else []),
        state,
    )
    return tf.while_loop(
        condition,
        body,
        state,
        shape_invariants=shapes if growing else None,
        parallel_iterations=1,
    )

  @staticmethod
  def cond(condition, if_true, if_false):
    return tf.cond(condition, if_true, if_false)

  @staticmethod
  def map_starts(function, starts, dtype):
    return tf.map_fn(
        lambda start: tf.cast(function(start), dtype),
        tf.constant(starts),
        fn_output_signature=dtype,
        parallel_iterations=1,
    )

  @staticmethod
  def sorted_columns(table):
    return tf.sort(tf.transpose(table), axis=1)

  @staticmethod
  def sum_of_middle(table, first, end):
    # A value is selected in a third of the time that sorting takes.
    values = tf.cast(tf.transpose(table), tf.float64)
    size = tf.cast(end - first, tf.float64)
    low = _value_in_place(values, first)
    is_above = values > low
    num_low = tf.minimum(_count(~is_above), tf.cast(end, tf.float64))
    num_low -= tf.cast(first, tf.float64)

    def add_next():
      following = tf.reduce_min(tf.where(is_above, values, tf.float64.max), 1)
      return tf.where(num_low < size, following, 0.0)

    def add_all():
      high = _value_in_place(values, end - 1)
      is_between = is_above & (values < high)
      num_high = size - num_low - _count(is_between)
      between = tf.reduce_sum(tf.where(is_between, values, 0.0), axis=1)
      return between + num_high * high[:, 0]

    rest = tf.cond(size < 3, add_next, add_all)
    return num_low * low[:, 0] + rest

  @staticmethod
  def sample(key, population, size):
    return tf.random.experimental.index_shuffle(
        tf.range(size, dtype=tf.int64),
        _fold(key),
        tf.cast(population, tf.int64) - 1,
    )

  @staticmethod
  def normal(key, size):
    return tf.random.stateless_normal([size], _fold(key), alg='philox')


def _value_in_place(rows, place):
  """The value in a place of each row's ascending order, `[b, 1]`."""
  place = tf.cast(place, tf.int32)
  return tf.raw_ops.NthElement(input=rows, n=place)[:, None]


def _count(table):
  """The number of true entries in each row, float64."""
  return tf.reduce_sum(tf.cast(table, tf.float64), axis=1)


def _fold(key):
  """The seed of a stateless draw from the three integers of a key."""
  seed, round_num, draw = key
  seed = tf.stack([tf.cast(seed, tf.int64), tf.cast(round_num, tf.int64)])
  return tf.random.experimental.stateless_fold_in(seed, draw, alg='philox')


TENSORFLOW = TensorFlowNamespace()
