"""TensorFlow as the namespace of `fedaot`'s equations and rules."""

import tensorflow as tf
import tensorflow.experimental.numpy as tnp


class TensorFlowNamespace:
  """`tf.experimental.numpy`, and the operations beyond it."""

  def __getattr__(self, name):
    return getattr(tnp, name)

  cond = staticmethod(tf.cond)
  eigh = staticmethod(tf.linalg.eigh)
  softplus = staticmethod(tf.math.softplus)
  stop_gradient = staticmethod(tf.stop_gradient)

  @staticmethod
  def eye(size):
    return tf.eye(size, dtype=tf.float64)

  @staticmethod
  def size(array):
    return tf.shape(array)[0]

  @staticmethod
  def while_loop(condition, body, state):
    return tf.while_loop(condition, body, state, parallel_iterations=1)


TENSORFLOW = TensorFlowNamespace()
