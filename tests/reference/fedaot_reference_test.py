"""Checks of the NumPy reference itself against numbers worked out by hand."""

import numpy as np
import pytest

from tests.reference import fedaot_reference

_DIMENSION = 40
_SKETCH = 12


def _signs(rng):
  return rng.choice([-1.0, 1.0], size=_DIMENSION)


def _hold_out(signs):
  return fedaot_reference.HoldOutReference(
      signs=signs, sketch_dimension=_SKETCH
  )


def _agreement(signs):
  return fedaot_reference.AgreementReference(
      signs=np.split(signs, 2), sketch_dimension=_SKETCH
  )


def _cohort(rng, center, count=7):
  """Noisy updates of unequal size, two of them near copies of each other."""
  updates = center + rng.normal(size=(count, _DIMENSION))
  updates *= rng.uniform(0.5, 2.0, size=(count, 1))
  updates[1] = 1.1 * updates[0] + 0.2 * rng.normal(size=_DIMENSION)
  return updates


def _theta(reference):
  return np.concatenate([reference.b, reference.m, [reference.log_sharpness]])


def _weights_at(theta, z, log_discount):
  """The softmax weights as one array expression of theta."""
  count = z.shape[1]
  slopes = np.log1p(np.exp(theta[:count]))
  scores = (
      np.exp(theta[-1]) * -(np.log1p(np.exp(-(z + theta[count:-1]))) @ slopes)
      + log_discount
  )
  weights = np.exp(scores - scores.max())
  return weights / weights.sum()


def _central_differences(objective, theta, step=1e-5):
  gradient = np.zeros_like(theta)
  for k in range(theta.size):
    ahead, behind = theta.copy(), theta.copy()
    ahead[k] += step
    behind[k] -= step
    gradient[k] = (objective(ahead) - objective(behind)) / (2 * step)
  return gradient


@pytest.mark.parametrize(
    'q, expected',
    [
        (0.0, 1.0),
        (0.125, 1.0),
        (0.25, 1.5),
        (0.375, 2.0),
        (0.5, 3.0),
        (0.75, 5.0),
        (1.0, 5.0),
    ],
)
def test_weighted_quantile(q, expected):
  # Sorted (1, 2, 5) with weights (1, 1, 2): positions .125, .375, .75. The
  # entry of weight 0 would otherwise be the smallest.
  values = np.array([5.0, -9.0, 1.0, 2.0])
  weights = np.array([2.0, 0.0, 1.0, 1.0])
  assert fedaot_reference.weighted_quantile(
      values, weights, q
  ) == pytest.approx(expected)


def test_weighted_quantile_without_weight_is_zero():
  assert (
      fedaot_reference.weighted_quantile(np.array([3.0, 4.0]), np.zeros(2), 0.5)
      == 0.0
  )


def test_equal_weights_give_the_usual_median():
  rng = np.random.default_rng(0)
  for count in (1, 2, 5, 8):
    values = rng.normal(size=count)
    assert fedaot_reference.weighted_quantile(
        values, np.ones(count), 0.5
    ) == pytest.approx(np.median(values))


def test_fold_sketch():
  # Rows (1, -2, 3), (4, 5, -6), (-7, 0, 0) after signs and padding.
  sketch = fedaot_reference.fold_sketch(
      np.arange(1.0, 8.0), np.array([1, -1, 1, 1, 1, -1, -1]), 3
  )
  np.testing.assert_array_equal(sketch, [-2.0, 3.0, -3.0])


@pytest.mark.parametrize(
    'entry, expected',
    [
        (0.0, True),
        (9.9e14, True),
        (-9.9e14, True),
        (1e15, False),
        (-1e15, False),
        (1e30, False),
        (1e300, False),
        (np.inf, False),
        (np.nan, False),
    ],
)
def test_is_finite_update(entry, expected):
  assert (
      fedaot_reference.is_finite_update(np.array([1.0, entry, 0.0])) is expected
  )


