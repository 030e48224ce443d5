"""Min-Sum: as far from all honest updates as the farthest of them is."""

import tensorflow as tf

from fedaot_tff.attacks import perturbation


class MinSum(perturbation.PerturbedMean):
  """Perturbs the honest mean until its sum of distances is an honest one.

  All attackers send v = m + gamma p, where m is the mean of the honest updates
  x_i, p a perturbation, and gamma the largest number for which

    sum over i of ||v - x_i||^2 <= max over i of sum over j of ||x_i - x_j||^2.

  With h honest updates the left side is h gamma^2 ||p||^2 plus the same sum for
  m, which gives gamma; the paper approaches it by halving steps.

  Knowledge: the honest updates. Source: Shejwalkar and Houmansadr,
  "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses
  for Federated Learning", NDSS 2021, the AGR-agnostic attack Min-Sum.
  """

  def largest_gamma(self, geometry: perturbation.Geometry) -> tf.Tensor:
    """See `PerturbedMean.largest_gamma`."""
    slack = tf.reduce_max(
        tf.reduce_sum(geometry.distances, axis=1)
    ) - tf.reduce_sum(geometry.from_mean)
    num_honest = tf.cast(tf.size(geometry.from_mean), tf.float64)
    return tf.sqrt(
        tf.math.divide_no_nan(
            tf.maximum(slack, 0), num_honest * geometry.squared_norm
        )
    )
