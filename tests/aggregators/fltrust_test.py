"""FLTrust against a reference in float64 with plain loops."""

import collections
import inspect
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import rules
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import holdout_rules
from fedaot_tff.attacks import multiples
from fedaot_tff.learning import fed_avg
from fedaot_tff.learning import model_mirror
from tests import small_problem

_VALUE_TYPE = tff.to_type(
    (
        tff.TensorType(
            np.float32, [small_problem.NUM_FEATURES, small_problem.NUM_CLASSES]
        ),
        tff.TensorType(np.float32, [small_problem.NUM_CLASSES]),
    )
)
_KERNEL_SIZE = small_problem.NUM_FEATURES * small_problem.NUM_CLASSES
_DIMENSION = _KERNEL_SIZE + small_problem.NUM_CLASSES


def _reference(updates, root):
  """The published formula; scores and aggregate."""
  updates, root = np.asarray(updates, np.float64), np.asarray(root, np.float64)
  root_norm = math.sqrt(sum(r * r for r in root))
  scores, total = [], np.zeros_like(root)
  for update in updates:
    norm = math.sqrt(sum(u * u for u in update))
    product = sum(u * r for u, r in zip(update, root))
    score = max(product / (norm * root_norm), 0.0) if norm else 0.0
    scores.append(score)
    if score:
      total = total + score * root_norm / norm * update
  return np.array(scores), total / sum(scores) if sum(scores) else total


def _random_updates(num_clients, seed=0):
  rng = np.random.default_rng(seed)
  lengths = 10.0 ** rng.uniform(-3, 3, size=[num_clients, 1])
  return (rng.normal(size=[num_clients, _DIMENSION]) * lengths).astype(
      np.float32
  )


def _unflatten(vector):
  kernel = vector[:_KERNEL_SIZE].reshape(
      small_problem.NUM_FEATURES, small_problem.NUM_CLASSES
  )
  return kernel, vector[_KERNEL_SIZE:]


def _flatten(value):
  return np.concatenate([np.ravel(t) for t in tf.nest.flatten(value)])


# --- The aggregation process -------------------------------------------------


@pytest.fixture(scope='module')
def process():
  return holdout_rules.fltrust_factory(
      small_problem.holdout()
  ).unweighted.create(_VALUE_TYPE)


def _root(state):
  """The root update of the whole hold-out, from the mirrored model."""
  holdout = small_problem.holdout()
  weights = holdout_lib.GlobalModel(
      tf.nest.map_structure(tf.constant, state['mirror']['weights'])
  )
  return _flatten(holdout.root_update(weights, tf.range(holdout.num_examples)))


def _aggregate(process, updates, state=None):
  state = process.initialize() if state is None else state
  return process.next(state, [_unflatten(u) for u in updates])


def test_process_equals_the_reference_in_each_round(process):
  state = process.initialize()
  assert list(state) == ['mirror']
  model = _flatten(small_problem.model().initial_weights[0])
  for round_num, num_clients in enumerate((7, 1, 4)):
    updates = _random_updates(num_clients, seed=20 + round_num)
    root = _root(state)
    updates[0] += 3 * np.linalg.norm(updates[0]) / np.linalg.norm(root) * root
    scores, expected = _reference(updates, root)
    assert scores[0] > 0
    output = _aggregate(process, updates, state)
    measured = output.measurements
    result = _flatten(output.result)
    np.testing.assert_allclose(measured['trust_scores'], scores, atol=1e-6)
    np.testing.assert_allclose(
        measured['weights'], scores / scores.sum(), atol=1e-6
    )
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        measured['root_norm'], np.linalg.norm(root), rtol=1e-5
    )
    np.testing.assert_allclose(
        measured['norms'], np.linalg.norm(updates, axis=1), rtol=1e-5
    )
    assert measured['num_trusted'] == np.count_nonzero(scores)
    assert measured['num_non_finite'] == 0
    # No longer than the root update, and no step against it.
    assert np.linalg.norm(result) <= np.linalg.norm(root) * (1 + 1e-5)
    assert np.dot(result, root) > 0
    # The mirror has moved: the next root update is another one.
    state = output.state
    model = model - result
    np.testing.assert_allclose(
        _flatten(state['mirror']['weights']), model, atol=1e-5
    )


