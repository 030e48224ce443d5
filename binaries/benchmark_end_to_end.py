"""Times whole trainings with several aggregators on the same task.

A round is all that `binaries.train` does for one: choosing the cohort and its
data, local training, aggregation, the server's update, the evaluation, the rows
in the run's files and every now and then a checkpoint.

TensorFlow is not imported here, but by the runner that is passed.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import pathlib
import statistics
import tempfile
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence
from typing import Tuple

from binaries import comparison
from binaries import experiment as experiment_lib
from binaries import progress as progress_lib
from binaries import run_log
from binaries import single_run

REFERENCE = 'mean'
# The first compiles; in the second, rules that look back do so for the first
# time.
NUM_WARM_UP_ROUNDS = 2

# The name of a measurement: task and aggregator.
Key = Tuple[str, str]

COLUMNS = (
    'task',
    'aggregator',
    'rounds',
    'repeats',
    'seconds_per_round',
    'ratio_to_mean',
    'ratio_min',
    'ratio_max',
    'evaluation_seconds',
    'ratio_with_evaluation',
)


class RoundTime(NamedTuple):
  """The time of a round.

  Attributes:
    seconds: Of all but the evaluation.
    evaluation_seconds: Of the evaluation.
  """

  seconds: float
  evaluation_seconds: float

  @property
  def total(self) -> float:
    """The time of the whole round in seconds."""
    return self.seconds + self.evaluation_seconds


@dataclasses.dataclass(frozen=True)
class Measurement:
  """What is known of a task's training with an aggregator.

  Attributes:
    task: The task.
    aggregator: The aggregator.
    rounds: How many rounds were timed in a repeat.
    repeats: How many repeats there were.
    seconds_per_round: The time of a round without its evaluation, in seconds:
      the median over the repeats of the median over a repeat's rounds.
    ratio_to_mean: The median over the repeats of a repeat's median time, by
      that with MeanFactory in the same repeat; without the evaluation.
    ratio_min: The least such ratio of a repeat.
    ratio_max: The largest such ratio of a repeat.
    evaluation_seconds: The time of an evaluation, in seconds, a median as
      `seconds_per_round` is one.
    ratio_with_evaluation: `ratio_to_mean` of rounds with their evaluations.
  """

  task: str
  aggregator: str
  rounds: int
  repeats: int
  seconds_per_round: float
  ratio_to_mean: float
  ratio_min: float
  ratio_max: float
  evaluation_seconds: float
  ratio_with_evaluation: float

  @property
  def key(self) -> Key:
    """The name of the measurement."""
    return (self.task, self.aggregator)


def make_experiments(
    task: str,
    aggregators: Sequence[str],
    *,
    rounds: int,
    repeats: int,
    byzantine_fraction: float,
    seed: int,
) -> Dict[str, experiment_lib.Experiment]:
  """The trainings to time on a task, without attackers.

  Args:
    task: The task, whose options have their defaults but for the rounds.
    aggregators: The aggregators.
    rounds: The number of rounds in a repeat.
    repeats: The number of repeats.
    byzantine_fraction: The fraction of attackers that the aggregators are told
      to withstand.
    seed: Fixes everything that is random.

  Returns:
    The settings by aggregator, `REFERENCE` first and always there.

  Raises:
    ValueError: If the task or an aggregator is not known.
  """
  return {
      aggregator: experiment_lib.Experiment(
          task=task,
          task_options={'rounds': NUM_WARM_UP_ROUNDS + rounds * repeats},
          aggregator=aggregator,
          attack='none',
          byzantine_fraction=byzantine_fraction,
          seed=seed,
      )
      for aggregator in (REFERENCE, *aggregators)
  }


def label(experiment: experiment_lib.Experiment) -> str:
  """What a training's progress is reported under."""
  return f'{experiment.task}, {experiment.aggregator}'


def train_in_turns(
    runner: Any,
    experiments: Mapping[str, experiment_lib.Experiment],
    progress: progress_lib.Progress,
    *,
    rounds: int,
    repeats: int,
) -> Tuple[Dict[str, List[List[RoundTime]]], Dict[str, Exception]]:
  """Plays the trainings of a task, a number of rounds of one after another.

  A machine that grows faster or slower meanwhile does so for all of them.

  Args:
    runner: A `runner.Runner`, which plays them all.
    experiments: What `make_experiments` returned, or a part with `REFERENCE`.
    progress: Told of the start of each training and of its rounds.
    rounds: The number of rounds in a turn.
    repeats: The number of turns of each, after the rounds that do not count.

  Returns:
    By aggregator, the times of the rounds of each turn; and the errors of the
    trainings that failed. If that of `REFERENCE` does, all end.
  """
  times = {name: [] for name in experiments}
  errors = {}
  trainings = {}
  for experiment in experiments.values():
    progress.start_run(label(experiment))
  with contextlib.ExitStack() as stack:
    parent = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for repeat in range(1 + repeats):
      for number, (name, experiment) in enumerate(experiments.items()):
        if name in errors or REFERENCE in errors:
          continue
        progress.select_run(label(experiment))
        try:
          if repeat == 0:
            folder = parent / str(number)
            folder.mkdir()
            log = stack.enter_context(run_log.RunLog(folder, keep=False))
            trainings[name] = _start(
                runner, experiment, folder, log, progress.warn
            )
            _play(trainings[name], NUM_WARM_UP_ROUNDS, progress)
          else:
            times[name].append(_play(trainings[name], rounds, progress))
        except Exception as error:  # pylint: disable=broad-exception-caught
          errors[name] = error
  return times, errors


