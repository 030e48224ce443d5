"""Tests of LASA against loops over tensors and clients."""

import math

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables

_SHAPES = [(4, 3), (3,), (), (0, 2), (3, 5), (5,)]


def _z_scores(values):
  return abs(values - np.median(values)) / (np.std(values) or 1)


def _reference(updates, shapes, sparsity=0.3, norm_bound=1, sign_bound=1):
  x = np.float64(updates)
  norms = np.linalg.norm(x, axis=1)
  x = x * np.minimum(1, np.median(norms) / norms)[:, np.newaxis]
  for row in x:
    row[np.argsort(abs(row))[: int(sparsity * len(row))]] = 0
  parts, counts, begin = [], [], 0
  for shape in shapes:
    tensor = x[:, begin : begin + math.prod(shape)]
    begin += math.prod(shape)
    signs = np.sign(tensor)
    shares = signs.sum(axis=1) / np.maximum(abs(signs).sum(axis=1), 1)
    usual = _z_scores(np.linalg.norm(tensor, axis=1)) < norm_bound
    usual &= _z_scores(shares) < sign_bound
    usual |= not usual.any()
    parts.append(tensor[usual].mean(axis=0))
    counts.append(usual.sum())
  return np.concatenate(parts), counts


def test_by_hand():
  # The norms are 5, but for 10, which is halved. Of the first tensor -3 has
  # another sign, of the second 0.1 another norm.
  updates = np.array([[3.0, 4], [3, 4], [6, 8], [-3, 4], [4.999, 0.1]])
  updates[4, 0] = np.sqrt(25 - 0.01)
  rule = rules.lasa(sparsity=0, norm_bound=1.5, sign_bound=1.5)
  result, measured = rule.measure(updates, shapes=[(1,), [1]])
  np.testing.assert_array_equal(measured['num_averaged'], [3, 4])
  np.testing.assert_allclose(result, [3, 4])
  assert measured['norm_bound'] == 5
  # Of one tensor the last is as usual in both as the first three.
  np.testing.assert_allclose(rule(updates), updates[[0, 1, 0, 4]].mean(axis=0))


def test_sparsification_by_hand():
  updates = np.array([[5.0, 0.1, -0.2, 3.0], [0.3, 4.0, 4.0, -0.2]])
  result = rules.lasa(sparsity=0.5, norm_bound=9, sign_bound=9)(updates)
  clip = np.median(np.linalg.norm(updates, axis=1))
  clip = np.minimum(1, clip / np.linalg.norm(updates, axis=1))
  np.testing.assert_allclose(
      result, [2.5 * clip[0], 2 * clip[1], 2 * clip[1], 1.5 * clip[0]]
  )


@pytest.mark.parametrize('n', [1, 2, 7, 20])
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'sparsity': 0.7, 'norm_bound': 2.0},
        {'sign_bound': 0.01},
    ],
)
def test_matches_loops(n, options):
  for shapes in (_SHAPES, [(36,)]):
    updates = tables.random_updates(n, 36, seed=n) + np.float32(0.2)
    updates[: n // 3, 5:20] -= 3
    expected, counts = _reference(updates, shapes, **options)
    result, measured = rules.lasa(**options).measure(updates, shapes=shapes)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_array_equal(measured['num_averaged'], counts)


def test_wrapped_rule_sees_the_tensors():
  updates, shapes = tables.random_updates(10, 36), _SHAPES
  norms = np.linalg.norm(updates, axis=1, keepdims=True)
  clipped = updates * np.minimum(1, np.median(norms) / norms)
  np.testing.assert_allclose(
      rules.median_norm_bounding(rules.lasa())(updates, shapes=shapes),
      rules.lasa()(clipped, shapes=shapes),
      atol=1e-6,
  )


def test_tensors_beyond_a_block():
  updates, shapes = tables.random_updates(5, 9000), [(100,), (5000,), (3900,)]
  np.testing.assert_allclose(
      rules.lasa()(updates, shapes=shapes),
      _reference(updates, shapes)[0],
      atol=1e-6,
  )


@pytest.mark.parametrize(
    'options', [{'sparsity': 1.0}, {'norm_bound': 0}, {'sign_bound': -1}]
)
def test_refuses_wrong_options(options):
  (name,) = options
  with pytest.raises(ValueError, match=f'{name} .*found'):
    rules.lasa(**options)
