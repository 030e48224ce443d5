"""The equations of FedAOT: hand numbers, invariances and the reference."""

import collections
import math

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.aggregators import fedaot_config
from fedaot_tff.aggregators import fedaot_equations as equations
from tests.reference import fedaot_reference

_DIMENSION = 100
_SKETCH = 16
_CONFIG = fedaot_config.FedAOTConfig(sketch_dimension=_SKETCH)
_SEED = (17, 4)
_LENGTH = equations.projection_length(_DIMENSION, _CONFIG)


def _seed(*numbers):
  return tf.constant(numbers, tf.int64)


def _floats(*numbers):
  return tf.constant(numbers, tf.float32)


def _signs(dimension=_DIMENSION, length=_LENGTH):
  return equations.sketch_signs(_seed(*_SEED), dimension, length)


def _flat_signs():
  return _signs()['table'].numpy().ravel()[:_DIMENSION].astype(np.float64)


def _own_signs(*rows):
  """Signs of an update that has one for each coordinate."""
  return collections.OrderedDict(
      table=_floats(*rows), blocks=tf.ones([1])
  )


def _expand(signs, dimension):
  return fedaot_reference.expand_signs(
      signs['table'].numpy(), signs['blocks'].numpy(), dimension
  )


def _summarize(update, **directions):
  summary, _ = equations.summarize_update(
      [tf.constant(update, tf.float32)],
      _signs(),
      _seed(3, 1),
      _project(
          (name, tf.constant(v, tf.float32)) for name, v in directions.items()
      ),
      _CONFIG,
  )
  return summary


def _project(directions):
  return collections.OrderedDict(
      (name, equations.fold_sketch(v, _signs())) for name, v in directions
  )


def _compiled(*shapes):
  """Decorates a function of float32 tensors, traced once for all tests."""
  return tf.function(
      input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes]
  )


def _table(updates, directions):
  """The summaries of all updates [N, d], one row a client."""
  dtypes = [('fingerprint', tf.int64)] + [
      (name, tf.float32)
      for name in ['finite', 'norm', 'sketch']
      + [f'dot_{name}' for name in directions]
  ]
  return tf.map_fn(
      lambda update: equations.summarize_update(
          [update], _signs(), _seed(3, 1), directions, _CONFIG
      )[0],
      updates,
      fn_output_signature=collections.OrderedDict(dtypes),
  )


@_compiled([None, _DIMENSION], [_DIMENSION], [_DIMENSION])
def _compute_holdout_statistics(updates, reference, root):
  directions = _project([('reference', reference), ('root', root)])
  return equations.holdout_statistics(
      _table(updates, directions), tf.norm(reference), tf.norm(root), _CONFIG
  )


@_compiled([None, _DIMENSION], [_SKETCH])
def _compute_agreement_statistics(updates, reference):
  return equations.agreement_statistics(
      _table(updates, collections.OrderedDict()), reference, _CONFIG
  )


def _holdout_statistics(updates, reference, root):
  return _compute_holdout_statistics(
      *(tf.constant(v, tf.float32) for v in (updates, reference, root))
  )


def _agreement_statistics(updates, reference):
  return _compute_agreement_statistics(
      *(tf.constant(v, tf.float32) for v in (updates, reference))
  )


def _start(config=_CONFIG):
  return equations.initial_weighting(4, config)


def _weights(statistics, finite=None):
  if finite is None:
    finite = tf.ones_like(statistics.clip)
  score = equations.scores(_start(), statistics.z) + statistics.log_discount
  return equations.softmax_weights(score, finite).numpy()


def _honest(rng, num_clients, center=None):
  """Updates [N, d] that scatter around a common center."""
  if center is None:
    center = rng.normal(size=_DIMENSION)
  return center + rng.normal(size=[num_clients, _DIMENSION])


def _statistics_of(mode, updates, center, scale=1.0):
  """Statistics in either mode, with a reference and a root along `center`."""
  if mode == 'holdout':
    return _holdout_statistics(updates, center, scale * center)
  sketch = fedaot_reference.fold_sketch(center, _flat_signs(), _SKETCH)
  return _agreement_statistics(updates, sketch)


_MODES = pytest.mark.parametrize('mode', ['holdout', 'agreement'])


# --- Sketches and summaries --------------------------------------------------


@pytest.mark.parametrize('dimension, num_rows', [(1000, 16), (2**18, 2049)])
def test_sketch_signs_are_signs_fixed_by_the_seed(dimension, num_rows):
  signs = _signs(dimension, 64)
  table = signs['table'].numpy()
  # Of four blocks two share the signs of two, moved by less than a row.
  assert table.shape == (num_rows, 64)
  assert signs['blocks'].shape == [math.ceil(dimension / 2**16)]
  assert {*np.unique(table), *np.unique(signs['blocks'])} <= {-1.0, 1.0}
  assert abs(table.mean()) < 4 / math.sqrt(table.size)
  np.testing.assert_array_equal(table, _signs(dimension, 64)['table'])
  other = equations.sketch_signs(_seed(18, 4), dimension, 64)
  assert 0.4 < np.mean(table == other['table']) < 0.6