@pytest.mark.parametrize(
    'name', [name for name, make in rules.RULES.items() if make.needs_root]
)
def test_rules_on_gathered_rows_get_the_root_update(name):
  make = rules.RULES[name]
  takes_f = 'num_byzantine' in inspect.signature(make).parameters
  factory = holdout_rules.RootRuleFactory(
      make(*([2] if takes_f else [])), small_problem.holdout()
  )
  process = factory.unweighted.create(_VALUE_TYPE)
  state = process.initialize()
  for round_num in range(2):
    updates, root = _random_updates(6, seed=round_num), _root(state)
    updates[3, 1] = np.nan
    expected, measured = factory.rule.measure(updates, reference=root)
    output = _aggregate(process, updates, state)
    np.testing.assert_allclose(
        _flatten(output.result), expected, rtol=1e-4, atol=1e-6
    )
    assert list(output.measurements) == list(measured)
    for key, value in measured.items():
      np.testing.assert_allclose(output.measurements[key], value, rtol=1e-4)
    state = output.state


def test_factories_of_rules_take_the_holdout_first():
  factory = holdout_rules.monna_factory(small_problem.holdout(), 2)
  assert repr(factory.rule) == repr(rules.monna(2))
  assert list(inspect.signature(holdout_rules.monna_factory).parameters) == [
      'holdout',
      'num_byzantine',
      'server_optimizer',
  ]


def test_lengths_order_and_bad_clients_change_nothing(process):
  updates = _random_updates(6)
  updates[1] = _root(process.initialize())
  plain = _aggregate(process, updates)
  order = [4, 0, 5, 2, 1, 3]
  bad = np.tile(updates[:1], [4, 1])
  bad[:, 2] = [np.nan, np.inf, -np.inf, 1e30]
  lengths = np.array([[7.0], [0.01], [100.0], [1.0], [1e-4], [3.0]], np.float32)
  changed = np.concatenate([(updates * lengths)[order], bad, 0 * bad[:1]])
  output = _aggregate(process, changed)
  np.testing.assert_allclose(
      _flatten(output.result), _flatten(plain.result), rtol=1e-4, atol=1e-6
  )
  weights = output.measurements['weights']
  np.testing.assert_allclose(
      weights[:6], plain.measurements['weights'][order], atol=1e-5
  )
  np.testing.assert_array_equal(weights[6:10], np.zeros([4]))
  assert output.measurements['num_non_finite'] >= 4


@pytest.mark.parametrize(
    'make',
    [
        holdout_rules.fltrust_factory,
        holdout_rules.holdout_finetuned_mean_factory,
    ],
)
def test_clients_without_a_weight_do_not_count(make):
  weighted = make(small_problem.holdout()).create(
      _VALUE_TYPE, tff.TensorType(np.float32)
  )
  state = weighted.initialize()
  updates = [_unflatten(u) for u in _random_updates(6) + _root(state)]
  # One of those who have nothing to say sends something all the same.
  empty = [_unflatten(0 * _root(state))] * 3 + [_unflatten(9 * _root(state))]
  found = weighted.next(state, updates + empty, [1.0] * 6 + [0.0] * 4)
  alone = weighted.next(state, updates, [2.0] * 6)
  np.testing.assert_allclose(
      _flatten(found.result), _flatten(alone.result), atol=1e-6
  )
  np.testing.assert_allclose(
      found.measurements['weights'],
      [*alone.measurements['weights'], 0, 0, 0, 0],
      atol=1e-6,
  )
  assert found.measurements['num_empty'] == 4
  assert found.measurements['num_non_finite'] == 0


