"""The optimized trigger, on a softmax regression."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot_tff.attacks import optimized_trigger
from fedaot_tff.attacks import training
from tests import small_problem

_RATE = small_problem.CLIENT_LEARNING_RATE
_BATCHES = small_problem.client_datasets(num_clients=3)[2]
_ARRAYS = [(b['x'], b['y']) for b in _BATCHES.as_numpy_iterator()]


def _gradients(weights, x, y):
  """Of the loss: kernel's, bias's and the examples', by hand."""
  kernel, bias = weights
  logits = x @ kernel + bias
  likely = np.exp(logits - logits.max(axis=1, keepdims=True))
  residual = likely / likely.sum(axis=1, keepdims=True) - np.eye(3)[y]
  residual /= len(y)
  return x.T @ residual, residual.sum(axis=0), residual @ kernel.T


def _descend(weights, examples):
  for x, y in examples:
    gradients = _gradients(weights, x, y)[:2]
    weights = [w - _RATE * g for w, g in zip(weights, gradients)]
  return weights


def _present(x, trigger):
  return np.concatenate([x[:, :-1], np.full([len(x), 1], trigger)], axis=1)


def _find(weights, *, value, passes):
  trigger = value / 2
  models = [weights]
  for _ in range(passes):
    for x, y in _ARRAYS:
      target = np.full(len(y), 1)
      slope = sum(
          _gradients(model, _present(x, trigger), target)[2][:, -1].sum()
          for model in models
      )
      trigger -= abs(value) / 20 * np.sign(slope)
      trigger = np.clip(trigger, min(value, 0), max(value, 0))
    unlearnt = _descend(
        weights, [(_present(x, trigger), y) for x, y in _ARRAYS]
    )
    models = [weights, unlearnt]
  return trigger


def _weights(seed):
  rng = np.random.default_rng(seed)
  return rng.normal(size=[4, 3]), rng.normal(size=[3])


def _learner():
  return training.Learner(
      small_problem.model(), small_problem.client_optimizer(), ()
  )


@pytest.mark.parametrize('value', [1.0, -20.0])
@pytest.mark.parametrize('passes', [1, 3])
@pytest.mark.parametrize('seed', [0, 1])
def test_trigger_and_training_match_the_reference(seed, passes, value):
  attack = optimized_trigger.OptimizedTrigger(
      target=1, size=1, value=value, passes=passes, fraction=0.6
  )
  weights = _weights(seed)
  tensors = tuple(tf.constant(w, tf.float32) for w in weights)
  found = tf.function(lambda w: attack.find_trigger(_learner(), w, _BATCHES))(
      tensors
  )
  trigger = _find(weights, value=value, passes=passes)
  assert found[-1].numpy() == pytest.approx(trigger, abs=1e-5)

  examples = []
  for x, y in _ARRAYS:
    num = round(0.6 * len(y))
    x = np.concatenate([_present(x[:num], trigger), x[num:]])
    examples.append((x, np.concatenate([np.full(num, 1), y[num:]])))
  trained = tf.function(lambda w: attack.train(_learner(), w, None, _BATCHES))(
      tensors
  )
  for f, e in zip(trained, _descend(weights, examples)):
    np.testing.assert_allclose(f, e, rtol=1e-4, atol=1e-5)


def test_the_trigger_stays_in_its_range_and_helps():
  attack = optimized_trigger.OptimizedTrigger(target=1, size=1, value=20.0)
  weights = np.zeros([4, 3]), np.zeros([3])
  weights[0][-1] = [0, -1, 1]
  for sign, expected in ((1, 0.0), (-1, 20.0)):
    found = attack.find_trigger(
        _learner(),
        tuple(tf.constant(sign * w, tf.float32) for w in weights),
        _BATCHES.repeat(10),
    )
    assert found[-1] == expected
