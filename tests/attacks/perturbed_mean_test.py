"""Min-Max and Min-Sum."""

import numpy as np
import pytest

from fedaot_tff.attacks import perturbed_mean
from tests.attacks import hand_made

_KINDS = pytest.mark.parametrize(
    'kind', [perturbed_mean.MinMax, perturbed_mean.MinSum]
)
_DIRECTIONS = pytest.mark.parametrize('direction', perturbed_mean.DIRECTIONS)


def _bounded(kind, rows, vector):
  """The left side of the bound in NumPy."""
  distances = ((np.float64(rows) - np.float64(vector)) ** 2).sum(axis=1)
  return distances.max() if kind is perturbed_mean.MinMax else distances.sum()


@_KINDS
@_DIRECTIONS
@pytest.mark.parametrize('seed', range(3))
def test_goes_as_far_along_the_direction_as_the_bound_allows(
    kind, direction, seed
):
  rows = hand_made.updates(6, 40, seed=seed)
  vector, _ = hand_made.agree(kind(direction=direction), rows)
  mean = rows.mean(axis=0)
  bound = max(_bounded(kind, rows, row) for row in rows)
  assert _bounded(kind, rows, vector) == pytest.approx(bound, rel=1e-5)
  assert _bounded(kind, rows, mean + 1.01 * (vector - mean)) > bound
  line = {
      'unit_vector': -mean,
      'stddev': -rows.std(axis=0),
      'sign': -np.sign(mean),
  }[direction]
  moved = vector - mean
  cosine = moved @ line / np.linalg.norm(moved) / np.linalg.norm(line)
  assert cosine == pytest.approx(1, abs=1e-5)


@_KINDS
@_DIRECTIONS
@pytest.mark.parametrize(
    'rows',
    [
        np.zeros([0, 3]),
        [[1.0, -2.0, 0.5]],
        [[1.0, -2.0, 0.5]] * 3,
        np.zeros([2, 3]),
    ],
    ids=['none', 'one', 'equal', 'zero'],
)
def test_honest_updates_without_spread_are_sent_as_they_are(
    kind, direction, rows
):
  vector, _ = hand_made.agree(kind(direction=direction), rows)
  expected = rows[0] if len(rows) else np.zeros(3)
  np.testing.assert_allclose(vector, expected, atol=1e-6)
