"""Times rounds of aggregators in TensorFlow Federated's worker process."""

from collections.abc import Iterator
import os
import pathlib
import time
from typing import Callable, List, NamedTuple, Optional

import numpy as np

from binaries import benchmark_rounds as rounds
from fedaot_tff.runtime import native

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
              lambda context: rounds.Generation(
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
      context: native.NativeExecutionContext,
      name: str,
      num_clients: int,
      dimension: int,
  ) -> rounds.Rounds:
    factory = rounds.create_factory(
        name,
        num_clients,
        dimension,
        byzantine_fraction=self._byzantine_fraction,
        seed=self._seed,
    )
    return rounds.Rounds(context, factory, num_clients, dimension, self._seed)


class _Timer:
  """Times one thing in a worker process of its own.

  Attributes:
    peaks_mb: `peak_memory_mb` of the worker after each timed round.
  """

  def __init__(
      self,
      make_round: Callable[
          [native.NativeExecutionContext], Callable[[], None]
      ],
      *,
      keep_worker: bool,
  ):
    self._context = native.NativeExecutionContext()
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