def test_hold_out_round_by_hand():
  reference = fedaot_reference.HoldOutReference(
      signs=np.ones(2), sketch_dimension=2
  )
  outcome = reference.aggregate(
      np.array([[1.0, 0.0], [0.0, 2.0], [4.0, 0.0]]), np.array([0.8, 0.8])
  )
  close = lambda x, y: np.testing.assert_allclose(x, y, atol=3e-6)
  # Clients 1 and 3 share a direction: 1 / (1 + sigma(2.5)).
  close(outcome['copies_discount'], [0.519714, 1.0, 0.519714])
  close(outcome['trust'], [1.0, 1.0, 1.0])
  # The median of the norms is 2, so that 1.5 * .8 sqrt(2) is the smaller.
  close(outcome['norm_bound'], 1.697056)
  close(outcome['clipped'], [[1.0, 0.0], [0.0, 2.0], [3.394113, 0.0]])
  close(
      outcome['statistics'],
      [
          [0.0, 0.707107, -4.605170, 0.0, -0.693147],
          [0.0, 0.707107, 0.009950, -0.164252, -0.693147],
          [0.0, 0.707107, -4.605170, -0.857399, -0.693147],
      ],
  )
  # Profile: all in one of two blocks that the root shares evenly, log 2.
  # dup: positions .127417, .382251, .754833; median -3.146622, upper quartile
  # -.049910, scale 1.4826 * 3.096712 + .25 = 4.841185. Norm: -(x / .5)^2.
  close(
      outcome['z'],
      [
          [0.0, 0.0, -0.301279, 0.0, 0.0],
          [0.0, 0.0, 0.652024, -0.107915, 0.0],
          [0.0, 0.0, -0.301279, -2.940532, 0.0],
      ],
  )
  # Without the three terms all share: -1.351968, -.497943, -3.529440.
  close(outcome['weights'], [0.288816, 0.678453, 0.032731])
  close(outcome['result'], [0.399908, 1.356906])
  close(reference.reference, [0.0399908, 0.1356906])


def test_trust_discounts_the_norm_bound():
  reference = fedaot_reference.HoldOutReference(
      signs=np.ones(2), sketch_dimension=2
  )
  outcome = reference.aggregate(
      np.array(
          [[1.0, 0.0], [0.075, 3.0 * (1 - 0.025**2) ** 0.5], [-10.0, 0.0]]
      ),
      np.array([5.0, 0.0]),
  )
  np.testing.assert_allclose(outcome['trust'], [1.0, 0.525, 0.05])
  # Positions .5 / 1.575 and 1.2625 / 1.575 of the norms 1 and 3.
  assert outcome['norm_bound'] == pytest.approx(1 + 2 * 0.2875 / 0.7625)


def test_hold_out_dup_looks_at_finite_others_only():
  update = np.array([3.0, 4.0])
  lost = np.array([np.nan, 1.0])
  for updates in ([update, -update, lost], [update, lost], [update]):
    reference = fedaot_reference.HoldOutReference(
        signs=np.ones(2), sketch_dimension=2
    )
    outcome = reference.aggregate(np.array(updates), update)
    assert outcome['statistics'][0, 2] == pytest.approx(np.log(2.01))


