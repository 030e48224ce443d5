"""Partitions of a labelled data set over clients.

Every function returns one array of example indices a client and puts every
example on exactly one client. The result depends on the arguments alone: equal
arguments give equal partitions. Indices within a client are in random order, so
that the head of a client's data is not one class.

The partitions go from no heterogeneity to a severe one:

*   `iid`: every client draws from the same distribution.
*   `dirichlet`: the classes spread unevenly over the clients; `alpha` sets how
    unevenly, and client sizes differ.
*   `shards`: every client holds a few classes only; client sizes are equal.
"""

import operator
from typing import List

import numpy as np

# Far below the minimum NumPy's sampler underflows and may never return; all of
# a class is on one client long before. Above the maximum the shares are equal.
MIN_ALPHA = 1e-4
MAX_ALPHA = 1e6


def iid(num_examples: int, num_clients: int, seed: int) -> List[np.ndarray]:
  """Deals shuffled examples out evenly.

  Args:
    num_examples: The number of examples to distribute, at least `num_clients`.
    num_clients: The number of clients, at least 1.
    seed: A non-negative integer that fixes the partition.

  Returns:
    A list of `num_clients` int64 index arrays whose sizes differ by at most 1.

  Raises:
    TypeError: If an argument is not an integer.
    ValueError: If an argument is out of range.
  """
  num_examples = _check_integer('num_examples', num_examples, minimum=1)
  num_clients = _check_integer('num_clients', num_clients, minimum=1)
  rng = np.random.default_rng(_check_integer('seed', seed, minimum=0))
  _check_enough(num_examples, num_clients, 1)
  return np.array_split(rng.permutation(num_examples), num_clients)


def dirichlet(
    labels: np.ndarray,
    num_clients: int,
    alpha: float,
    seed: int,
    *,
    min_examples: int = 1,
) -> List[np.ndarray]:
  """Spreads each class over the clients in Dirichlet proportions.

  For each class, the shares of the clients are drawn from a symmetric Dirichlet
  distribution with concentration `alpha`, and the shuffled examples of the
  class are cut at the cumulative shares (Yurochkin et al., "Bayesian
  Nonparametric Federated Learning of Neural Networks", ICML 2019, section 4).
  A small `alpha` puts most of a class on few clients; a large one approaches
  equal shares.

  Clients below `min_examples` are then filled, in order of their index: each
  takes one example at a time, chosen uniformly, from the client that is the
  largest at that moment (the lowest index on a tie). Nothing else changes, so
  a draw that meets the minimum is left as it is.

  Args:
    labels: Integer class labels, shape `[num_examples]`.
    num_clients: The number of clients, at least 1.
    alpha: The concentration, between `MIN_ALPHA` and `MAX_ALPHA`.
    seed: A non-negative integer that fixes the partition.
    min_examples: The least number of examples a client may have, at least 0.

  Returns:
    A list of `num_clients` int64 index arrays, each with at least
    `min_examples` entries.

  Raises:
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is out of range, or if there are fewer than
      `num_clients * min_examples` examples.
  """
  labels = _check_labels(labels)
  num_clients = _check_integer('num_clients', num_clients, minimum=1)
  min_examples = _check_integer('min_examples', min_examples, minimum=0)
  alpha = _check_alpha(alpha)
  rng = np.random.default_rng(_check_integer('seed', seed, minimum=0))
  _check_enough(labels.size, num_clients, min_examples)
  pieces = [[] for _ in range(num_clients)]
  for label in np.unique(labels):
    members = rng.permutation(np.flatnonzero(labels == label))
    shares = rng.dirichlet(np.full(num_clients, alpha))
    cuts = np.rint(np.cumsum(shares)[:-1] * members.size).astype(np.int64)
    for piece, part in zip(pieces, np.split(members, cuts)):
      piece.append(part)
  clients = [rng.permutation(np.concatenate(piece)) for piece in pieces]
  return _fill_small_clients(clients, min_examples, rng)


