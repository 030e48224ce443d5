"""Tests of the geometric median against Weiszfeld's algorithm on vectors."""

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables


def _reference(updates, num_iterations=20000, nu=1e-9):
  updates = np.asarray(updates, np.float64)
  v = updates.mean(axis=0)
  for _ in range(num_iterations):
    weights = 1 / np.maximum(np.linalg.norm(updates - v, axis=1), nu)
    last, v = v, weights @ updates / weights.sum()
    if np.linalg.norm(v - last) < 1e-12:
      break
  return v


def _median(updates, **options):
  return rules.geometric_median(**options).measure(np.asarray(updates))


def test_fermat_point_by_hand():
  # Around an equilateral triangle's center all directions cancel; in the right
  # triangle the point sees each side under 120 degrees.
  height = np.sqrt(3.0)
  result, measured = _median([[-1.0, 0.0], [1.0, 0.0], [0.0, height]])
  np.testing.assert_allclose(result, [0.0, height / 3], atol=1e-6)
  np.testing.assert_allclose(measured['weights'], [1 / 3] * 3)
  fermat = 1 / (3 + np.sqrt(3.0))
  result, measured = _median([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  np.testing.assert_allclose(result, [fermat, fermat], atol=1e-5)
  # The weights are inverse distances.
  inverse = 1 / np.hypot(
      [fermat, 1 - fermat, fermat], [fermat, fermat, fermat - 1]
  )
  np.testing.assert_allclose(
      measured['weights'], inverse / inverse.sum(), atol=1e-5
  )
  assert measured['converged']


@pytest.mark.parametrize('nu', [1e-6, 0.9])
def test_three_steps_of_rfa(nu):
  updates = np.float64(tables.random_updates(12))
  updates[:4] *= 0.1
  # nu is a multiple of the least distance within which half of the others are.
  distances = np.sort(np.sqrt(tables.squared_distances(updates)), axis=1)
  result, measured = _median(
      updates, smoothing=nu, tolerance=0, max_iterations=3
  )
  expected = _reference(updates, 3, nu * distances[:, 6].min())
  np.testing.assert_allclose(result, expected, rtol=1e-9)
  assert measured['num_iterations'] == 3 and not measured['converged']


@pytest.mark.parametrize(
    'updates, expected',
    [
        # With an angle of more than 120 degrees the median is that corner.
        ([[-3.0, 0.5], [0.0, 0.0], [2.0, 0.1]], [0.0, 0.0]),
        ([[0.0], [1.0], [3.0], [19.0], [10.0]], [3.0]),
        # The diagonals of a convex quadrangle meet there.
        ([[0.0, 0.0], [4.0, 0.0], [4.0, 2.0], [0.0, 2.0]], [2.0, 1.0]),
        ([[1.0, 5.0], [3.0, -1.0]], [2.0, 2.0]),
        # An equal majority wins.
        ([[1.0, 2.0]] * 4 + [[9.0, 9.0], [-5.0, 0.0], [7.0, 1.0]], [1.0, 2.0]),
    ],
)
def test_by_hand(updates, expected):
  result, measured = _median(updates)
  np.testing.assert_allclose(result, expected, atol=1e-5)
  assert measured['converged']


@pytest.mark.parametrize('n', [3, 8, 11, 20])
@pytest.mark.parametrize('d', [2, 6, 50])
@pytest.mark.parametrize('offset', [0.0, 1e4])
def test_matches_iterating_on_vectors(n, d, offset):
  updates = tables.random_updates(n, d=d, seed=n) + np.float32(offset)
  result, measured = _median(updates)
  np.testing.assert_allclose(
      result,
      _reference(updates - np.float32(offset)) + offset,
      rtol=1e-7,
      atol=3e-5 if offset == 0 else 2e-3,
  )
  assert measured['converged'] and 1 < measured['num_iterations'] < 500


def test_far_clients_act_by_their_direction_only():
  honest = tables.random_updates(12, d=4)
  directions = np.eye(4)[:3]
  results = [
      _median(np.concatenate([honest, far * directions]).astype('f'))[0]
      for far in (1e6, 1e9, 9e14)
  ]
  np.testing.assert_allclose(results[1], results[0], atol=1e-4)
  np.testing.assert_allclose(results[2], results[1], atol=1e-4)


def test_stops_at_the_largest_number_of_iterations():
  updates = tables.random_updates(9)
  far = np.concatenate([updates, np.full([5, 6], 1e6, np.float32)])
  result, measured = _median(far, max_iterations=3)
  assert measured['num_iterations'] == 3 and not measured['converged']
  assert np.linalg.norm(result) > 1e5
  result, measured = _median(far)
  assert measured['converged'] and np.linalg.norm(result) < 5


def test_tolerance_and_smoothing():
  updates = tables.random_updates(9)
  _, rough = _median(updates, tolerance=0.1)
  _, fine = _median(updates)
  assert rough['num_iterations'] < fine['num_iterations']
  # Where nu is longer than all distances, all have the same weight.
  close = np.concatenate([updates, 1e3 * updates[:2]])
  _, smooth = _median(close, smoothing=0.99)
  np.testing.assert_allclose(
      smooth['weights'][:9].max() / smooth['weights'][:9].min(), 1, rtol=0.7
  )
  assert smooth['weights'][9] < 0.01
