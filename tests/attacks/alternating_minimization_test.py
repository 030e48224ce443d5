"""Alternating minimization, on a softmax regression."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.attacks import alternating_minimization
from tests import small_problem


def _gradient(weights, x, y):
  """Kernel's and bias's, by hand."""
  _, flat = small_problem.loss_and_gradient(weights, x, y)
  return flat[:-3].reshape([4, 3]), flat[-3:]


def _reference(weights, honest, batches, *, boost, rho, rate):
  """The weights after the steps of the formula, in float64."""
  for x, y in batches:
    away = [w - h for w, h in zip(weights, honest)]
    distance = np.sqrt(sum(np.sum(a**2) for a in away))
    weights = [
        w - rate * (g + rho * a / distance)
        for w, g, a in zip(weights, _gradient(weights, x, y), away)
    ]
    triggered = x.copy()
    triggered[:, -1] = 5
    malicious = _gradient(weights, triggered, np.full(len(y), 2))
    weights = [w - boost * rate * g for w, g in zip(weights, malicious)]
  return weights


@pytest.mark.parametrize('boost, rho', [(1.0, 0.0), (4.0, 0.0), (1.0, 2.0)])
def test_matches_the_reference(boost, rho):
  model = small_problem.model()
  poisoning = alternating_minimization.AlternatingMinimization(
      target=2, size=1, value=5.0, boost=boost, rho=rho
  )
  train = poisoning.create(model, small_problem.client_optimizer())
  before = tuple(map(tf.constant, model.initial_weights[0]))
  update = tuple(0.1 * tf.ones_like(w) for w in before)
  dataset = small_problem.client_datasets(num_clients=3)[2]
  found = tf.function(
      lambda update: train(
          update, tff.learning.models.ModelWeights(before, ()), dataset
      )
  )(update)
  expected = _reference(
      [np.float64(w) for w in before],
      [np.float64(w) - 0.1 for w in before],
      [(b['x'], b['y']) for b in dataset.as_numpy_iterator()],
      boost=boost,
      rho=rho,
      rate=small_problem.CLIENT_LEARNING_RATE,
  )
  for f, b, e in zip(found, before, expected):
    np.testing.assert_allclose(f, b - e, rtol=1e-4, atol=1e-5)
