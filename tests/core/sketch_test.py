"""The random projection of an update: layout of signs, linearity, spread."""

import math

import numpy as np
import pytest

import fedaot
from fedaot import sketch
from tests.reference import fedaot_reference


def _signs(dimension, length, seed=17):
  return sketch.draw_signs(np.random.default_rng(seed), dimension, length)


def _see(tensors, signs, size=1):
  """Energies and projection of one group of tensors."""
  num_coordinates = sum(len(tensor) for tensor in tensors)
  length = signs.table.shape[1]
  group = sketch.Group(len(tensors), num_coordinates, length, length)
  energies, (found,) = sketch.energies_and_projections(
      iter(tensors), [group], [signs], size
  )
  return energies, found


def _sketch(vector, signs):
  return _see([np.asarray(vector, np.float32)], signs)[1]


@pytest.mark.parametrize('dimension, num_rows', [(1000, 16), (2**18, 2049)])
def test_signs_are_signs_fixed_by_the_seed(dimension, num_rows):
  signs = _signs(dimension, 64)
  # Of four blocks two share the signs of two, moved by less than a row.
  assert signs.table.shape == (num_rows, 64)
  assert signs.blocks.shape == (math.ceil(dimension / 2**16),)
  assert {*np.unique(signs.table), *np.unique(signs.blocks)} <= {-1.0, 1.0}
  assert abs(signs.table.mean()) < 4 / math.sqrt(signs.table.size)
  np.testing.assert_array_equal(signs.table, _signs(dimension, 64).table)
  other = _signs(dimension, 64, seed=18)
  assert 0.4 < np.mean(signs.table == other.table) < 0.6