def test_block_signs_differ_between_seeds():
  blocks = [
      equations.sketch_signs(_seed(seed, 0), 2**22, 64)['blocks'].numpy()
      for seed in range(2)
  ]
  assert blocks[0].shape == (64,)
  assert 0.2 < np.mean(blocks[0] == blocks[1]) < 0.8


@pytest.mark.parametrize('length', [1, 8, 20, 256, 8192, 2**17])
@pytest.mark.parametrize('num_rows', [1, 16, 17, 147, 600, 20_000])
def test_coordinates_that_are_added_up_have_signs_of_their_own(
    num_rows, length
):
  layout = equations._sign_layout(num_rows, length)
  starts = [
      layout.first_sign(row // layout.block_rows, length)
      + row % layout.block_rows * length
      for row in range(num_rows)
  ]
  assert len(set(starts)) == num_rows
  assert max(starts) + length <= layout.table_rows * length
  assert layout.table_rows <= num_rows + 1
  assert layout.num_blocks <= equations._MAX_BLOCKS
  # Slices of the table are not copied if they begin at multiples of 64 bytes.
  if length % 16 == 0:
    assert all(start % 16 == 0 for start in starts)


def test_sketch_pads_to_a_multiple_of_its_dimension():
  signs = _own_signs([1.0, -1.0, 1.0], [-1.0, 1.0, 1.0])
  sketch = equations.fold_sketch(_floats(1.0, 2.0, 4.0, 8.0), signs)
  np.testing.assert_array_equal(sketch, [1 - 8, -2, 4])
  assert _signs(1, 16)['table'].shape == (1, 16)
  assert _signs(32, 16)['table'].shape == (2, 16)
  assert _signs(33, 16)['table'].shape == (3, 16)


def test_sketch_is_linear_and_equals_the_reference():
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=[2, _DIMENSION])

  def sketch(vector):
    return equations.fold_sketch(
        tf.constant(vector, tf.float32), _signs(length=_SKETCH)
    )

  np.testing.assert_allclose(
      sketch(2 * a - 3 * b), 2 * sketch(a) - 3 * sketch(b), atol=1e-4
  )
  np.testing.assert_allclose(
      sketch(a),
      fedaot_reference.fold_sketch(a, _flat_signs(), _SKETCH),
      atol=1e-5,
  )


def test_sketch_keeps_inner_products_in_expectation():
  rng = np.random.default_rng(1)
  a, b = rng.normal(size=[2, _DIMENSION])
  b += a

  @tf.function
  def product(seed):
    signs = equations.sketch_signs(seed, _DIMENSION, _SKETCH)
    first, second = (
        equations.fold_sketch(tf.constant(v, tf.float32), signs)
        for v in (a, b)
    )
    return tf.tensordot(first, second, 1)

  products = [product(_seed(seed, 0)) for seed in range(400)]
  error = np.std(products) / math.sqrt(len(products))
  assert abs(np.mean(products) - a @ b) < 4 * error
  assert 4 * error < 0.15 * a @ b


@pytest.mark.parametrize(
    'dimension, expected',
    [(1, 16), (16, 16), (17, 32), (64, 64), (99, 112), (100, 112), (999, 112)],
)
def test_projection_length(dimension, expected):
  config = fedaot_config.FedAOTConfig(
      sketch_dimension=16, projection_dimension=100
  )
  assert equations.projection_length(dimension, config) == expected


def test_whole_rows_of_all_tensors_come_before_what_is_left():
  # Rows of 3: 1 2 3, then 5 6 7 and 8 9 10, then 4, 11 and 12 13.
  signs = _signs(13, 3)
  tensors = [
      _floats(1, 2, 3, 4),
      tf.reshape(_floats(5, 6, 7, 8, 9, 10, 11), [7, 1]),
      _floats(12, 13),
  ]
  norm, sketch = equations.norm_and_sketch(tensors, signs)
  rows = np.array(
      [[1, 2, 3], [5, 6, 7], [8, 9, 10], [4, 11, 12], [13, 0, 0]]
  )
  np.testing.assert_allclose(
      sketch, (rows * signs['table'].numpy()).sum(axis=0), rtol=1e-6
  )
  np.testing.assert_allclose(norm, math.sqrt(819), rtol=1e-6)


