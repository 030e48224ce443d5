"""Tests of divide and conquer against singular vectors."""

import numpy as np
import pytest

from fedaot import namespace
from fedaot import rules
from fedaot.rules.divide_and_conquer import outlier_scores
from tests.rules import tables


def _reference_scores(sampled):
  """Squared projections on the top right singular vector."""
  centered = np.float64(sampled) - np.float64(sampled).mean(axis=0)
  return (centered @ np.linalg.svd(centered, full_matrices=False)[2][0]) ** 2


def _selected(measured):
  return np.flatnonzero(measured['weights'])


@pytest.mark.parametrize('n, b', [(2, 1), (5, 40), (30, 4)])
@pytest.mark.parametrize('offset', [0.0, 1e4])
def test_scores_match_singular_vectors(n, b, offset):
  updates = tables.random_updates(n, d=b) + np.float32(offset)
  np.testing.assert_allclose(
      outlier_scores(updates, namespace.NUMPY),
      _reference_scores(updates),
      rtol=1e-6,
      atol=1e-9,
  )


def test_by_hand():
  # The mean is 3 and the scores are 9, 4, 36 and 1.
  updates = np.array([[0.0], [1.0], [9.0], [2.0]])
  result, measured = rules.dnc(1).measure(updates)
  np.testing.assert_allclose(result, [1.0])
  np.testing.assert_array_equal(_selected(measured), [0, 1, 3])
  assert not measured['cohort_too_small']
  np.testing.assert_allclose(rules.dnc(1, filter_fraction=2.0)(updates), [1.5])
  np.testing.assert_allclose(rules.dnc(0)(updates), [3.0])


@pytest.mark.parametrize(
    'filter_fraction, f, num_filtered',
    [(1.0, 3, 3), (1.1, 50, 55), (1.5, 3, 5), (0.5, 3, 2), (0.1, 3, 1)],
)
def test_number_of_filtered_updates(filter_fraction, f, num_filtered):
  rule = rules.dnc(f, filter_fraction=filter_fraction)
  measured = rule.measure(tables.random_updates(60))[1]
  assert len(_selected(measured)) == 60 - num_filtered


@pytest.mark.parametrize('n, f', [(5, 1), (10, 3), (21, 9)])
@pytest.mark.parametrize('b', [1, 4, 19, 20])
def test_matches_the_reference(n, f, b, monkeypatch):
  samples, sample = [], namespace.NumPyNamespace.sample

  def record(key, population, size):
    samples.append(sample(key, population, size))
    return samples[-1]

  monkeypatch.setattr(namespace.NumPyNamespace, 'sample', staticmethod(record))
  updates = tables.random_updates(n, d=20, seed=n)
  rule = rules.dnc(f, num_iterations=3, num_sampled=b, seed=4)
  result, measured = rule.measure(updates, round_num=2)
  if b < 20:
    assert len(samples) == 3 and (
        b == 1 or len({tuple(s) for s in samples}) == 3
    )
    assert all(len(set(s)) == b for s in samples)
  else:
    assert not samples
    samples = [np.arange(20)]
  counts = np.zeros([n])
  for coordinates in samples:
    scores = _reference_scores(updates[:, coordinates])
    counts[np.argsort(scores, kind='stable')[: n - f]] += 1
  selected = np.flatnonzero(counts == counts.max())
  np.testing.assert_array_equal(_selected(measured), selected)
  np.testing.assert_allclose(result, updates[selected].mean(axis=0), atol=1e-6)
  assert measured['cohort_too_small'] == (counts.max() < len(samples))


def test_every_update_an_outlier_somewhere():
  """Those that are kept most often are averaged, and it is told."""
  updates = 9.0 * np.eye(4)
  updates[:, 3] = [0.1, 0.2, 0.3, 9.0]
  rule = rules.dnc(1, num_iterations=40, num_sampled=1, seed=1)
  measured = rule.measure(updates)[1]
  assert measured['cohort_too_small'] and 0 < len(_selected(measured)) < 4


@pytest.mark.parametrize('n, f', [(1, 1), (3, 3), (4, 2), (4, 2**31 - 1)])
def test_small_cohort_keeps_one_at_least(n, f):
  measured = rules.dnc(f).measure(tables.random_updates(n))[1]
  assert len(_selected(measured)) == max(n - f, 1)
  assert measured['cohort_too_small']


def test_colluding_minority_is_filtered_out():
  honest = tables.random_updates(12, d=300)
  updates = np.concatenate([np.tile(honest.mean(axis=0) + 3, [5, 1]), honest])
  measured = rules.dnc(5, num_sampled=50, seed=1).measure(updates)[1]
  assert _selected(measured).min() >= 5
