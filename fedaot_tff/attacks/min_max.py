"""Min-Max: as far from the mean as two honest updates are from each other."""

import tensorflow as tf

from fedaot_tff.attacks import perturbation


class MinMax(perturbation.PerturbedMean):
  """Perturbs the honest mean until its largest distance is an honest one.

  All attackers send v = m + gamma p, where m is the mean of the honest updates
  x_i, p a perturbation, and gamma the largest number for which

    max over i of ||v - x_i|| <= max over i, j of ||x_i - x_j||.

  Each i bounds gamma by the larger root of a quadratic equation, so that gamma
  is the smallest of these roots; the paper approaches it by halving steps.

  Knowledge: the honest updates. Source: Shejwalkar and Houmansadr,
  "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses
  for Federated Learning", NDSS 2021, the AGR-agnostic attack Min-Max.
  """

  def largest_gamma(self, geometry: perturbation.Geometry) -> tf.Tensor:
    """See `PerturbedMean.largest_gamma`."""
    # Rounding can put the mean a little outside where all updates coincide.
    slack = tf.maximum(
        tf.reduce_max(geometry.distances) - geometry.from_mean, 0
    )
    slopes = geometry.slopes
    roots = tf.math.divide_no_nan(
        tf.sqrt(slopes**2 + geometry.squared_norm * slack) - slopes,
        geometry.squared_norm,
    )
    return tf.reduce_min(roots)
