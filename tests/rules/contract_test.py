"""What holds for every rule, and for each wrapper around both families."""

import functools
import inspect
import pickle

import numpy as np
import pytest

from fedaot import rules
from tests.rules import tables

_F = 2
# Options under which a rule is compared with itself: all coordinates, no noise.
_OPTIONS = {
    'dnc': {'num_sampled': 10**6},
    'sign_guard': {'coordinate_fraction': 1.0},
    'flame': {'noise_multiplier': 0},
    'crfl': {'noise_multiplier': 0},
    'lasa': {'sparsity': 0},
}


def _make(name, *inner, num_byzantine=_F, **options):
  """A rule or wrapper with f and a seed where it takes them."""
  make = {**rules.RULES, **rules.WRAPPERS}[name]
  known = {'num_byzantine': num_byzantine, 'seed': 3, **_OPTIONS.get(name, {})}
  names = inspect.signature(make).parameters
  options = {**{k: v for k, v in known.items() if k in names}, **options}
  return make(*inner, **options)


_MAKERS = {
    **{name: functools.partial(_make, name) for name in rules.RULES},
    **{
        f'{wrapper}({name})': (
            lambda wrapper=wrapper, name=name, **options: _make(
                wrapper, _make(name, **options), **options
            )
        )
        for wrapper in rules.WRAPPERS
        for name in ('krum', 'trimmed_mean')
    },
    'nnm(bucketing(krum))': lambda **options: _make(
        'nnm', _make('bucketing', _make('krum', **options)), **options
    ),
}
_RULES = {name: make() for name, make in _MAKERS.items()}

# Who counts the clients that are left out, by definition.
_COUNTS_LOST = {'centered_clipping', 'arc(krum)', 'arc(trimmed_mean)'}
# Buckets are of random rows; for f up to 2 Bulyan ends with one neighbor, where
# two updates that are each other's nearest have equal scores.
_IS_BUCKETED = {name for name in _RULES if 'bucketing' in name}
_DEPENDS_ON_ORDER = _IS_BUCKETED | {'bulyan'}
_IS_ABOUT_ZERO = {
    'sign_guard',
    'foolsgold',
    'flame',
    'fltrust',
    'robust_learning_rate',
    'crfl',
    'lasa',
    'deepsight',
} | {name for name in _RULES if name.startswith(('arc', 'median_norm'))}
_TRUSTS_THE_FAR = {'foolsgold', 'robust_learning_rate'}
_ON_COORDINATES = {
    *(name for name in _RULES if 'trimmed' in name),
    'coordinate_median',
    'bulyan',
    'meamed',
    'robust_learning_rate',
    'fedrdf',
    'lasa',
}
_NOT_ROTATED = _ON_COORDINATES | {'dnc', 'sign_guard', 'auror', 'deepsight'}
_USES_REFERENCE = {
    name for name, rule in _RULES.items() if rule.remembers or rule.needs_root
}


def _without(*excluded):
  return sorted(set(_RULES).difference(*excluded))


def _reference(d):
  return np.linspace(1.0, 2.0, d).astype(np.float32)


def _apply(name, updates, reference=None, **options):
  updates = np.asarray(updates)
  if reference is None:
    reference = _reference(updates.shape[1])
  return _RULES[name].measure(updates, reference=reference, **options)


def _honest(n=11, d=40, seed=0):
  return tables.random_updates(n, d, seed) + np.float32(0.5)


@pytest.mark.parametrize('name', _without())
@pytest.mark.parametrize('dtype', [np.float16, np.float32, np.float64])
def test_keeps_dtype_and_updates(name, dtype):
  updates = _honest().astype(dtype)
  before = updates.copy()
  result, _ = _apply(name, updates)
  assert result.dtype == dtype and result.shape == (40,)
  np.testing.assert_array_equal(updates, before)
  wide, _ = _apply(name, updates.astype(np.float64))
  np.testing.assert_allclose(
      result, wide, atol=5e-3 if dtype == np.float16 else 1e-6
  )


@pytest.mark.parametrize('name', _without())
def test_pickled_rule_is_the_same(name):
  pickled = pickle.loads(pickle.dumps(_RULES[name]))
  assert repr(pickled) == repr(_RULES[name])
  arguments = dict(round_num=3, reference=_reference(40))
  np.testing.assert_array_equal(
      pickled(_honest(), **arguments), _RULES[name](_honest(), **arguments)
  )