def test_agreement_rounds_by_hand():
  reference = fedaot_reference.AgreementReference(
      signs=[np.ones(2)], sketch_dimension=2
  )
  updates = np.array([[0.6, 0.8], [-1.6, 1.2], [-0.64, -0.48]])
  close = lambda x, y: np.testing.assert_allclose(x, y, atol=5e-5)

  first = reference.next(updates)
  # The profiles (.36, .64), (.64, .36), (.64, .36) are compared with (.6386,
  # .3614), that of the others: -log 1.336314, in units of .2 1.449534. By it
  # the voices are .505108, .826635, .826635. Of the log norms 0, log 2 and log
  # .8 the first and the last hold .617 of them; the median of .8 and 1, at
  # .310364 and .810364 of theirs.
  close(first['norm_bound'], 0.875857)
  # a = (0, log 2, log .8), its lower quartile -.167358.
  close(
      first['statistics'],
      [
          [0.0, 0.0, -0.289915],
          [0.0, -0.525789, -0.000009],
          [0.0, 0.0, -0.000009],
      ],
  )
  close(
      first['z'],
      [[0.0, 0.0, -1.449534], [0.0, -2.628945, 0.0], [0.0, 0.0, 0.0]],
  )
  # Cosines 0, -.96 and, of clients 2 and 3, .28, whose camp is 2.135 standard
  # deviations from client 1. Of 2.872 voices that is .809, which is no camp.
  close(first['log_base'], [0.0, 0.0, 0.0])
  close(first['weights'], [0.328673, 0.133438, 0.537889])
  # At most 1.751713 long, in the reference .875857.
  close(first['result'], [-0.334042, 0.144998])
  close(first['reference_weights'], first['weights'])
  close(reference.reference, [[-0.265025, 0.042233]])
  close(reference.camp_memory, [[0.0, 0.0]])
  assert first['gradient'] is None
  assert (reference.step, reference.age, reference.support) == (0, 1, 1.0)

  second = reference.next(updates)
  close(second['statistics'][:, 0], [-0.466629, 0.884453, 0.695611])
  # Two of three are in favour in the first vote, by their voices.
  close(reference.support, 0.765978)
  close(np.exp(second['log_base']), [0.05, 1.0, 1.0])
  close(second['z'][:, 0], [-4.470452, 0.726363, 0.0])
  close(second['weights'], [0.000632, 0.214243, 0.785125])
  close(second['reference_weights'], [0.098673, 0.179154, 0.722173])
  # The mean of both rounds.
  close(reference.reference, [[-0.400446, -0.070562]])
  # The direction is (-.982707, -.185165).
  close(second['advantages'], [0.842325, -1.350134, -0.819554])
  # d / d scores: (.333109, -.209422, -.123687).
  close(
      second['gradient'],
      [0.0, 0.151198, -0.084982, 0.0, -0.167448, 0.123194, 0.127851],
  )
  # A first Adam step is .05 g / (|g| + .001); only profile may follow it.
  b_start = np.log(np.exp(1.5) - 1)
  np.testing.assert_allclose(
      reference.b - b_start, [0.0, 0.0, 0.049418], atol=5e-5
  )
  np.testing.assert_allclose(reference.m, [2.0, 2.0, 1.950403], atol=5e-5)
  assert reference.log_sharpness == 0.0
  assert (reference.step, reference.age) == (1, 2)


def test_agreement_discount_of_a_close_pair():
  reference = fedaot_reference.AgreementReference(
      signs=[np.ones(2)], sketch_dimension=2
  )
  outcome = reference.next(np.array([[2.0, 0.0], [0.95, (1 - 0.95**2) ** 0.5]]))
  # Both are alike and all there are.
  np.testing.assert_allclose(outcome['log_base'], 0.0, atol=1e-12)


def test_copies_are_discounted_but_for_a_majority():
  pair = [[1.0, 0.0], [0.95, (1 - 0.95**2) ** 0.5]]
  others = [[0.0, -1.0], [-1.0, 0.0]]
  mu = fedaot_reference.copies_discounts(np.array(pair + others), np.ones(4))
  # Half a copy each, and half of the cohort.
  np.testing.assert_allclose(mu, [2 / 3, 2 / 3, 1, 1], rtol=1e-5)
  mu = fedaot_reference.copies_discounts(
      np.array(pair + others), np.array([1, 1, 1, 0])
  )
  np.testing.assert_allclose(mu, [1, 1, 1, 0], rtol=1e-5)


def test_camps_by_hand():
  units = np.array([[1.0, 0.0], [-0.6, 0.8], [-0.6, -0.8], [1.0, 0.0]])
  camp = fedaot_reference.camps(units, np.ones(4))
  np.testing.assert_array_equal(camp == camp[0], [True, False, False, True])
  cosines = units @ units.T
  # Inside 1 and -.28, across -.6: gap .96, spread sqrt(2 .64^2 / 6).
  assert fedaot_reference.camp_distance(
      cosines, np.ones(4), camp
  ) == pytest.approx(0.96 / (0.64 / 3**0.5))
  reference = fedaot_reference.AgreementReference(
      signs=[np.ones(2)], sketch_dimension=2
  )
  trust = reference._camp_trust(units[:3], np.ones(3))
  # Camps {1} and {2, 3}: -.28 inside, -.6 across, which is exact. The majority
  # has it: y = -.28 + .6 for its clients, -.6 for the other.
  np.testing.assert_allclose(np.exp(trust), [0.05, 1.0, 1.0])
  difference = np.array([1.6, 0.0])
  np.testing.assert_allclose(
      reference.camp_memory[0], -difference / 3, atol=1e-12
  )


