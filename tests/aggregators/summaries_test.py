"""Summaries of updates in TensorFlow, against those in NumPy."""

import collections
import math

import numpy as np
import pytest
import tensorflow as tf

import fedaot
from fedaot import sketch
from fedaot_tff.aggregators import summaries

_DIMENSION, _SKETCH = 100, 16
_CONFIG = fedaot.FedAOTConfig(sketch_dimension=_SKETCH)
_GROUPS = sketch.group_tensors([(_DIMENSION,)], _CONFIG, has_holdout=True)
_LENGTH = _GROUPS[0].length


def _seed(*numbers):
  return tf.constant(numbers, tf.int64)


def _signs(dimension=_DIMENSION, length=_LENGTH, seed=(17, 4)):
  signs = summaries.draw_signs(_seed(*seed), dimension, length)
  return sketch.Signs(signs.table.numpy(), signs.blocks.numpy())


def _summarize(update, root=None, is_empty=False):
  directions = collections.OrderedDict()
  if root is not None:
    directions['root'] = _sketch(root)
  row, projection = summaries.summarize_update(
      [tf.constant(update, tf.float32)],
      _GROUPS,
      [_signs()],
      _seed(3, 1),
      directions,
      _CONFIG,
      tf.constant(is_empty),
  )
  return {name: value.numpy() for name, value in row.items()}, projection


def _sketch(vector):
  vector = np.asarray(vector, np.float32)
  return sketch.energies_and_projections([vector], _GROUPS, [_signs()], 1)[1][0]


@pytest.mark.parametrize('dimension', [1000, 2**18])
def test_signs_are_signs_fixed_by_the_seed(dimension):
  signs = _signs(dimension, 64)
  assert set(np.unique(signs.table)) == {-1.0, 1.0}
  assert abs(signs.table.mean()) < 4 / math.sqrt(signs.table.size)
  np.testing.assert_array_equal(signs.table, _signs(dimension, 64).table)
  other = _signs(dimension, 64, seed=(18, 4))
  assert 0.4 < np.mean(signs.table == other.table) < 0.6


def test_block_signs_differ_between_seeds():
  blocks = [_signs(2**22, 64, (seed, 0)).blocks for seed in range(2)]
  assert blocks[0].shape == (64,)
  assert 0.2 < np.mean(blocks[0] == blocks[1]) < 0.8


@pytest.mark.parametrize('length', [1024, 4096])
@pytest.mark.parametrize(
    'shapes', [[(300_000,)], [(10, 100), (200_000,), (7,), (99, 1000), ()]]
)
def test_what_is_seen_is_that_of_numpy(shapes, length):
  rng = np.random.default_rng(9)
  arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
  dimension = sum(array.size for array in arrays)
  signs = _signs(dimension, length)
  groups = [sketch.Group(len(shapes), dimension, length, length)]
  norm, profile, (found,) = summaries.profile_and_projections(
      [tf.constant(array) for array in arrays], groups, [signs], 999
  )
  energies, (expected,) = sketch.energies_and_projections(
      [array.reshape(-1) for array in arrays], groups, [signs], 999
  )
  np.testing.assert_allclose(found, expected, atol=1e-3)
  np.testing.assert_allclose(norm, math.sqrt(energies.sum()), rtol=1e-5)
  np.testing.assert_allclose(profile, energies / energies.sum(), rtol=1e-5)


def test_other_precisions_are_cast():
  norm, profile, _ = summaries.profile_and_projections(
      [tf.constant([3.0], tf.float16), tf.constant([4.0], tf.float64)],
      [sketch.Group(2, 2, 2, 2)],
      [_signs(2, 2)],
      1,
  )
  assert norm == 5
  np.testing.assert_allclose(profile, [0.36, 0.64])


def test_fingerprints_are_equal_if_and_only_if_the_numbers_are():
  rng = np.random.default_rng(2)
  row = rng.normal(size=20).astype(np.float32)
  key = _seed(1, 2)
  own = summaries.fingerprint(tf.constant(row), key).numpy()
  assert own == summaries.fingerprint(tf.constant(row.copy()), key)
  others = [np.roll(row, 1), -row, np.zeros_like(row)]
  for position in range(20):
    other = row.copy()
    other[position] = np.nextafter(row[position], np.float32(10))
    others.append(other)
  found = [summaries.fingerprint(tf.constant(o), key).numpy() for o in others]
  assert own not in found
  assert len(set(found)) == len(found)
  assert own != summaries.fingerprint(tf.constant(row), _seed(1, 3))