@pytest.mark.parametrize('length', [1024, 4096])
@pytest.mark.parametrize('sizes', [[300_000], [1000, 200_000, 7, 99_000]])
def test_norm_and_sketch_of_many_blocks(sizes, length):
  rng = np.random.default_rng(9)
  dimension = sum(sizes)
  # So many that signs are used again.
  assert dimension > 4 * equations._BLOCK_SIZE
  arrays = [rng.normal(size=size).astype(np.float32) for size in sizes]
  whole = [a[: len(a) // length * length] for a in arrays]
  rest = [a[len(a) // length * length :] for a in arrays]
  signs = _signs(dimension, length)
  norm, sketch = equations.norm_and_sketch(
      [tf.constant(a) for a in arrays], signs
  )
  expected = fedaot_reference.fold_sketch(
      np.concatenate(whole + rest).astype(np.float64),
      _expand(signs, dimension),
      length,
  )
  np.testing.assert_allclose(sketch, expected, atol=1e-3)
  np.testing.assert_allclose(
      norm, np.linalg.norm(np.concatenate(arrays)), rtol=1e-5
  )
  np.testing.assert_allclose(
      equations.narrow_sketch(sketch, 256),
      np.reshape(expected, [-1, 256]).sum(axis=0),
      atol=5e-3,
  )


def _spread(vector, other, length, num_seeds):
  """Mean and deviation of products of sketches, by the stated deviation."""
  dimension = len(vector)
  vectors = [tf.constant(v, tf.float32) for v in (vector, other)]

  @tf.function
  def product(seed):
    signs = equations.sketch_signs(seed, dimension, length)
    first, second = (equations.fold_sketch(v, signs) for v in vectors)
    return tf.tensordot(first, second, 1)

  products = np.array([product(_seed(seed, 0)) for seed in range(num_seeds)])
  bound = math.sqrt(2 / length)
  bound *= np.linalg.norm(vector) * np.linalg.norm(other)
  return (products.mean() - vector @ other) / bound, products.std() / bound


def test_inner_products_of_projections_scatter_as_stated():
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


def test_fingerprints_are_equal_if_and_only_if_the_numbers_are():
  rng = np.random.default_rng(2)
  row = rng.normal(size=20).astype(np.float32)
  key = _seed(1, 2)
  own = equations.fingerprint(tf.constant(row), key).numpy()
  assert own == equations.fingerprint(tf.constant(row.copy()), key)
  others = [np.roll(row, 1), -row, np.zeros_like(row)]
  for position in range(20):
    other = row.copy()
    other[position] = np.nextafter(row[position], np.float32(10))
    others.append(other)
  found = [equations.fingerprint(tf.constant(o), key).numpy() for o in others]
  assert own not in found
  assert len(set(found)) == len(found)
  assert own != equations.fingerprint(tf.constant(row), _seed(1, 3))


def test_summary_of_a_finite_update():
  rng = np.random.default_rng(3)
  update, root = rng.normal(size=[2, _DIMENSION])
  summary = _summarize(update, root=root)
  assert list(summary) == [
      'fingerprint', 'finite', 'norm', 'sketch', 'dot_root'
  ]
  assert summary['finite'] == 1
  np.testing.assert_allclose(
      summary['norm'], np.linalg.norm(update), rtol=1e-6
  )
  np.testing.assert_allclose(summary['dot_root'], update @ root, rtol=1e-4)
  np.testing.assert_allclose(
      summary['sketch'],
      fedaot_reference.fold_sketch(update, _flat_signs(), _SKETCH),
      atol=1e-5,
  )


@pytest.mark.parametrize('entry', [np.nan, np.inf, -np.inf, 1e15, -1e15, 1e30])
def test_summary_of_an_unusable_update_is_that_of_zero_but_for_finite(entry):
  update = np.ones(_DIMENSION, np.float32)
  update[7] = entry
  summary = _summarize(update, root=np.ones(_DIMENSION))
  zero = _summarize(np.zeros(_DIMENSION), root=np.ones(_DIMENSION))
  assert summary.pop('finite') == 0
  assert zero.pop('finite') == 1
  assert zero['norm'] == 0
  tf.nest.map_structure(np.testing.assert_array_equal, summary, zero)


def test_summary_of_the_largest_usable_update_is_finite():
  update = np.full(_DIMENSION, 9.9e13)
  summary = _summarize(update, root=update / 1e10)
  assert summary['finite'] == 1
  np.testing.assert_allclose(summary['norm'], 9.9e14, rtol=1e-5)
  assert all(np.all(np.isfinite(v)) for v in summary.values())


# --- Quantiles ---------------------------------------------------------------


@_compiled([None], [None], [])
def _compute_weighted_quantile(values, weights, quantile):
  return equations.weighted_quantile(values, weights, quantile)


def _weighted_quantile(values, weights, quantile):
  return _compute_weighted_quantile(
      *(tf.constant(v, tf.float32) for v in (values, weights, quantile))
  ).numpy()


@pytest.mark.parametrize(
    'values, weights, quantile, expected',
    [
        ([3, 1, 2], [1, 1, 1], 0.5, 2),
        ([4, 1, 3, 2], [1, 1, 1, 1], 0.5, 2.5),
        # Positions 1/8, 3/8, 5/8, 7/8: 3/4 lies between the last two.
        ([4, 1, 3, 2], [1, 1, 1, 1], 0.75, 3.5),
        ([4, 1, 3, 2], [1, 1, 1, 1], 0.0, 1),
        ([4, 1, 3, 2], [1, 1, 1, 1], 1.0, 4),
        # Positions 0.3 and 0.8.
        ([1, 2], [0.6, 0.4], 0.5, 1.4),
        ([2, 1], [0.4, 0.6], 0.5, 1.4),
        # Entries of weight 0: below, between and above the others.
        ([-9, 1, 3, 4], [0, 1, 0, 1], 0.5, 2.5),
        ([9, 1, 2, 3], [0, 1, 1, 1], 0.5, 2),
        ([-9, 1, 9, 2], [0, 1, 0, 1], 0.75, 2),
        ([-9, -8, -7], [0, 1, 0], 0.9, -8),
        ([5], [0.1], 0.5, 5),
        ([5], [0.1], 0.75, 5),
        ([5], [0], 0.5, 0),
        ([5, 7], [0, 0], 0.75, 0),
        ([2, 2, 2], [1, 5, 1], 0.5, 2),
    ],
)
def test_weighted_quantile_by_hand(values, weights, quantile, expected):
  result = _weighted_quantile(values, weights, quantile)
  np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_weighted_quantile_interpolates_like_numpy():
  rng = np.random.default_rng(4)
  for _ in range(20):
    num_values = rng.integers(1, 12)
    values = rng.normal(size=num_values)
    weights = rng.uniform(size=num_values) + 0.01
    order = np.argsort(values)
    positions = np.cumsum(weights[order]) - weights[order] / 2
    for quantile in (0.1, 0.25, 0.5, 0.75):
      np.testing.assert_allclose(
          _weighted_quantile(values, weights, quantile),
          np.interp(quantile, positions / weights.sum(), values[order]),
          atol=1e-5,
      )


def test_weighted_quantile_ignores_the_order_even_of_tied_values():
  values, weights = np.array([1.0, 1.0, 2.0]), np.array([0.1, 0.5, 0.4])
  found = [
      _weighted_quantile(values[order], weights[order], 0.5)
      for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1])
  ]
  np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_standardize_by_hand_and_bounded():
  # Median 3, upper quartile 4.25.
  values = _floats(1.0, 2.0, 3.0, 4.0, 5.0)
  z = equations.standardize(values, tf.ones([5]), 0.1, 10.0)
  scale = 1.4826 * 1.25 + 0.1
  np.testing.assert_allclose(z, (values.numpy() - 3) / scale, rtol=1e-5)
  z = equations.standardize(
      tf.constant([0.0] * 6 + [5.0, -5.0]), tf.ones([8]), 1e-3, 10.0
  )
  np.testing.assert_allclose(z, [0] * 6 + [10, -10])


def test_standardize_has_no_spread_from_below_the_median():
  wide = equations.standardize(
      _floats(-90.0, -80.0, 3.0, 4.0, 5.0), tf.ones([5]), 0.1, 10.0
  )
  narrow = equations.standardize(
      _floats(1.0, 2.0, 3.0, 4.0, 5.0), tf.ones([5]), 0.1, 10.0
  )
  np.testing.assert_allclose(wide[2:], narrow[2:])


# --- Statistics --------------------------------------------------------------


def _rough_cohort(rng, center):
  """Honest updates with boosted, opposed, copied, zero and broken ones."""
  updates = _honest(rng, rng.integers(6, 14), center)
  updates[0] *= -4
  updates[1] *= 20
  updates[2] = updates[3] + 1e-3 * rng.normal(size=_DIMENSION)
  updates[4, 5] = np.nan
  if rng.uniform() < 0.5:
    updates[5] = 0
  return updates.astype(np.float32)


def _check_against_reference(found, expected):
  finite = expected['finite']
  for name, value in (('values', 'statistics'), ('z', 'z')):
    np.testing.assert_allclose(
        getattr(found, name).numpy()[finite],
        expected[value][finite],
        atol=2e-4,
        rtol=1e-4,
        err_msg=name,
    )
  np.testing.assert_allclose(
      found.norm_bound, expected['norm_bound'], rtol=1e-5
  )
  np.testing.assert_allclose(
      _weights(found, tf.constant(finite, tf.float32)),
      expected['weights'],
      atol=1e-5,
  )


@pytest.mark.parametrize('seed', range(6))
def test_holdout_statistics_equal_the_reference(seed):
  rng = np.random.default_rng(seed)
  center = rng.normal(size=_DIMENSION)
  updates = _rough_cohort(rng, center)
  model = fedaot_reference.HoldOutReference(
      signs=_flat_signs(), sketch_dimension=_SKETCH
  )
  model.reference = center + rng.normal(size=_DIMENSION)
  root = 0.5 * center + 0.5 * rng.normal(size=_DIMENSION)
  if seed == 5:
    root = np.zeros(_DIMENSION)
  found = _holdout_statistics(updates, model.reference, root)
  expected = model.aggregate(updates.astype(np.float64), root)
  _check_against_reference(found, expected)
  finite = expected['finite']
  np.testing.assert_allclose(
      found.log_discount.numpy()[finite],
      np.log(expected['copies_discount'][finite]),
      atol=1e-4,
  )
  np.testing.assert_allclose(
      found.clip.numpy()[finite, None] * updates[finite],
      expected['clipped'][finite],
      rtol=1e-4,
      atol=1e-6,
  )


@pytest.mark.parametrize('seed', range(6))
def test_agreement_statistics_equal_the_reference(seed):
  rng = np.random.default_rng(seed)
  center = rng.normal(size=_DIMENSION)
  updates = _rough_cohort(rng, center)
  model = fedaot_reference.AgreementReference(
      signs=_flat_signs(), sketch_dimension=_SKETCH
  )
  if seed:
    model.reference = fedaot_reference.fold_sketch(
        center + rng.normal(size=_DIMENSION), _flat_signs(), _SKETCH
    )
  found = _agreement_statistics(updates, model.reference)
  expected = model.next(updates.astype(np.float64))
  _check_against_reference(found, expected)
  assert not np.any(found.log_discount)
  finite = expected['finite']
  np.testing.assert_allclose(
      found.clip.numpy()[finite, None] * updates[finite],
      expected['clipped'][finite],
      rtol=1e-4,
      atol=1e-6,
  )


def test_pair_cosines_tie_for_closest_neighbours():
  rng = np.random.default_rng(6)
  for num_clients in range(5, 25):
    rows = rng.normal(size=[num_clients, 256])
    units = equations._unit_rows(tf.constant(rows, tf.float32))
    finite = tf.constant([0.0] + [1.0] * (num_clients - 1))
    cosines = equations._pair_cosines(units, finite).numpy()
    np.testing.assert_array_equal(cosines[1:, 1:], cosines[1:, 1:].T)
    np.testing.assert_array_equal(cosines[:, 0], -1)
    np.testing.assert_array_equal(np.diag(cosines), -1)


@_MODES
def test_statistics_are_permuted_with_the_clients(mode):
  rng = np.random.default_rng(10)
  center = rng.normal(size=_DIMENSION)
  updates = _honest(rng, 9, center)
  updates[:3] = -2 * center + 0.1 * rng.normal(size=[3, _DIMENSION])
  order = rng.permutation(9)
  statistics = _statistics_of(mode, updates, center)
  permuted = _statistics_of(mode, updates[order], center)
  for name in ('values', 'z', 'log_discount', 'clip'):
    np.testing.assert_allclose(
        getattr(statistics, name).numpy()[order],
        getattr(permuted, name),
        atol=2e-4,
        err_msg=name,
    )
  np.testing.assert_allclose(
      statistics.norm_bound, permuted.norm_bound, rtol=1e-5
  )
  np.testing.assert_allclose(
      _weights(statistics)[order], _weights(permuted), atol=1e-5
  )


@_MODES
@pytest.mark.parametrize('scale', [1e-6, 1e-2, 1e6])
def test_weights_do_not_depend_on_the_unit_of_the_updates(mode, scale):
  rng = np.random.default_rng(11)
  center = rng.normal(size=_DIMENSION)
  updates = _honest(rng, 8, center)
  updates[0] *= -3
  updates[1] *= 6
  statistics = _statistics_of(mode, updates, center)
  scaled = _statistics_of(mode, scale * updates, center, scale)
  np.testing.assert_allclose(
      _weights(scaled), _weights(statistics), atol=1e-5
  )
  np.testing.assert_allclose(
      scaled.norm_bound, scale * statistics.norm_bound, rtol=1e-4
  )
  np.testing.assert_allclose(scaled.clip, statistics.clip, rtol=1e-4)


@_MODES
def test_weights_sum_to_one_and_prefer_the_honest(mode):
  rng = np.random.default_rng(12)
  center = rng.normal(size=_DIMENSION)
  updates = _honest(rng, 10, center)
  updates[:3] *= -1
  weights = _weights(_statistics_of(mode, updates, center))
  np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
  assert np.all(weights > 0)
  assert weights[:3].sum() < 0.03


def test_copies_together_weigh_about_one_client_with_a_holdout():
  rng = np.random.default_rng(13)
  center = rng.normal(size=_DIMENSION)
  honest = _honest(rng, 6, center)
  for num_copies in (2, 6, 20):
    copies = np.repeat(_honest(rng, 1, center), num_copies, axis=0)
    statistics = _holdout_statistics(
        np.concatenate([copies, honest]), center, center
    )
    discount = np.exp(statistics.log_discount[:num_copies])
    np.testing.assert_allclose(num_copies * discount, 1, atol=0.15)
    weights = _weights(statistics)
    assert weights[:num_copies].sum() < 1.2 * weights[num_copies:].mean()


def test_a_majority_against_the_root_moves_no_median_with_a_holdout():
  rng = np.random.default_rng(14)
  root = rng.normal(size=_DIMENSION)
  honest = _honest(rng, 8, root)
  attackers = -10 * _honest(rng, 12, root)
  alone = _holdout_statistics(honest, root, root)
  together = _holdout_statistics(
      np.concatenate([honest, attackers]), root, root
  )
  weights = _weights(together)
  assert weights[8:].sum() < 1e-3
  assert np.all(together.z.numpy()[8:, :2] == -10)
  np.testing.assert_allclose(
      together.norm_bound, alone.norm_bound, rtol=0.15
  )


@pytest.mark.parametrize('size', [0.0, 1e-3])
def test_majority_of_short_updates_does_not_shorten_the_others(size):
  rng = np.random.default_rng(14)
  root = rng.normal(size=_DIMENSION)
  honest = _honest(rng, 8, root)
  short = size * rng.normal(size=[12, _DIMENSION])
  statistics = _holdout_statistics(
      np.concatenate([honest, short]), root, root
  )
  alone = _holdout_statistics(honest, root, root)
  np.testing.assert_allclose(
      statistics.norm_bound, alone.norm_bound, rtol=0.05
  )
  np.testing.assert_array_equal(statistics.clip[:8], 1.0)


def test_norm_bound_is_capped_by_the_root_with_a_holdout():
  rng = np.random.default_rng(15)
  root = rng.normal(size=_DIMENSION)
  updates = 5 * _honest(rng, 6, root)
  statistics = _holdout_statistics(updates, root, root)
  root_norm = np.linalg.norm(root)
  norms = np.linalg.norm(updates, axis=1)
  np.testing.assert_allclose(
      statistics.norm_bound, 1.2 * root_norm, rtol=1e-5
  )
  np.testing.assert_allclose(
      statistics.clip, np.minimum(1, 2.4 * root_norm / norms), rtol=1e-5
  )


def test_copies_and_zeros_hardly_shorten_the_others_without_a_holdout():
  rng = np.random.default_rng(17)
  honest = _honest(rng, 9)
  norms = np.sort(np.linalg.norm(honest, axis=1))
  short = np.repeat(0.2 * _honest(rng, 1), 7, axis=0)
  for others, num_counted in ((short, 1), (0 * short, 0), (1e-3 * short, 0)):
    updates = np.concatenate([honest, others])
    statistics = _agreement_statistics(updates, np.zeros(_SKETCH))
    # The median of the honest norms, or next to it.
    middle = norms[4 - num_counted : 5]
    bound = statistics.norm_bound.numpy()
    assert middle[0] * (1 - 1e-5) <= bound <= middle[-1] * (1 + 1e-5)
    assert bound > np.median(np.linalg.norm(updates, axis=1)) * (1 + 1e-3)


def test_norm_bound_is_near_the_median_without_a_holdout():
  """Nobody can make honest clients look like copies to send long updates."""
  rng = np.random.default_rng(18)
  honest = np.repeat(_honest(rng, 1), 9, axis=0)
  updates = np.concatenate([honest, 5 * _honest(rng, 7)])
  statistics = _agreement_statistics(updates, np.zeros(_SKETCH))
  np.testing.assert_allclose(
      statistics.norm_bound, 1.5 * np.linalg.norm(honest[0]), rtol=1e-5
  )


def test_colluders_have_low_spectral_and_copies_statistics_without_a_holdout():
  rng = np.random.default_rng(16)
  center = 1.5 * rng.normal(size=_DIMENSION)
  updates = _honest(rng, 12, center)
  updates[:4] = _honest(rng, 1)[0] + 0.1 * rng.normal(size=[4, _DIMENSION])
  values = _agreement_statistics(updates, np.zeros(_SKETCH)).values.numpy()
  for name in ('spectral', 'copies'):
    column = values[:, equations.AGREEMENT_STATISTICS.index(name)]
    assert column[:4].max() < column[4:].min(), name
  np.testing.assert_array_equal(
      values[:, equations.AGREEMENT_STATISTICS.index('reference_cosine')], 0
  )


@pytest.mark.parametrize('shape', [(5, 30), (30, 5), (12, 12)])
def test_principal_coordinates_are_the_top_singular_direction(shape):
  rng = np.random.default_rng(17)
  rows = rng.normal(size=shape)
  found = equations._principal_coordinates(tf.constant(rows, tf.float32))
  left, values, _ = np.linalg.svd(rows, full_matrices=False)
  expected = left[:, 0] * values[0]
  expected *= np.sign(expected[0] * found[0].numpy())
  np.testing.assert_allclose(found, expected, atol=1e-4)


@_MODES
def test_degenerate_cohorts_have_finite_statistics(mode):
  center = np.ones(_DIMENSION)
  for updates in (
      np.zeros([3, _DIMENSION]),
      np.ones([3, _DIMENSION]),
      np.ones([1, _DIMENSION]),
      np.full([2, _DIMENSION], np.nan),
      np.full([2, _DIMENSION], 9.9e14),
      np.full([2, _DIMENSION], 1e-30),
  ):
    for around in (center, np.zeros(_DIMENSION)):
      statistics = _statistics_of(mode, updates, around)
      for name, value in statistics._asdict().items():
        assert np.all(np.isfinite(value)), (name, updates[0, 0])


def test_two_unusable_updates_change_nothing_for_the_others():
  rng = np.random.default_rng(18)
  center = rng.normal(size=_DIMENSION)
  good = _honest(rng, 7, center)
  bad = np.full([2, _DIMENSION], np.inf)
  for mode in ('holdout', 'agreement'):
    alone = _statistics_of(mode, good, center)
    together = _statistics_of(mode, np.concatenate([bad, good]), center)
    for name in ('values', 'z', 'log_discount', 'clip'):
      np.testing.assert_allclose(
          getattr(together, name)[2:], getattr(alone, name), atol=2e-4
      )
    finite = tf.constant([0.0] * 2 + [1.0] * 7)
    np.testing.assert_allclose(
        _weights(together, finite),
        np.concatenate([[0, 0], _weights(alone)]),
        atol=1e-5,
    )


# --- Weights -----------------------------------------------------------------


def test_initial_weighting():
  theta = _start(
      fedaot_config.FedAOTConfig(
          initial_slope=0.7, initial_margin=-1.0, initial_log_sharpness=0.5
      )
  )
  np.testing.assert_allclose(
      tf.math.softplus(theta['raw_slope']), [0.7] * 4, rtol=1e-6
  )
  np.testing.assert_allclose(theta['margin'], [-1.0] * 4)
  np.testing.assert_allclose(theta['log_sharpness'], 0.5)


def test_scores_by_hand():
  z = tf.constant([[-2.0, -2.0, -2.0, -2.0], [-2.0, 30.0, 30.0, 30.0]])
  # softplus(0) = log 2, and a good statistic earns nothing more.
  np.testing.assert_allclose(
      equations.scores(_start(), z),
      [-4 * 1.5 * np.log(2), -1.5 * np.log(2)],
      rtol=1e-5,
  )
  theta = _start()
  theta['log_sharpness'] = tf.constant(np.log(3.0), tf.float32)
  np.testing.assert_allclose(
      equations.scores(theta, z, _floats(0.0, 1.0, 1.0, 0.0)),
      [-3 * 2 * 1.5 * np.log(2), 0],
      rtol=1e-5,
      atol=1e-6,
  )


def test_softmax_weights_by_hand():
  finite = _floats(1.0, 0.0, 1.0)
  weights = equations.softmax_weights(
      tf.math.log(_floats(1.0, 1e9, 3.0)), finite
  )
  np.testing.assert_allclose(weights, [0.25, 0, 0.75], rtol=1e-6)
  np.testing.assert_array_equal(
      equations.softmax_weights(_floats(1.0, 2.0), tf.zeros([2])), [0, 0]
  )
  np.testing.assert_allclose(
      equations.softmax_weights(_floats(-1e4, -1e4, 1e6), finite * [1, 1, 0]),
      [1, 0, 0],
  )


def test_log_example_weights_by_hand():
  # The median of 10, 20 and 30 is 20, so that the cap is 40.
  log_weights = equations.log_example_weights(
      _floats(10.0, 20.0, 0.0, 1e9, 30.0),
      _floats(1.0, 1.0, 0.0, 0.0, 1.0),
      2.0,
  )
  np.testing.assert_allclose(np.exp(log_weights), [10, 20, 1, 1, 30], rtol=1e-5)
  log_weights = equations.log_example_weights(
      _floats(10.0, 20.0, 1e9), tf.ones([3]), 2.0
  )
  np.testing.assert_allclose(np.exp(log_weights), [10, 20, 40], rtol=1e-5)


# --- Meta step ---------------------------------------------------------------


def _random_theta(rng):
  """Weighting variables in float64, so that differences are exact enough."""
  return collections.OrderedDict(
      raw_slope=tf.constant(1.2 + 0.3 * rng.normal(size=4)),
      margin=tf.constant(2.0 + 0.3 * rng.normal(size=4)),
      log_sharpness=tf.constant(0.2),
  )


def _cast_theta(theta):
  return tf.nest.map_structure(lambda v: tf.cast(v, tf.float64), theta)


def _finite_differences(theta, objective_fn, step=1e-5):
  """Central differences of `objective_fn` in each entry of theta."""
  gradient = collections.OrderedDict()
  for name, value in theta.items():
    entries = np.zeros(value.shape)
    for position in np.ndindex(*value.shape):
      change = np.zeros(value.shape)
      change[position] = step
      high, low = (
          objective_fn(collections.OrderedDict(theta, **{name: value + s}))
          for s in (change, -change)
      )
      entries[position] = (high - low) / (2 * step)
    gradient[name] = entries
  return gradient


def _check_gradient(found, expected, rtol=1e-5):
  assert list(found) == list(expected)
  for name in found:
    np.testing.assert_allclose(
        found[name], expected[name], rtol=rtol, atol=1e-8, err_msg=name
    )
    assert np.any(found[name])


def test_meta_gradient_equals_finite_differences():
  rng = np.random.default_rng(20)
  theta = _cast_theta(_random_theta(rng))
  z = tf.constant(3 * rng.normal(size=[7, 4]))
  finite = tf.constant([1.0, 1, 0, 1, 1, 1, 1], tf.float64)
  alignments = tf.constant(rng.normal(size=7))

  def weights(theta):
    return equations.softmax_weights(equations.scores(theta, z), finite)

  for objective_fn in (
      lambda theta: equations.holdout_objective(weights(theta), alignments),
      lambda theta: equations.agreement_objective(
          weights(theta), alignments, 0.7
      ),
  ):
    _check_gradient(
        equations.meta_gradient(theta, objective_fn),
        _finite_differences(theta, objective_fn),
    )


def test_holdout_gradient_is_exactly_that_of_the_loss_after_the_update():
  rng = np.random.default_rng(21)
  num_clients, dimension = 6, 9
  theta = _cast_theta(_random_theta(rng))
  z = tf.constant(2 * rng.normal(size=[num_clients, 4]))
  finite = tf.ones([num_clients], tf.float64)
  updates = tf.constant(rng.normal(size=[num_clients, dimension]))
  clip = tf.constant(rng.uniform(0.3, 1.0, size=num_clients))
  model = tf.constant(rng.normal(size=dimension))
  norm_bound = tf.constant(1.7, tf.float64)

  def loss_fn(model):
    return tf.reduce_sum(tf.square(model) * tf.sin(model + 1))

  def model_after(theta):
    weights = equations.softmax_weights(equations.scores(theta, z), finite)
    return model - tf.linalg.matvec(updates, weights * clip, transpose_a=True)

  after = model_after(theta)
  with tf.GradientTape() as tape:
    tape.watch(after)
    loss = loss_fn(after)
  gradient = tape.gradient(loss, after)
  alignments = equations.holdout_alignments(
      tf.linalg.matvec(updates, gradient), clip, tf.norm(gradient), norm_bound
  )
  found = equations.meta_gradient(
      theta,
      lambda theta: equations.holdout_objective(
          equations.softmax_weights(equations.scores(theta, z), finite),
          alignments,
      ),
  )
  expected = _finite_differences(
      theta, lambda theta: loss_fn(model_after(theta))
  )
  unit = tf.norm(gradient) * norm_bound
  _check_gradient(
      tf.nest.map_structure(lambda g: g * unit, found), expected, rtol=1e-4
  )


def test_alignments_by_hand():
  np.testing.assert_allclose(
      equations.holdout_alignments(
          _floats(6.0, -3.0), _floats(0.5, 1.0), tf.constant(3.0),
          tf.constant(2.0),
      ),
      [-0.5, 0.5],
  )
  np.testing.assert_array_equal(
      equations.holdout_alignments(
          _floats(6.0), _floats(1.0), tf.constant(0.0), tf.constant(2.0)
      ),
      [0],
  )
  sketches = tf.constant([[3.0, 4.0], [0.0, -2.0]])
  np.testing.assert_allclose(
      equations.agreement_alignments(sketches, _floats(0.0, 7.0)), [-4, 2]
  )
  np.testing.assert_array_equal(
      equations.agreement_alignments(sketches, tf.zeros([2])), [0, 0]
  )


def test_objectives_by_hand():
  weights, alignments = _floats(0.25, 0.75), _floats(2.0, -1.0)
  assert equations.holdout_objective(weights, alignments) == -0.25
  np.testing.assert_allclose(
      equations.agreement_objective(weights, alignments, 2.0),
      -0.25 + 2 * (0.0625 + 0.5625),
  )


def test_meta_step_equals_adam_by_hand():
  rng = np.random.default_rng(22)
  config = fedaot_config.FedAOTConfig(
      meta_learning_rate=0.2,
      meta_beta_1=0.8,
      meta_beta_2=0.95,
      meta_epsilon=0.01,
      meta_anchor=0.1,
  )
  start = _start(config)
  theta, slots = start, equations.initial_meta_optimizer(start)
  expected = {name: value.numpy() for name, value in start.items()}
  first = {name: np.zeros_like(v) for name, v in expected.items()}
  second = {name: np.zeros_like(v) for name, v in expected.items()}
  for step in range(1, 5):
    gradient = tf.nest.map_structure(
        lambda v: tf.constant(rng.normal(size=v.shape), tf.float32), start
    )
    theta, slots = equations.meta_step(theta, slots, gradient, start, config)
    for name, value in expected.items():
      g = gradient[name].numpy()
      first[name] = 0.8 * first[name] + 0.2 * g
      second[name] = 0.95 * second[name] + 0.05 * g * g
      adam = (first[name] / (1 - 0.8**step)) / (
          np.sqrt(second[name] / (1 - 0.95**step)) + 0.01
      )
      expected[name] = (
          value - 0.2 * adam - 0.1 * (value - start[name].numpy())
      )
      np.testing.assert_allclose(theta[name], expected[name], atol=1e-5)
      np.testing.assert_allclose(
          slots['second_moment'][name], second[name], atol=1e-5
      )
  assert slots['step'] == 4


def test_bounds():
  start = _start()

  def shifted(by):
    return tf.nest.map_structure(lambda v: v + by, start)

  for by, sharpness in ((-3.0, -1.0), (0.4, 0.4), (3.0, 1.5)):
    bounded = equations.bound_holdout(shifted(by), _CONFIG)
    np.testing.assert_allclose(bounded['log_sharpness'], sharpness)
    for name in ('raw_slope', 'margin'):
      np.testing.assert_allclose(bounded[name], start[name] + by)

  # Without clean data a step may only make bad statistics cost more.
  lower = equations.bound_agreement(shifted(-3.0), start, _CONFIG)
  np.testing.assert_allclose(lower['raw_slope'], start['raw_slope'])
  np.testing.assert_allclose(lower['margin'], start['margin'] - 3)
  np.testing.assert_allclose(lower['log_sharpness'], 0)
  upper = equations.bound_agreement(shifted(3.0), start, _CONFIG)
  np.testing.assert_allclose(upper['raw_slope'], start['raw_slope'] + 3)
  np.testing.assert_allclose(upper['margin'], start['margin'])
  np.testing.assert_allclose(upper['log_sharpness'], 1.5)
