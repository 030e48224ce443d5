"""Tests of FedRDF against a sum of images of a normal density."""

import numpy as np
import pytest

from fedaot import namespace
from fedaot import rules
from fedaot.rules.fedrdf import densities
from tests.rules import tables


def _reference_density(values, at):
  """Normal densities about the values and their mirror images, in [0, 1]."""
  images = [2 * k + s * values for k in range(-2, 3) for s in (1, -1)]
  z = (at - np.concatenate(images)) / 0.05
  return np.sum(np.exp(-0.5 * z**2)) / (0.05 * np.sqrt(2 * np.pi) * len(values))


def _reference(updates):
  """The eight terms of every coordinate, by loops."""
  result = []
  for values in np.float64(updates).T:
    x = (values - values.min()) / (np.ptp(values) or 1)
    best = []
    for at in x:
      p = 1.0
      for k in range(1, 9):
        s = np.exp(-((k * np.pi * 0.05) ** 2) / 2)
        p += 2 * s * np.cos(k * np.pi * at) * np.mean(np.cos(k * np.pi * x))
      best.append(p)
    result.append(values[np.argmax(best)])
  return result


def test_by_hand():
  # Three of five are close together, in order of clients and against it; next
  # to 1e12 others are all one, and their middle is taken.
  updates = np.array(
      [
          [0.0, -9.0, 0.3],
          [5.0, -5.0, 0.1],
          [5.1, -5.1, 0.2],
          [5.2, -5.2, 1e12],
          [9.0, 0.0, 1e12],
      ]
  )
  np.testing.assert_array_equal(rules.fedrdf()(updates), [5.1, -5.1, 0.2])


def test_density_is_a_smoothed_one():
  """The terms beyond the eighth weigh less than 0.3."""
  values = np.sort(np.random.default_rng(0).uniform(size=200))
  values[[0, -1]] = 0, 1
  found = densities(values[np.newaxis], namespace.NUMPY)[0]
  for at, density in zip(values, found):
    assert abs(density - _reference_density(values, at)) < 0.3
  assert found.mean() > 0.9


@pytest.mark.parametrize('n', [2, 7, 30])
def test_matches_loops_over_terms(n):
  updates = tables.random_updates(n, 50, seed=n)
  updates[:, :25] = np.round(updates[:, :25], 1)
  result = rules.fedrdf()(updates)
  if n > 2:
    np.testing.assert_allclose(result, _reference(updates), rtol=1e-6)
  # A value of the clients, always.
  assert np.all(np.any(result == updates, axis=0))


def test_far_minority_is_never_chosen():
  honest = tables.random_updates(7, 40)
  for far in (300.0, 1e6, -1e12):
    updates = np.concatenate([np.full([6, 40], far, np.float32), honest])
    result = rules.fedrdf()(updates)
    assert np.all(np.any(result == honest, axis=0))


def test_equal_values():
  updates = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 3.0]])
  np.testing.assert_array_equal(rules.fedrdf()(updates), [2, 1])
