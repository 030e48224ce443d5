"""Tests of DeepSight against loops and linking of SciPy."""

import numpy as np
import pytest
from scipy.cluster import hierarchy

from fedaot import namespace
from fedaot import rules
from fedaot.rules.deepsight import same_cluster
from tests.rules import tables

# Hidden layer, kernel and bias of five outputs.
_SHAPES = [(3, 4), (4,), (4, 5), (5,)]
_DIMENSION = 41


def _clusters(points):
  """Labels of single linkage, cut at the widest gap."""
  links = hierarchy.linkage(points, 'single')
  heights = links[:, 2]
  if len(heights) == 1 or not np.ptp(heights):
    return np.zeros(len(points))
  cut = heights[np.argmax(np.diff(heights))]
  return hierarchy.fcluster(links, cut, 'distance')


def _reference(updates, tau=1 / 3):
  x = np.float64(updates)
  norms = np.linalg.norm(x, axis=1)
  neups, exceedings = [], []
  for row in x:
    kernel, bias = row[16:36].reshape(4, 5), row[36:]
    energy = np.array(
        [abs(bias[i]) + abs(kernel[:, i]).sum() for i in range(5)]
    )
    neup = energy**2 / np.sum(energy**2)
    neups.append(neup)
    exceedings.append(np.sum(neup > max(0.01, 1 / 5) * neup.max()))
  units = x[:, 36:] / np.linalg.norm(x[:, 36:], axis=1, keepdims=True)
  labels = list(zip(_clusters(units), _clusters(np.array(neups))))
  suspicious = exceedings <= np.median(exceedings) / 2
  accepted = [
      np.mean([s for s, other in zip(suspicious, labels) if other == label])
      < tau
      for label in labels
  ]
  clipped = x * np.minimum(1, np.median(norms) / norms)[:, np.newaxis]
  return clipped[accepted].mean(axis=0), exceedings, np.sum(accepted)


def _attacked(n, f, seed):
  """Honest updates train all outputs, the first f much the second alone."""
  rng = np.random.default_rng(seed)
  updates = 1 + 0.3 * rng.normal(size=[n, _DIMENSION])
  updates[:f, 16:] *= 0.1
  updates[:f, 17::5] += 20
  return updates


def test_by_hand():
  # Of two outputs the last client trains one; its direction is its own, too.
  updates = np.array([[4.0, 3], [3, 4], [3.1, 4], [4, 3.1], [0, 9]])
  result, measured = rules.deepsight().measure(updates)
  np.testing.assert_array_equal(
      measured['threshold_exceedings'], [2, 2, 2, 2, 1]
  )
  assert measured['num_accepted'] == 4
  bound = np.hypot(3.1, 4)
  np.testing.assert_allclose(measured['norm_bound'], bound)
  np.testing.assert_allclose(result, updates[:4].mean(axis=0))


def test_directions_part_what_energies_do_not():
  # Just less than half of the largest, so that two of the six alike are
  # suspicious, as is the last: a share of 1/3 by energies alone.
  updates = np.array([[1, 0.72]] * 4 + [[-1, 0.7]] * 2 + [[0, 1]])
  measured = rules.deepsight().measure(updates)[1]
  np.testing.assert_array_equal(
      measured['threshold_exceedings'], [2, 2, 2, 2, 1, 1, 1]
  )
  np.testing.assert_array_equal(measured['weights'] > 0, [1] * 4 + [0] * 3)


@pytest.mark.parametrize('n', [2, 3, 10, 25])
@pytest.mark.parametrize('d', [2, 8])
def test_clusters_match_linking_of_scipy(n, d):
  for seed in range(5):
    points = np.float64(tables.random_updates(n, d, seed))
    labels = _clusters(points)
    np.testing.assert_array_equal(
        same_cluster(points, namespace.NUMPY), labels[:, np.newaxis] == labels
    )


@pytest.mark.parametrize('n, f', [(8, 0), (9, 3), (20, 8)])
def test_matches_loops(n, f):
  for seed in range(4):
    updates = _attacked(n, f, seed)
    expected, exceedings, num_accepted = _reference(updates)
    result, measured = rules.deepsight().measure(updates, shapes=_SHAPES)
    np.testing.assert_array_equal(measured['threshold_exceedings'], exceedings)
    assert measured['num_accepted'] == num_accepted
    np.testing.assert_allclose(result, expected)


def test_backdoor_of_one_output_is_left_out():
  updates = _attacked(20, 8, seed=1)
  weights = rules.deepsight().measure(updates, shapes=_SHAPES)[1]['weights']
  np.testing.assert_array_equal(weights[:8], np.zeros([8]))
  assert np.all(weights[8:] > 0)


def test_nothing_is_accepted_where_all_are_suspicious():
  result, measured = rules.deepsight().measure(np.zeros([3, 4]))
  np.testing.assert_array_equal(result, np.zeros([4]))
  assert measured['num_accepted'] == 0


@pytest.mark.parametrize('share', [0, 1.1])
def test_refuses_a_wrong_share(share):
  with pytest.raises(ValueError, match=f'suspicious_share .*found {share}'):
    rules.deepsight(suspicious_share=share)
