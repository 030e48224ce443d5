"""Times the steps of a FedAOT round in TensorFlow Federated's worker process.

A round is cut off after each of its steps; what a step takes is the difference
of two cuts. The cuts of an aggregator share a worker and take turns.
"""

from collections.abc import Iterator
import itertools
import time
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from binaries import benchmark_profile as profile
from binaries import benchmark_rounds as rounds
from fedaot_tff.aggregators import fedaot_round
from fedaot_tff.aggregators import row_gather
from fedaot_tff.runtime import native

_NUM_WARM_UP_ROUNDS = 2

# A name in `profile.STEPS`, and placed values that cannot be there before the
# step's end, nor without the steps before it.
_Step = Tuple[str, List[tff.Value]]


class StepRunner:
  """Times the steps of FedAOT's rounds."""

  def __init__(self, *, byzantine_fraction: float, seed: int):
    """Initializes `StepRunner`.

    Args:
      byzantine_fraction: The fraction of attackers that the aggregators are
        told to withstand. There are none.
      seed: Fixes the updates and the aggregators' random choices.
    """
    self._byzantine_fraction = byzantine_fraction
    self._seed = seed

  def run(
      self, aggregator: str, num_clients: int, dimension: int, repeats: int
  ) -> Iterator[Dict[str, float]]:
    """Times rounds of an aggregator that are cut off after each step.

    Args:
      aggregator: The name of FedAOT in the registry, with options.
      num_clients: N, the number of clients of a round.
      dimension: d, the number of coordinates of an update, at least 2.
      repeats: How many times to repeat the measurement.

    Returns:
      An iterator over the repeats; the next one is run when it is asked for.
      Each is a dict from a step in `profile.STEPS` to the seconds from the
      start of a round to the step's end; the last one ends with the round.
      `profile.MEAN` is a whole round of TFF's `MeanFactory`, in a worker of its
      own.
    """
    context = native.NativeExecutionContext()
    mean_context = native.NativeExecutionContext()
    try:
      factory = self._create_factory(aggregator, num_clients, dimension)
      plays = _make_cuts(context, factory, num_clients, dimension, self._seed)
      plays[profile.STEPS[-1]] = rounds.Rounds(
          context, factory, num_clients, dimension, self._seed
      )
      plays[profile.MEAN] = rounds.Rounds(
          mean_context,
          self._create_factory('mean', num_clients, dimension),
          num_clients,
          dimension,
          self._seed,
      )
      for play in plays.values():
        for _ in range(_NUM_WARM_UP_ROUNDS):
          play()
      for _ in range(repeats):
        yield {step: _seconds(play) for step, play in plays.items()}
    finally:
      context.close()
      mean_context.close()

  def _create_factory(
      self, name: str, num_clients: int, dimension: int
  ) -> Any:
    return rounds.create_factory(
        name,
        num_clients,
        dimension,
        byzantine_fraction=self._byzantine_fraction,
        seed=self._seed,
    )


def _seconds(play: Callable[[], None]) -> float:
  # The round before must be the same one: what it leaves of its memory decides
  # how much of it this one has to ask the system for.
  play()
  start = time.perf_counter()
  play()
  return time.perf_counter() - start


def _make_cuts(
    context: native.NativeExecutionContext,
    factory: Any,
    num_clients: int,
    dimension: int,
    seed: int,
) -> Dict[str, Callable[[], None]]:
  """What plays a round up to the end of each step but the last."""
  generate = rounds.make_generator(dimension, seed)
  value_type = generate.type_signature.result
  fedaot = factory.create_round(value_type, None)
  state_type = fedaot.initialize.type_signature.result
  has_model = factory.wants_model
  clients_type = tff.FederatedType(np.int32, tff.CLIENTS)
  server_types = [tff.FederatedType(state_type, tff.SERVER)]
  if has_model:
    server_types.append(tff.FederatedType(value_type, tff.SERVER))

  def make_cut(number, types):
    @tff.federated_computation(tff.to_type((clients_type, *types)))
    def play(arguments):
      state, model = ([*arguments][1:] + [None, None])[:2]
      value = tff.federated_map(generate, arguments[0])
      steps = _steps(fedaot, value, state, model)
      _, made = next(itertools.islice(steps, number, None))
      return tuple(map(_touch, made))

    return play

  with tff.framework.get_context_stack().install(context):
    state = fedaot.initialize()
  server = [state]
  if has_model:
    server.append([np.zeros(t.shape, t.dtype) for t in value_type])
  clients = list(range(num_clients))
  names = [
      step
      for step in profile.STEPS[:-1]
      if has_model or step not in profile.HOLDOUT_STEPS
  ]

  def make_play(number):
    # The state does not cross before its step.
    cut = make_cut(number, server_types if number else [])
    arguments = (clients, *(server if number else []))

    def play():
      with tff.framework.get_context_stack().install(context):
        cut(arguments)

    return play

  return {name: make_play(number) for number, name in enumerate(names)}


def _steps(
    fedaot: fedaot_round.FedAOTRound, value: Any, state: Any, model: Any
) -> Iterator[_Step]:
  """Composes a round as `FedAOTRound` does, step by step.

  Args:
    fedaot: The round.
    value: The updates, at the clients.
    state: The state, at the server; not asked for in the first step.
    model: The model, at the server; None in agreement mode.

  Yields:
    A step.
  """
  yield profile.GENERATION, [value]
  server = [state] if model is None else [state, model]
  yield profile.STATE, [value, *server]
  shared, root = fedaot.share(state, model)
  yield profile.SHARE, [value, shared]
  summaries, projections = fedaot.summarize(value, shared)
  yield profile.SUMMARIES, [summaries]
  table = row_gather.federated_gather(summaries)
  yield profile.GATHER, [table]
  decision, lookup = fedaot.decide(state, table, root)
  yield profile.WEIGHTS, [lookup]
  result = fedaot.add_up(value, summaries, lookup)
  yield profile.SUM, [result]
  if model is None:
    return

  @tff.tensorflow.computation(
      value.type_signature.member, value.type_signature.member
  )
  def add(model, aggregate):
    return tf.nest.map_structure(tf.add, model, aggregate)

  model_after = tff.federated_map(add, (model, result))
  yield profile.UPDATE, [model_after]
  weighed = fedaot_round.WeighedUpdates(
      result,
      table,
      decision,
      root,
      shared.signs,
      summaries.fingerprint,
      projections,
  )
  evaluation = fedaot.evaluate(state, weighed, model_after)
  yield profile.EVALUATION, [evaluation]
  yield profile.PRODUCTS, [fedaot.multiply(weighed, evaluation)]


def _touch(value: tff.Value) -> tff.Value:
  """A number that needs the value, at the server."""

  @tff.tensorflow.computation(value.type_signature.member)
  def take_first(struct):
    return tf.add_n([
        tf.cast(tf.reduce_sum(tf.reshape(tensor, [-1])[:1]), tf.float32)
        for tensor in tf.nest.flatten(struct)
    ])

  first = tff.federated_map(take_first, value)
  if value.type_signature.placement is tff.CLIENTS:
    first = tff.federated_sum(first)
  return first
