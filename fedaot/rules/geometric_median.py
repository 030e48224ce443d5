"""Geometric median by Weiszfeld's algorithm (RFA)."""

import functools

from fedaot import checks
from fedaot.rules import geometry
from fedaot.rules import rule

# About float64's, of which rounding in distances may cost some.
_RESOLUTION = 2.0**-50
# Its inverse and its square stay normal float64 numbers.
_TINY_DISTANCE = 1e-150
_SHARE = functools.partial(checks.check_number, minimum=0, below=1)


@rule.rule(
    smoothing=_SHARE,
    tolerance=_SHARE,
    max_iterations=functools.partial(checks.check_int, minimum=1),
)
def geometric_median(
    cohort, *, smoothing=1e-6, tolerance=1e-6, max_iterations=1000
):
  """The point v of the smallest sum of distances to the updates x_i.

  From the mean on it repeats

    w_i = 1 / max(nu, ||x_i - v||),   v = sum_i w_i x_i / sum_i w_i

  until v moves by less than a tolerance (Pillutla, Kakade and Harchaoui,
  "Robust Aggregation for Federated Learning", IEEE Transactions on Signal
  Processing, 2022, arXiv:1912.13445, there RFA). An early stop would undo the
  robustness: far from the honest clients a step shortens the way by no more
  than the ratio of Byzantine to honest ones; the three iterations that the
  paper runs are `max_iterations=3, tolerance=0`. nu and tolerance are multiples
  of the typical distance, the smallest of the updates' median distances, at
  most the diameter of any majority; neither is less than 1e-15 of a typical
  norm.

  Breakdown point: 1/2. With f < n / 2 the squared distance to the honest mean
  is at most 4 (1 + f / (n - 2 f))^2 times the honest variance (Allouah,
  Farhadkhani, Guerraoui, Gupta, Pinot and Stephan, AISTATS 2023).
  Cost: O(N^2 d), and O(N^2) an iteration.

  Args:
    smoothing: nu, in [0, 1).
    tolerance: In [0, 1).
    max_iterations: The default suffices for 45 Byzantine clients of 100.

  Returns:
    A `rule.Rule` that measures `weights`, `num_iterations`, `converged` and
    `num_non_finite`.
  """
  xp, n = cohort.xp, cohort.size
  medians = xp.sort(cohort.squared_distances, axis=1)[:, n // 2]
  typical = xp.sqrt(xp.amin(medians))
  norm = xp.take(cohort.norms, xp.argmin(medians), axis=0)
  resolution = _RESOLUTION * norm
  least_distance = xp.maximum(
      xp.maximum(smoothing * typical, resolution), _TINY_DISTANCE
  )
  # Neither the objective nor distances to far updates tell when to stop: next
  # to a client at 1e15 all else is within their tolerance at once.
  least_step = xp.maximum(tolerance * typical, resolution)

  products, squared_norms = cohort.products, xp.diagonal(cohort.products)

  def step(weights, last_step, num_iterations):
    to_mean = xp.matmul(products, weights[:, None])[:, 0]
    # No square of a far update appears but times the square of its weight, so
    # that what is small near the median does not cancel.
    squares = squared_norms - 2.0 * to_mean + xp.sum(weights * to_mean)
    inverses = 1.0 / xp.maximum(
        xp.sqrt(xp.maximum(squares, 0.0)), least_distance
    )
    new = inverses / xp.sum(inverses)
    change = new - weights
    moved = xp.sum(change * xp.matmul(products, change[:, None])[:, 0])
    return new, xp.sqrt(xp.maximum(moved, 0.0)), num_iterations + 1

  weights, last_step, num_iterations = xp.while_loop(
      lambda weights, last_step, num: (
          (last_step > least_step) & (num < max_iterations)
      ),
      step,
      (geometry.mean_of(squared_norms >= 0, xp), xp.inf + 0.0 * typical, 0),
  )
  return rule.Decision(
      weights,
      measurements={
          'num_iterations': num_iterations,
          'converged': last_step <= least_step,
      },
  )