def test_concordance_by_hand():
  # Three agree in both groups, one turned the second.
  sketches = np.ones([4, 2, 1])
  sketches[3, 1] = -1
  np.testing.assert_allclose(
      np.exp(fedaot_reference.log_concordance(sketches, np.ones(4))),
      [1, 1, 1, 0.05],
  )
  # Two against two is no majority.
  sketches[2, 1] = -1
  np.testing.assert_array_equal(
      fedaot_reference.log_concordance(sketches, np.ones(4)), 0.0
  )


def test_hold_out_gradient_is_that_of_the_hold_out_loss():
  """Against differences of a quadratic loss of x + sum_i w_i(theta) D_i."""
  rng = np.random.default_rng(1)
  center = 0.5 * rng.normal(size=_DIMENSION)
  reference = _hold_out(_signs(rng))
  curvature = rng.uniform(0.1, 2.0, size=_DIMENSION)
  for _ in range(4):
    outcome = reference.aggregate(
        _cohort(rng, center), center + 0.3 * rng.normal(size=_DIMENSION)
    )
    # Along the step the loss still falls.
    target = 9 * outcome['result'] + rng.normal(size=_DIMENSION)
    at_next = curvature * (outcome['result'] - target)
    assert at_next @ outcome['result'] < 0.0

    def loss(theta):
      weights = _weights_at(
          theta, outcome['z'], np.log(outcome['copies_discount'])
      )
      return 0.5 * np.sum(
          curvature * (weights @ outcome['clipped'] - target) ** 2
      )

    expected = _central_differences(loss, _theta(reference))
    learnt = reference.learn(at_next)
    factor = np.linalg.norm(at_next) * outcome['norm_bound']
    assert np.linalg.norm(expected) > 1e-3
    np.testing.assert_allclose(
        learnt['gradient'] * factor, expected, rtol=1e-6, atol=1e-7
    )


def test_hold_out_learns_nothing_from_how_long_the_step_was():
  rng = np.random.default_rng(6)
  center = rng.normal(size=_DIMENSION)
  aside = rng.normal(size=_DIMENSION)
  learnt = []
  for length in (0.0, 2.0):
    reference = _hold_out(_signs(np.random.default_rng(7)))
    outcome = reference.aggregate(
        _cohort(np.random.default_rng(8), center), center
    )
    step = outcome['result']
    across = aside - (aside @ step) / (step @ step) * step
    found = reference.learn(across + length * step)
    assert found['advantages'] @ outcome['weights'] == pytest.approx(0.0)
    norm = np.linalg.norm(across + length * step)
    learnt.append(norm * found['gradient'])
  np.testing.assert_allclose(learnt[0], learnt[1], atol=1e-9)


def test_agreement_gradient_by_finite_differences():
  rng = np.random.default_rng(2)
  center = 0.5 * rng.normal(size=_DIMENSION)
  reference = _agreement(_signs(rng))
  reference.next(_cohort(rng, center))
  for count in (7, 5, 9):
    previous = reference.previous
    theta = _theta(reference)
    outcome = reference.next(_cohort(rng, center, count))
    direction = np.tensordot(outcome['weights'], outcome['clipped_sketches'], 1)
    direction /= np.linalg.norm(direction)
    advantages = (
        -np.sum(previous['sketches'] * direction, axis=(1, 2))
        / previous['norm_bound']
    )

    def objective(theta):
      weights = _weights_at(theta, previous['z'], previous['log_base'])
      return weights @ advantages + weights @ weights

    expected = _central_differences(objective, theta)
    assert np.linalg.norm(expected) > 1e-3
    np.testing.assert_allclose(
        outcome['gradient'], expected, rtol=1e-6, atol=1e-9
    )


def test_descend_by_hand():
  """Two steps of Adam with the pull, gradients (g, 2 g) in one coordinate."""
  reference = _hold_out(np.ones(_DIMENSION))
  gradient = np.zeros(11)
  gradient[5] = 0.5
  reference.descend(gradient)
  first = 1.5 - 0.05 * 0.5 / 0.501
  assert reference.m[0] == pytest.approx(first)
  reference.descend(2 * gradient)
  # m_hat = (.9 * .1 * .5 + .1 * 1) / .19, v_hat = (.99 * .01 * .25 + .01) /
  # .0199.
  mean = 0.145 / 0.19
  square = 0.012475 / 0.0199
  second = first - 0.05 * mean / (square**0.5 + 1e-3) - 0.01 * (first - 1.5)
  assert reference.m[0] == pytest.approx(second)
  np.testing.assert_array_equal(reference.m[1:], 1.5)
  assert reference.log_sharpness == 0.0


