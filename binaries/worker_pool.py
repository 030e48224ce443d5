"""Runs experiments side by side, each worker in a Python process of its own.

A worker has a `runner.Runner` and with it a TensorFlow Federated worker
process. Its life depends on that of the process that made it, the parent:

*   It ends within moments when the parent has ended, however that came about:
    it watches the end of a pipe that the parent alone holds open.
*   Ctrl-C is the parent's alone to handle.
*   What it prints goes to `worker.log` in the folder of the run, which is
    removed when the run has ended and kept when the worker died in it.

This module imports neither TensorFlow nor NumPy.
"""

from collections.abc import Iterator
import collections
import dataclasses
import faulthandler
import itertools
import multiprocessing
from multiprocessing import connection as mp_connection
from multiprocessing import resource_tracker
import os
import pathlib
import signal
import sys
import threading
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Sequence
from typing import Set, Tuple

from binaries import application
from binaries import experiment as experiment_lib
from binaries import nvidia_smi
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import single_run

_LOG_FILE = 'worker.log'
_STOP_TIMEOUT_SECONDS = 10.0
_GPU_TIMEOUT_SECONDS = 30.0
# The kinds of messages that a worker sends.
_REPORT, _FINISHED, _FAILED, _UNABLE = 'report', 'finished', 'failed', 'unable'


