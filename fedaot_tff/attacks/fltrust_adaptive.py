"""An attack on FLTrust, and on others that trust the server's own update."""

import math

import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors

# Angles to the root that are tried, evenly from 0 to a right one.
_NUM_ANGLES = 200


class FLTrustAdaptive(attack.CollusivePoisoning):
  """Sends what takes FLTrust's aggregate the farthest against the honest one.

  With e_i the unit vectors of the honest updates, e_0 that of the root, their
  trust c_i = max(<e_i, e_0>, 0), and s the signs of sum_i c_i e_i, the honest
  aggregate, f attackers who all send e, of trust c > 0, make FLTrust go

    <s, (sum_i c_i e_i + f c e) / (sum_i c_i + f c)>

  root lengths along s. The e that makes it least lies in the plane of e_0 and
  s, on the side of -s; its angle to e_0 is found on a grid. It is sent at the
  length of the root, which passes a bound on norms, too.

  That all send the same costs nothing: at the least value v each attacker's
  best e is the one of the least c (<s, e> - v). The paper ascends by a gradient
  one attacker after another. Where the server has no hold-out, the mean of the
  honest updates is taken for the root.

  Knowledge: the honest updates and the update that the server makes of its
  whole hold-out (FedAOT takes a random half of it, anew each round). Source:
  Cao, Fang, Liu and Gong, "FLTrust: Byzantine-robust Federated Learning via
  Trust Bootstrapping", NDSS 2021, the adaptive attack.
  """

  sees_table = True
  sees_root = True

  def agree(self, knowledge, state):
    honest = knowledge.honest
    root = knowledge.root
    if isinstance(root, tuple):
      root = vectors.moments(honest).mean
    towards = vectors.unit(root)
    norms = tf.norm(honest, axis=1, keepdims=True)
    directions = tf.math.divide_no_nan(honest, norms)
    trust = tf.maximum(tf.linalg.matvec(directions, towards), 0.0)
    trusted = tf.linalg.matvec(directions, trust, transpose_a=True)
    signs = tf.sign(trusted)
    along = tf.tensordot(signs, towards, 1)
    across = signs - along * towards

    angles = tf.linspace(0.0, math.pi / 2, _NUM_ANGLES + 1)[:-1]
    weight = tf.cast(knowledge.num_attackers, tf.float32) * tf.cos(angles)
    progress = along * tf.cos(angles) - tf.norm(across) * tf.sin(angles)
    aggregate = tf.math.divide_no_nan(
        tf.tensordot(signs, trusted, 1) + weight * progress,
        tf.reduce_sum(trust) + weight,
    )
    angle = angles[tf.argmin(aggregate)]
    vector = tf.cos(angle) * towards - tf.sin(angle) * vectors.unit(across)
    return tf.norm(root) * vector, state
