"""Tests of Auror against k-means of scikit-learn and all splits."""

import numpy as np
import pytest
from sklearn import cluster

from fedaot import namespace
from fedaot import rules
from fedaot.rules.auror import split_columns
from tests.rules import tables


def _split(values):
  """The smaller cluster of the best split, and the share between clusters."""
  values = np.float64(values)
  n, order = len(values), np.argsort(values)
  splits = [(order[:k], order[k:]) for k in range(1, n)]
  within = [
      values[a].var() * len(a) + values[b].var() * len(b) for a, b in splits
  ]
  low, high = splits[int(np.argmin(within))]
  smaller = np.zeros([n], bool)
  if len(low) != len(high):
    smaller[min(low, high, key=len)] = True
  return smaller, 1 - min(within) / (n * values.var())


def _reference(updates, alpha=0.9, tau=0.5):
  parts = [_split(column) for column in updates.T]
  telling = [smaller for smaller, share in parts if share > alpha]
  suspicion = np.mean(telling, axis=0) if telling else np.zeros(len(updates))
  return updates[suspicion <= tau].mean(axis=0), suspicion, len(telling)


def test_by_hand():
  # Two coordinates are indicative, where 9 and 8, and 9 and 8 are the smaller
  # cluster; the last varies evenly.
  updates = np.array(
      [
          [0.0, 1.0, 0.0],
          [1.0, 0.0, 1.0],
          [0.0, 9.0, 2.0],
          [9.0, 8.0, 3.0],
          [8.0, 0.5, 4.0],
      ]
  )
  result, measured = rules.auror().measure(updates)
  assert measured['num_indicative'] == 2
  np.testing.assert_allclose(measured['suspicion'], [0, 0, 0.5, 1, 0.5])
  np.testing.assert_allclose(result, updates[[0, 1, 2, 4]].mean(axis=0))
  result, _ = rules.auror(suspicious_share=0.4).measure(updates)
  np.testing.assert_allclose(result, updates[:2].mean(axis=0))


def test_nobody_is_in_the_smaller_of_two_halves():
  updates = np.array([[0.0], [0.1], [9.0], [9.1]])
  result, measured = rules.auror().measure(updates)
  np.testing.assert_allclose(result, [4.55])
  assert measured['num_indicative'] == 1


@pytest.mark.parametrize('n', [3, 8, 21])
def test_split_matches_k_means(n):
  columns = tables.random_updates(n, 30, seed=n)
  columns[: n // 3] += 6
  smaller, _ = split_columns(columns, namespace.NUMPY)
  for column, found in zip(columns.T, smaller):
    labels = cluster.KMeans(2, n_init=20, random_state=0).fit_predict(
        column[:, np.newaxis]
    )
    expected = labels == np.argmin(np.bincount(labels, minlength=2))
    if 2 * expected.sum() != n:
      np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('n, f', [(3, 1), (9, 4), (20, 6)])
def test_matches_all_splits(n, f):
  for seed in range(3):
    updates = np.float64(tables.random_updates(n, 40, seed=10 * n + seed))
    updates[:f, :25] += np.linspace(0, 9, 25)
    for alpha in (0.9, 0.7):
      expected, suspicion, telling = _reference(updates, alpha)
      rule = rules.auror(indicative_share=alpha)
      result, measured = rule.measure(updates)
      np.testing.assert_allclose(result, expected)
      np.testing.assert_allclose(measured['suspicion'], suspicion)
      assert measured['num_indicative'] == telling


@pytest.mark.parametrize('option', ['indicative_share', 'suspicious_share'])
def test_refuses_a_wrong_share(option):
  with pytest.raises(ValueError, match=f'{option} .*found 1'):
    rules.auror(**{option: 1})