class Cell(NamedTuple):
  """An experiment to run.

  Attributes:
    label: What reports of it begin with; another one for each cell.
    experiment: The settings.
    folder: The folder of the run, which is made when it begins.
    rounds_done: How many rounds an earlier program did, for the progress.
  """

  label: str
  experiment: experiment_lib.Experiment
  folder: pathlib.Path
  rounds_done: int


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    cell: Which run.
    rows: The rows of its `metrics.csv`; None if it failed.
    error: In one line, with the path of the file that tells more, why it
      failed; None if it did not.
  """

  cell: Cell
  rows: Optional[List[Dict[str, Any]]]
  error: Optional[str]


class Schedule:
  """Which cell a worker runs next.

  Cells that a `Runner` shares a learning process for, those with the same seed,
  fraction and aggregator that follow each other, make a group. A worker keeps
  to its group, then takes up the next group that nobody has begun, and then the
  last cell of the group that has the most left, so that no worker is idle while
  there is a cell to run.
  """

  def __init__(self, cells: Sequence[Cell]):
    self._groups: List[Deque[Cell]] = [
        collections.deque(group)
        for _, group in itertools.groupby(cells, key=_group_key)
    ]
    self._num_begun = 0

  def __bool__(self) -> bool:
    return any(self._groups)

  def take(self, group: Optional[int]) -> Optional[Tuple[int, Cell]]:
    """Takes a cell.

    Args:
      group: The group that the worker had its last cell from, None for a new
        worker.

    Returns:
      The cell and its group; None if no cell is left.
    """
    if group is not None and self._groups[group]:
      return group, self._groups[group].popleft()
    if self._num_begun < len(self._groups):
      self._num_begun += 1
      return self._num_begun - 1, self._groups[self._num_begun - 1].popleft()
    longest = max(
        range(len(self._groups)), key=lambda i: len(self._groups[i])
    )
    if not self._groups[longest]:
      return None
    return longest, self._groups[longest].pop()


@dataclasses.dataclass
class _Worker:
  """A worker process, as the parent sees it."""

  process: multiprocessing.process.BaseProcess
  cores: Set[int]
  gpu: Optional[str]
  cell: Optional[Cell] = None
  group: Optional[int] = None


def run_in_order(
    cells: Sequence[Cell], progress: progress_lib.Progress
) -> Iterator[Outcome]:
  """Runs the cells in this process, one after another.

  Args:
    cells: What to run.
    progress: Told of each run's begin and rounds, but not of its end.

  Yields:
    The outcomes, in the order of the cells.

  Raises:
    UserError: If the folder of a run cannot be made.
  """
  # Takes seconds, as it needs TensorFlow.
  from binaries import runner  # pylint: disable=g-import-not-at-top

  shared_runner = runner.Runner()
  for cell in cells:
    output_folder.make_folder(cell.folder)
    (cell.folder / _LOG_FILE).unlink(missing_ok=True)
    progress.start_run(cell.label, cell.rounds_done)
    try:
      rows = single_run.run(
          shared_runner, cell.experiment, cell.folder, progress
      )
    except application.UserError as error:
      yield Outcome(cell, None, str(error))
    else:
      yield Outcome(cell, rows, None)


def run_side_by_side(
    cells: Sequence[Cell], progress: progress_lib.Progress, *, num_workers: int
) -> Iterator[Outcome]:
  """Runs the cells in worker processes.

  The cores that this process may use are divided among the workers; results are
  those of `run_in_order` but for times. With an in-process context, so are the
  GPUs, if there are several. A worker that dies takes with it the
  run that it was at, and another takes its place.

  Args:
    cells: What to run, cells that share a learning process next to each other.
    progress: Told of each run's begin and rounds, but not of its end. The run
      of an outcome is the one that is selected when it is yielded.
    num_workers: How many run at a time, 1 or more.

  Yields:
    The outcomes as the runs end. To stop the workers before, close the
    generator.

  Raises:
    UserError: If a worker cannot run anything, as a package is missing, or the
      folder of a run cannot be made.
  """
  schedule = Schedule(cells)
  workers: Dict[mp_connection.Connection, _Worker] = {}

  def start(cores, gpu):
    connection, process = _start_process(cores, gpu)
    workers[connection] = _Worker(process, cores, gpu)
    hand_out(connection)

  def hand_out(connection):
    """Gives a worker a cell or, if none is left, leave to end."""
    worker = workers[connection]
    taken = schedule.take(worker.group)
    if taken is None:
      worker.cell = None
      connection.close()
      del workers[connection]
      ending.append(worker.process)
      return
    worker.group, worker.cell = taken
    output_folder.make_folder(worker.cell.folder)
    progress.start_run(worker.cell.label, worker.cell.rounds_done)
    try:
      connection.send((_settings(worker.cell.experiment), worker.cell.folder))
    except OSError:
      # It has died, which is noticed when its answer is to be read.
      pass

  ending: List[multiprocessing.process.BaseProcess] = []
  try:
    for cores, gpu in zip(
        _divide_cores(num_workers), _divide_gpus(num_workers, cells)
    ):
      if schedule:
        start(cores, gpu)
    while workers:
      for connection in mp_connection.wait(list(workers)):
        worker = workers[connection]
        progress.select_run(worker.cell.label)
        try:
          kind, value = connection.recv()
        except (EOFError, OSError):
          del workers[connection]
          yield Outcome(worker.cell, None, _describe_death(worker))
          if schedule:
            start(worker.cores, worker.gpu)
          continue
        if kind == _REPORT:
          name, text = value
          getattr(progress, name)(text)
          continue
        if kind == _UNABLE:
          raise application.UserError(value)
        if kind == _FINISHED:
          yield Outcome(worker.cell, value, None)
        else:
          yield Outcome(worker.cell, None, value)
        hand_out(connection)
    for process in ending:
      process.join(_STOP_TIMEOUT_SECONDS)
  finally:
    for process in [*ending, *(w.process for w in workers.values())]:
      process.kill()
      process.join()


def _group_key(cell: Cell) -> Tuple[int, float, str]:
  experiment = cell.experiment
  return experiment.seed, experiment.byzantine_fraction, experiment.aggregator


def _settings(experiment: experiment_lib.Experiment) -> Dict[str, Any]:
  """The arguments of `Experiment`, fit to be sent to another process."""
  settings = {
      field.name: getattr(experiment, field.name)
      for field in dataclasses.fields(experiment)
  }
  return {**settings, 'task_options': dict(experiment.task_options)}


def _divide_cores(num_workers: int) -> List[Set[int]]:
  """The cores for each worker; none where they cannot be assigned."""
  if not hasattr(os, 'sched_getaffinity'):
    return [set()] * num_workers
  cores = sorted(os.sched_getaffinity(0))
  if num_workers >= len(cores):
    return [{cores[i % len(cores)]} for i in range(num_workers)]
  bounds = [i * len(cores) // num_workers for i in range(num_workers + 1)]
  return [set(cores[a:b]) for a, b in zip(bounds, bounds[1:])]


def _divide_gpus(
    num_workers: int, cells: Sequence[Cell]
) -> List[Optional[str]]:
  """The GPU for each worker; None where it need not be told."""
  gpus = []
  if any(cell.experiment.context == 'in_process' for cell in cells):
    gpus = _visible_gpus()
  if len(gpus) < 2:
    return [None] * num_workers
  return [gpus[i % len(gpus)] for i in range(num_workers)]


def _visible_gpus() -> List[str]:
  """What CUDA_VISIBLE_DEVICES lists, or would if it listed every GPU."""
  listed = nvidia_smi.listed_devices()
  if listed is not None:
    return listed
  rows = nvidia_smi.query('uuid', timeout_seconds=_GPU_TIMEOUT_SECONDS)
  return [uuid for (uuid,) in rows if uuid.startswith('GPU-')]


def _start_process(
    cores: Set[int], gpu: Optional[str]
) -> Tuple[mp_connection.Connection, multiprocessing.process.BaseProcess]:
  """Starts a worker process; returns the connection to it and the process."""
  context = multiprocessing.get_context('spawn')
  connection, of_worker = context.Pipe()
  process = context.Process(
      target=_work, args=(of_worker, cores, gpu), daemon=True
  )
  # It would lift the block below when it is started.
  resource_tracker.ensure_running()
  # The child inherits the block, so that Ctrl-C ends the parent alone and
  # through its end the child, at whatever point of its start this is.
  unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    process.start()
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
  # Without another copy, the connection ends when the child does.
  of_worker.close()
  return connection, process


def _describe_death(worker: _Worker) -> str:
  """Writes the error of a run whose worker died; returns it in one line."""
  worker.process.join(_STOP_TIMEOUT_SECONDS)
  status = worker.process.exitcode
  if status is None:
    worker.process.kill()
    how = 'stopped to answer'
  elif status >= 0:
    how = f'ended with exit code {status}'
  else:
    try:
      how = f'was killed by {signal.Signals(-status).name}'
    except ValueError:
      how = f'was killed by signal {-status}'
    if -status in (signal.SIGKILL, signal.SIGABRT):
      how += ' (often a sign that memory ran short)'
  log = worker.cell.folder / _LOG_FILE
  output = ''
  if log.exists():
    if log.stat().st_size:
      output = f'; its output is in {log}'
    else:
      log.unlink()
  return application.write_error(
      worker.cell.folder,
      ChildProcessError(
          f'the worker process {worker.process.pid} {how}{output}'
      ),
  )


class _Reporter:
  """Stands in for `Progress` in a worker: passes reports on to the parent."""

  def __init__(self, connection: mp_connection.Connection):
    self._connection = connection

  def advance(self, text: str) -> None:
    """See `Progress.advance`."""
    self._connection.send((_REPORT, ('advance', text)))

  def warn(self, text: str) -> None:
    """See `Progress.warn`."""
    self._connection.send((_REPORT, ('warn', text)))

  def note(self, text: str) -> None:
    """See `Progress.note`."""
    self._connection.send((_REPORT, ('note', text)))

  def remark(self, text: str) -> None:
    """See `Progress.remark`."""
    self._connection.send((_REPORT, ('remark', text)))


def _work(
    connection: mp_connection.Connection, cores: Set[int], gpu: Optional[str]
) -> None:
  """Runs what the parent sends until it sends no more; a worker's life."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  if cores:
    # TensorFlow, which is not imported yet, splits an operation into as many
    # parts as it has threads. As many as without workers give the same sums to
    # the last bit.
    os.environ.setdefault(
        'TF_NUM_INTRAOP_THREADS', str(len(os.sched_getaffinity(0)))
    )
    os.sched_setaffinity(0, cores)
  if gpu is not None:
    os.environ['CUDA_VISIBLE_DEVICES'] = gpu
  shared_runner = None
  while True:
    try:
      settings, folder = connection.recv()
    except EOFError:
      return
    log = _redirect_output(folder)
    try:
      if shared_runner is None:
        from binaries import runner  # pylint: disable=g-import-not-at-top

        shared_runner = runner.Runner()
      rows = single_run.run(
          shared_runner,
          experiment_lib.Experiment(**settings),
          folder,
          _Reporter(connection),
      )
      answer = (_FINISHED, rows)
    except application.UserError as error:
      answer = (_FAILED, str(error))
    except ModuleNotFoundError as error:
      answer = (_UNABLE, f'{error}; install what requirements.txt lists.')
    except Exception as error:  # pylint: disable=broad-exception-caught
      answer = (_FAILED, application.write_error(folder, error))
    log.unlink(missing_ok=True)
    connection.send(answer)


def _end_with_parent() -> None:
  """Ends this process as soon as the parent has ended."""
  multiprocessing.parent_process().join()
  application.end_process(1)


def _redirect_output(folder: pathlib.Path) -> pathlib.Path:
  """Sends this process's output to a file, whose path is returned."""
  path = folder / _LOG_FILE
  sys.stdout.flush()
  sys.stderr.flush()
  with open(path, 'wb') as file:
    for descriptor in (1, 2):
      os.dup2(file.fileno(), descriptor)
  faulthandler.enable(2)
  return path
