"""Rounds of aggregators on generated updates.

The clients' updates are generated where the computations run, from the client's
number, and the aggregate is summed up there, so that neither crosses to Python.
What does cross in each round is the aggregator's state, as in every TFF
process.
"""

import collections
from typing import Any, List

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry
from fedaot_tff.runtime import native

_NUM_HOLDOUT_EXAMPLES = 100


class Generation:
  """Generates the updates of a round and does next to nothing with them."""

  def __init__(
      self,
      context: native.NativeExecutionContext,
      num_clients: int,
      dimension: int,
      seed: int,
  ):
    generate = make_generator(dimension, seed)

    @tff.tensorflow.computation(generate.type_signature.result)
    def take_first(update):
      return tf.add_n([tensor[0] for tensor in update])

    @tff.federated_computation(tff.FederatedType(np.int32, tff.CLIENTS))
    def generate_all(clients):
      updates = tff.federated_map(generate, clients)
      return tff.federated_sum(tff.federated_map(take_first, updates))

    self._context = context
    self._clients = list(range(num_clients))
    self._generate_all = generate_all

  def __call__(self) -> None:
    with tff.framework.get_context_stack().install(self._context):
      self._generate_all(self._clients)


class Rounds:
  """Plays rounds of an aggregator, each with the state of the one before."""

  def __init__(
      self,
      context: native.NativeExecutionContext,
      factory: Any,
      num_clients: int,
      dimension: int,
      seed: int,
  ):
    generate = make_generator(dimension, seed)
    value_type = generate.type_signature.result
    if isinstance(factory, tff.aggregators.UnweightedAggregationFactory):
      process = factory.create(value_type)
    else:
      process = factory.create(value_type, tff.TensorType(np.float32))

    @tff.tensorflow.computation(value_type)
    def add_up(update):
      return tf.add_n([tf.reduce_sum(tensor) for tensor in update])

    @tff.federated_computation(
        process.initialize.type_signature.result,
        tff.FederatedType(np.int32, tff.CLIENTS),
    )
    def next_fn(state, clients):
      updates = tff.federated_map(generate, clients)
      if process.is_weighted:
        weights = tff.federated_value(np.float32(1.0), tff.CLIENTS)
        output = process.next(state, updates, weights)
      else:
        output = process.next(state, updates)
      total = tff.federated_map(add_up, output.result)
      return output.state, total, output.measurements

    self._context = context
    self._clients = list(range(num_clients))
    self._next = next_fn
    with tff.framework.get_context_stack().install(context):
      self._state = process.initialize()

  def __call__(self) -> None:
    with tff.framework.get_context_stack().install(self._context):
      self._state, total, _ = self._next(self._state, self._clients)
    if not np.isfinite(total):
      raise ValueError('the aggregate is not finite')


def create_factory(
    name: str,
    num_clients: int,
    dimension: int,
    *,
    byzantine_fraction: float,
    seed: int,
) -> Any:
  """Creates an aggregator for generated updates.

  Args:
    name: Its name in the registry, with options.
    num_clients: N, the number of clients of a round.
    dimension: d, the number of coordinates of an update.
    byzantine_fraction: The fraction of attackers that it is told to withstand.
    seed: Fixes its random choices.

  Returns:
    A `tff.aggregators.AggregationFactory`.
  """
  return registry.get_aggregator(name).create(
      registry.AggregatorContext(
          holdout=_make_holdout(dimension),
          num_byzantine=round(byzantine_fraction * num_clients),
          seed=seed,
      )
  )


def _shapes(dimension: int) -> List[List[int]]:
  """Two tensors an update, as the rules must flatten what models have."""
  return [[dimension - dimension // 2], [dimension // 2]]


def make_generator(dimension: int, seed: int) -> tff.Computation:
  """Makes a client's update from its number: noise around what all share."""

  @tff.tensorflow.computation(np.int32)
  def generate(client):
    return tuple(
        tf.random.stateless_uniform(
            shape, tf.stack([seed + part, client]), -0.5, 1.5, alg='philox'
        )
        for part, shape in enumerate(_shapes(dimension))
    )

  return generate


def _make_holdout(dimension: int) -> holdout_lib.HoldOut:
  """A hold-out whose model has as many weights, and costs as good as nothing.

  Its update has the direction that the clients' updates share.
  """
  initial_weights = tuple(
      np.zeros(shape, np.float32) for shape in _shapes(dimension)
  )

  def predict(weights, x, training):
    del training
    trainable, _ = weights
    total = tf.add_n([tf.reduce_sum(tensor) for tensor in trainable])
    return x * total / dimension

  def loss(output, label, sample_weight=None):
    del sample_weight
    return tf.reduce_mean(tf.square(output - label))

  model = tff.learning.models.FunctionalModel(
      initial_weights=(initial_weights, ()),
      predict_on_batch_fn=tf.function(predict),
      loss_fn=loss,
      input_spec=collections.OrderedDict(
          x=tf.TensorSpec([None], tf.float32),
          y=tf.TensorSpec([None], tf.float32),
      ),
  )
  ones = np.ones([_NUM_HOLDOUT_EXAMPLES], np.float32)
  return holdout_lib.HoldOut(model, (ones, -ones))
