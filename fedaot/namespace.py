"""The namespace that equations and rules are written on.

Functions of this package take as `xp` either `NUMPY` or an object with the same
operations on another framework's tensors (`fedaot_tff` has one for TensorFlow),
so that a formula stands in one place. An operation has NumPy's name and meaning;
those that NumPy lacks, or that frameworks spell in too many ways, are defined
here. Tables are float64.
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
  def while_loop(condition, body, state):
    """`while condition(*state): state = body(*state)`; arrays keep shapes."""
    while condition(*state):
      state = body(*state)
    return state


NUMPY = NumPyNamespace()
