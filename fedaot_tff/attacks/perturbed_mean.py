"""The honest mean, moved along a direction as far as a bound allows."""

import abc
from typing import NamedTuple

import tensorflow as tf

from fedaot import checks
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import vectors

DIRECTIONS = ('unit_vector', 'stddev', 'sign')


class Geometry(NamedTuple):
  """How the honest updates lie to each other and to a line through their mean.

  The line is m + gamma p with the mean m and a perturbation p. All in float64.
  """

  distances: tf.Tensor  # [h, h], the squared distances of updates x_i, x_j.
  from_mean: tf.Tensor  # [h], ||m - x_i||^2.
  slopes: tf.Tensor  # [h], <p, m - x_i>.
  squared_norm: tf.Tensor  # Scalar, ||p||^2.


def perturb(moments: attack.HonestMoments, direction: str) -> tf.Tensor:
  """-m / ||m||, -s or -sign(m), by `DIRECTIONS`, of mean m and stddev s."""
  if direction == 'unit_vector':
    return -vectors.unit(moments.mean)
  return -moments.stddev if direction == 'stddev' else -tf.sign(moments.mean)


def measure(
    honest: tf.Tensor, mean: tf.Tensor, perturbation: tf.Tensor
) -> Geometry:
  """The `Geometry` of honest updates [h, d] with mean and perturbation [d]."""
  # About the mean: an offset that all share would cost the digits that tell
  # them apart.
  products = vectors.inner_products(
      tf.concat([honest - mean, [perturbation]], axis=0)
  )
  return Geometry(
      distances=vectors.squared_distances(products[:-1, :-1]),
      from_mean=tf.linalg.diag_part(products)[:-1],
      slopes=-products[:-1, -1],
      squared_norm=products[-1, -1],
  )


class PerturbedMean(attack.CollusivePoisoning):
  """All attackers send m + gamma p, with p of `perturb` and the largest gamma.

  Knowledge: the honest updates x_i, of which m is the mean. Source: Shejwalkar
  and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning
  Attacks and Defenses for Federated Learning", NDSS 2021, the AGR-agnostic
  attacks; they approach gamma by halving steps.
  """

  sees_table = True

  def __init__(self, *, direction: str = 'unit_vector'):
    self._direction = checks.check_choice('direction', direction, DIRECTIONS)

  @abc.abstractmethod
  def largest_gamma(self, geometry: Geometry) -> tf.Tensor:
    """The largest gamma that the bound allows, float64; any if ||p|| is 0."""

  def agree(self, knowledge, state):
    moments = vectors.moments(knowledge.honest)
    perturbation = perturb(moments, self._direction)
    geometry = measure(knowledge.honest, moments.mean, perturbation)
    # A zero perturbation, the only one without honest updates, has no bound.
    gamma = tf.where(
        geometry.squared_norm > 0, self.largest_gamma(geometry), 0.0
    )
    return moments.mean + tf.cast(gamma, tf.float32) * perturbation, state


class MinMax(PerturbedMean):
  """As far from the mean as two honest updates are from each other.

  The bound on v = m + gamma p is max_i ||v - x_i|| <= max_ij ||x_i - x_j||.
  Each i bounds gamma by the larger root of a quadratic equation, so that gamma
  is the smallest of these roots.
  """

  def largest_gamma(self, geometry):
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


class MinSum(PerturbedMean):
  """As far from all honest updates as the farthest of them is.

  The bound on v = m + gamma p is, with h honest updates,

    sum_i ||v - x_i||^2 = h gamma^2 ||p||^2 + sum_i ||m - x_i||^2
                       <= max_i sum_j ||x_i - x_j||^2.
  """

  def largest_gamma(self, geometry):
    slack = tf.reduce_max(
        tf.reduce_sum(geometry.distances, axis=1)
    ) - tf.reduce_sum(geometry.from_mean)
    num_honest = tf.cast(tf.size(geometry.from_mean), tf.float64)
    return tf.sqrt(
        tf.math.divide_no_nan(
            tf.maximum(slack, 0), num_honest * geometry.squared_norm
        )
    )
