"""The equations of FedAOT: hand numbers, invariances and the reference."""

import itertools

import numpy as np
import pytest

import fedaot
from fedaot import equations
from fedaot import sketch
from fedaot.namespace import NUMPY
from tests.reference import fedaot_reference

_DIMENSION = 100
_SKETCH = 16
_CONFIG = fedaot.FedAOTConfig()
_MODES = pytest.mark.parametrize('mode', ['holdout', 'agreement'])


def _flat_signs():
  signs = sketch.draw_signs(np.random.default_rng(17), _DIMENSION, _SKETCH)
  return signs.table.ravel()[:_DIMENSION].astype(float)


def _fold(vector, num_groups=2):
  """[G, m], the sketches of groups of equally many coordinates."""
  parts = zip(np.split(vector, num_groups), np.split(_flat_signs(), num_groups))
  return np.stack(
      [
          fedaot_reference.fold_sketch(part, signs, _SKETCH)
          for part, signs in parts
      ]
  )


def _table(updates, num_groups=2):
  """Norms and sketches; zeros for what is not usable."""
  with np.errstate(all='ignore'):
    norms = np.linalg.norm(updates, axis=1)
  usable = norms < _CONFIG.max_norm
  return {
      'finite': usable.astype(float),
      'norm': np.where(usable, norms, 0.0),
      'sketch': np.stack(
          [
              _fold(u if ok else 0 * _flat_signs(), num_groups)
              for u, ok in zip(updates, usable)
          ]
      ),
      'profile': np.stack(
          [
              _profile(u) if ok else np.zeros(len(u))
              for u, ok in zip(updates, usable)
          ]
      ),
  }


def _profile(update):
  """A share for each coordinate, of which there are fewer than blocks."""
  with np.errstate(all='ignore'):
    return fedaot_reference.profile(np.asarray(update, float), [len(update)])


def _holdout_statistics(updates, reference, root):
  table = _table(updates, num_groups=1)
  usable = table['finite'] > 0
  for name, direction in (('reference', reference), ('root', root)):
    products = np.zeros(len(updates))
    products[usable] = np.asarray(updates)[usable] @ direction
    table[f'dot_{name}'] = products
  return equations.holdout_statistics(
      NUMPY,
      table,
      np.linalg.norm(reference),
      {'norm': np.linalg.norm(root), 'profile': _profile(root)},
      _CONFIG,
  )


def _memory(reference=None, **known):
  """A memory of nothing but what is given."""
  zeros = np.zeros([2, _SKETCH])
  found = equations.Memory(zeros, zeros, np.array(1.0), np.array(0.0))
  if reference is not None:
    found = found._replace(reference=reference, age=np.array(5.0))
  return found._replace(**known)


def _agreement_statistics(updates, reference=None):
  statistics, _, _ = equations.agreement_statistics(
      NUMPY, _table(updates), _memory(reference), _CONFIG
  )
  return statistics


def _start(has_holdout=False, config=_CONFIG):
  return equations.initial_weighting(NUMPY, config, has_holdout=has_holdout)


def _weights(statistics, finite=None):
  if finite is None:
    finite = np.ones_like(statistics.clip)
  return equations.weights(
      NUMPY,
      _start(statistics.z.shape[1] == len(equations.HOLDOUT_STATISTICS)),
      statistics.z,
      statistics.log_base,
      finite,
  )


def _honest(rng, num_clients, center=None):
  """Updates [N, d] that scatter around a common center."""
  if center is None:
    center = rng.normal(size=_DIMENSION)
  return center + rng.normal(size=[num_clients, _DIMENSION])


def _statistics_of(mode, updates, center, scale=1.0):
  """Statistics in either mode, with a reference and a root along `center`."""
  if mode == 'holdout':
    return _holdout_statistics(updates, center, scale * center)
  return _agreement_statistics(updates, _fold(center))


# --- Quantiles ---------------------------------------------------------------


def _weighted_quantile(values, weights, quantile):
  return equations.weighted_quantile(
      NUMPY, np.asarray(values, float), np.asarray(weights, float), quantile
  )


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
  np.testing.assert_allclose(result, expected, rtol=1e-12)


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
          atol=1e-12,
      )


def test_weighted_quantile_ignores_the_order_even_of_tied_values():
  values, weights = np.array([1.0, 1.0, 2.0]), np.array([0.1, 0.5, 0.4])
  found = [
      _weighted_quantile(values[order], weights[order], 0.5)
      for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1])
  ]
  np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_weighted_quantiles_of_rows_are_those_of_each():
  rng = np.random.default_rng(5)
  rows, weights = rng.normal(size=[6, 9]), rng.uniform(size=9)
  rows[2, :4] = rows[2, 5]
  weights[3] = 0
  for w in (weights, np.zeros(9)):
    np.testing.assert_allclose(
        equations.weighted_quantile(NUMPY, rows, w, 0.3),
        [_weighted_quantile(row, w, 0.3) for row in rows],
    )


@pytest.mark.parametrize(
    'norms, weights, expected',
    [
        # Three of five are 60 %: 3, 4 and 5 are densest.
        ([1.0, 2, 3, 4, 5], [1, 1, 1, 1, 1], 4),
        ([100.0, 3, 3.1, 3.2, 0.01], [1, 1, 1, 1, 1], 3.1),
        ([9.0, 9, 1, 2, 1.5], [1, 1, 1, 1, 1], 1.5),
        # Copies share a weight; who has none is not there.
        ([9.0, 9, 9, 1, 1.5, 2], [0.3, 0.3, 0.3, 1, 1, 1], 1.5),
        ([9.0, 9, 9, 1, 1.5, 2], [0, 0, 0, 1, 1, 1], 1.75),
        ([0.0, 0, 0, 5, 6], [1, 1, 1, 1, 1], 0),
        ([7.0], [1], 7),
        ([7.0, 8], [0, 0], 0),
    ],
)
def test_typical_norm_by_hand(norms, weights, expected):
  for order in (slice(None), slice(None, None, -1)):
    found = equations.typical_norm(
        NUMPY, np.array(norms)[order], np.array(weights, float)[order], 0.6
    )
    np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize('num_clients', range(5, 105, 5))