def test_log_sharpness_stays_in_its_range():
  """A hold-out that always agrees (disagrees) with the order of the scores."""
  for sign, start, limit in ((-1.0, 1.4, 1.5), (1.0, -0.9, -1.0)):
    rng = np.random.default_rng(3)
    center = rng.normal(size=_DIMENSION)
    reference = _hold_out(_signs(rng))
    reference.log_sharpness = start
    for _ in range(6):
      outcome = reference.aggregate(_cohort(rng, center), center)
      order = outcome['scores'] - np.mean(outcome['scores'])
      reference.learn(
          sign * np.linalg.lstsq(outcome['clipped'], order, rcond=None)[0]
      )
    assert reference.log_sharpness == limit


def test_hold_out_copies_weigh_as_one():
  rng = np.random.default_rng(4)
  reference = _hold_out(_signs(rng))
  base = 4.0 * np.eye(4, _DIMENSION)
  updates = np.concatenate([base, base[:1], base[:1]])
  outcome = reference.aggregate(updates, np.sum(base, axis=0))
  copied = 1.0 / (1.0 + 2.0 / (1.0 + np.exp(-2.5)))
  np.testing.assert_allclose(
      outcome['copies_discount'],
      [copied, 1.0, 1.0, 1.0, copied, copied],
      atol=1e-12,
  )


@pytest.mark.parametrize(
    'root',
    [
        np.zeros(_DIMENSION),
        np.full(_DIMENSION, np.nan),
        np.full(_DIMENSION, np.inf),
    ],
    ids=['zero', 'nan', 'inf'],
)
def test_hold_out_without_a_usable_root(root):
  rng = np.random.default_rng(5)
  reference = _hold_out(_signs(rng))
  outcome = reference.aggregate(rng.normal(size=(5, _DIMENSION)), root)
  np.testing.assert_array_equal(outcome['statistics'][:, 1], 0.0)
  np.testing.assert_array_equal(outcome['trust'], 0.05)
  assert outcome['norm_bound'] == pytest.approx(
      fedaot_reference.weighted_quantile(
          outcome['norms'], outcome['copies_discount'], 0.5
      )
  )


def _run_hold_out(signs, rounds):
  reference = _hold_out(signs)
  outcomes = []
  for updates, root, gradient in rounds:
    outcomes.append(reference.aggregate(updates, root))
    reference.learn(gradient)
  return reference, outcomes


def _run_agreement(signs, rounds):
  reference = _agreement(signs)
  return reference, [reference.next(updates) for updates, _, _ in rounds]


def _rounds(rng, count=4):
  center = 0.5 * rng.normal(size=_DIMENSION)
  return [
      (
          _cohort(rng, center),
          center + 0.3 * rng.normal(size=_DIMENSION),
          rng.normal(size=_DIMENSION),
      )
      for _ in range(count)
  ]


def _assert_same_state(reference, expected):
  names = [
      'reference',
      'b',
      'm',
      'log_sharpness',
      'first_moment',
      'second_moment',
      'step',
  ]
  if isinstance(reference, fedaot_reference.AgreementReference):
    names += ['camp_memory', 'support', 'age']
  for name in names:
    np.testing.assert_allclose(
        getattr(reference, name),
        getattr(expected, name),
        rtol=1e-9,
        atol=1e-12,
        err_msg=name,
    )