def _start(
    runner: Any,
    experiment: experiment_lib.Experiment,
    folder: pathlib.Path,
    log: run_log.RunLog,
    warn: Callable[[str], None],
) -> Iterator[Any]:
  """Begins a training with what `binaries.train` has by default."""
  return runner.run(
      experiment,
      checkpoint_folder=folder / 'checkpoints',
      checkpoint_every=single_run.DEFAULT_CHECKPOINT_EVERY,
      release_managers=[log],
      warn=warn,
  )


def _play(
    training: Iterator[Any], num_rounds: int, progress: progress_lib.Progress
) -> List[RoundTime]:
  """Plays the next rounds of a training and returns their times."""
  times = []
  for _ in range(num_rounds):
    start = time.perf_counter()
    record = next(training)
    seconds = time.perf_counter() - start
    times.append(
        RoundTime(
            seconds - record.evaluation_seconds, record.evaluation_seconds
        )
    )
    progress.advance(f'{times[-1].seconds:.3g} s a round')
  return times


def summarize(
    task: str,
    aggregator: str,
    repeats: Sequence[Sequence[RoundTime]],
    mean_repeats: Sequence[Sequence[RoundTime]],
) -> Measurement:
  """Summarizes repeats.

  Args:
    task: The task.
    aggregator: The aggregator.
    repeats: For each repeat the times of its rounds, at least one of each.
    mean_repeats: The same with MeanFactory.

  Returns:
    The `Measurement`.
  """

  def medians(rounds_by_repeat, name):
    return [
        statistics.median(getattr(time_, name) for time_ in rounds)
        for rounds in rounds_by_repeat
    ]

  def ratios(name):
    return [
        own / mean
        for own, mean in zip(
            medians(repeats, name), medians(mean_repeats, name)
        )
    ]

  by_repeat = ratios('seconds')
  return Measurement(
      task,
      aggregator,
      len(repeats[0]),
      len(repeats),
      seconds_per_round=statistics.median(medians(repeats, 'seconds')),
      ratio_to_mean=statistics.median(by_repeat),
      ratio_min=min(by_repeat),
      ratio_max=max(by_repeat),
      evaluation_seconds=statistics.median(
          medians(repeats, 'evaluation_seconds')
      ),
      ratio_with_evaluation=statistics.median(ratios('total')),
  )


def parse_row(row: Mapping[str, str]) -> Measurement:
  """The measurement in a row of `end_to_end.csv`."""
  kinds = dict.fromkeys(COLUMNS, float)
  kinds.update(task=str, aggregator=str, rounds=int, repeats=int)
  return Measurement(**{name: kinds[name](row[name]) for name in COLUMNS})


def make_tables(
    measurements: Mapping[Key, Measurement],
    tasks: Sequence[str],
    aggregators: Sequence[str],
) -> List[comparison.Table]:
  """The tables of end-to-end times.

  Args:
    measurements: Those there are.
    tasks: The tasks.
    aggregators: The aggregators, in the order of the rows.

  Returns:
    A table for each task.
  """

  def cells(task, aggregator):
    found = measurements.get((task, aggregator))
    if found is None:
      return [comparison.MISSING] * len(header)
    return [
        f'{found.seconds_per_round:.3f}',
        f'{found.ratio_to_mean:.3f}',
        f'{found.ratio_min:.3f} to {found.ratio_max:.3f}',
        f'{found.evaluation_seconds:.3f}',
        f'{found.ratio_with_evaluation:.3f}',
    ]

  header = [
      's a round',
      'times mean',
      'least to most',
      'evaluation s',
      'times mean with evaluation',
  ]
  return [
      comparison.Table(
          f'{task}: time of a round of a whole training, without and with its'
          ' evaluation',
          ['aggregator', *header],
          [[name, *cells(task, name)] for name in aggregators],
          set(),
      )
      for task in tasks
  ]