def test_exactly_the_share_is_enough_for_a_typical_norm(num_clients):
  close = np.linspace(1.0, 1.1, 3 * num_clients // 5)
  far = np.geomspace(3.0, 1e3, num_clients - len(close))
  for norms in (np.concatenate([close, far]), np.concatenate([1 / far, close])):
    found = equations.typical_norm(NUMPY, norms, np.full(len(norms), 0.1), 0.6)
    np.testing.assert_allclose(found, 1.05)


def test_typical_norm_equals_a_search_of_all_intervals():
  rng = np.random.default_rng(6)
  for _ in range(50):
    norms = np.exp(rng.normal(size=rng.integers(1, 12)))
    weights = rng.uniform(-0.2, 1.0, size=len(norms)).clip(0)
    np.testing.assert_allclose(
        equations.typical_norm(NUMPY, norms, weights, 0.6),
        fedaot_reference.typical_norm(norms, weights, 0.6),
    )


def _standardize(values, floor):
  values = np.asarray(values, float)
  return equations.standardize(NUMPY, values, np.ones(len(values)), floor, 10.0)


def test_standardize_by_hand_and_bounded():
  # Median 3, upper quartile 4.25.
  values = np.arange(1.0, 6.0)
  np.testing.assert_allclose(
      _standardize(values, 0.1), (values - 3) / (1.4826 * 1.25 + 0.1)
  )
  z = _standardize([0.0] * 6 + [5.0, -5.0], 1e-3)
  np.testing.assert_allclose(z, [0] * 6 + [10, -10])


def test_standardize_has_no_spread_from_below_the_median():
  wide = _standardize([-90, -80, 3, 4, 5], 0.1)
  narrow = _standardize([1, 2, 3, 4, 5], 0.1)
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
  return updates


def _check_against_reference(found, expected, updates):
  finite = expected['finite']
  for name, value in (('values', 'statistics'), ('z', 'z')):
    np.testing.assert_allclose(
        getattr(found, name)[finite],
        expected[value][finite],
        atol=1e-9,
        err_msg=name,
    )
  np.testing.assert_allclose(found.norm_bound, expected['norm_bound'])
  np.testing.assert_allclose(
      _weights(found, finite.astype(float)), expected['weights'], atol=1e-9
  )
  np.testing.assert_allclose(
      found.clip[finite, None] * updates[finite], expected['clipped'][finite]
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
  expected = model.aggregate(updates, root)
  _check_against_reference(found, expected, updates)
  finite = expected['finite']
  np.testing.assert_allclose(
      found.log_base[finite],
      np.log(expected['copies_discount'][finite]),
      atol=1e-9,
  )


def _agreement_reference():
  return fedaot_reference.AgreementReference(
      signs=np.split(_flat_signs(), 2), sketch_dimension=_SKETCH
  )


@pytest.mark.parametrize('seed', range(10))
def test_agreement_decision_equals_the_reference(seed):
  rng = np.random.default_rng(seed)
  center = rng.normal(size=_DIMENSION)
  updates = _rough_cohort(rng, center)
  if seed > 5:
    # Colluders who are alike, some of whom turned a layer.
    updates[-4:] = rng.normal(size=_DIMENSION)
    updates[-4:] += 0.5 * rng.normal(size=[4, _DIMENSION])
    updates[-6:-4, 50:] *= -1
  model = _agreement_reference()
  memory = _memory()
  if seed:
    sign = -1 if seed == 4 else 1
    model.reference = _fold(sign * center + rng.normal(size=_DIMENSION))
    model.camp_memory = 0.1 * rng.normal(size=[2, _SKETCH])
    model.support, model.age = 0.53, 3
    memory = equations.Memory(
        model.reference, model.camp_memory, np.array(0.53), np.array(3.0)
    )
  expected = model.next(updates)
  found = equations.decide(
      NUMPY, _start(), _table(updates), memory, None, _CONFIG
  )
  _check_against_reference(found, expected, updates)
  finite = expected['finite']
  np.testing.assert_allclose(
      found.log_base[finite], expected['log_base'][finite], atol=1e-9
  )
  np.testing.assert_allclose(found.weights, expected['weights'], atol=1e-9)
  for name, value in found.memory._asdict().items():
    np.testing.assert_allclose(
        value, getattr(model, name), atol=1e-9, err_msg=name
    )
  if seed == 4:  # The reference that most oppose was forgotten.
    assert found.memory.age == 1


def test_pair_cosines_tie_for_closest_neighbours():
  rng = np.random.default_rng(6)
  for num_clients in range(5, 25):
    rows = rng.normal(size=[num_clients, 256])
    finite = np.array([0.0] + [1.0] * (num_clients - 1))
    cosines = equations.pair_cosines(
        NUMPY, equations._unit_rows(NUMPY, rows), finite
    )
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
  for name in ('values', 'z', 'log_base', 'clip'):
    np.testing.assert_allclose(
        getattr(statistics, name)[order],
        getattr(permuted, name),
        atol=1e-9,
        err_msg=name,
    )
  np.testing.assert_allclose(statistics.norm_bound, permuted.norm_bound)
  np.testing.assert_allclose(_weights(statistics)[order], _weights(permuted))


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
  np.testing.assert_allclose(_weights(scaled), _weights(statistics), rtol=1e-9)
  np.testing.assert_allclose(scaled.norm_bound, scale * statistics.norm_bound)
  np.testing.assert_allclose(scaled.clip, statistics.clip)


@_MODES
def test_weights_sum_to_one_and_prefer_the_honest(mode):
  rng = np.random.default_rng(12)
  center = rng.normal(size=_DIMENSION)
  updates = _honest(rng, 10, center)
  updates[:3] *= -1
  weights = _weights(_statistics_of(mode, updates, center))
  np.testing.assert_allclose(weights.sum(), 1)
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
    discount = np.exp(statistics.log_base[:num_copies])
    np.testing.assert_allclose(num_copies * discount, 1, atol=0.15)
    weights = _weights(statistics)
    assert weights[:num_copies].sum() < 1.2 * weights[num_copies:].mean()


def _same_data(num_same, num_other, num_attackers, to_root, to_reference):
  """Copies, other honest clients, and attackers who differ, with a hold-out.

  In a round in which the cosines with the root, of the honest and of the
  attackers, tell little, and those with the reference much.
  """
  rng = np.random.default_rng(21)

  def along(cosines, size, spread):
    root, reference = np.eye(_DIMENSION)[:2]
    rest = spread * rng.normal(size=[size, _DIMENSION])
    rest += rng.normal(size=_DIMENSION)
    rest[:, :2] = 0
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    length = np.sqrt(1 - cosines[0] ** 2 - cosines[1] ** 2)
    return cosines[0] * root + cosines[1] * reference + length * rest

  updates = np.concatenate(
      [
          along((to_root[0], to_reference[0]), num_same, 0.02),
          along((to_root[0], to_reference[0]), num_other, 0.5),
          along((to_root[1], to_reference[1]), num_attackers, 1.0),
      ]
  )
  return _holdout_statistics(
      updates, np.eye(_DIMENSION)[1], np.eye(_DIMENSION)[0]
  )


@pytest.mark.parametrize(
    'to_root, to_reference',
    [
        ((-0.02, -0.05), (0.9, -0.45)),
        ((0.09, 0.03), (0.85, -0.6)),
        ((-0.09, 0.1), (0.9, -0.9)),
        ((0.3, 0.2), (0.7, -0.5)),
    ],
)
@pytest.mark.parametrize('cohort', [(7, 0, 3), (5, 2, 3), (4, 0, 6), (2, 0, 3)])
def test_copies_do_not_lose_to_attackers_who_differ(
    cohort, to_root, to_reference
):
  statistics = _same_data(*cohort, to_root, to_reference)
  weights = _weights(statistics)
  assert weights[-cohort[2] :].sum() < 0.05
  # The copies still weigh no more than one.
  assert np.exp(statistics.log_base[: cohort[0]]).sum() < 1.3


def test_colluding_copies_gain_nothing_by_the_reference():
  """Twelve of twenty send one vector, as much along the reference as others."""
  rng = np.random.default_rng(22)
  center = rng.normal(size=_DIMENSION)
  honest = _honest(rng, 8, center)
  for copy in (honest.mean(axis=0), honest[0], 2 * honest.mean(axis=0)):
    statistics = _holdout_statistics(
        np.concatenate([np.tile(copy, [12, 1]), honest]), center, center
    )
    assert _weights(statistics)[:12].sum() < 0.3


def test_a_majority_against_the_root_moves_no_median_with_a_holdout():
  rng = np.random.default_rng(14)
  root = rng.normal(size=_DIMENSION)
  honest = _honest(rng, 8, root)
  attackers = -10 * _honest(rng, 12, root)
  alone = _holdout_statistics(honest, root, root)
  together = _holdout_statistics(
      np.concatenate([honest, attackers]), root, root
  )
  assert _weights(together)[8:].sum() < 1e-3
  assert np.all(together.z[8:, :2] == -10)
  np.testing.assert_allclose(together.norm_bound, alone.norm_bound, rtol=0.15)


@pytest.mark.parametrize('size', [0.0, 1e-3])
def test_majority_of_short_updates_does_not_shorten_the_others(size):
  rng = np.random.default_rng(14)
  root = rng.normal(size=_DIMENSION)
  honest = _honest(rng, 8, root)
  short = size * rng.normal(size=[12, _DIMENSION])
  statistics = _holdout_statistics(np.concatenate([honest, short]), root, root)
  alone = _holdout_statistics(honest, root, root)
  np.testing.assert_allclose(statistics.norm_bound, alone.norm_bound, rtol=0.05)
  np.testing.assert_array_equal(statistics.clip[:8], 1.0)


def test_norm_bound_is_capped_by_the_root_with_a_holdout():
  rng = np.random.default_rng(15)
  root = rng.normal(size=_DIMENSION)
  updates = 5 * _honest(rng, 6, root)
  statistics = _holdout_statistics(updates, root, root)
  root_norm = np.linalg.norm(root)
  norms = np.linalg.norm(updates, axis=1)
  np.testing.assert_allclose(statistics.norm_bound, 1.5 * root_norm)
  np.testing.assert_allclose(
      statistics.clip, np.minimum(1, 3.0 * root_norm / norms)
  )


def test_copies_and_zeros_hardly_shorten_the_others_without_a_holdout():
  rng = np.random.default_rng(17)
  honest = _honest(rng, 9)
  norms = np.sort(np.linalg.norm(honest, axis=1))
  short = np.repeat(0.2 * _honest(rng, 1), 7, axis=0)
  for others in (short, 0 * short, 1e-3 * short):
    updates = np.concatenate([honest, others])
    bound = _agreement_statistics(updates).norm_bound
    # Among the middle ones of the honest norms.
    assert norms[2] <= bound <= norms[6]
    assert bound > 1.01 * np.median(np.linalg.norm(updates, axis=1))


def test_norm_bound_is_near_the_median_without_a_holdout():
  """Nobody can make honest clients look like copies to send long updates."""
  rng = np.random.default_rng(18)
  honest = np.repeat(_honest(rng, 1), 9, axis=0)
  updates = np.concatenate([honest, 5 * _honest(rng, 7)])
  statistics = _agreement_statistics(updates)
  np.testing.assert_allclose(
      statistics.norm_bound, 1.5**2 * np.linalg.norm(honest[0])
  )


def test_profile_divergence_by_hand():
  profiles = np.array([[0.5, 0.25, 0.25], [0, 0, 1], [0, 0, 0]])
  config = fedaot.FedAOTConfig(profile_smoothing=0.1)
  # Of .9 (.5, .25, .25) + .1 / 3.
  m = np.array([0.45, 0.225, 0.225]) + 0.1 / 3
  np.testing.assert_allclose(
      equations.profile_divergence(
          NUMPY, profiles, np.array([2.0, 1, 1]), config
      ),
      [np.log(0.25 / m[0] + 0.125 / m[1]), -np.log(m[2]), 0],
  )
  # None to compare with: all shares are even.
  np.testing.assert_allclose(
      equations.profile_divergence(NUMPY, profiles, np.zeros(3), config),
      [np.log(0.375 * 30), np.log(30), 0],
  )


@pytest.mark.parametrize('mode', ['holdout', 'agreement'])
def test_who_writes_where_others_do_not_loses(mode):
  rng = np.random.default_rng(21)
  center = 3 * rng.normal(size=_DIMENSION)
  center[:8] = 0.0
  updates = _honest(rng, 10, center)
  updates[:, :8] *= 1e-3
  # A fifth of the energy, in a place that says nothing about the direction.
  updates[:4, :8] = 0.5 * np.linalg.norm(updates[0]) / np.sqrt(8)
  statistics = _statistics_of(mode, updates, center)
  profile = statistics.values[:, -1]
  assert profile[:4].max() < profile[4:].min() - 1
  weights = _weights(statistics)
  assert weights[:4].sum() < 0.05 and weights[4:].min() > 0.05


def test_colluders_are_copies_without_a_holdout():
  rng = np.random.default_rng(16)
  center = 1.5 * rng.normal(size=_DIMENSION)
  updates = _honest(rng, 12, center)
  updates[:4] = _honest(rng, 1)[0] + 0.1 * rng.normal(size=[4, _DIMENSION])
  statistics = _agreement_statistics(updates)
  assert statistics.log_base[:4].max() < statistics.log_base[4:].min() - 1
  np.testing.assert_array_equal(statistics.values[:, 0], 0)


@pytest.mark.parametrize('shape', [(5, 30), (30, 5), (12, 12)])
@pytest.mark.parametrize('is_weighted', [False, True])
def test_principal_coordinates_are_along_the_first_axis(shape, is_weighted):
  rng = np.random.default_rng(17)
  rows, weights = rng.normal(size=shape), np.ones(shape[0])
  if is_weighted:
    weights = rng.uniform(size=shape[0])
    weights[1] = 0
  found = equations._principal_coordinates(NUMPY, rows, weights)
  _, vectors = np.linalg.eigh((rows * weights[:, None]).T @ rows)
  expected = rows @ vectors[:, -1]
  np.testing.assert_allclose(
      found, expected * np.sign(expected[0] * found[0]), atol=1e-9
  )


@_MODES
def test_degenerate_cohorts_have_finite_statistics(mode):
  for updates in (
      np.zeros([3, _DIMENSION]),
      np.ones([3, _DIMENSION]),
      np.ones([1, _DIMENSION]),
      np.full([2, _DIMENSION], np.nan),
      np.full([2, _DIMENSION], 9.9e14),
      np.full([2, _DIMENSION], 1e-30),
  ):
    for around in (np.ones(_DIMENSION), np.zeros(_DIMENSION)):
      statistics = _statistics_of(mode, updates, around)
      for name, value in statistics._asdict().items():
        assert np.all(np.isfinite(value)), (name, updates[0, 0])


@_MODES
def test_two_unusable_updates_change_nothing_for_the_others(mode):
  rng = np.random.default_rng(18)
  center = rng.normal(size=_DIMENSION)
  good = _honest(rng, 7, center)
  bad = np.full([2, _DIMENSION], np.inf)
  alone = _statistics_of(mode, good, center)
  together = _statistics_of(mode, np.concatenate([bad, good]), center)
  for name in ('values', 'z', 'log_base', 'clip'):
    np.testing.assert_allclose(
        getattr(together, name)[2:], getattr(alone, name), atol=1e-9
    )
  np.testing.assert_allclose(
      _weights(together, np.array([0.0] * 2 + [1.0] * 7)),
      np.concatenate([[0, 0], _weights(alone)]),
      atol=1e-12,
  )


# --- Agreement: support, camps, concordance ----------------------------------


def _units(*rows):
  rows = np.array(rows, float)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _follow_support(cosines, weights=None, **known):
  cosines = np.asarray(cosines, float)
  units = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
  memory = _memory()._replace(
      **{
          'reference': np.array([[2.0, 0.0]]),
          'age': np.array(7.0),
          **{name: np.asarray(value) for name, value in known.items()},
      }
  )
  weights = np.ones(len(cosines)) if weights is None else np.array(weights)
  return equations.follow_support(NUMPY, units, weights, memory, _CONFIG)


def test_support_follows_the_share_in_favour_of_the_reference():
  # Votes are 1, 0, 1/2 and 3/4.
  found, memory = _follow_support([0.9, -0.2, 0.0, 0.025], support=0.8)
  np.testing.assert_allclose(memory.support, 0.7 * 0.8 + 0.3 * 2.25 / 4)
  np.testing.assert_allclose(found, [0.9, -0.2, 0.0, 0.025])
  _, memory = _follow_support([0.9, -0.2], [1.0, 3.0], support=0.8)
  np.testing.assert_allclose(memory.support, 0.7 * 0.8 + 0.3 * 0.25)
  assert memory.age == 7
  _, memory = _follow_support([0.0, 0.0], reference=np.zeros([1, 2]))
  assert memory.support == 1


def test_first_votes_of_support_have_a_plain_mean():
  support, votes = np.array(1.0), [0.6, 0.9, 0.75, 0.5]
  for age, vote in enumerate(votes, 1):
    _, memory = _follow_support(
        [0.1 * vote - 0.05], support=support, age=float(age)
    )
    support = memory.support
    if age < 4:
      np.testing.assert_allclose(support, np.mean(votes[:age]))
  np.testing.assert_allclose(support, 0.7 * 0.75 + 0.3 * 0.5)


def test_a_reference_that_most_oppose_is_forgotten():
  cosines, age = [-0.5, -0.5, -0.5, 0.5], 7
  support, reference = 1.0, np.array([[2.0, 0.0]])
  for _ in range(5):
    found, memory = _follow_support(
        cosines, support=support, reference=reference, age=age
    )
    support, reference, age = memory.support, memory.reference, memory.age
    if not age:
      break
    np.testing.assert_allclose(found, cosines)
  # 1, .775, .6175, .507, .43.
  np.testing.assert_array_equal(found, 0)
  np.testing.assert_array_equal(reference, 0)
  assert support == 1


def test_trust_counts_as_far_as_the_reference_is_supported():
  cosines = np.array([-0.3, 0.0, 0.025, 0.05, 0.9])
  full = np.log([0.05, 0.05, 0.525, 1, 1])
  for support, age, factor in (
      (1.0, 3.0, 1),
      (0.53, 3.0, 0.5),
      (0.5, 3.0, 0),
      (1.0, 0.0, 0),
  ):
    memory = _memory(support=np.array(support), age=np.array(age))
    np.testing.assert_allclose(
        equations.log_reference_trust(NUMPY, cosines, memory, _CONFIG),
        factor * full,
        atol=1e-12,
    )


def test_the_reference_is_a_plain_mean_at_first():
  rng = np.random.default_rng(23)
  center, memory, seen = rng.normal(size=_DIMENSION), _memory(), []
  for age in range(1, 13):
    # One client has all of the weight, at its own norm.
    update = center + 0.1 * rng.normal(size=[1, _DIMENSION])
    memory = equations.decide(
        NUMPY, _start(), _table(update), memory, None, _CONFIG
    ).memory
    assert memory.age == age
    seen.append(_fold(update[0]))
    if age <= 10:
      np.testing.assert_allclose(memory.reference, np.mean(seen, axis=0))
  expected = np.mean(seen[:10], axis=0)
  for row in seen[10:]:
    expected = 0.9 * expected + 0.1 * row
  np.testing.assert_allclose(memory.reference, expected)


def _two_camps(rng, num_first, num_second, dimension=400):
  """Units around two opposed centres, in random order, and who is first."""
  centre = rng.normal(size=dimension)
  side = np.repeat([1.0, -0.5], [num_first, num_second])
  rows = side[:, None] * centre + rng.normal(
      size=[num_first + num_second, dimension]
  )
  order = rng.permutation(len(rows))
  return _units(*rows[order]), side[order] > 0


@pytest.mark.parametrize('sizes', [(12, 8), (8, 12), (18, 2), (3, 2), (60, 40)])
def test_split_camps_finds_them_whoever_has_no_weight(sizes):
  rng = np.random.default_rng(24)
  for _ in range(5):
    units, is_first = _two_camps(rng, *sizes)
    camp = equations.split_camps(NUMPY, units, np.ones(len(units)))
    assert np.array_equal(camp > 0, is_first) or np.array_equal(
        camp > 0, ~is_first
    )
    more = np.concatenate([units, rng.normal(size=units.shape)])
    weights = np.repeat([1.0, 0.0], len(units))
    again = equations.split_camps(NUMPY, more, weights)[: len(units)]
    assert np.array_equal(again, camp) or np.array_equal(again, 1 - camp)


def test_camps_are_the_cut_of_most_scatter_along_the_first_axis():
  rng = np.random.default_rng(32)
  for _ in range(20):
    units, weights = _units(*rng.normal(size=[12, 9])), rng.uniform(size=12)
    camp = equations.split_camps(NUMPY, units, weights)
    expected = fedaot_reference.camps(units, weights)
    np.testing.assert_array_equal(camp == camp[0], expected == expected[0])


def test_camp_distance_by_hand():
  # Pairs inside: .8 and .4; across: 0, 0, .2, .2.
  cosines = np.array(
      [
          [-1.0, 0.8, 0, 0],
          [0.8, -1, 0.2, 0.2],
          [0, 0.2, -1, 0.4],
          [0, 0.2, 0.4, -1],
      ]
  )
  camp = np.array([0.0, 0, 1, 1])
  spread = np.sqrt((2 * 0.2**2 + 4 * 0.1**2) / 6)
  distance = lambda camp, weights: equations.camp_distance(
      NUMPY, cosines, np.array(weights), np.array(camp)
  )
  np.testing.assert_allclose(distance(camp, [1.0] * 4), 0.5 / spread)
  np.testing.assert_allclose(distance(1 - camp, [1.0] * 4), 0.5 / spread)
  # Pairs weigh 1, 0, 1/2 and 1/2: .8; 0, .2.
  spread = np.sqrt((0.5 * 0.1**2 + 0.5 * 0.1**2) / 2)
  np.testing.assert_allclose(distance(camp, [1.0, 1.0, 0.5, 0.0]), 0.7 / spread)
  # No pair inside, or none across.
  assert distance([0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0, 0]) == 0
  assert distance([0.0, 0.0, 0.0, 0.0], [1.0] * 4) == 0


def _camp_trust(units, memory=None, weights=None, config=_CONFIG):
  weights = np.ones(len(units)) if weights is None else weights
  cosines = equations.pair_cosines(NUMPY, units, np.ones(len(units)))
  memory = np.zeros([2, units.shape[1] // 2]) if memory is None else memory
  return equations.log_camp_trust(
      NUMPY, units, cosines, weights, memory, config
  )


def test_a_camp_loses_by_the_votes_of_all_rounds():
  rng = np.random.default_rng(25)
  centre, memory = rng.normal(size=400), None

  def cohort(num_honest, num_attackers):
    side = np.repeat([1.0, -1.0], [num_honest, num_attackers])
    return _units(*(side[:, None] * centre + rng.normal(size=[len(side), 400])))

  for _ in range(3):
    trust, memory = _camp_trust(cohort(12, 8), memory)
    np.testing.assert_allclose(trust[:12], 0, atol=0.5)
    assert np.exp(trust[12:]).max() < 0.2
  # More attackers than honest clients, in one round.
  trust, memory = _camp_trust(cohort(9, 11), memory)
  assert trust[:9].min() > -0.5 and np.exp(trust[9:]).max() < 0.2
  # Without a memory the majority has it.
  trust, _ = _camp_trust(cohort(9, 11))
  assert trust[9:].min() > -0.5 and np.exp(trust[:9]).max() < 0.2


@pytest.mark.parametrize('num_clients', [6, 7, 10, 20])
def test_few_who_have_nothing_in_common_are_no_camps(num_clients):
  rng = np.random.default_rng(34)
  for _ in range(40):
    trust, _ = _camp_trust(_units(*rng.normal(size=[num_clients, 400])))
    assert trust.min() > -0.1


def test_it_does_not_matter_which_camp_is_which(monkeypatch):
  rng = np.random.default_rng(26)
  units, _ = _two_camps(rng, 11, 9)
  memory = 0.1 * rng.normal(size=[2, 200])
  expected = _camp_trust(units, memory)
  split = equations.split_camps
  monkeypatch.setattr(
      equations, 'split_camps', lambda *args: 1.0 - split(*args)
  )
  for found, value in zip(_camp_trust(units, memory), expected):
    np.testing.assert_allclose(found, value, atol=1e-12)
  assert np.any(expected[0])


def test_no_camp_loses_a_tie_or_where_there_are_no_two():
  rng = np.random.default_rng(27)
  centre = rng.normal(size=40)
  for units in (
      # Equal masses; two clients; one; all alike; nothing in common.
      _units(*np.repeat([centre, -centre], 5, axis=0)),
      _units(centre, -centre),
      _units(centre),
      _units(*np.repeat([centre], 6, axis=0)),
      np.eye(6, 40),
      np.zeros([3, 40]),
  ):
    trust, memory = _camp_trust(units)
    np.testing.assert_allclose(trust, 0, atol=1e-12)
    assert np.all(np.isfinite(memory))
  # Masses that are equal but for rounding.
  units = _units(*np.repeat([centre, -centre], [3, 2], axis=0))
  weights = np.array([0.1, 0.2, 0.3, 0.3, 0.3])
  assert weights[:3].sum() != weights[3:].sum()
  trust, _ = _camp_trust(units, weights=weights)
  np.testing.assert_array_equal(trust, 0)


def _layers(rng, num_honest, num_turned, num_groups=2, dimension=200):
  """Sketches [N, G, m] of honest clients and others who turned the last."""
  centre = rng.normal(size=[num_groups, dimension])
  rows = centre + rng.normal(
      size=[num_honest + num_turned, num_groups, dimension]
  )
  rows[num_honest:, -1] *= -1
  return rows


@pytest.mark.parametrize('sizes', [(12, 8), (11, 9), (19, 1), (4, 2), (60, 40)])
@pytest.mark.parametrize('num_groups', [2, 3])
def test_who_turned_a_layer_loses_trust(sizes, num_groups):
  rng = np.random.default_rng(28)
  rows = _layers(rng, *sizes, num_groups)
  trust = equations.log_concordance(NUMPY, rows, np.ones(len(rows)), _CONFIG)
  assert trust[: sizes[0]].min() > -0.7
  assert np.exp(trust[sizes[0] :]).max() < 0.1


def test_no_concordance_without_two_groups_or_a_majority():
  rng = np.random.default_rng(29)
  halves = np.repeat(_layers(rng, 1, 1), [3, 2], axis=0)
  for rows, weights in (
      (_layers(rng, 12, 8)[:, :1], np.ones(20)),
      # As many as not; as much weight, but for rounding.
      (np.repeat(_layers(rng, 1, 1), 5, axis=0), np.ones(10)),
      (halves, np.array([0.1, 0.2, 0.3, 0.3, 0.3])),
      (np.zeros([4, 2, 8]), np.ones(4)),
      (rng.normal(size=[1, 2, 8]), np.ones(1)),
  ):
    trust = equations.log_concordance(NUMPY, rows, weights, _CONFIG)
    np.testing.assert_allclose(trust, 0, atol=1e-12)


def test_honest_clients_who_differ_have_concordant_layers():
  rng = np.random.default_rng(30)
  # Each holds two of ten classes, which show in both layers.
  classes = rng.normal(size=[10, 2, 200])
  rows = np.stack(
      [classes[rng.choice(10, 2, replace=False)].sum(axis=0) for _ in range(20)]
  ) + classes.mean(axis=0)
  rows = rows + 0.2 * rng.normal(size=rows.shape)
  trust = equations.log_concordance(NUMPY, rows, np.ones(20), _CONFIG)
  assert np.exp(trust).mean() > 0.9


def test_signs_of_the_majority_are_the_best_there_are():
  rng = np.random.default_rng(31)
  every = np.array(list(itertools.product([1.0, -1.0], repeat=9)))
  # A few near copies, whom half of the others oppose a little.
  relation = 0.2 * np.ones([9, 9])
  relation[:3, :3] = 0.9
  relation[:3, 3:] = [0.1, 0.1, 0.1, -0.1, -0.1, -0.1]
  relation[3:, :3] = relation[:3, 3:].T
  relation *= 1 - np.eye(9)
  np.testing.assert_array_equal(
      equations._majority_signs(NUMPY, relation, np.ones(9)), 1
  )
  for num_turned in (0, 1, 3, 4):
    rows = _layers(rng, 9 - num_turned, num_turned, dimension=30)
    first, second = (
        equations.pair_cosines(NUMPY, _units(*rows[:, g]), np.ones(9))
        * (1 - np.eye(9))
        for g in range(2)
    )
    relation = first * second
    signs = equations._majority_signs(NUMPY, relation, np.ones(9))
    best = np.einsum('si,ij,sj->s', every, relation, every).max()
    np.testing.assert_allclose(signs @ relation @ signs, best)
    assert signs.sum() > 0


# --- Weights -----------------------------------------------------------------


def test_initial_weighting():
  config = fedaot.FedAOTConfig(
      initial_slope=0.7,
      holdout_margin=-1.0,
      agreement_margin=3.0,
      initial_log_sharpness=0.5,
  )
  for has_holdout, margins in ((True, 5 * [-1.0]), (False, 3 * [3.0])):
    theta = _start(has_holdout, config)
    slopes = np.log1p(np.exp(theta['raw_slope']))
    np.testing.assert_allclose(slopes, len(margins) * [0.7])
    np.testing.assert_allclose(theta['margin'], margins)
    np.testing.assert_allclose(theta['log_sharpness'], 0.5)


def test_scores_by_hand():
  z = np.array([[-2.0, -2.0, -2.0], [-2.0, 30.0, 30.0]])
  # softplus(0) = log 2, and a good statistic earns nothing more.
  np.testing.assert_allclose(
      equations.scores(NUMPY, _start(), z),
      [-3 * 1.5 * np.log(2), -1.5 * np.log(2)],
  )
  theta = dict(_start(), log_sharpness=np.log(3.0))
  np.testing.assert_allclose(
      equations.scores(NUMPY, theta, z),
      [-3 * 3 * 1.5 * np.log(2), -3 * 1.5 * np.log(2)],
  )


def test_reference_weights_leave_the_reference_statistic_out():
  z = np.array([[-9.0, 0, 0], [0.0, 0, 0], [0.0, 0, -4], [0, 0, 0]])
  w = equations.reference_weights(
      NUMPY, _start(), z, np.log([1.0, 2, 1, 1]), np.array([1.0, 1, 1, 0])
  )
  np.testing.assert_allclose(w[1] / w[0], 2)
  np.testing.assert_allclose(w[3], 0)
  hinge = lambda z: np.log1p(np.exp(-(z + 2)))
  np.testing.assert_allclose(
      w[2] / w[0], np.exp(-1.5 * (hinge(-4.0) - hinge(0.0)))
  )


def test_softmax_by_hand():
  finite = np.array([1.0, 0.0, 1.0])
  w = equations.softmax(NUMPY, np.log([1.0, 1e9, 3.0]), finite)
  np.testing.assert_allclose(w, [0.25, 0, 0.75])
  np.testing.assert_array_equal(
      equations.softmax(NUMPY, np.array([1.0, 2.0]), np.zeros(2)), [0, 0]
  )
  np.testing.assert_allclose(
      equations.softmax(NUMPY, np.array([-1e4, -1e4, 1e6]), finite * [1, 1, 0]),
      [1, 0, 0],
  )


def test_log_example_weights_by_hand():
  # The median of 10, 20 and 30 is 20, so that the cap is 40.
  log_weights = equations.log_example_weights(
      NUMPY,
      np.array([10.0, 20.0, 0.0, 1e9, 30.0]),
      np.array([1.0, 1.0, 0.0, 0.0, 1.0]),
      2.0,
  )
  np.testing.assert_allclose(np.exp(log_weights), [10, 20, 1, 1, 30])
  log_weights = equations.log_example_weights(
      NUMPY, np.array([10.0, 20.0, 1e9]), np.ones(3), 2.0
  )
  np.testing.assert_allclose(np.exp(log_weights), [10, 20, 40])


def test_decide_of_no_client():
  memory = _memory(np.ones([2, _SKETCH]), camp_memory=np.ones([2, _SKETCH]))
  table = {
      'finite': np.zeros(0),
      'norm': np.zeros(0),
      'sketch': np.zeros([0, 2, _SKETCH]),
      'profile': np.zeros([0, 5]),
  }
  decision = equations.decide(NUMPY, _start(), table, memory, None, _CONFIG)
  assert decision.weights.shape == (0,)
  assert decision.z.shape == (0, 3)
  assert decision.norm_bound == 0
  for found, expected in zip(decision.memory, memory):
    np.testing.assert_array_equal(found, expected)


# --- Meta step ---------------------------------------------------------------


def _random_theta(rng):
  return {
      'raw_slope': 1.2 + 0.3 * rng.normal(size=4),
      'margin': 2.0 + 0.3 * rng.normal(size=4),
      'log_sharpness': np.array(0.2),
  }


def _finite_differences(theta, objective_fn, step=1e-5):
  """Central differences of `objective_fn` in each entry of theta."""
  gradient = {}
  for name, value in theta.items():
    entries = np.zeros(value.shape)
    for position in np.ndindex(*value.shape):
      change = np.zeros(value.shape)
      change[position] = step
      high, low = (
          objective_fn({**theta, name: value + s}) for s in (change, -change)
      )
      entries[position] = (high - low) / (2 * step)
    gradient[name] = entries
  return gradient


def _check_gradient(found, expected, rtol):
  assert list(found) == list(expected)
  for name in found:
    np.testing.assert_allclose(
        found[name], expected[name], rtol=rtol, atol=1e-9, err_msg=name
    )
    assert np.any(found[name])


@pytest.mark.parametrize('penalty', [0.0, 0.7])
def test_objective_gradient_equals_finite_differences(penalty):
  rng = np.random.default_rng(20)
  theta = _random_theta(rng)
  judgement = equations.Judgement(
      z=3 * rng.normal(size=[7, 4]),
      log_base=rng.normal(size=7),
      finite=np.array([1.0, 1, 0, 1, 1, 1, 1]),
      alignments=rng.normal(size=7),
      penalty=penalty,
  )
  _check_gradient(
      equations.objective_gradient(NUMPY, theta, judgement),
      _finite_differences(
          theta, lambda theta: equations.objective(NUMPY, theta, judgement)
      ),
      rtol=1e-5,
  )


def test_holdout_gradient_is_exactly_that_of_the_loss_after_the_update():
  rng = np.random.default_rng(21)
  num_clients, dimension, norm_bound = 6, 9, 1.7
  theta = _random_theta(rng)
  z = 2 * rng.normal(size=[num_clients, 4])
  ones = np.ones(num_clients)
  updates = rng.normal(size=[num_clients, dimension])
  clip = rng.uniform(0.3, 1.0, size=num_clients)
  model = rng.normal(size=dimension)

  def model_after(theta):
    weights = equations.weights(NUMPY, theta, z, 0 * ones, ones)
    return model - (weights * clip) @ updates

  def loss(x):
    return np.sum(np.square(x) * np.sin(x + 1))

  after = model_after(theta)
  gradient = 2 * after * np.sin(after + 1) + after**2 * np.cos(after + 1)
  alignments = equations.holdout_alignments(
      NUMPY, updates @ gradient, clip, np.linalg.norm(gradient), norm_bound
  )
  found = equations.objective_gradient(
      NUMPY, theta, equations.Judgement(z, 0 * ones, ones, alignments, 0.0)
  )
  unit = np.linalg.norm(gradient) * norm_bound
  _check_gradient(
      {name: g * unit for name, g in found.items()},
      _finite_differences(theta, lambda theta: loss(model_after(theta))),
      rtol=1e-4,
  )


def test_without_overshoot_by_hand():
  step = np.array([3.0, 4.0])
  for gradient, expected in (
      # The loss rises along the step, which is subtracted from the model ...
      ([-6.0, -8.0], [0.0, 0.0]),
      ([-3.0, 1.0], [-2.4, 1.8]),
      # ... or still falls, or does not change.
      ([6.0, 8.0], [6.0, 8.0]),
      ([-4.0, 3.0], [-4.0, 3.0]),
  ):
    found = equations.without_overshoot(NUMPY, np.array(gradient), step)
    np.testing.assert_allclose(found, expected, atol=1e-12)
  unmoved = equations.without_overshoot(NUMPY, np.array([-6.0, 1.0]), 0 * step)
  np.testing.assert_array_equal(unmoved, [-6.0, 1.0])


def test_alignments_by_hand():
  array = np.array
  np.testing.assert_allclose(
      equations.holdout_alignments(
          NUMPY, array([6.0, -3.0]), array([0.5, 1.0]), 3.0, 2.0
      ),
      [-0.5, 0.5],
  )
  np.testing.assert_array_equal(
      equations.holdout_alignments(NUMPY, array([6.0]), array([1.0]), 0.0, 2.0),
      [0],
  )
  sketches = array([[[3.0], [4.0]], [[0.0], [-2.0]]])
  for current, expected in (
      ([[0.0], [7.0]], [-4, 2]),
      ([[3.0], [4.0]], [-5, 1.6]),
      ([[0.0], [0.0]], [0, 0]),
  ):
    np.testing.assert_allclose(
        equations.agreement_alignments(NUMPY, sketches, array(current)),
        expected,
    )


def test_objective_by_hand():
  # Equal z, so that log_base makes the weights 1/4 and 3/4.
  judgement = equations.Judgement(
      np.zeros([2, 3]),
      np.log([1.0, 3.0]),
      np.ones(2),
      np.array([2.0, -1.0]),
      2.0,
  )
  np.testing.assert_allclose(
      equations.objective(NUMPY, _start(), judgement),
      -0.25 + 2 * (0.0625 + 0.5625),
  )


def test_learn_equals_adam_by_hand():
  rng = np.random.default_rng(22)
  config = fedaot.FedAOTConfig(
      meta_learning_rate=0.2,
      meta_beta_1=0.8,
      meta_beta_2=0.95,
      meta_epsilon=0.01,
      meta_anchor=0.1,
      holdout_log_sharpness=(-50.0, 50.0),
  )
  start = _start(True, config)
  theta, slots = start, equations.initial_meta_optimizer(NUMPY, start)
  expected = dict(start)
  first = {name: np.zeros_like(v) for name, v in expected.items()}
  second = {name: np.zeros_like(v) for name, v in expected.items()}
  for step in range(1, 5):
    gradient = {name: rng.normal(size=v.shape) for name, v in start.items()}
    theta, slots = equations.learn(
        NUMPY, theta, slots, gradient, has_holdout=True, config=config
    )
    for name, value in expected.items():
      g = gradient[name]
      first[name] = 0.8 * first[name] + 0.2 * g
      second[name] = 0.95 * second[name] + 0.05 * g * g
      adam = (first[name] / (1 - 0.8**step)) / (
          np.sqrt(second[name] / (1 - 0.95**step)) + 0.01
      )
      expected[name] = value - 0.2 * adam - 0.1 * (value - start[name])
      np.testing.assert_allclose(theta[name], expected[name])
      np.testing.assert_allclose(slots['second_moment'][name], second[name])
  assert slots['step'] == 4


@pytest.mark.parametrize(
    'has_holdout, by, slope, margin, sharpness',
    [
        (True, -3.0, -3, -3, -1.0),
        (True, 0.4, 0.4, 0.4, 0.4),
        (True, 3.0, 3, 3, 1.5),
        # Without clean data a step may only make bad statistics cost more.
        (False, -3.0, 0, -3, 0.0),
        (False, 3.0, 3, 0, 1.5),
    ],
)
def test_bounds(has_holdout, by, slope, margin, sharpness):
  start = _start(has_holdout)
  theta = {name: value + by for name, value in start.items()}
  config = fedaot.FedAOTConfig(meta_learning_rate=0, meta_anchor=0)
  bounded, _ = equations.learn(
      NUMPY,
      theta,
      equations.initial_meta_optimizer(NUMPY, theta),
      theta,
      has_holdout=has_holdout,
      config=config,
  )
  np.testing.assert_allclose(bounded['raw_slope'], start['raw_slope'] + slope)
  np.testing.assert_allclose(bounded['margin'], start['margin'] + margin)
  np.testing.assert_allclose(bounded['log_sharpness'], sharpness)