@pytest.mark.parametrize('run_rounds', [_run_hold_out, _run_agreement])
def test_permutation_equivariance(run_rounds):
  rng = np.random.default_rng(6)
  signs, rounds = _signs(rng), _rounds(rng)
  orders = [rng.permutation(len(updates)) for updates, _, _ in rounds]
  expected_state, expected = run_rounds(signs, rounds)
  state, outcomes = run_rounds(
      signs,
      [
          (updates[order], root, gradient)
          for order, (updates, root, gradient) in zip(orders, rounds)
      ],
  )
  assert state.step > 0
  _assert_same_state(state, expected_state)
  for order, outcome, wanted in zip(orders, outcomes, expected):
    np.testing.assert_allclose(outcome['result'], wanted['result'], rtol=1e-9)
    np.testing.assert_allclose(
        outcome['weights'], wanted['weights'][order], rtol=1e-9
    )
    np.testing.assert_allclose(
        outcome['z'], wanted['z'][order], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize('bad', [np.nan, np.inf, 1e30])
@pytest.mark.parametrize('run_rounds', [_run_hold_out, _run_agreement])
def test_a_non_finite_client_counts_as_absent(run_rounds, bad):
  rng = np.random.default_rng(7)
  signs, rounds = _signs(rng), _rounds(rng)
  expected_state, expected = run_rounds(signs, rounds)
  broken = rng.normal(size=_DIMENSION)
  broken[3] = bad
  state, outcomes = run_rounds(
      signs,
      [
          (np.insert(updates, 2, broken, axis=0), root, gradient)
          for updates, root, gradient in rounds
      ],
  )
  assert state.step > 0
  _assert_same_state(state, expected_state)
  for outcome, wanted in zip(outcomes, expected):
    assert outcome['weights'][2] == 0.0
    np.testing.assert_allclose(
        np.delete(outcome['weights'], 2), wanted['weights'], rtol=1e-9
    )
    np.testing.assert_allclose(
        np.delete(outcome['z'], 2, axis=0), wanted['z'], rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(outcome['result'], wanted['result'], rtol=1e-9)
    assert outcome['norm_bound'] == pytest.approx(wanted['norm_bound'])


@pytest.mark.parametrize('run_rounds', [_run_hold_out, _run_agreement])
@pytest.mark.parametrize('count', [0, 3])
def test_a_round_without_finite_clients_changes_nothing(run_rounds, count):
  rng = np.random.default_rng(8)
  signs, rounds = _signs(rng), _rounds(rng)
  _, root, gradient = rounds[0]
  lost = (np.full([count, _DIMENSION], np.nan), root, gradient)
  expected_state, expected = run_rounds(signs, rounds)
  state, outcomes = run_rounds(signs, rounds[:2] + [lost] + rounds[2:])
  np.testing.assert_array_equal(outcomes[2]['result'], np.zeros(_DIMENSION))
  np.testing.assert_array_equal(outcomes[2]['weights'], np.zeros(count))
  assert outcomes[2]['norm_bound'] == 0.0
  _assert_same_state(state, expected_state)
  np.testing.assert_allclose(outcomes[4]['result'], expected[3]['result'])


@pytest.mark.parametrize('run_rounds', [_run_hold_out, _run_agreement])
@pytest.mark.parametrize('value', [0.0, 1.0])
def test_equal_updates_weigh_equally(run_rounds, value):
  rng = np.random.default_rng(9)
  updates = np.full([4, _DIMENSION], value)
  rounds = [(updates, np.ones(_DIMENSION), np.ones(_DIMENSION))] * 3
  state, outcomes = run_rounds(_signs(rng), rounds)
  for outcome in outcomes:
    np.testing.assert_allclose(outcome['weights'], 0.25)
    np.testing.assert_allclose(outcome['result'], updates[0])
  assert np.all(np.isfinite(_theta(state)))


def test_most_updates_zero_leaves_finite_numbers():
  """tau is 0: nothing passes, the norm statistic is at its limit."""
  updates = np.zeros([5, _DIMENSION])
  # Against the root, so that it is trusted no more than the zeros.
  updates[0, 0] = -1.0
  state, outcomes = _run_hold_out(
      np.ones(_DIMENSION), [(updates, np.ones(_DIMENSION), np.ones(_DIMENSION))]
  )
  assert outcomes[0]['norm_bound'] == 0.0
  np.testing.assert_allclose(
      outcomes[0]['statistics'][:, 3], [-30 * np.log(10), 0, 0, 0, 0]
  )
  np.testing.assert_array_equal(outcomes[0]['result'], 0.0)
  np.testing.assert_array_equal(state.first_moment, 0.0)
  assert state.step == 1


def test_learn_needs_a_round():
  reference = _hold_out(np.ones(_DIMENSION))
  with pytest.raises(RuntimeError, match='before aggregate'):
    reference.learn(np.ones(_DIMENSION))
