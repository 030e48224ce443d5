"""The mean that is fine-tuned on the hold-out, against NumPy."""

import collections

import numpy as np
import pytest
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout_rules
from fedaot_tff.learning import fed_avg
from tests import small_problem

_VALUE_TYPE = tff.to_type(
    (
        tff.TensorType(
            np.float32, [small_problem.NUM_FEATURES, small_problem.NUM_CLASSES]
        ),
        tff.TensorType(np.float32, [small_problem.NUM_CLASSES]),
    )
)
_INITIAL = small_problem.model().initial_weights[0]
# As in `small_problem.holdout`.
_NUM_STEPS = 3
_NUM_EXAMPLES = 30


def _flatten(value):
  return np.concatenate([np.ravel(t) for t in value]).astype(np.float64)


def _unflatten(vector):
  kernel, bias = np.split(vector, [_INITIAL[0].size])
  return kernel.reshape(_INITIAL[0].shape), bias


def _local_training(vector):
  """Weights before minus weights after a client's SGD on the hold-out."""
  x, y = small_problem.examples(_NUM_EXAMPLES, seed=99).values()
  trained = vector.copy()
  for step in range(_NUM_STEPS):
    rows = step * small_problem.BATCH_SIZE + np.arange(small_problem.BATCH_SIZE)
    _, gradient = small_problem.loss_and_gradient(
        _unflatten(trained), x[rows], y[rows]
    )
    trained -= small_problem.CLIENT_LEARNING_RATE * gradient
  return vector - trained


def _updates(num_clients, seed=0):
  rng = np.random.default_rng(seed)
  return [
      tuple(
          (0.3 * rng.normal(size=w.shape)).astype(np.float32) for w in _INITIAL
      )
      for _ in range(num_clients)
  ]


def _expected(model, updates):
  """The mean and the aggregate."""
  mean = np.zeros_like(model)
  for update in updates:
    mean += _flatten(update) / len(updates)
  return mean, mean + _local_training(model - mean)


@pytest.fixture(scope='module')
def process():
  return holdout_rules.holdout_finetuned_mean_factory(
      small_problem.holdout()
  ).unweighted.create(_VALUE_TYPE)


def test_process_is_the_mean_and_training_from_the_model_after_it(process):
  state = process.initialize()
  model = _flatten(_INITIAL)
  for round_num, num_clients in enumerate((3, 1, 0)):
    updates = _updates(num_clients, seed=round_num)
    mean, expected = _expected(model, updates)
    output = process.next(state, updates)
    np.testing.assert_allclose(_flatten(output.result), expected, atol=2e-6)
    np.testing.assert_allclose(
        output.measurements['weights'], np.ones([num_clients]) / num_clients
    )
    np.testing.assert_allclose(
        output.measurements['finetuning_norm'],
        np.linalg.norm(expected - mean),
        rtol=1e-4,
    )
    model = model - expected
    state = output.state
    np.testing.assert_allclose(
        _flatten(state['mirror']['weights']), model, atol=5e-6
    )


def test_bad_updates_are_left_out(process):
  good, bad = _updates(2), []
  for value in (np.nan, np.inf, 1e30):
    bad.append((good[0][0], good[0][1].copy()))
    bad[-1][1][1] = value
  output = process.next(
      process.initialize(), [bad[0], good[0], bad[1], good[1], bad[2]]
  )
  np.testing.assert_allclose(
      _flatten(output.result),
      _expected(_flatten(_INITIAL), good)[1],
      atol=2e-6,
  )
  np.testing.assert_array_equal(
      output.measurements['weights'], [0, 0.5, 0, 0.5, 0]
  )
  assert output.measurements['num_non_finite'] == 3


def test_useless_training_leaves_the_mean():
  holdout = small_problem.holdout()
  optimizer = tff.learning.optimizers.build_sgdm(1e38)
  factory = holdout_rules.holdout_finetuned_mean_factory(
      type(holdout)(
          small_problem.model(),
          small_problem.examples(_NUM_EXAMPLES, seed=99),
          client_optimizer=optimizer,
      ),
  )
  process = factory.create(_VALUE_TYPE, tff.TensorType(np.float32))
  updates = _updates(2)
  # Weights have no effect.
  output = process.next(process.initialize(), updates, [1.0, 1e9])
  np.testing.assert_allclose(
      _flatten(output.result),
      np.mean([_flatten(u) for u in updates], axis=0),
      rtol=1e-6,
  )
  assert output.measurements['finetuning_norm'] == 0


def test_learning_process_trains_on_the_holdout_after_averaging():
  process = fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=holdout_rules.holdout_finetuned_mean_factory(
          small_problem.holdout()
      ),
  )
  plain = fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=tff.aggregators.MeanFactory(),
  )
  clients = [
      collections.OrderedDict(attacker_index=np.int32(-1), dataset=dataset)
      for dataset in small_problem.client_datasets()
  ]
  models = []
  for p in (process, plain):
    output = p.next(p.initialize(), clients)
    assert 'mirror' not in output.state.aggregator
    models.append(_flatten(small_problem.trainable(p, output.state)))
  tuned, averaged = models
  np.testing.assert_allclose(
      tuned, averaged - _local_training(averaged), atol=2e-6
  )


def test_refuses_wrong_arguments():
  with pytest.raises(TypeError, match='^holdout must be a .*HoldOut;'):
    holdout_rules.holdout_finetuned_mean_factory(None)
  factory = holdout_rules.holdout_finetuned_mean_factory(
      small_problem.holdout()
  ).unweighted
  with pytest.raises(ValueError, match='trainable weights'):
    factory.create(tff.to_type((tff.TensorType(np.float32, [2]),)))
