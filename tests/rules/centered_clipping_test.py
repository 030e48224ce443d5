"""Tests of centered clipping against loops over clients."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference(updates, center, radius, num_iterations):
  """The iterations as in the paper, in float64."""
  v = np.asarray(center, np.float64)
  finite = [x for x in np.float64(updates) if np.all(np.abs(x) < 1e15)]
  for _ in range(num_iterations):
    distances = [np.linalg.norm(x - v) for x in finite]
    tau = np.median(distances) if radius is None else radius
    v = v + sum(
        (x - v) * (min(1.0, tau / distance) if distance else 1.0)
        for x, distance in zip(finite, distances)
    ) / len(updates)
  return v


@pytest.mark.parametrize(
    'radius, num_iterations', [(0.75, 1), (None, 1), (0.75, 3), (None, 2)]
)
def test_rounds_match_loops_over_clients(radius, num_iterations):
  """The center is the aggregate of the round before; cohorts vary."""
  rule = rules.centered_clipping(radius, num_iterations=num_iterations)
  assert rule.remembers
  center = np.zeros([5], np.float32)
  for round_num, n in enumerate([6, 7, 1, 4]):
    updates = tables.random_updates(n, 5, seed=round_num) + np.float32(1.0)
    if n > 5:
      updates[1] = 9e14
      updates[3, 2] = np.nan
      updates[4] = np.inf
    result = rule(updates, reference=center)
    np.testing.assert_allclose(
        result,
        _reference(updates, center, radius, num_iterations),
        rtol=1e-5,
        atol=1e-5,
    )
    center = result


def test_by_hand():
  units = np.eye(5)
  updates = np.stack([units[0], 3 * units[1], 5 * units[2], np.nan * units[3]])
  result, measured = rules.centered_clipping().measure(updates)
  assert measured['clipping_radius'] == 3.0 and measured['num_clipped'] == 1
  np.testing.assert_allclose(result, [0.25, 0.75, 0.75, 0, 0])
  result, measured = rules.centered_clipping(0.75).measure(updates)
  assert measured['clipping_radius'] == 0.75 and measured['num_clipped'] == 3
  np.testing.assert_allclose(result, [0.1875, 0.1875, 0.1875, 0, 0])


def test_update_at_the_center_is_not_clipped():
  center = np.array([1.0, 2.0])
  result, measured = rules.centered_clipping(1.0).measure(
      [center, center], reference=center
  )
  np.testing.assert_array_equal(result, center)
  assert measured['num_clipped'] == 0


def test_far_client_has_the_length_of_the_radius():
  updates = np.full([1, 1000], 9e14, np.float32)
  result = rules.centered_clipping(3.0)(updates)
  np.testing.assert_allclose(np.linalg.norm(result), 3.0, rtol=1e-5)


@pytest.mark.parametrize(
    'rule',
    [rules.centered_clipping(0.75), rules.centered_clipping(num_iterations=2)],
)
def test_lost_round_keeps_the_center(rule):
  center = tables.random_updates(1)[0]
  lost = np.full([2, 6], np.nan, np.float32)
  result, measured = rule.measure(lost, reference=center)
  np.testing.assert_array_equal(result, center)
  assert measured['num_clipped'] == 0
