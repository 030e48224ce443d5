"""FedAOT's aggregation process against the independent NumPy reference."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import config as config_lib
from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import summaries
from tests import small_problem
from tests.reference import fedaot_reference

_FEATURES, _CLASSES = 5, 3
_DIMENSION = (_FEATURES + 1) * _CLASSES
_SKETCH = 8
_CONFIG = config_lib.FedAOTConfig(
    sketch_dimension=_SKETCH, agreement_sketch_dimension=_SKETCH
)
_SEED = 5
_CLIENT_LEARNING_RATE = 0.3
_BATCH_SIZE = 8
_NUM_STEPS = 4
_VALUE_TYPE = tff.to_type(
    (
        tff.TensorType(np.float32, [_FEATURES, _CLASSES]),
        tff.TensorType(np.float32, [_CLASSES]),
    )
)


def _softmax_regression() -> tff.learning.models.FunctionalModel:
  initial = np.random.default_rng(3).normal(size=[_DIMENSION]) * 0.1
  spec = (
      tf.TensorSpec([None, _FEATURES], tf.float32),
      tf.TensorSpec([None], tf.int32),
  )
  return small_problem.linear_model(*_unflatten(initial), spec)


def _unflatten(vector):
  split = _FEATURES * _CLASSES
  return vector[:split].reshape(_FEATURES, _CLASSES), vector[split:]


def _flatten(value):
  return np.concatenate([np.ravel(v) for v in tf.nest.flatten(value)])


def _examples(num_examples=60):
  rng = np.random.default_rng(11)
  x = rng.normal(size=[num_examples, _FEATURES])
  y = np.argmax(x[:, :_CLASSES] + 0.3 * rng.normal(size=[num_examples, 3]), 1)
  return x.astype(np.float32), y.astype(np.int32)


def _loss_gradient(weights, x, y):
  """Gradient [d] of the mean cross entropy, by hand in float64."""
  kernel, bias = _unflatten(weights)
  logits = x @ kernel + bias
  logits = logits - logits.max(axis=1, keepdims=True)
  probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  residual = (probabilities - np.eye(_CLASSES)[y]) / len(y)
  return np.concatenate([(x.T @ residual).ravel(), residual.sum(axis=0)])


def _loss(weights, x, y):
  kernel, bias = _unflatten(weights)
  logits = x @ kernel + bias
  highest = logits.max(axis=1)
  log_sum = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
  return np.mean(log_sum - logits[np.arange(len(y)), y])


def _root_update(weights, x, y, order):
  """Local training by hand: weights before minus weights after."""
  trained = weights.copy()
  for step in range(_NUM_STEPS):
    rows = order[(step * _BATCH_SIZE + np.arange(_BATCH_SIZE)) % len(order)]
    trained -= _CLIENT_LEARNING_RATE * _loss_gradient(trained, x[rows], y[rows])
  return weights - trained


def _holdout(**kwargs):
  settings = dict(
      client_optimizer=tff.learning.optimizers.build_sgdm(
          _CLIENT_LEARNING_RATE
      ),
      batch_size=_BATCH_SIZE,
      num_steps=_NUM_STEPS,
  )
  settings.update(kwargs)
  return holdout_lib.HoldOut(_softmax_regression(), _examples(), **settings)


def _fold_in(seed, data):
  return tf.random.experimental.stateless_fold_in(seed, data)


def _signs():
  signs = summaries.draw_signs(
      _fold_in(tf.constant([_SEED, 0], tf.int64), 0), _DIMENSION, _SKETCH
  )
  return signs.table.numpy().ravel()[:_DIMENSION].astype(np.float64)


@pytest.fixture(scope='module')
def agreement_process():
  return fedaot.fedaot_factory(config=_CONFIG, seed=_SEED).unweighted.create(
      _VALUE_TYPE
  )


@pytest.fixture(scope='module')
def holdout_process():
  return fedaot.fedaot_factory(_holdout(), config=_CONFIG, seed=_SEED).create(
      _VALUE_TYPE, tff.TensorType(np.float32)
  )


def _check_theta(state, reference):
  theta = state['weighting']
  np.testing.assert_allclose(theta['raw_slope'], reference.b, atol=2e-6)
  np.testing.assert_allclose(theta['margin'], reference.m, atol=2e-6)
  np.testing.assert_allclose(
      theta['log_sharpness'], reference.log_sharpness, atol=2e-6
  )
  for name in ('first_moment', 'second_moment'):
    moment = state['meta_optimizer'][name]
    np.testing.assert_allclose(
        np.concatenate([np.ravel(moment[key]) for key in theta]),
        getattr(reference, name),
        atol=2e-6,
    )
  assert state['meta_optimizer']['step'] == reference.step


def _check_measurements(measurements, expected):
  finite = np.asarray(expected['finite'], bool)
  np.testing.assert_allclose(
      measurements['weights'], expected['weights'], atol=5e-6
  )
  for name in ('z', 'statistics'):
    np.testing.assert_allclose(
        measurements[name][finite],
        np.asarray(expected[name])[finite],
        atol=3e-4,
        rtol=1e-4,
    )
  np.testing.assert_allclose(
      measurements['norm_bound'], expected['norm_bound'], rtol=1e-5
  )
  assert measurements['num_clients'] == len(finite)
  assert measurements['num_non_finite'] == np.count_nonzero(~finite)


def test_agreement_mode_equals_the_reference(agreement_process):
  reference = fedaot_reference.AgreementReference(
      signs=[_signs()], sketch_dimension=_SKETCH
  )
  state = agreement_process.initialize()
  rng = np.random.default_rng(0)
  base = rng.normal(size=_DIMENSION)
  for round_num in range(5):
    updates = fedaot_reference.rough_cohort(rng, round_num, base)
    output = agreement_process.next(state, [_unflatten(u) for u in updates])
    state = output.state
    expected = reference.next(updates.astype(np.float64))
    np.testing.assert_allclose(
        _flatten(output.result), expected['result'], atol=1e-5
    )
    _check_measurements(output.measurements, expected)
    _check_theta(state, reference)
    for name in ('reference', 'camp_memory', 'support', 'age'):
      np.testing.assert_allclose(
          state[name], getattr(reference, name), atol=1e-5, err_msg=name
      )
  assert state['round'] == 5
  assert np.any(state['meta_optimizer']['first_moment']['margin'])


def test_holdout_mode_equals_the_reference(holdout_process):
  reference = fedaot_reference.HoldOutReference(
      signs=_signs(), sketch_dimension=_SKETCH
  )
  state = holdout_process.initialize()
  rng = np.random.default_rng(1)
  x, y = _examples()
  model = _flatten(state['mirror']['weights']).astype(np.float64)
  for round_num in range(5):
    split_seed = _fold_in(
        _fold_in(tf.constant([_SEED, 0], tf.int64), 2), round_num
    )
    split = _holdout().split(split_seed, 50)
    first, second = split.training.numpy(), split.evaluation.numpy()
    assert sorted([*first, *second]) == list(range(60))
    root = _root_update(model, x.astype(np.float64), y, first)
    updates = fedaot_reference.rough_cohort(rng, round_num, root)
    output = holdout_process.next(
        state, [_unflatten(u) for u in updates], [1.0] * len(updates)
    )
    state = output.state

    expected = reference.aggregate(updates.astype(np.float64), root)
    before, model = model, model - expected['result']
    # The reference adds the aggregate to the model, TFF subtracts it.
    reference.learn(-_loss_gradient(model, x[second], y[second]))
    np.testing.assert_allclose(
        _flatten(output.result), expected['result'], atol=1e-5
    )
    _check_measurements(output.measurements, expected)
    _check_theta(state, reference)
    # All of the projection, as it is longer than the update.
    np.testing.assert_allclose(
        state['reference'][:_DIMENSION],
        _signs() * reference.reference,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        _flatten(state['mirror']['weights']), model, atol=1e-5
    )
    for name, weights in (('before', before), ('after', model)):
      np.testing.assert_allclose(
          output.measurements[f'holdout_loss_{name}'],
          _loss(weights, x[second], y[second]),
          rtol=1e-4,
      )
    np.testing.assert_allclose(
        output.measurements['root_norm'], np.linalg.norm(root), rtol=1e-4
    )
  assert np.any(state['weighting']['margin'] != 2.0)
