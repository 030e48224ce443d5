"""Times rounds of aggregators in TensorFlow Federated's worker process.

The clients' updates are generated in the worker from the client's number, and
the aggregate is summed up there, so that neither crosses to Python. What does
cross in each round is the aggregator's state, as in every TFF process.
"""

import collections
from collections.abc import Iterator
import os
import pathlib
import time
from typing import Any, Callable, List, NamedTuple, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import holdout as holdout_lib
from fedaot_tff.aggregators import registry
from fedaot_tff.simulation import execution_context

_NUM_HOLDOUT_EXAMPLES = 100
# The worker frees what the first round held during the second.
_NUM_WARM_UP_ROUNDS = 2
# What the workers of a measurement hold between rounds, in multiples of the
# updates' size, with some to spare: generation 1, mean 3.5, tff_robust 5 and
# the aggregator 6.
_HELD_UPDATES = 16


class Repeat(NamedTuple):
  """One repeat: times in seconds, in the order in which they are taken.

  Memory is the most that a worker process has held, in 10^6 bytes; None where
  the system does not tell.

  Attributes:
    generation: Generating the updates, and no more.
    mean: A round of TFF's `MeanFactory`, generation included.
    tff_robust: A round of TFF's `robust_aggregator`, generation included; None
      if it is not asked for.
    aggregator: A round of the aggregator, generation included.
    peak_memory_mb: Of the aggregator's worker.
    mean_peak_memory_mb: Of the worker of `MeanFactory`, after as many rounds.
  """

  generation: float
  mean: float
  tff_robust: Optional[float]
  aggregator: float
  peak_memory_mb: Optional[float]
  mean_peak_memory_mb: Optional[float]


class Runner:
  """Times aggregators one after another.

  Generation, `MeanFactory`, `robust_aggregator` and the aggregator have a
  worker process each, so that the memory of a worker is what the one thing in
  it takes. The first three are kept for as long as the cohort and the dimension
  stay the same.

  A worker does not give back the memory that it has once had. Where the four
  could hold more than half of the machine's memory together, only one lives at
  a time: each is ended after its turn, and begins the next one anew, with
  rounds that do not count.
  """

  def __init__(
      self,
      *,
      byzantine_fraction: float,
      seed: int,
      time_tff_robust: bool = True,
  ):
    """Initializes `Runner`.

    Args:
      byzantine_fraction: The fraction of attackers that the aggregators are
        told to withstand. There are none.
      seed: Fixes the updates and the aggregators' random choices.
      time_tff_robust: Whether to time `robust_aggregator` as well, which holds
        the most memory of what an aggregator is measured against.
    """
    self._byzantine_fraction = byzantine_fraction
    self._seed = seed
    self._time_tff_robust = time_tff_robust
    self._references_key = None
    self._references: Optional['_References'] = None

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
    keep_workers = _fit_together(num_clients, dimension)

    def make_timer(name):
      return _Timer(
          lambda context: self._make_rounds(
              context, name, num_clients, dimension
          ),
          keep_worker=keep_workers,
      )

    key = (num_clients, dimension)
    if key != self._references_key:
      self.close()
      self._references = _References(
          generation=_Timer(
              lambda context: _Generation(
                  context, num_clients, dimension, self._seed
              ),
              keep_worker=keep_workers,
          ),
          mean=make_timer('mean'),
          tff_robust=(
              make_timer('tff_robust') if self._time_tff_robust else None
          ),
      )
      self._references_key = key
    generation, mean, tff_robust = self._references
    timer = make_timer(aggregator)
    try:
      if keep_workers:
        for each in (generation, mean, tff_robust, timer):
          if each is not None:
            each.warm_up()
      for repeat in range(repeats):
        # As one after the other as can be: a busy machine is so for all.
        yield Repeat(
            generation=generation.seconds(),
            mean=mean.seconds(),
            tff_robust=None if tff_robust is None else tff_robust.seconds(),
            aggregator=timer.seconds(),
            peak_memory_mb=timer.peaks_mb[repeat],
            mean_peak_memory_mb=mean.peaks_mb[repeat],
        )
    except Exception:
      # It may have been one of the references.
      self.close()
      raise
    finally:
      timer.close()

  def close(self) -> None:
    """Ends the workers that are kept."""
    for timer in self._references or ():
      if timer is not None:
        timer.close()
    self._references_key = self._references = None

  def _make_rounds(
      self,
      context: execution_context.NativeExecutionContext,
      name: str,
      num_clients: int,
      dimension: int,
  ) -> '_Rounds':
    factory = registry.get_aggregator(name).create(
        registry.AggregatorContext(
            holdout=_make_holdout(dimension),
            num_byzantine=round(self._byzantine_fraction * num_clients),
            seed=self._seed,
        )
    )
    return _Rounds(context, factory, num_clients, dimension, self._seed)


class _Timer:
  """Times one thing in a worker process of its own.

  Attributes:
    peaks_mb: `peak_memory_mb` of the worker after each timed round.
  """

  def __init__(
      self,
      make_round: Callable[
          [execution_context.NativeExecutionContext], Callable[[], None]
      ],
      *,
      keep_worker: bool,
  ):
    self._context = execution_context.create_native_execution_context()
    self._make_round = make_round
    self._keep_worker = keep_worker
    self._play_round: Optional[Callable[[], None]] = None
    self._is_warm = False
    self.peaks_mb: List[Optional[float]] = []

  def warm_up(self) -> None:
    """Plays the rounds of a new worker that do not count."""
    if self._is_warm:
      return
    if self._play_round is None:
      self._play_round = self._make_round(self._context)
    for _ in range(_NUM_WARM_UP_ROUNDS):
      self._play_round()
    self._is_warm = True

  def seconds(self) -> float:
    """The time of a round."""
    self.warm_up()
    start = time.perf_counter()
    self._play_round()
    seconds = time.perf_counter() - start
    self.peaks_mb.append(peak_memory_mb(self._context.worker_pid))
    if not self._keep_worker:
      self.close()
    return seconds

  def close(self) -> None:
    """Ends the worker; `seconds` starts another."""
    self._context.close()
    self._is_warm = False


class _References(NamedTuple):
  """What aggregators are measured against."""

  generation: _Timer
  mean: _Timer
  tff_robust: Optional[_Timer]


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


def _fit_together(num_clients: int, dimension: int) -> bool:
  """Whether all workers may hold what they do between rounds."""
  memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  updates = num_clients * dimension * np.dtype(np.float32).itemsize
  return _HELD_UPDATES * updates <= memory / 2


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
