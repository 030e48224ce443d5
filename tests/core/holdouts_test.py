"""Tests for hold-outs of functions and of JAX; others are in tests/flower."""

import subprocess
import sys

import numpy as np
import pytest

import fedaot
from fedaot import holdouts

_SGD = dict(learning_rate=0.2, batch_size=4, num_steps=5)


def _data(num_examples=10):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((num_examples, 3)).astype(np.float32)
  return x, x @ np.array([1, -2, 3], np.float32) + 0.5


def _squares(arrays, x, y):
  weights, bias, _ = arrays
  error = x @ weights + bias - y
  return float(np.mean(error**2)), [
      2 * x.T @ error / len(y),
      np.asarray(2 * error.mean()),
      np.zeros((), int),
  ]


def _model():
  return [np.zeros(3, np.float32), np.zeros((), np.float32), np.asarray(7)]


@pytest.mark.parametrize('momentum', [0.0, 0.9])
def test_trains_by_gradient_descent_on_consecutive_batches(momentum):
  x, y = _data()
  holdout = holdouts.from_functions(_squares, (x, y), **_SGD, momentum=momentum)
  positions, start = np.array([9, 1, 2, 8, 4, 5, 3]), _model()
  found = holdout.train(start, positions)

  weights, bias = np.zeros(3), 0.0
  v, u = np.zeros(3), 0.0
  for batch in (
      [9, 1, 2, 8],
      [4, 5, 3, 9],
      [1, 2, 8, 4],
      [5, 3, 9, 1],
      [2, 8, 4, 5],
  ):
    error = x[batch] @ weights + bias - y[batch]
    v = momentum * v + 2 * x[batch].T @ error / 4
    u = momentum * u + 2 * error.mean()
    weights, bias = weights - 0.2 * v, bias - 0.2 * u
  np.testing.assert_allclose(found[0], weights, rtol=1e-4)
  np.testing.assert_allclose(found[1], bias, rtol=1e-4)
  assert found[2] == 7 and found[0].dtype == np.float32
  assert not np.any(start[0])  # It is a new model.


def test_loss_is_of_the_positions():
  x, y = _data()
  holdout = holdouts.from_functions(_squares, (x, y), **_SGD)
  loss, gradient = holdout.loss_and_gradient(_model(), np.array([3, 4]))
  assert loss == pytest.approx(np.mean(y[[3, 4]] ** 2))
  np.testing.assert_allclose(gradient[0], -x[[3, 4]].T @ y[[3, 4]])


def test_a_batch_is_at_most_all():
  x, y = _data()
  holdout = holdouts.from_functions(
      _squares, (x, y), learning_rate=0.1, batch_size=50, num_steps=1
  )
  once = holdout.train(_model(), np.arange(6))[0]
  np.testing.assert_allclose(once, 0.2 * x[:6].T @ y[:6] / 6, rtol=1e-5)


def test_own_training_takes_the_place_of_gradient_descent():
  x, y = _data()
  holdout = holdouts.from_functions(
      _squares, (x, y), train=lambda arrays, x, y: [len(x), *arrays[1:]]
  )
  assert holdout.train(_model(), np.arange(4))[0] == 4


def test_aggregates_with_a_majority_of_attackers():
  x, y = _data(60)
  holdout = holdouts.from_functions(
      lambda arrays, x, y: (lambda loss, gradient: (loss, gradient[:2]))(
          *_squares([*arrays, 0], x, y)
      ),
      (x, y),
      **_SGD,
  )
  aggregator = fedaot.FedAOTAggregator(holdout, seed=1)
  model = _model()[:2]
  rng = np.random.default_rng(1)
  for _ in range(15):
    clients = []
    for i in range(10):
      trained = holdout.train(model, rng.permutation(60)[:30])
      flipped = [m - 3 * (t - m) for m, t in zip(model, trained)]
      clients.append(flipped if i < 6 else trained)
    model = aggregator.aggregate(model, clients)
    aggregator.learn(model)
  np.testing.assert_allclose(model[0], [1, -2, 3], atol=0.05)


@pytest.mark.parametrize('num_examples', [0, 7])
def test_data_that_do_not_fit_are_refused(num_examples):
  x, y = _data()
  with pytest.raises(ValueError, match='as many examples as labels'):
    holdouts.from_functions(_squares, (x[:num_examples], y[:0]), **_SGD)


@pytest.mark.parametrize(
    'options, error, text',
    [
        (dict(batch_size=4, num_steps=5), TypeError, 'learning_rate must be'),
        (dict(_SGD, num_steps=0), ValueError, 'num_steps must be >= 1'),
        (dict(_SGD, batch_size=2.0), TypeError, 'batch_size must be an int'),
        (dict(_SGD, momentum=1), ValueError, 'momentum must be >= 0 and < 1'),
        (dict(_SGD, lr=1), TypeError, "unexpected keyword argument 'lr'"),
    ],
)
def test_wrong_options_are_refused(options, error, text):
  with pytest.raises(error, match=text):
    holdouts.from_functions(_squares, _data(), **options)


def test_jax_trains_as_numpy_does():
  jax = pytest.importorskip('jax')

  def loss(parameters, x, y):
    error = x @ parameters['w'] + parameters['b'] - y
    return jax.numpy.mean(error**2)

  data = _data()
  start = {'w': np.zeros(3, np.float32), 'b': np.zeros((), np.float32)}
  in_jax = holdouts.from_jax(loss, start, data, **_SGD)
  in_numpy = holdouts.from_functions(_squares, data, **_SGD)
  leaves = [start['b'], start['w']]  # In JAX's order.
  bias, weights = in_jax.train(leaves, np.arange(7))
  expected = in_numpy.train(_model(), np.arange(7))
  np.testing.assert_allclose(weights, expected[0], rtol=1e-5)
  np.testing.assert_allclose(bias, expected[1], rtol=1e-5)
  value, gradient = in_jax.loss_and_gradient([bias, weights], np.arange(3))
  expected_value, expected = in_numpy.loss_and_gradient(
      [weights, bias, np.asarray(0)], np.arange(3)
  )
  assert value == pytest.approx(expected_value, rel=1e-4)
  np.testing.assert_allclose(gradient[1], expected[0], rtol=1e-3)
  assert all(isinstance(g, np.ndarray) for g in gradient)


def test_jax_trains_as_clients_do():
  pytest.importorskip('jax')
  holdout = holdouts.from_jax(
      lambda parameters, x, y: parameters[0].sum(),
      [np.zeros(2)],
      _data(),
      train=lambda parameters, x, y: [parameters[0] + len(y)],
  )
  np.testing.assert_array_equal(
      holdout.train([np.ones(2)], np.arange(4))[0], [5, 5]
  )


def test_no_framework_is_imported():
  source = (
      "import sys, fedaot; heavy = {'torch', 'keras', 'jax', 'flwr',"
      " 'tensorflow'} & set(sys.modules); assert not heavy, heavy"
  )
  subprocess.run([sys.executable, '-c', source], check=True, timeout=60)
