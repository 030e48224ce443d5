"""The training loop of a simulation, a federated program on `tff.program`.

The clients of a round come from a `CohortDataSource`, states are saved with a
`tff.program.FileProgramStateManager`, and what comes of each round goes to
`tff.program.ReleaseManager`s. A training that survives the end of its process:

```
from fedaot_tff.simulation import checkpoints
from fedaot_tff.simulation import tensorboard_release
from fedaot_tff.simulation import training

for record in training.train_rounds(
    process,
    cohorts=cohorts,
    datasets=datasets,
    num_rounds=1000,
    checkpoints=checkpoints.Checkpoints('out/checkpoints'),
    release_managers=[
        tensorboard_release.TensorBoardReleaseManager('out/tensorboard')
    ],
):
  print(record.round_num, record.attacker_weight)
```

The same program, run again, goes on after the newest checkpoint and computes
what it would have without the interruption, to the last bit.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import time
from typing import Any, Callable, NamedTuple, Optional, Tuple

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.learning import model_mirror
from fedaot_tff.simulation import checkpoints as checkpoints_lib
from fedaot_tff.simulation import client_datasets
from fedaot_tff.simulation import cohort_data_source
from fedaot_tff.simulation import cohort as cohort_lib
from fedaot_tff.simulation import metrics as metrics_lib


class RoundRecord(NamedTuple):
  """What is known after a round.

  Attributes:
    round_num: The round, from 1.
    state: The state of the process after the round.
    seconds: Wall time of `process.next`; the first call compiles it.
    metrics: The metrics of the process.
    model_is_finite: Whether no weight of the model is NaN or infinite.
    num_attackers: Attackers in the cohort.
    is_byzantine: Whether each client of the cohort is an attacker.
    weights: The aggregation weights, float [N] in the order of `is_byzantine`;
      None if the aggregator does not measure them.
    attacker_weight: The attackers' share of the aggregation weights; None if
      the aggregator does not measure `weights`.
    detection_auroc: See `metrics.detection_auroc`; None if the aggregator does
      not measure `weights` or the cohort is all of one kind.
    evaluation: The result of `evaluate`, such as an OrderedDict of `accuracy`
      and `loss`; None in rounds without evaluation.
    evaluation_seconds: Wall time of `evaluate`; 0 in rounds without.
  """

  round_num: int
  state: Any
  seconds: float
  metrics: Any
  model_is_finite: bool
  num_attackers: int
  is_byzantine: Tuple[bool, ...]
  weights: Optional[Any]
  attacker_weight: Optional[float]
  detection_auroc: Optional[float]
  evaluation: Optional['collections.OrderedDict[str, float]']
  evaluation_seconds: float


def train_rounds(
    process: tff.learning.templates.LearningProcess,
    *,
    cohorts: cohort_lib.CohortSampler,
    datasets: client_datasets.ClientDatasets,
    num_rounds: int,
    evaluate: Optional[Callable[[Any], Any]] = None,
    evaluate_every: int = 1,
    initial_state: Optional[Any] = None,
    first_round: int = 1,
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
    num_rounds: The last round, whatever `first_round` is.
    evaluate: A function of the global `ModelWeights`, such as
      `evaluation.build_evaluation` makes; None for no evaluation.
    evaluate_every: Evaluates in rounds divisible by this, and in the last.
    initial_state: The state to go on from; None for `process.initialize()`.
    first_round: The first round to train. Going on with `initial_state` from
      the record of the round before gives what an uninterrupted run gives.
    checkpoints: Where states are saved. If there is one already, the first
      round is the one after it. None for not saving any.
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

  Raises:
    TypeError: If an argument is of another kind.
    ValueError: If a number is not positive, `first_round` is not 1 without an
      `initial_state`, or there are both `checkpoints` and an `initial_state`.
  """
  if not isinstance(process, tff.learning.templates.LearningProcess):
    raise TypeError(
        'process must be a tff.learning.templates.LearningProcess; found'
        f' {type(process).__name__}.'
    )
  if evaluate is not None and not callable(evaluate):
    raise TypeError(
        'evaluate must be a function or None; found'
        f' {type(evaluate).__name__}.'
    )
  for name, value in (
      ('num_rounds', num_rounds),
      ('evaluate_every', evaluate_every),
      ('first_round', first_round),
      ('checkpoint_every', checkpoint_every),
  ):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
      raise TypeError(f'{name} must be an int; found {value!r}.')
    if value < 1:
      raise ValueError(f'{name} must be at least 1; found {value}.')
  if first_round != 1 and initial_state is None:
    raise ValueError(
        f'first_round {first_round} needs the initial_state to go on from.'
    )

  if checkpoints is not None and not isinstance(
      checkpoints, checkpoints_lib.Checkpoints
  ):
    raise TypeError(
        'checkpoints must be a Checkpoints or None; found'
        f' {type(checkpoints).__name__}.'
    )
  if checkpoints is not None and initial_state is not None:
    raise ValueError(
        'initial_state must be None with checkpoints, which hold the state to'
        ' go on from.'
    )
  for manager in release_managers:
    if not callable(getattr(manager, 'release', None)):
      raise TypeError(
          'release_managers must be tff.program.ReleaseManagers; found'
          f' {type(manager).__name__}.'
      )
  source = cohort_data_source.CohortDataSource(cohorts, datasets)

  def rounds():
    state, start_round = initial_state, first_round
    if state is None:
      state = process.initialize()
    if checkpoints is not None:
      checkpoint = checkpoints.restore(state, last_round=last_checkpoint)
      if checkpoint is not None:
        state, start_round = checkpoint.state, checkpoint.round_num + 1
    clients = source.iterator(start_round)
    for round_num in range(start_round, num_rounds + 1):
      client_data = clients.select()
      cohort = clients.cohort
      start = time.perf_counter()
      state, metrics = process.next(state, client_data)
      seconds = time.perf_counter() - start
      model_mirror.check_model(state)
      evaluation, evaluation_seconds = None, 0.0
      if evaluate is not None and (
          round_num % evaluate_every == 0 or round_num == num_rounds
      ):
        start = time.perf_counter()
        evaluation = evaluate(state.global_model_weights)
        evaluation_seconds = time.perf_counter() - start
      weights = _aggregation_weights(metrics)
      record = RoundRecord(
          round_num=round_num,
          state=state,
          seconds=seconds,
          metrics=metrics,
          model_is_finite=_is_finite(state.global_model_weights),
          num_attackers=sum(cohort.is_byzantine),
          is_byzantine=cohort.is_byzantine,
          weights=weights,
          attacker_weight=None
          if weights is None
          else metrics_lib.attacker_weight(weights, cohort.is_byzantine),
          detection_auroc=None
          if weights is None
          else metrics_lib.detection_auroc(weights, cohort.is_byzantine),
          evaluation=evaluation,
          evaluation_seconds=evaluation_seconds,
      )
      for manager in release_managers:
        checkpoints_lib.run_coroutine(manager.release(record, round_num))
      yield record
      if checkpoints is not None and (
          round_num % checkpoint_every == 0 or round_num == num_rounds
      ):
        checkpoints.save(state, round_num)

  return rounds()


def _aggregation_weights(metrics: Mapping[str, Any]) -> Optional[Any]:
  """The aggregator's measurement `weights` [N], in the order of the cohort.

  TFF's native context accumulates clients in the order in which they are given.
  """
  measurements = metrics['aggregator']
  if not isinstance(measurements, Mapping):
    return None
  return measurements.get('weights')


def _is_finite(model_weights: tff.learning.models.ModelWeights) -> bool:
  weights = tf.nest.flatten(
      (model_weights.trainable, model_weights.non_trainable)
  )
  return all(bool(np.all(np.isfinite(w))) for w in weights)
