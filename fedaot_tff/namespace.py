"""TensorFlow as the namespace of `fedaot`'s equations and rules."""

import tensorflow as tf
import tensorflow.experimental.numpy as tnp


class TensorFlowNamespace:
  """`tf.experimental.numpy`, and the operations beyond it."""

  def __getattr__(self, name):
    return getattr(tnp, name)

  eigh = staticmethod(tf.linalg.eigh)

  @staticmethod
  def size(array):
    return tf.shape(array)[0]

  @staticmethod
  def while_loop(condition, body, state):
    return tf.while_loop(condition, body, state, parallel_iterations=1)


TENSORFLOW = TensorFlowNamespace()
