"""The perturbed mean: directions and geometry."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import attack
from fedaot_tff.attacks import min_max
from fedaot_tff.attacks import min_sum
from fedaot_tff.attacks import perturbation
from tests.attacks import hand_made


@pytest.mark.parametrize(
    'direction, expected',
    [
        ('unit_vector', [-0.6, 0.0, 0.8]),
        ('stddev', [-1.0, -2.0, 0.0]),
        ('sign', [-1.0, 0.0, 1.0]),
    ],
)
def test_directions(direction, expected):
  moments = attack.HonestMoments(
      tf.constant([3.0, 0.0, -4.0]), tf.constant([1.0, 2.0, 0.0])
  )
  found = perturbation.perturb(moments, direction)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_geometry_is_measured_from_inner_products():
  honest = hand_made.updates(4, 6)
  mean, line = hand_made.updates(2, 6, seed=1)
  found = perturbation.measure(tf.constant(honest), mean, line)
  honest, mean, line = (x.astype(np.float64) for x in (honest, mean, line))
  differences = honest[:, np.newaxis] - honest
  np.testing.assert_allclose(
      found.distances, (differences**2).sum(axis=2), atol=1e-12
  )
  np.testing.assert_allclose(
      found.from_mean, ((mean - honest) ** 2).sum(axis=1)
  )
  np.testing.assert_allclose(found.slopes, (mean - honest) @ line)
  np.testing.assert_allclose(found.squared_norm, line @ line)


@pytest.mark.parametrize('kind', [min_max.MinMax, min_sum.MinSum])
@pytest.mark.parametrize('direction', perturbation.DIRECTIONS)
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
  rows = np.asarray(rows, np.float32)
  vector, _ = kind(direction=direction).agree(
      hand_made.table_knowledge(rows), ()
  )
  expected = rows[0] if len(rows) else np.zeros(3)
  np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.mark.parametrize('kind', [min_max.MinMax, min_sum.MinSum])
@pytest.mark.parametrize(
    'direction, error', [(None, TypeError), ('std', ValueError)]
)
def test_refuses_an_unknown_direction(kind, direction, error):
  with pytest.raises(error, match='direction must be'):
    kind(direction=direction)
