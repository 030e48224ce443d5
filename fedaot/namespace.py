"""The namespace that equations and rules are written on.

Functions of this package take as `xp` either `NUMPY` or an object with the same
operations on another framework's tensors (`fedaot_tff` has one for TensorFlow),
so that a formula stands in one place. An operation has NumPy's name and
meaning; those that NumPy lacks, or that frameworks spell in too many ways, are
defined here. Tables are float64, counts int64. Tensors are compared by
`xp.equal`: in a graph `==` asks whether two are the same object.
"""

import numpy as np


class NumPyNamespace:
  """NumPy, and the operations beyond it."""

  def __getattr__(self, name):
    return getattr(np, name)

  @staticmethod
  def eigh(matrix):
    """Eigenvalues in ascending order and eigenvectors of a symmetric matrix."""
    return np.linalg.eigh(matrix)

  @staticmethod
  def size(array):
    """The number of rows, as an integer scalar; dynamic in a graph."""
    return array.shape[0]

  @staticmethod
  def take(array, indices, axis):
    """The entries at some places of an axis."""
    # np.take would first copy the whole of a table's columns.
    return array[indices] if axis == 0 else np.take(array, indices, axis=axis)

  @staticmethod
  def softplus(array):
    """log(1 + exp(x))."""
    return np.logaddexp(0.0, array)

  @staticmethod
  def stop_gradient(array):
    """The array, a constant to automatic differentiation."""
    return array

  @staticmethod
  def cond(condition, if_true, if_false):
    """`if_true()` or `if_false()`, which return arrays alike."""
    return if_true() if condition else if_false()

  @staticmethod
  def while_loop(condition, body, state, *, growing=False):
    """`while condition(*state): state = body(*state)`; arrays keep shapes.

    If `growing`, arrays may change their number of rows.
    """
    del growing
    while condition(*state):
      state = body(*state)
    return state

  @staticmethod
  def map_starts(function, starts, dtype):
    """Stacks `function(start)` for each of a list of ints."""
    return np.stack([np.asarray(function(s), dtype=dtype) for s in starts])

  @staticmethod
  def sorted_columns(table):
    """The values of each column in ascending order, as a row: `[b, n]`."""
    return np.sort(np.ascontiguousarray(table.T), axis=1)

  @staticmethod
  def sum_of_middle(table, first, end):
    """Adds up each column's values from place `first` to `end` in order.

    Args:
      table: `[n, b]`.
      first: The place of the first value in ascending order, from 0.
      end: The place after that of the last; larger than `first`.

    Returns:
      float64 `[b]`.
    """
    middle = NumPyNamespace.sorted_columns(table)[:, first:end]
    return np.sum(middle, axis=1, dtype=np.float64)

  @staticmethod
  def sample(key, population, size):
    """Draws `size` of `population` integers from 0, in random order.

    Args:
      key: Three nonnegative integers below 2^63 that fix the draw: a seed, the
        number of the round, and one that tells draws of a round apart.
      population: How many integers there are.
      size: How many to draw; all of them for a permutation.
    """
    generator = np.random.default_rng([int(k) for k in key])
    return generator.choice(int(population), int(size), replace=False)

  @staticmethod
  def normal(key, size):
    """Standard normal float32 numbers; see `sample` for `key`."""
    generator = np.random.default_rng([int(k) for k in key])
    return generator.standard_normal(size, dtype=np.float32)


NUMPY = NumPyNamespace()
