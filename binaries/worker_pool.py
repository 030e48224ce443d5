"""Runs experiments, each worker in a Python process of its own.

A worker ends within moments when the process that made it has ended, however
that came about; Ctrl-C is that one's alone to handle. What it prints goes to
`worker.log` in the folder of the run, which is kept if the worker died in it.
"""

from collections.abc import Iterator
import faulthandler
import multiprocessing
from multiprocessing import connection as mp_connection
from multiprocessing import resource_tracker
import os
import pathlib
import signal
import sys
import threading
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set

from absl import flags

from binaries import application
from binaries import experiment as experiment_lib
from binaries import gpus
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import single_run

_LOG_FILE = 'worker.log'
_STOP_TIMEOUT_SECONDS = 10.0
# What a worker sends besides reports, which are named by `RunProgress`: rows
# and error of a run, or what keeps every run from working.
_ENDED, _UNABLE = 'ended', 'unable'


class Outcome(NamedTuple):
  """The end of a run: its rows or, in one line, why it failed."""

  experiment: experiment_lib.Experiment
  progress: progress_lib.RunProgress
  rows: Optional[List[Dict[str, Any]]]
  error: Optional[str]


class Cell(NamedTuple):
  """An experiment to run, the label of its reports and the folder for it."""

  label: str
  experiment: experiment_lib.Experiment
  folder: pathlib.Path

  @property
  def group(self) -> Any:
    """Equal for cells that a `Runner` shares a learning process for."""
    e = self.experiment
    return e.seed, e.byzantine_fraction, e.aggregator


def run(
    cells: Sequence[Cell], progress: progress_lib.Progress, *, num_workers: int
) -> Iterator[Outcome]:
  """Yields the outcomes as the runs end.

  Cores and GPUs are divided among the workers, whose number changes nothing but
  times. A worker that dies takes with it the run that it was at, and another
  takes its place. Closing the generator stops all. `progress` is told all but
  the runs' ends. UserError if a package is missing.
  """
  left = list(cells)
  num_workers = min(num_workers, len(left))
  workers: List[_Worker] = []
  try:
    for cores, gpu in zip(
        _divide_cores(num_workers),
        _divide_gpus(num_workers, cells[0].experiment.context),
    ):
      workers.append(_Worker(cores, gpu))
      workers[-1].begin(_take(left, None, workers), progress)
    while workers:
      ready = mp_connection.wait([w.connection for w in workers])
      for worker in [w for w in workers if w.connection in ready]:
        kind, value = worker.receive()
        if kind == _UNABLE:
          raise application.UserError(value)
        if kind != _ENDED:
          getattr(worker.progress, kind)(value)
          continue
        yield Outcome(worker.cell.experiment, worker.progress, *value)
        if not left:
          workers.remove(worker)
          worker.stop()
          continue
        cell = _take(left, worker.cell, workers)
        if not worker.process.is_alive():
          workers.remove(worker)
          worker = _Worker(worker.cores, worker.gpu)
          workers.append(worker)
        worker.begin(cell, progress)
  finally:
    for worker in workers:
      worker.stop(0)


