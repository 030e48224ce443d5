"""The honest mean, moved along a direction as far as a bound allows."""

import abc
from typing import Any, NamedTuple, Tuple

import tensorflow as tf

from fedaot_tff.aggregators import krum
from fedaot_tff.attacks import attack
from fedaot_tff.attacks import checks
from fedaot_tff.attacks import honest_table
from fedaot_tff.attacks import unit_vector

DIRECTIONS = ('unit_vector', 'stddev', 'sign')


class Geometry(NamedTuple):
  """How the honest updates lie to each other and to a line through their mean.

  The line is m + gamma p with the mean m and a perturbation p. All in float64.

  Attributes:
    distances: [h, h], the squared distance of every pair of updates x_i, x_j.
    from_mean: [h], ||m - x_i||^2.
    slopes: [h], <p, m - x_i>.
    squared_norm: Scalar, ||p||^2.
  """

  distances: tf.Tensor
  from_mean: tf.Tensor
  slopes: tf.Tensor
  squared_norm: tf.Tensor


def perturb(moments: attack.HonestMoments, direction: str) -> tf.Tensor:
  """The perturbation.

  Args:
    moments: Mean m and standard deviation s of the honest updates.
    direction: 'unit_vector' for -m / ||m||, 'stddev' for -s, 'sign' for
      -sign(m).

  Returns:
    Float32 [d].
  """
  if direction == 'unit_vector':
    return -unit_vector.unit(moments.mean)
  if direction == 'stddev':
    return -moments.stddev
  return -tf.sign(moments.mean)


def measure(
    honest: tf.Tensor, mean: tf.Tensor, perturbation: tf.Tensor
) -> Geometry:
  """Measures distances and slopes in one pass over the table.

  Args:
    honest: Float32 [h, d] with static d.
    mean: Float32 [d].
    perturbation: Float32 [d].

  Returns:
    The `Geometry`.
  """
  vectors = tf.concat([honest, [mean, perturbation]], axis=0)
  products = krum.inner_products(vectors)
  among, to_mean = products[:-2, :-2], products[:-2, -2]
  squared_norms = tf.linalg.diag_part(among)
  distances = tf.maximum(
      squared_norms[:, tf.newaxis] + squared_norms - 2 * among, 0
  )
  from_mean = tf.maximum(squared_norms + products[-2, -2] - 2 * to_mean, 0)
  slopes = products[-1, -2] - products[:-2, -1]
  return Geometry(distances, from_mean, slopes, products[-1, -1])


class PerturbedMean(attack.CollusivePoisoning):
  """Base class of the attacks that send m + gamma p with the largest gamma."""

  sees_table = True

  def __init__(self, *, direction: str = 'unit_vector'):
    """Initializes `PerturbedMean`.

    Args:
      direction: The perturbation p: 'unit_vector' (default), 'stddev' or
        'sign'; see `perturb`.

    Raises:
      TypeError: If `direction` is not a string.
      ValueError: If it is none of these.
    """
    self._direction = checks.check_choice('direction', direction, DIRECTIONS)

  @abc.abstractmethod
  def largest_gamma(self, geometry: Geometry) -> tf.Tensor:
    """The largest gamma that the bound allows.

    Args:
      geometry: How the honest updates lie; with `squared_norm` above 0.

    Returns:
      Scalar float64. Any value if `squared_norm` is 0.
    """

  def agree(
      self, knowledge: attack.Knowledge, state: Any
  ) -> Tuple[tf.Tensor, Any]:
    """See `CollusivePoisoning.agree`."""
    moments = honest_table.moments(knowledge.honest)
    perturbation = perturb(moments, self._direction)
    geometry = measure(knowledge.honest, moments.mean, perturbation)
    # A zero perturbation, the only one without honest updates, has no bound.
    gamma = tf.where(
        geometry.squared_norm > 0, self.largest_gamma(geometry), 0.0
    )
    return moments.mean + tf.cast(gamma, tf.float32) * perturbation, state
