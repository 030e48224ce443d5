"""Times rounds of aggregators in TensorFlow Federated's worker process.

The clients' updates are generated in the worker from the client's number, and
the aggregate is summed up there, so that neither crosses to Python. What does
cross in each round is the aggregator's state, as in every TFF process.
"""

import collections
from collections.abc import Iterator
import pathlib
import time
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry
from fedaot_tff.simulation import execution_context

_NUM_HOLDOUT_EXAMPLES = 100


class Repeat(NamedTuple):
  """The times of one repeat, in seconds, taken right after one another.

  Attributes:
    generation: Generating the updates, and no more.
    mean: A round of TFF's `MeanFactory`, generation included.
    aggregator: A round of the aggregator, generation included.
    peak_memory_mb: The most memory that the aggregator's worker process has
      held so far, in 10^6 bytes; None where the system does not tell.
  """

  generation: float
  mean: float
  aggregator: float
  peak_memory_mb: Optional[float]


class Runner:
  """Times aggregators one after another.

  `MeanFactory` and the generation run in a worker of their own, which is kept
  for as long as the cohort and the dimension stay the same.
  """

  def __init__(self, *, byzantine_fraction: float, seed: int):
    """Initializes `Runner`.

    Args:
      byzantine_fraction: The fraction of attackers that the aggregators are
        told to withstand. There are none.
      seed: Fixes the updates and the aggregators' random choices.
    """
    self._byzantine_fraction = byzantine_fraction
    self._seed = seed
    self._reference_key = None
    self._reference: Optional['_Reference'] = None

  def run(
      self, aggregator: str, num_clients: int, dimension: int, repeats: int
  ) -> Iterator[Repeat]:
    """Times an aggregator in a worker process of its own.

    Args:
      aggregator: Its name in the registry, with options.
      num_clients: N, the number of clients of a round.
      dimension: d, the number of coordinates of an update, at least 2.
      repeats: How many times to repeat the measurement.

    Returns:
      An iterator over the repeats; the next one is run when it is asked for.
    """
    key = (num_clients, dimension)
    if key != self._reference_key:
      self.close()
      self._reference = _Reference(num_clients, dimension, self._seed)
      self._reference_key = key
    factory = registry.get_aggregator(aggregator).create(
        registry.AggregatorContext(
            holdout=_make_holdout(dimension),
            num_byzantine=round(self._byzantine_fraction * num_clients),
            seed=self._seed,
        )
    )
    context = execution_context.create_native_execution_context()
    try:
      play_round = _Rounds(
          context, factory, num_clients, dimension, self._seed
      )
      play_round()
      for _ in range(repeats):
        generation, mean = self._reference.time_both()
        yield Repeat(
            generation,
            mean,
            _seconds_of(play_round),
            peak_memory_mb(context.worker_pid),
        )
    finally:
      context.close()

  def close(self) -> None:
    """Ends the worker that is kept."""
    if self._reference is not None:
      self._reference.close()
    self._reference_key = self._reference = None


class _Reference:
  """Generation alone and `MeanFactory`, in one worker."""

  def __init__(self, num_clients: int, dimension: int, seed: int):
    self._context = execution_context.create_native_execution_context()
    self._generate = _Generation(self._context, num_clients, dimension, seed)
    self._mean = _Rounds(
        self._context,
        tff.aggregators.MeanFactory(),
        num_clients,
        dimension,
        seed,
    )
    self.time_both()

  def time_both(self) -> Tuple[float, float]:
    """Seconds of the generation and of a round of the mean."""
    return _seconds_of(self._generate), _seconds_of(self._mean)

  def close(self) -> None:
    self._context.close()


class _Generation:
  """Generates the updates of a round and does next to nothing with them."""

  def __init__(
      self,
      context: execution_context.NativeExecutionContext,
      num_clients: int,
      dimension: int,
      seed: int,
  ):
    generate = _make_generator(dimension, seed)

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


class _Rounds:
  """Plays rounds of an aggregator, each with the state of the one before."""

  def __init__(
      self,
      context: execution_context.NativeExecutionContext,
      factory: Any,
      num_clients: int,
      dimension: int,
      seed: int,
  ):
    generate = _make_generator(dimension, seed)
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


def peak_memory_mb(pid: int) -> Optional[float]:
  """The most memory that a process has held, in 10^6 bytes.

  Args:
    pid: The process's id.

  Returns:
    The peak of its resident set size; None where the system does not tell.
  """
  try:
    status = pathlib.Path(f'/proc/{pid}/status').read_text(encoding='utf-8')
  except OSError:
    return None
  for line in status.splitlines():
    if line.startswith('VmHWM:'):
      return int(line.split()[1]) * 1024 / 1e6
  return None


def _seconds_of(function: Callable[[], None]) -> float:
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def _shapes(dimension: int) -> List[List[int]]:
  """Two tensors an update, as the rules must flatten what models have."""
  return [[dimension - dimension // 2], [dimension // 2]]


def _make_generator(dimension: int, seed: int) -> tff.Computation:
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