def test_nobody_trusted_gives_zero(process):
  root = _root(process.initialize())
  for updates in ([], [-root], [-root, np.full_like(root, np.nan)]):
    output = _aggregate(process, updates)
    np.testing.assert_array_equal(_flatten(output.result), 0 * root)
    np.testing.assert_array_equal(
        output.measurements['weights'], np.zeros([len(updates)])
    )
    assert output.measurements['num_trusted'] == 0
    np.testing.assert_array_equal(
        _flatten(output.state['mirror']['weights']),
        _flatten(small_problem.model().initial_weights[0]),
    )


def _mixed_model():
  """A model of two dtypes, whose output ignores its input."""

  @tf.function
  def predict(weights, x, training):
    del training
    (a, b), _ = weights
    return tf.reduce_sum(a) + tf.cast(tf.reduce_sum(b), tf.float32) + 0 * x

  return tff.learning.models.FunctionalModel(
      initial_weights=((np.ones([2], np.float32), np.ones([3])), ()),
      predict_on_batch_fn=predict,
      loss_fn=tf.function(
          lambda output, label, sample_weight=None: tf.reduce_mean(output)
      ),
      input_spec=(
          tf.TensorSpec([None], tf.float32),
          tf.TensorSpec([None], tf.float32),
      ),
  )


def test_weighted_process_of_two_dtypes_ignores_weights():
  holdout = holdout_lib.HoldOut(
      _mixed_model(), (np.zeros([4]), np.zeros([4])), num_steps=1
  )
  factory = holdout_rules.fltrust_factory(holdout)
  value_type = tff.to_type(
      (tff.TensorType(np.float32, [2]), tff.TensorType(np.float64, [3]))
  )
  process = factory.create(value_type, tff.TensorType(np.float32))
  # The gradient is 1 everywhere and the learning rate 0.1.
  root = np.full([5], 0.1)
  updates = [[1.0, 2.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 5.0, -1.0]]
  _, expected = _reference(updates, root)
  output = process.next(
      process.initialize(),
      [
          (np.array(u[:2], np.float32), np.array(u[2:], np.float64))
          for u in updates
      ],
      [1.0, 1e9],
  )
  assert output.result[0].dtype == np.float32
  assert output.result[1].dtype == np.float64
  np.testing.assert_allclose(_flatten(output.result), expected, rtol=1e-5)


# --- In a learning process ---------------------------------------------------


def test_is_handed_the_model_and_withstands_a_majority():
  process = fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      tff.learning.optimizers.build_adam(0.1),
      model_aggregator=holdout_rules.fltrust_factory(small_problem.holdout()),
      update_poisoning=multiples.SignFlip(),
  )
  attackers = (0, 2, 3, 5)
  state = process.initialize()
  for round_num in range(2):
    output = process.next(
        state,
        [
            collections.OrderedDict(
                attacker_index=np.int32(0 if i in attackers else -1), dataset=d
            )
            for i, d in enumerate(small_problem.client_datasets(round_num))
        ],
    )
    # Of another model than the server's, the root update would be another one.
    root = small_problem.holdout().root_update(
        holdout_lib.GlobalModel(
            tuple(map(tf.constant, small_problem.trainable(process, state)))
        ),
        tf.range(30),
    )
    measured = output.metrics['aggregator']
    np.testing.assert_allclose(
        measured['root_norm'], np.linalg.norm(_flatten(root)), rtol=1e-5
    )
    assert measured['num_trusted'] == 2
    assert not output.state.aggregator
    model_mirror.check_model(output.state)
    state = output.state


# --- Errors ------------------------------------------------------------------


def test_refuses_wrong_arguments():
  for holdout in (None, small_problem.model()):
    with pytest.raises(TypeError, match='^holdout must be a .*HoldOut;'):
      holdout_rules.fltrust_factory(holdout)
  with pytest.raises(TypeError, match='server_optimizer must be'):
    holdout_rules.fltrust_factory(small_problem.holdout(), server_optimizer=0.1)
  factory = holdout_rules.fltrust_factory(small_problem.holdout()).unweighted
  with pytest.raises(ValueError, match='trainable weights'):
    factory.create(tff.to_type((tff.TensorType(np.float32, [2]),)))
  with pytest.raises(TypeError, match='Expected tensors of dtype'):
    factory.create(tff.TensorType(np.int32, [2]))
