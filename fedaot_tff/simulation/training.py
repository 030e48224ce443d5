"""The training loop of a simulation, a federated program on `tff.program`.

What comes of each round goes to `tff.program.ReleaseManager`s. A program that
saves checkpoints, run again, goes on after the newest of them and computes what
it would have without the interruption, to the last bit.
"""

import asyncio
import collections
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
import concurrent.futures
import time
from typing import Any, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot import checks
from fedaot_tff.learning import model_mirror
from fedaot_tff.simulation import checkpoints as checkpoints_lib
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort as cohort_lib
from fedaot_tff.simulation import metrics as metrics_lib


class RoundRecord(NamedTuple):
  """What is known after a round."""

  round_num: int  # From 1.
  state: Any  # Of the process after the round.
  seconds: float  # Wall time of `process.next`; the first call compiles it.
  metrics: Any  # Of the process.
  is_byzantine: Tuple[bool, ...]  # Which clients of the cohort are attackers.
  # The result of `evaluate` and its wall time; None and 0 in rounds without.
  evaluation: Optional['collections.OrderedDict[str, float]'] = None
  evaluation_seconds: float = 0.0

  @property
  def model_is_finite(self) -> bool:
    """Whether neither a weight of the model nor a measured loss is NaN or inf.

    Losses are the scalars of the evaluation and of the aggregator with `loss`
    in their names. Those of the clients do not count, as attackers report them.
    """
    weights = self.state.global_model_weights
    losses = [
        value
        for measured in (self.evaluation, self.metrics['aggregator'])
        if isinstance(measured, Mapping)
        for name, value in measured.items()
        if 'loss' in name
    ]
    return all(
        bool(np.all(np.isfinite(value)))
        for value in tf.nest.flatten(
            (weights.trainable, weights.non_trainable, losses)
        )
    )

  @property
  def num_attackers(self) -> int:
    """Attackers in the cohort."""
    return sum(self.is_byzantine)

  @property
  def weights(self) -> Optional[np.ndarray]:
    """The aggregation weights [N] in the order of `is_byzantine`.

    TFF's contexts accumulate clients in the order in which they are given. None
    if the aggregator does not measure them.
    """
    measurements = self.metrics['aggregator']
    if not isinstance(measurements, Mapping):
      return None
    return measurements.get('weights')

  @property
  def attacker_weight(self) -> Optional[float]:
    """The attackers' share of the weights; None without `weights`."""
    if self.weights is None:
      return None
    return metrics_lib.attacker_weight(self.weights, self.is_byzantine)

  @property
  def detection_auroc(self) -> Optional[float]:
    """See `metrics.detection_auroc`; None without `weights` as well."""
    if self.weights is None:
      return None
    return metrics_lib.detection_auroc(self.weights, self.is_byzantine)


def train_rounds(
    process: tff.learning.templates.LearningProcess,
    *,
    cohorts: cohort_lib.CohortSampler,
    datasets: client_datasets.ClientDatasets,
    num_rounds: int,
    evaluate: Optional[Callable[[Any], Any]] = None,
    evaluate_every: int = 1,
    checkpoints: Optional[checkpoints_lib.Checkpoints] = None,
    checkpoint_every: int = 10,
    last_checkpoint: Optional[int] = None,
    release_managers: Sequence[tff.program.ReleaseManager] = (),
) -> Iterator[RoundRecord]:
  """Trains, yielding a record after each round.

  Args:
    process: A process of `build_attacked_fed_avg`.
    cohorts: Who takes part in a round.
    datasets: What they train on.
    num_rounds: The last round.
    evaluate: A function of the global `ModelWeights`, such as
      `evaluation.build_evaluation` makes; None for no evaluation.
    evaluate_every: Evaluates in rounds divisible by this, and in the last.
    checkpoints: Where states are saved, None for nowhere. The first round is
      the one after the newest there.
    checkpoint_every: Saves in rounds divisible by this, and in the last. A
      round's state is saved when the next record is asked for, so what the
      caller does with a record comes before.
    last_checkpoint: The last checkpoint to go on from, as what the caller keeps
      of the rounds ends there; None for the newest.
    release_managers: Are given, one after the other, each `RoundRecord` as the
      value and the round as the key before the record is yielded. One that
      keeps what it is given must expect rounds again that it has, those after
      the checkpoint. `tensorboard_release` and `logging_release` have some.

  Returns:
    An iterator of `RoundRecord`. It raises ValueError after a round that leaves
    the aggregator's mirror of the model other than the model, OSError if a
    state cannot be saved, and what a release manager raises.
  """
  checks.check_kind('process', process, tff.learning.templates.LearningProcess)
  checks.check_kind('evaluate', evaluate, Callable, type(None))
  checks.check_kind(
      'checkpoints', checkpoints, checkpoints_lib.Checkpoints, type(None)
  )
  for manager in release_managers:
    if not callable(getattr(manager, 'release', None)):
      raise TypeError(
          'release_managers must have a method `release`; found'
          f' {type(manager).__name__}.'
      )
  for name, value in (
      ('num_rounds', num_rounds),
      ('evaluate_every', evaluate_every),
      ('checkpoint_every', checkpoint_every),
  ):
    checks.check_int(name, value, minimum=1)

  client_data_of = datasets.for_cohort
  data_type = process.next.type_signature.parameter[1]
  if not tff.types.contains(data_type, _is_sequence):
    client_data_of = datasets.arrays_for_cohort

  def rounds():
    state, last_round = model_mirror.synchronize_model(process.initialize()), 0
    if checkpoints is not None:
      checkpoint = checkpoints.restore(state, last_round=last_checkpoint)
      if checkpoint is not None:
        last_round, state = checkpoint
    for round_num in range(last_round + 1, num_rounds + 1):

      def is_due(every):
        return round_num % every == 0 or round_num == num_rounds

      cohort = cohorts.sample(round_num)
      client_data = client_data_of(cohort, round_num)
      start = time.perf_counter()
      state, metrics = process.next(state, client_data)
      record = RoundRecord(
          round_num=round_num,
          state=state,
          seconds=time.perf_counter() - start,
          metrics=metrics,
          is_byzantine=cohort.is_byzantine,
      )
      model_mirror.check_model(state)
      if evaluate is not None and is_due(evaluate_every):
        start = time.perf_counter()
        found = evaluate(state.global_model_weights)
        record = record._replace(
            evaluation=found, evaluation_seconds=time.perf_counter() - start
        )
      for manager in release_managers:
        _run_coroutine(manager.release(record, round_num))
      yield record
      if checkpoints is not None and is_due(checkpoint_every):
        checkpoints.save(state, round_num)

  return rounds()


def _is_sequence(type_spec: tff.Type) -> bool:
  return isinstance(type_spec, tff.SequenceType)


def _run_coroutine(coroutine: Coroutine) -> Any:
  """Runs a coroutine to its end, also where an event loop runs already."""
  try:
    asyncio.get_running_loop()
  except RuntimeError:
    return asyncio.run(coroutine)
  # As in a notebook. A loop cannot be entered again, but another thread has
  # none.
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
    return executor.submit(asyncio.run, coroutine).result()
