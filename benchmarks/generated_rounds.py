"""Rounds of aggregators on generated updates.

Updates are generated where the computations run, and the aggregate is summed up
there: neither crosses to Python. The aggregator's state does in each round, as
in every TFF process.
"""

import collections
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry

# Coordinates after which an update repeats itself: to draw all of them takes
# longer than the mean of the updates. It is prime, so that no rule's blocks of
# coordinates are all the same.
_PERIOD = 10_007

# A client is a number.
CLIENTS_TYPE = tff.FederatedType(np.int32, tff.CLIENTS)


def make_factory(aggregator: str, num_clients: int, dimension: int) -> Any:
  """The factory of an aggregator of the registry; a tenth may attack."""
  return registry.get_aggregator(aggregator).create(
      registry.AggregatorContext(
          holdout=_make_holdout(dimension),
          num_byzantine=round(0.1 * num_clients),
      )
  )


def make_rounds(
    aggregator: str, num_clients: int, dimension: int
) -> Callable[[], None]:
  """What plays a round of an aggregator of the registry at each call."""
  factory = make_factory(aggregator, num_clients, dimension)
  generate = make_generator(dimension)
  types = [generate.type_signature.result]
  if isinstance(factory, tff.aggregators.WeightedAggregationFactory):
    types.append(tff.TensorType(np.float32))
  process = factory.create(*types)

  @tff.federated_computation(
      process.initialize.type_signature.result, CLIENTS_TYPE
  )
  def next_fn(state, clients):
    arguments = [tff.federated_map(generate, clients)]
    if process.is_weighted:
      arguments.append(tff.federated_value(np.float32(1), tff.CLIENTS))
    output = process.next(state, *arguments)
    return output.state, add_up(output.result), output.measurements

  return repeat(next_fn, process.initialize(), num_clients)


def repeat(
    next_fn: tff.Computation, state: Any, num_clients: int
) -> Callable[[], None]:
  """What plays a round at each call, with the state of the call before.

  `next_fn` maps state and clients to the new state, the sum of the aggregate's
  coordinates, which must be finite, and measurements.
  """

  def play():
    nonlocal state
    state, total, _ = next_fn(state, list(range(num_clients)))
    if not np.isfinite(total):
      raise ValueError(f'the coordinates of the aggregate sum up to {total}.')

  return play


def make_generation(num_clients: int, dimension: int) -> Callable[[], None]:
  """What generates a round's updates at each call, and next to nothing else."""
  generate = make_generator(dimension)

  @tff.tensorflow.computation(generate.type_signature.result)
  def take_first(update):
    return tf.add_n([tensor[0] for tensor in update])

  @tff.federated_computation(CLIENTS_TYPE)
  def generate_all(clients):
    updates = tff.federated_map(generate, clients)
    return tff.federated_sum(tff.federated_map(take_first, updates))

  return lambda: generate_all(list(range(num_clients)))


def make_generator(dimension: int) -> tff.Computation:
  """Makes a client's update from its number: noise around what all share."""

  def tensor(part, size, client):
    noise = tf.random.stateless_uniform(
        [_PERIOD], tf.stack([part, client]), -0.5, 1.5, alg='philox'
    )
    return tf.tile(noise, [size // _PERIOD + 1])[:size]

  @tff.tensorflow.computation(np.int32)
  def generate(client):
    return tuple(
        tensor(part, size, client)
        for part, (size,) in enumerate(_shapes(dimension))
    )

  return generate


def add_up(value: tff.Value) -> tff.Value:
  """The sum of all coordinates of a value at the server."""

  @tff.tensorflow.computation(value.type_signature.member)
  def add_up_tensors(tensors):
    return tf.add_n([tf.reduce_sum(tensor) for tensor in tensors])

  return tff.federated_map(add_up_tensors, value)


def _shapes(dimension):
  """Two tensors an update, as the rules must flatten what models have."""
  return [dimension - dimension // 2], [dimension // 2]


def _make_holdout(dimension):
  """A hold-out whose model has as many weights, and costs as good as nothing.

  Its update has the direction that the clients' updates share.
  """

  def predict(weights, x, training):
    del training
    total = tf.add_n([tf.reduce_sum(tensor) for tensor in weights[0]])
    return x * total / dimension

  def loss(output, label, sample_weight=None):
    del sample_weight
    return tf.reduce_mean(tf.square(output - label))

  zeros = tuple(np.zeros(shape, np.float32) for shape in _shapes(dimension))
  spec = tf.TensorSpec([None], tf.float32)
  model = tff.learning.models.FunctionalModel(
      initial_weights=(zeros, ()),
      predict_on_batch_fn=tf.function(predict, autograph=False),
      loss_fn=loss,
      input_spec=collections.OrderedDict(x=spec, y=spec),
  )
  ones = np.ones([100], np.float32)
  return holdout_lib.HoldOut(model, (ones, -ones))