def shards(
    labels: np.ndarray,
    num_clients: int,
    shards_per_client: int,
    seed: int,
) -> List[np.ndarray]:
  """Sorts the examples by class, cuts them into shards and deals those out.

  With two shards a client this is the pathological non-IID partition of McMahan
  et al., "Communication-Efficient Learning of Deep Networks from Decentralized
  Data", AISTATS 2017, section 3: most clients hold at most two classes.

  Args:
    labels: Integer class labels, shape `[num_examples]`.
    num_clients: The number of clients, at least 1.
    shards_per_client: The number of shards every client gets, at least 1.
    seed: A non-negative integer that fixes the partition.

  Returns:
    A list of `num_clients` int64 index arrays. Shard sizes differ by at most 1.

  Raises:
    TypeError: If an argument is of the wrong kind.
    ValueError: If an argument is out of range, or if there are fewer than
      `num_clients * shards_per_client` examples.
  """
  labels = _check_labels(labels)
  num_clients = _check_integer('num_clients', num_clients, minimum=1)
  shards_per_client = _check_integer(
      'shards_per_client', shards_per_client, minimum=1
  )
  rng = np.random.default_rng(_check_integer('seed', seed, minimum=0))
  _check_enough(labels.size, num_clients, shards_per_client)
  shuffled = rng.permutation(labels.size)
  by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
  cut = np.array_split(by_class, num_clients * shards_per_client)
  hands = rng.permutation(len(cut)).reshape(num_clients, shards_per_client)
  return [
      rng.permutation(np.concatenate([cut[shard] for shard in hand]))
      for hand in hands
  ]


def _fill_small_clients(
    clients: List[np.ndarray], min_examples: int, rng: np.random.Generator
) -> List[np.ndarray]:
  """Moves single examples from the largest clients to the too small ones."""
  for small, size in enumerate([client.size for client in clients]):
    for _ in range(min_examples - size):
      # The largest client keeps at least `min_examples`: the mean size is no
      # less and this client is below it, so the largest is above it.
      largest = int(np.argmax([client.size for client in clients]))
      taken = rng.integers(clients[largest].size)
      clients[small] = np.append(clients[small], clients[largest][taken])
      clients[largest] = np.delete(clients[largest], taken)
  return clients


def _check_integer(name: str, value: int, *, minimum: int) -> int:
  """Returns `value` as an `int`, or raises."""
  try:
    integer = operator.index(value)
  except TypeError:
    integer = None
  if integer is None or isinstance(value, (bool, np.bool_)):
    raise TypeError(
        f'`{name}` must be an integer, found {value!r} of type'
        f' {type(value).__name__}.'
    )
  if integer < minimum:
    raise ValueError(f'`{name}` must be at least {minimum}, found {integer}.')
  return integer


def _check_alpha(alpha: float) -> float:
  """Returns `alpha` as a `float`, or raises."""
  if isinstance(alpha, (bool, np.bool_)) or not isinstance(
      alpha, (int, float, np.integer, np.floating)
  ):
    raise TypeError(
        f'`alpha` must be a real number, found {alpha!r} of type'
        f' {type(alpha).__name__}.'
    )
  if not MIN_ALPHA <= alpha <= MAX_ALPHA:
    raise ValueError(
        f'`alpha` must be between {MIN_ALPHA:g} and {MAX_ALPHA:g}, found'
        f' {alpha:g}.'
    )
  return float(alpha)


def _check_labels(labels: np.ndarray) -> np.ndarray:
  """Returns `labels` as an integer vector, or raises."""
  labels = np.asarray(labels)
  if not np.issubdtype(labels.dtype, np.integer):
    raise TypeError(
        f'`labels` must be integers, found an array of {labels.dtype}.'
    )
  if labels.ndim != 1:
    raise ValueError(
        '`labels` must be a vector with one label an example, found shape'
        f' {labels.shape}.'
    )
  return labels


def _check_enough(num_examples: int, num_clients: int, each: int) -> None:
  """Raises unless every client can get `each` examples."""
  if num_examples < num_clients * each:
    raise ValueError(
        f'{num_examples} examples cannot give {num_clients} clients at least'
        f' {each} each; use at most {num_examples // each} clients.'
    )