class _Worker:
  """A worker process, as its parent sees it, and the run that it is at."""

  cell: Optional[Cell] = None
  progress: progress_lib.RunProgress

  def __init__(self, cores: Set[int], gpu: Optional[str]):
    self.cores, self.gpu = cores, gpu
    context = multiprocessing.get_context('spawn')
    self.connection, of_worker = context.Pipe()
    # For `run.json`; the flags of a program that has some.
    argv = sys.argv if flags.FLAGS.is_parsed() else sys.argv[:1]
    arguments = (of_worker, cores, gpu, argv)
    self.process = context.Process(target=_work, args=arguments, daemon=True)
    # It would lift the block below when it is started.
    resource_tracker.ensure_running()
    # The child inherits the block, so that Ctrl-C ends the parent alone and
    # through its end the child, at whatever point of its start this is.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    self.process.start()
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    # Without another copy, the connection ends when the child does.
    of_worker.close()

  def begin(self, cell: Cell, progress: progress_lib.Progress) -> None:
    """Gives the worker, which is idle, a cell."""
    self.cell, self.progress = cell, progress.start_run(cell.label)
    try:
      self.connection.send((cell.experiment, cell.folder))
    except OSError:
      pass  # It has died, which `receive` tells.

  def receive(self) -> Sequence[Any]:
    """A kind of message and what it is about."""
    try:
      return self.connection.recv()
    except (EOFError, OSError):
      return _ENDED, (None, self._describe_death())

  def stop(self, timeout: float = _STOP_TIMEOUT_SECONDS) -> None:
    """Ends the process, which does so by itself when it is idle."""
    self.connection.close()
    self.process.join(timeout)
    self.process.kill()
    self.process.join()

  def _describe_death(self) -> str:
    """Writes the error of the run; returns it in one line."""
    self.stop()
    status = self.process.exitcode
    how = f'ended with exit code {status}'
    if status < 0:
      how = f'was killed by signal {-status} ({signal.strsignal(-status)})'
    if -status in (signal.SIGKILL, signal.SIGABRT):
      how += ', often a sign that memory ran short'
    log = self.cell.folder / _LOG_FILE
    if log.exists() and log.stat().st_size:
      how += f'; its output is in {log}'
    error = ChildProcessError(f'the worker process {self.process.pid} {how}')
    return application.write_error(self.cell.folder, error)


def _take(
    left: List[Cell], last: Optional[Cell], workers: Sequence[_Worker]
) -> Cell:
  """Takes the next cell for a worker whose last one is given.

  It keeps to its group, then takes up one that nobody is at, so that little is
  compiled twice.
  """
  busy = [worker.cell.group for worker in workers if worker.cell]

  def rank(i):
    group = left[i].group
    return last is None or group != last.group, group in busy, i

  return left.pop(min(range(len(left)), key=rank))


def _divide_cores(num_workers: int) -> List[Set[int]]:
  cores = sorted(os.sched_getaffinity(0))
  return [
      set(cores[i::num_workers]) or {cores[i % len(cores)]}
      for i in range(num_workers)
  ]


def _divide_gpus(num_workers: int, context: str) -> List[Optional[str]]:
  """The GPU for each worker; None where it need not be told."""
  if num_workers > 1 and context == 'in_process':
    visible = gpus.visible_gpus()
    if len(visible) > 1:
      return [visible[i % len(visible)] for i in range(num_workers)]
  return [None] * num_workers


class _Reporter:
  """Passes what a worker tells its `RunProgress` on to the parent."""

  def __init__(self, connection: mp_connection.Connection):
    self._connection = connection

  def __getattr__(self, name: str):
    return lambda value: self._connection.send((name, value))


def _work(
    connection: mp_connection.Connection,
    cores: Set[int],
    gpu: Optional[str],
    argv: Sequence[str],
) -> None:
  """Runs what the parent sends until it sends no more; a worker's life."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  flags.FLAGS(argv, known_only=True)
  # TensorFlow, not imported yet, splits an operation into as many parts as it
  # has threads. As many as with one worker give the same sums to the last bit.
  num_cores = len(os.sched_getaffinity(0))
  os.environ.setdefault('TF_NUM_INTRAOP_THREADS', str(num_cores))
  os.sched_setaffinity(0, cores)
  if gpu is not None:
    os.environ['CUDA_VISIBLE_DEVICES'] = gpu
  while True:
    try:
      experiment, folder = connection.recv()
    except EOFError:
      return
    log = folder / _LOG_FILE
    try:
      output_folder.make_folder(folder)
      _redirect_output(log)
      rows = single_run.run(experiment, folder, _Reporter(connection))
      answer = _ENDED, (rows, None)
    except application.UserError as error:
      answer = _ENDED, (None, str(error))
    except ModuleNotFoundError as error:
      answer = _UNABLE, application.describe_missing(error)
    if log.is_file():
      log.unlink()
    connection.send(answer)


def _end_with_parent() -> None:
  """Ends this process as soon as the parent has ended."""
  multiprocessing.parent_process().join()
  os._exit(1)


def _redirect_output(path: pathlib.Path) -> None:
  with output_folder.told(f'write {path}'):
    file = open(path, 'wb')
  with file:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
      os.dup2(file.fileno(), stream.fileno())
  faulthandler.enable()