@pytest.mark.parametrize('name', _without())
def test_result_is_the_weighted_sum(name):
  updates = _honest().astype(np.float64)
  result, measurements = _apply(name, updates)
  if 'weights' not in measurements:
    assert name in _ON_COORDINATES
    return
  weights = measurements['weights']
  assert weights.shape == (11,) and np.all(weights >= 0)
  lacking = 1 - weights.sum() if name == 'centered_clipping' else 0.0
  np.testing.assert_allclose(
      result, weights @ updates + lacking * _reference(40), atol=1e-12
  )


@pytest.mark.parametrize('poison', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('name', _without(_COUNTS_LOST))
def test_what_is_not_finite_is_as_if_it_were_not_there(name, poison):
  updates = _honest(13)
  updates[0, 3] = poison
  updates[7] = poison
  finite = np.delete(np.arange(13), [0, 7])
  result, measurements = _apply(name, updates)
  expected, clean = _apply(name, updates[finite])
  np.testing.assert_array_equal(result, expected)
  assert measurements['num_non_finite'] == 2
  assert clean['num_non_finite'] == 0
  if 'weights' in clean:
    np.testing.assert_array_equal(
        measurements['weights'][finite], clean['weights']
    )
    np.testing.assert_array_equal(measurements['weights'][[0, 7]], [0, 0])


@pytest.mark.parametrize('name', sorted(_COUNTS_LOST))
def test_what_is_not_finite_adds_nothing(name):
  updates = _honest(13)
  updates[[0, 7]] = np.nan
  result, measurements = _apply(name, updates)
  assert np.all(np.isfinite(result))
  assert measurements['num_non_finite'] == 2


@pytest.mark.parametrize('poison', [0.0, 1.0, np.nan])
@pytest.mark.parametrize('name', _without())
def test_clients_without_examples_do_not_vote(name, poison):
  """Six of ten have nothing to say: the result is that of the four alone."""
  updates = _honest(10)
  examples = np.array([0, 3, 0, 0, np.nan, 5, -1, 1e9, 0, 0.5])
  votes = np.flatnonzero(examples > 0)
  updates[[0, 2, 3, 4, 6, 8]] = poison
  result, measurements = _apply(name, updates, num_examples=examples)
  expected, alone = _apply(name, updates[votes])
  np.testing.assert_array_equal(result, expected)
  assert (measurements['num_empty'], alone['num_empty']) == (6, 0)
  assert measurements['num_non_finite'] == 0
  if 'weights' in alone:
    np.testing.assert_array_equal(
        measurements['weights'][votes], alone['weights']
    )
    assert not np.delete(measurements['weights'], votes).any()


@pytest.mark.parametrize('name', _without())
def test_nobody_has_anything_to_say(name):
  for updates in (_honest(4, 3), np.zeros([0, 3], np.float32)):
    nothing = np.zeros(len(updates))
    result, measurements = _apply(name, updates, num_examples=nothing)
    np.testing.assert_array_equal(result, np.zeros([3]))
    assert measurements['num_empty'] == len(updates)
    assert measurements['num_non_finite'] == 0


def test_zero_update_of_a_client_with_examples_is_a_vote():
  updates = np.float32([[0], [0], [0], [1], [2]])
  assert rules.coordinate_median()(updates) == 0
  assert rules.coordinate_median()(updates, num_examples=[1] * 5) == 0


def test_fraction_counts_those_without_examples():
  """Any two of the four who have something to say may be attackers."""
  updates = _honest(10)
  examples = [1] * 4 + [0] * 6
  measured = rules.krum(0.2).measure(updates, num_examples=examples)[1]
  assert measured['num_byzantine'] == 2 and measured['cohort_too_small']


@pytest.mark.parametrize('n', [1, 4])
@pytest.mark.parametrize('name', _without())
def test_without_finite_updates(name, n):
  result, measurements = _apply(name, np.full([n, 3], np.nan, np.float32))
  lost = _reference(3) if name == 'centered_clipping' else np.zeros([3])
  np.testing.assert_array_equal(result, lost)
  np.testing.assert_array_equal(
      measurements.get('weights', np.zeros([n])), np.zeros([n])
  )
  assert measurements['num_non_finite'] == n


@pytest.mark.parametrize('name', _without({'fltrust'}))
def test_one_client_and_equal_clients(name):
  update = _honest(1)
  for n in (1, 2, 7):
    np.testing.assert_allclose(
        _apply(name, np.tile(update, [n, 1]))[0], update[0], rtol=1e-6
    )
  np.testing.assert_array_equal(
      _apply(name, np.zeros([5, 3]), np.zeros([3]))[0], np.zeros([3])
  )


@pytest.mark.parametrize('name', _without(_DEPENDS_ON_ORDER))
def test_permutation_of_clients(name):
  updates = _honest()
  order = np.random.default_rng(1).permutation(11)
  result, measurements = _apply(name, updates)
  permuted, after = _apply(name, updates[order])
  np.testing.assert_allclose(permuted, result, atol=1e-6)
  if 'weights' in measurements:
    np.testing.assert_allclose(
        after['weights'], measurements['weights'][order], atol=1e-9
    )


@pytest.mark.parametrize('name', _without(_IS_ABOUT_ZERO))
def test_translation_by_a_hundred_times_the_spread(name):
  # Multiples of 1/256, so that sums are exact.
  updates = np.round(_honest(d=300) * 256) / 256
  offset = np.round(tables.random_updates(1, 300, seed=1) * 100)
  reference = _reference(300)
  result, _ = _apply(name, updates, reference)
  moved, _ = _apply(name, updates + offset, reference + offset[0])
  np.testing.assert_allclose(moved, result + offset[0], atol=5e-5)


@pytest.mark.parametrize('name', _without(_IS_ABOUT_ZERO))
def test_offset_of_1e9_is_harmless(name):
  offset = np.zeros([1, 30], np.float32)
  offset[0, 7] = 1e9
  updates = _honest(n=12, d=30) * (offset == 0)
  reference = _reference(30) * (offset[0] == 0)
  result, _ = _apply(name, updates, reference)
  moved, _ = _apply(name, updates + offset, reference + offset[0])
  np.testing.assert_allclose(moved, result + offset[0], atol=1e-5)
  if name == 'dnc':
    return  # A far client leaves it no digit to tell the others apart by.
  # Nor does it help to be far on the other side, and first.
  updates[0, 7] = -3e9
  result, _ = _apply(name, updates, reference)
  moved, _ = _apply(name, updates + offset, reference + offset[0])
  others = offset[0] == 0
  np.testing.assert_allclose(moved[others], result[others], atol=1e-5)


def _large_offsets(d):
  one, mixed = np.zeros(d), np.resize([1e9, 1.0, -1e6, 0.0], d)
  one[7] = 1e8
  return {'one': one, 'all': np.full(d, 1e9), 'mixed': mixed}


@pytest.mark.parametrize('kind', _large_offsets(30))
@pytest.mark.parametrize('name', _without(_IS_ABOUT_ZERO))
def test_large_offsets_are_harmless(name, kind):
  """Also in the coordinates that differ, and with the same clients chosen."""
  # Multiples of 2^-16, which an offset of 1e9 leaves exact.
  updates = np.round(_honest(12, 30).astype(np.float64) * 2**16) / 2**16
  updates[3] += 8.0
  offset = _large_offsets(30)[kind]
  reference = np.ones(30)
  result, measured = _RULES[name].measure(updates, reference=reference)
  moved, after = _RULES[name].measure(
      updates + offset, reference=reference + offset
  )
  np.testing.assert_allclose(moved - offset, result, atol=1e-5)
  if 'weights' in measured:
    np.testing.assert_allclose(after['weights'], measured['weights'], atol=1e-6)


@pytest.mark.parametrize('kind', _large_offsets(30))
@pytest.mark.parametrize('name', sorted(_IS_ABOUT_ZERO))
def test_large_offsets_leave_rules_about_zero_near_the_updates(name, kind):
  """By definition they differ there, but by no more than rounding."""
  updates = _honest(12, 30).astype(np.float64) + _large_offsets(30)[kind]
  result, _ = _RULES[name].measure(updates, reference=updates[0])
  distances = np.linalg.norm(updates - updates.mean(axis=0), axis=1)
  offset = np.linalg.norm(_large_offsets(30)[kind])
  assert (
      np.linalg.norm(result - updates.mean(axis=0))
      <= distances.max() + 1e-5 * offset
  )


@pytest.mark.parametrize('name', _without())
def test_products_are_symmetric_to_the_last_bit(name):
  """Also about zero and a reference, of rows with an offset, and mixed."""
  seen = []

  def look(cohort):
    seen.extend(
        [
            cohort.squared_distances,
            cohort.products_about_zero,
            cohort.products_about_reference,
        ]
    )
    return decide(cohort)

  rule = pickle.loads(pickle.dumps(_RULES[name]))
  inner = rule
  while hasattr(inner, '_inner'):
    inner = inner._inner  # pylint: disable=protected-access
  decide, inner.decide = inner.decide, look
  for offset in (0.0, 300.0):
    updates = tables.random_updates(13, 500) + np.float32(offset)
    rule.measure(updates, reference=_reference(500))
  for products in seen:
    np.testing.assert_array_equal(products, products.T)


def test_norms_that_are_equal_but_for_rounding_are_not_clipped():
  updates = tables.random_updates(9, 500)
  updates /= np.linalg.norm(updates, axis=1, keepdims=True)
  for rule in (
      rules.median_norm_bounding(rules.krum(1)),
      rules.arc(rules.krum(1), 1),
  ):
    assert rule.measure(updates)[1]['num_clipped'] == 0
  measured = rules.sign_guard(lower=1, upper=1, seed=1).measure(updates)[1]
  assert measured['num_norm_rejected'] == 0


def test_fltrust_trusts_no_product_that_is_rounding():
  rng = np.random.default_rng(0)
  for dtype in (np.float32, np.float64):
    reference = rng.normal(size=1000)
    updates = rng.normal(size=[5, 1000])
    updates -= np.outer(updates @ reference, reference) / np.sum(reference**2)
    result, measured = rules.fltrust().measure(
        updates.astype(dtype), reference=reference
    )
    assert measured['num_trusted'] == 0 and not result.any()


@pytest.mark.parametrize('scale', [1024.0, -(2.0**-30)])
@pytest.mark.parametrize('name', _without())
def test_scale(name, scale):
  updates = _honest()
  result, _ = _apply(name, updates)
  scaled, _ = _apply(name, scale * updates, scale * _reference(40))
  np.testing.assert_allclose(scaled / scale, result, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', _without(_NOT_ROTATED))
def test_rotation(name):
  updates = _honest().astype(np.float64)
  rotation = np.linalg.qr(tables.random_updates(40, 40, seed=3))[0]
  rotation = rotation.astype(np.float64)
  result, _ = _apply(name, updates)
  rotated, _ = _apply(name, updates @ rotation, _reference(40) @ rotation)
  np.testing.assert_allclose(rotated, result @ rotation, atol=1e-5)


@pytest.mark.parametrize('name', _without(_USES_REFERENCE))
def test_reference_is_for_those_who_use_it(name):
  updates = _honest()
  result, _ = _apply(name, updates, 100 * _reference(40))
  np.testing.assert_allclose(result, _RULES[name](updates), atol=1e-6)


@pytest.mark.parametrize('sign', [1.0, -1.0])
@pytest.mark.parametrize('name', _without(_TRUSTS_THE_FAR))
def test_far_minority_does_not_take_over(name, sign):
  honest = _honest(11, seed=5)
  updates = np.concatenate([np.full([2, 40], sign * 9e14), honest])
  result, _ = _apply(name, updates.astype(np.float32))
  assert np.linalg.norm(result) < 2 * np.linalg.norm(honest, axis=1).max()


@pytest.mark.parametrize('name', _without())
def test_f_may_be_a_fraction_of_all_clients(name):
  updates = _honest(12)
  updates[3] = np.nan
  if 'num_byzantine' not in _apply(name, updates)[1]:
    return
  expected, _ = _apply(name, updates)
  # 2 of 12, also where that is a little less in floating point.
  by_fraction = _MAKERS[name](num_byzantine=2 / 12)
  result, measurements = by_fraction.measure(updates, reference=_reference(40))
  np.testing.assert_array_equal(result, expected)
  assert measurements['num_byzantine'] == 2


@pytest.mark.parametrize(
    'fraction, n, f',
    [(0.0, 10, 0), (0.29, 100, 29), (0.3, 9, 2), (0.999, 3, 2)],
)
def test_fraction_is_rounded_down(fraction, n, f):
  rule = rules.trimmed_mean(fraction)
  assert rule.measure(tables.random_updates(n))[1]['num_byzantine'] == f


def test_coordinates_beyond_a_block():
  # Blocks have 4096 columns; the last is cut, and here overlaps the one before.
  for d in (4095, 4096, 4097, 8200):
    updates = _honest(6, d)
    np.testing.assert_allclose(
        rules.coordinate_median()(updates), np.median(updates, axis=0)
    )
    distances = tables.squared_distances(updates)
    weights = rules.krum(1).measure(updates)[1]['weights']
    assert weights.argmax() == np.argmin(
        np.sort(distances, axis=1)[:, 1:4].sum(axis=1)
    )
    updates[2, d - 1] = np.nan
    assert rules.krum(1).measure(updates)[1]['num_non_finite'] == 1


# Random numbers.

_RANDOM = {
    'dnc': rules.dnc(2, num_sampled=3, seed=5),
    'sign_guard': rules.sign_guard(coordinate_fraction=0.05, seed=5),
    'flame': rules.flame(noise_multiplier=0.1, seed=5),
    'crfl': rules.crfl(noise_multiplier=0.1, seed=5),
    'bucketing': rules.bucketing(rules.krum(1), seed=5),
    'nnm': rules.nnm(rules.dnc(2, num_sampled=3, seed=5)),
}


@pytest.mark.parametrize('name', sorted(_RANDOM))
def test_seed_and_round_fix_the_draw(name):
  rule, updates = _RANDOM[name], _honest(21)
  assert rule.is_random
  results = [rule(updates, round_num=r) for r in (0, 0, 1, 2, 3, 4, 5)]
  np.testing.assert_array_equal(results[0], results[1])
  assert any(np.any(results[0] != other) for other in results[2:])


def test_other_rules_draw_nothing():
  for name in _without(_RANDOM, _IS_BUCKETED):
    assert not _RULES[name].is_random


# Arguments.


def test_sequences_of_vectors():
  updates = _honest(5)
  np.testing.assert_array_equal(
      rules.krum(1)(list(updates)), rules.krum(1)(updates)
  )


@pytest.mark.parametrize(
    'updates, error, message',
    [
        ([], ValueError, 'found none'),
        ([np.ones(2), np.ones(3)], ValueError, r'found the shapes \[\(2,\), '),
        (np.ones([3]), ValueError, r'found the shape \(3,\)'),
        (np.ones([3, 0]), ValueError, r'found the shape \(3, 0\)'),
        (np.ones([3, 2], int), TypeError, 'must be floats; found int64'),
    ],
)
def test_refuses_what_is_no_table(updates, error, message):
  with pytest.raises(error, match=message):
    rules.coordinate_median()(updates)


def test_refuses_counts_of_another_number():
  with pytest.raises(ValueError, match=r'each of 3 updates; .*shape \(2,\)'):
    rules.coordinate_median()(_honest(3, 6), num_examples=[1, 0])


def test_refuses_a_reference_of_another_shape():
  with pytest.raises(ValueError, match=r'the shape \(6,\).*found \(5,\)'):
    rules.centered_clipping()(_honest(3, 6), reference=np.ones(5))


@pytest.mark.parametrize('shapes', [[(5,)], [(2, 2), (2, 2)], [()] * 7])
def test_refuses_shapes_of_another_size(shapes):
  with pytest.raises(ValueError, match='shapes must have 6 entries.*found'):
    rules.krum(1)(_honest(3, 6), shapes=shapes)


_TAKE_F = sorted(
    name
    for name, make in rules.RULES.items()
    if 'num_byzantine' in inspect.signature(make).parameters
)


@pytest.mark.parametrize(
    'num_byzantine, error, found',
    [
        ('3', TypeError, "found '3'"),
        (True, TypeError, 'found True'),
        (-1, ValueError, 'found -1'),
        (1.0, ValueError, 'found 1.0'),
        (float('nan'), ValueError, 'found nan'),
    ],
)
@pytest.mark.parametrize('name', _TAKE_F)
def test_refuses_a_wrong_f(name, num_byzantine, error, found):
  with pytest.raises(error, match=f'num_byzantine.*{found}'):
    rules.RULES[name](num_byzantine)
  rules.RULES[name](np.int64(2))
  rules.RULES[name](np.float64(0.25))


@pytest.mark.parametrize(
    'name, options, error, message',
    [
        ('krum', {'num_selected': 0}, ValueError, 'num_selected .*found 0'),
        ('krum', {'num_selected': 2.0}, TypeError, 'num_selected .*found 2.0'),
        ('geometric_median', {'smoothing': 1.0}, ValueError, 'smoothing .*1.0'),
        ('geometric_median', {'tolerance': '1'}, TypeError, "tolerance .*'1'"),
        ('geometric_median', {'max_iterations': 0}, ValueError, 'max_iter'),
        ('centered_clipping', {'clipping_radius': 0.0}, ValueError, 'clipping'),
        ('centered_clipping', {'num_iterations': 1.5}, TypeError, 'num_iter'),
        ('dnc', {'num_iterations': 0}, ValueError, 'num_iterations .*found 0'),
        ('dnc', {'num_sampled': 0}, ValueError, 'num_sampled .*found 0'),
        ('dnc', {'filter_fraction': 0.0}, ValueError, 'filter_fraction .*0.0'),
        ('sign_guard', {'lower': 1.1}, ValueError, 'lower .*found 1.1'),
        ('sign_guard', {'upper': 0.9}, ValueError, 'upper .*found 0.9'),
        ('sign_guard', {'coordinate_fraction': 0.0}, ValueError, 'coordinate'),
        ('sign_guard', {'seed': -1}, ValueError, 'seed .*found -1'),
        ('foolsgold', {'confidence': 0.0}, ValueError, 'confidence .*0.0'),
        ('flame', {'noise_multiplier': -1}, ValueError, 'noise_multiplier'),
        ('flame', {'seed': 1.5}, TypeError, 'seed .*found 1.5'),
        ('fltrust', {'seed': 1}, TypeError, 'seed'),
    ],
)
def test_refuses_wrong_options(name, options, error, message):
  with pytest.raises(error, match=message):
    _make(name, **options)


# Wrappers.


def test_wrappers_take_the_inner_f():
  krum = rules.krum(num_byzantine=2)
  assert repr(rules.nnm(krum)) == repr(rules.nnm(krum, 2))
  assert repr(rules.nnm(krum, 3)) == repr(rules.nnm(krum, num_byzantine=3))
  assert repr(rules.arc(rules.nnm(krum))) == repr(rules.arc(rules.nnm(krum), 2))
  with pytest.raises(TypeError, match='num_byzantine'):
    rules.nnm(rules.coordinate_median())


@pytest.mark.parametrize('name', sorted(rules.WRAPPERS))
def test_wrappers_wrap_rules_only(name):
  with pytest.raises(TypeError, match=f'{name} wraps a rule.*found None'):
    rules.WRAPPERS[name](None)


def test_wrappers_compose():
  """A wrapped rule on a table is the rule on what the wrapper makes of it."""
  updates = _honest(12)
  mixed = np.stack(list(_nearest_means(updates, 2)))
  mixed_twice = np.stack(list(_nearest_means(mixed, 1)))
  for inner in (rules.krum(2, num_selected=3), rules.trimmed_mean(2)):
    wrapped = rules.nnm(rules.nnm(inner, 1), 2)
    np.testing.assert_allclose(wrapped(updates), inner(mixed_twice), atol=1e-6)
  dnc = rules.dnc(2, num_sampled=5, seed=1)
  np.testing.assert_allclose(rules.nnm(dnc)(updates), dnc(mixed), atol=1e-6)
  norms = np.linalg.norm(updates, axis=1, keepdims=True)
  clipped = updates * np.minimum(1, np.median(norms) / norms)
  bucketed = rules.bucketing(dnc, seed=2)
  np.testing.assert_allclose(
      rules.median_norm_bounding(bucketed)(updates),
      bucketed(clipped),
      atol=1e-6,
  )


def _nearest_means(updates, f):
  for row in tables.squared_distances(updates):
    nearest = np.argsort(row, kind='stable')[: len(updates) - f]
    yield updates[nearest].mean(axis=0)