def test_summary_of_a_usable_update():
  update, root = np.random.default_rng(3).normal(size=[2, _DIMENSION])
  row, projection = _summarize(update, root)
  assert list(row) == [
      'fingerprint',
      'finite',
      'is_empty',
      'norm',
      'sketch',
      'profile',
      'dot_root',
  ]
  assert row['finite'] == 1
  np.testing.assert_allclose(row['norm'], np.linalg.norm(update), rtol=1e-6)
  # No two coordinates share a place in a projection that is long enough.
  np.testing.assert_allclose(row['dot_root'], update @ root, rtol=1e-4)
  np.testing.assert_allclose(projection, _sketch(update), atol=1e-5)
  np.testing.assert_allclose(
      row['sketch'],
      [_sketch(update).reshape(-1, _SKETCH).sum(axis=0)],
      atol=1e-5,
  )


def test_each_group_has_a_sketch_of_its_own():
  rng = np.random.default_rng(4)
  shapes = [(5, 30), (30,), (30, 2), (2,)]
  tensors = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
  config = fedaot.FedAOTConfig(agreement_sketch_dimension=32)
  groups = sketch.group_tensors(shapes, config, has_holdout=False)
  signs = summaries.draw_group_signs(_seed(5, 6), groups)
  row, _ = summaries.summarize_update(
      [tf.constant(t) for t in tensors],
      groups,
      signs,
      _seed(3, 1),
      collections.OrderedDict(),
      config,
      tf.constant(False),
  )
  energies, projections = sketch.energies_and_projections(
      [t.reshape(-1) for t in tensors],
      groups,
      [sketch.Signs(s.table.numpy(), s.blocks.numpy()) for s in signs],
      1,
  )
  np.testing.assert_allclose(row['norm'], math.sqrt(energies.sum()), rtol=1e-6)
  np.testing.assert_allclose(
      row['profile'], energies / energies.sum(), rtol=1e-6
  )
  np.testing.assert_allclose(
      row['sketch'],
      [p.reshape(-1, 16).sum(axis=0) for p in projections],
      atol=1e-4,
  )
  # The first group's signs are those of an update without groups.
  alone = summaries.draw_signs(_seed(5, 6), 180, groups[0].length)
  np.testing.assert_array_equal(signs[0].table, alone.table)
  assert np.any(
      signs[0].table.numpy().ravel()[:62] != signs[1].table.numpy().ravel()[:62]
  )


def test_summary_of_a_client_with_nothing_to_say_is_that_of_zero():
  update = np.ones(_DIMENSION)
  row, projection = _summarize(update, update, is_empty=True)
  assert (row['finite'], row['is_empty'], row['norm']) == (0, 1, 0)
  assert not projection.numpy().any() and not row['sketch'].any()


@pytest.mark.parametrize('entry', [np.nan, np.inf, -np.inf, 1e15, -1e15, 1e30])
def test_summary_of_an_unusable_update_is_that_of_zero_but_for_finite(entry):
  update = np.ones(_DIMENSION, np.float32)
  update[7] = entry
  row, projection = _summarize(update, np.ones(_DIMENSION))
  zero, _ = _summarize(np.zeros(_DIMENSION), np.ones(_DIMENSION))
  assert row.pop('finite') == 0
  assert zero.pop('finite') == 1
  assert zero['norm'] == 0
  assert not np.any(projection)
  for name, value in zero.items():
    np.testing.assert_array_equal(row[name], value)


def test_summary_of_the_largest_usable_update_is_finite():
  update = np.full(_DIMENSION, 9.9e13)
  row, _ = _summarize(update, update / 1e10)
  assert row['finite'] == 1
  np.testing.assert_allclose(row['norm'], 9.9e14, rtol=1e-5)
  assert all(np.all(np.isfinite(value)) for value in row.values())