@pytest.mark.parametrize('length', [1, 8, 20, 256, 8192, 2**17])
@pytest.mark.parametrize('num_rows', [1, 16, 17, 147, 600, 20_000])
def test_coordinates_that_are_added_up_have_signs_of_their_own(
    num_rows, length
):
  layout = sketch.sign_layout(num_rows, length)
  starts = [
      layout.first_sign(row // layout.block_rows, length)
      + row % layout.block_rows * length
      for row in range(num_rows)
  ]
  assert len(set(starts)) == num_rows
  assert max(starts) + length <= layout.table_rows * length
  assert layout.table_rows <= num_rows + 1
  assert layout.num_blocks <= sketch._MAX_BLOCKS
  # Slices of the table are not copied if they begin at multiples of 64 bytes.
  if length % 16 == 0:
    assert all(start % 16 == 0 for start in starts)


def test_sketch_by_hand():
  signs = sketch.Signs(
      np.array([[1, -1, 1], [-1, 1, 1]], np.float32), np.ones(1, np.float32)
  )
  np.testing.assert_array_equal(_sketch([1, 2, 4, 8], signs), [1 - 8, -2, 4])


def test_sketch_is_linear_and_equals_the_reference():
  a, b = np.random.default_rng(0).normal(size=[2, 100])
  signs = _signs(100, 16)
  np.testing.assert_allclose(
      _sketch(2 * a - 3 * b, signs),
      2 * _sketch(a, signs) - 3 * _sketch(b, signs),
      atol=1e-4,
  )
  flat = signs.table.ravel()[:100].astype(float)
  np.testing.assert_allclose(
      _sketch(a, signs), fedaot_reference.fold_sketch(a, flat, 16), atol=1e-5
  )


@pytest.mark.parametrize(
    'dimension, expected',
    [(1, 16), (16, 16), (17, 32), (64, 64), (99, 112), (100, 112), (999, 112)],
)
def test_projection_length(dimension, expected):
  config = fedaot.FedAOTConfig(
      sketch_dimension=16,
      agreement_sketch_dimension=16,
      projection_dimension=100,
  )
  for has_holdout in (False, True):
    (group,) = sketch.group_tensors(
        [(dimension,)], config, has_holdout=has_holdout
    )
    assert group == (1, dimension, expected, 16)


@pytest.mark.parametrize(
    'shapes, max_groups, sizes',
    [
        ([(3, 4), (4,), (4, 2), (2,)], 2, [16, 10]),
        ([(3, 4), (4,), (4, 2), (2,)], 1, [26]),
        # Four layers: two and two.
        ([(3, 3, 1, 2), (2,), (3, 3, 2, 2), (8, 5), (5,), (5, 2)], 2, [56, 55]),
        # Three layers: one and two, or each its own.
        ([(2, 2), (2, 3), (3,), (3, 4)], 2, [4, 21]),
        ([(2, 2), (2, 3), (3,), (3, 4)], 3, [4, 9, 12]),
        # What comes before the first kernel is of its layer, as are scales.
        ([(7,), (2, 3), (3,), (3,), (), (3, 1)], 2, [20, 3]),
        ([(2,), (), (3,)], 2, [6]),
        ([()], 2, [1]),
    ],
)
def test_layers_are_dealt_out_to_groups(shapes, max_groups, sizes):
  config = fedaot.FedAOTConfig(
      max_groups=max_groups, agreement_sketch_dimension=12
  )
  groups = sketch.group_tensors(shapes, config, has_holdout=False)
  assert [group.num_coordinates for group in groups] == sizes
  assert sum(group.num_tensors for group in groups) == len(shapes)
  assert {group.sketch_length for group in groups} == {12 // len(groups)}
  assert not any(group.length % group.sketch_length for group in groups)
  (group,) = sketch.group_tensors(shapes, config, has_holdout=True)
  assert (group.num_tensors, group.sketch_length) == (len(shapes), 256)


def test_groups_have_projections_of_their_own_tensors():
  rng = np.random.default_rng(8)
  shapes = [(5, 7), (7,), (7, 3), (3,)]
  tensors = [
      rng.normal(size=np.prod(shape)).astype(np.float32) for shape in shapes
  ]
  config = fedaot.FedAOTConfig(agreement_sketch_dimension=16)
  groups = sketch.group_tensors(shapes, config, has_holdout=False)
  signs = [_signs(g.num_coordinates, g.length, g.length) for g in groups]
  energies, found = sketch.energies_and_projections(
      iter(tensors), groups, signs, 10
  )
  np.testing.assert_allclose(
      energies,
      [
          np.sum(t[i : i + 10] ** 2)
          for t in tensors
          for i in range(0, len(t), 10)
      ],
      rtol=1e-6,
  )
  for part, of_group, own in zip(found, signs, (tensors[:2], tensors[2:])):
    np.testing.assert_array_equal(part, _see(own, of_group)[1])


def test_whole_rows_of_all_tensors_come_before_what_is_left():
  # Rows of 3: 1 2 3, then 5 6 7 and 8 9 10, then 4, 11 and 12 13.
  signs = _signs(13, 3)
  tensors = [np.arange(a, b, dtype=np.float32) for a, b in ((1, 5), (5, 12))]
  tensors.append(np.array([12, 13], np.float32))
  energies, found = _see(tensors, signs, 3)
  rows = np.array([[1, 2, 3], [5, 6, 7], [8, 9, 10], [4, 11, 12], [13, 0, 0]])
  np.testing.assert_allclose(found, (rows * signs.table).sum(axis=0), rtol=1e-6)
  # Blocks end with their tensor: 1 2 3, 4, 5 6 7, 8 9 10, 11, 12 13.
  np.testing.assert_array_equal(energies, [14, 16, 110, 245, 121, 313])


def test_blocks_are_about_as_many_as_asked_for():
  config = fedaot.FedAOTConfig(profile_blocks=4)
  for shapes, size in (([(2, 4), (2,)], 3), ([(9,)], 3), ([(2,)], 1)):
    groups = sketch.group_tensors(shapes, config, has_holdout=True)
    assert sketch.block_size(groups, config) == size


@pytest.mark.parametrize('length', [1024, 4096])
@pytest.mark.parametrize('sizes', [[300_000], [1000, 200_000, 7, 99_000]])
def test_energies_and_projection_of_many_blocks(sizes, length):
  rng = np.random.default_rng(9)
  dimension = sum(sizes)
  # So many that signs are used again.
  assert dimension > 4 * sketch._BLOCK_SIZE
  arrays = [rng.normal(size=size).astype(np.float32) for size in sizes]
  whole = [a[: len(a) // length * length] for a in arrays]
  rest = [a[len(a) // length * length :] for a in arrays]
  signs = _signs(dimension, length)
  energies, found = _see(arrays, signs, 4000)
  expected = fedaot_reference.fold_sketch(
      np.concatenate(whole + rest).astype(np.float64),
      fedaot_reference.expand_signs(signs.table, signs.blocks, dimension),
      length,
  )
  np.testing.assert_allclose(found, expected, atol=1e-3)
  np.testing.assert_allclose(
      energies.sum(), np.sum(np.concatenate(arrays) ** 2), rtol=1e-5
  )


def _spread(vector, other, length, num_seeds):
  """Mean and deviation of products of sketches, by the stated deviation."""
  dimension = len(vector)
  signs = [_signs(dimension, length, seed) for seed in range(num_seeds)]
  products = np.array([_sketch(vector, s) @ _sketch(other, s) for s in signs])
  bound = math.sqrt(2 / length)
  bound *= np.linalg.norm(vector) * np.linalg.norm(other)
  return (products.mean() - vector @ other) / bound, products.std() / bound


def test_inner_products_of_sketches_scatter_as_stated():
  rng = np.random.default_rng(10)
  a = rng.normal(size=5000)
  b = 0.5 * a + rng.normal(size=5000)
  error, deviation = _spread(a, b, length=500, num_seeds=300)
  # Ten rows: without their own squares nine tenths of the bound at most.
  assert 0.4 < deviation < 1
  assert abs(error) < 4 / math.sqrt(300)


@pytest.mark.parametrize('entries', ['random', 'equal'])
def test_signs_that_are_used_again_keep_inner_products(entries):
  # Sixteen blocks, of which eight share the signs of each of two.
  rng = np.random.default_rng(11)
  length, dimension, num_seeds = 256, 2**20, 200
  if entries == 'random':
    first = rng.normal(size=dimension)
    second = 0.5 * first + rng.normal(size=dimension)
  else:
    first = second = np.ones(dimension)
  error, deviation = _spread(first, second, length, num_seeds)
  assert abs(error) < 4 * deviation / math.sqrt(num_seeds)
  # Pairs within a block, 255 of 4,095, count eightfold: 1 + 7 * 255 / 4095.
  bound = 1.0 if entries == 'random' else math.sqrt(1.44)
  assert 0.5 * bound < deviation < 1.15 * bound


@pytest.mark.parametrize('entry', [np.nan, np.inf, 1e30])
def test_energy_of_what_is_not_finite_or_overflows_is_no_number(entry):
  vector = np.ones(100, np.float32)
  vector[3] = entry
  energies, _ = _see([vector], _signs(100, 16), 50)
  np.testing.assert_array_equal(np.isfinite(energies), [False, True])
