"""Centered clipping: clipping differences to the last aggregate."""

import functools

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule


@rule.rule(
    remembers=True,
    clipping_radius=rule.optional(
        functools.partial(checks.check_number, above=0)
    ),
    num_iterations=functools.partial(checks.check_int, minimum=1),
)
def centered_clipping(cohort, clipping_radius=None, *, num_iterations=1):
  """The last aggregate v, moved by clipped differences to it.

  Each of L iterations does

    v <- v + 1 / n sum_i (x_i - v) min(1, tau / ||x_i - v||),

  from the aggregate of the round before (the reference), zero in the first
  (Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust
  Optimization", ICML 2021, arXiv:2012.10333). tau should be about as large as
  honest updates are far from their mean. By default it is the median distance
  of finite updates to v, anew in each iteration: a choice of this package.

  Updates that are not finite count in n and add nothing; a lost round repeats
  the aggregate of the one before. Where nobody has anything to say, the result
  is zero and the reference stays.

  Breakdown point: f Byzantine updates move v by at most f / n times tau in an
  iteration, and tau is no larger than the largest honest distance for f < n /
  2. The paper's guarantee asks for few of them and for momentum at the clients.
  Cost: O(N^2 d), and O(N^2) an iteration.

  Args:
    clipping_radius: tau, positive; None for the median distance.
    num_iterations: L.

  Returns:
    A `rule.Rule` that measures `weights` (the reference has what lacks of 1),
    `num_non_finite` and, of the last iteration, `clipping_radius` and
    `num_clipped`.
  """
  xp, products = cohort.xp, cohort.products_about_reference
  num_lost = cohort.num_clients - cohort.num_finite
  num_counted = xp.asarray(cohort.size + num_lost, dtype=xp.float64)
  coefficients = xp.zeros_like(products[0])
  for _ in range(num_iterations):
    to_center = xp.matmul(products, coefficients[:, None])[:, 0]
    squares = xp.diagonal(products) - 2.0 * to_center
    squares = squares + xp.sum(coefficients * to_center)
    distances = xp.sqrt(xp.maximum(squares, 0.0))
    radius = (
        geometry.median(distances, xp)
        if clipping_radius is None
        else xp.asarray(clipping_radius, dtype=xp.float64)
    )
    moves = geometry.clipping_scales(distances, radius, xp) / num_counted
    coefficients = coefficients * (1.0 - xp.sum(moves)) + moves
  return rule.Decision(
      coefficients,
      reference_coefficient=1.0 - xp.sum(coefficients),
      measurements={
          'clipping_radius': radius,
          'num_clipped': xp.sum(~geometry.is_at_most(distances, radius)),
      },
  )
