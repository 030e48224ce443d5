"""Runs the cells of a grid side by side, each worker an actor of Ray.

What a worker prints goes to `worker.log` in the folder of the run, which is
kept if the worker died in it.
"""

from collections.abc import Iterator
from concurrent import futures
import dataclasses
import faulthandler
import importlib
import math
import os
import pathlib
import queue
import socket
import sys
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

from absl import flags

from binaries import application
from binaries import cells as cells_lib
from binaries import gpus
from binaries import output_folder
from binaries import progress as progress_lib
from binaries import run_record
from binaries import single_run
from fedaot_tff.runtime import ray_cluster

_LOG_FILE = 'worker.log'
# How often a run is begun, or a worker started, before it counts as failed.
_MAX_TRIES = 3
_SECONDS_UNTIL_TOLD = 30.0
# A worker that seems to be dead, as its machine is cut off, may end later.
_PATIENCE_SECONDS = 30.0
# Ray takes no less; little goes through it.
_OBJECT_STORE_BYTES = 75 << 20
# What a worker sends besides reports, which are named by `RunProgress`: where
# it is and its versions, or rows and error of a run.
_STARTED, _ENDED = 'started', 'ended'


@dataclasses.dataclass
class _Run:
  """A cell and what became of it so far."""

  cell: cells_lib.Cell
  progress: progress_lib.RunProgress
  num_tries: int = 0


def run(
    cells: Sequence[cells_lib.Cell],
    progress: progress_lib.Progress,
    num_workers: int,
    ray_address: Optional[str],
) -> Iterator[cells_lib.Outcome]:
  """Yields outcomes; see `cells.run`.

  A run whose worker dies goes on in another one, from its checkpoint.
  """
  left = [_Run(cell, progress.start_run(cell.label)) for cell in cells]
  num_workers = min(num_workers, len(left))
  ray = _connect(ray_address)
  try:
    start = _starter(ray, num_workers, cells[0].experiment.context)
    workers = [_Worker(start) for _ in range(num_workers)]
    num_lost = 0
    while left or any(w.run for w in workers):
      ready, _ = ray.wait(
          [w.messages for w in workers], timeout=_SECONDS_UNTIL_TOLD
      )
      if not ready and not any(w.run for w in workers):
        if not any(node['Alive'] for node in ray.nodes()):
          raise application.UserError('Ray has died; the same command goes on.')
        left[0].progress.note('the Ray cluster is busy; waiting for a worker')
      for worker in [w for w in workers if w.messages in ready]:
        current = worker.run
        try:
          kind, value = ray.get(next(worker.messages))
        except ray.exceptions.RayTaskError as error:
          raise error.cause from error
        except ray.exceptions.RayError as error:
          ray.kill(worker.actor)
          worker.restart()
          if current is None:
            num_lost += 1
            if num_lost == _MAX_TRIES:
              raise application.UserError(
                  f'no worker can start: {application.describe_error(error)}'
              ) from error
          elif current.num_tries < _MAX_TRIES:
            current.progress.remark('its worker died; another one goes on')
            left.insert(0, current)
          else:
            yield _outcome(current, None, _describe_death(current.cell, error))
          continue
        if kind == _STARTED:
          num_lost = 0
          worker.place(*value, workers)
        elif kind == _ENDED:
          yield _outcome(current, *value)
        else:
          getattr(current.progress, kind)(value)
          continue
        if left:
          worker.begin(_take(left, current, workers))
        else:
          workers.remove(worker)
          ray.kill(worker.actor)
  finally:
    ray.shutdown()


def _connect(address: Optional[str]) -> Any:
  """The module `ray`, connected to a cluster that can be this machine."""
  try:
    return ray_cluster.connect(
        address,
        num_gpus=len(gpus.visible_gpus()),
        object_store_memory=_OBJECT_STORE_BYTES,
    )
  except (ImportError, OSError, RuntimeError, ValueError) as error:
    raise application.UserError(application.describe_error(error)) from error


def _outcome(run, rows, error) -> cells_lib.Outcome:
  return cells_lib.Outcome(run.cell.experiment, run.progress, rows, error)


class _Worker:
  """An actor, which may be waiting for its cores, and the run that it is at."""

  run: Optional[_Run]
  node: Optional[str]

  def __init__(self, start: Callable[[], Any]):
    self._start = start
    self.restart()

  def restart(self) -> None:
    """Puts a new actor in the place of the present one."""
    self.run = self.node = self._slot = None
    self.actor = self._start()
    self.messages = self.actor.describe.remote()

  def place(
      self,
      node: str,
      host: str,
      versions: Mapping[str, Any],
      workers: Sequence['_Worker'],
  ) -> None:
    """Takes in where the actor is; UserError if it would compute otherwise."""
    difference = run_record.describe_other_versions({'versions': versions})
    if difference:
      raise application.UserError(
          f'machine {host} has {difference}; all need the same checkout and'
          ' environment.'
      )
    others = {w._slot for w in workers if w.node == node}
    self.node, self._slot = node, min({*range(len(workers))} - others)

  def begin(self, run: _Run) -> None:
    """Gives the actor, which is idle, a run."""
    self.run = run
    run.num_tries += 1
    self.messages = self.actor.run.remote(
        self._slot, run.cell.experiment, run.cell.folder
    )


def _take(
    left: List[_Run], last: Optional[_Run], workers: Sequence[_Worker]
) -> _Run:
  """Takes the next run for a worker whose last one is given.

  It keeps to its group, then takes up one that nobody is at, so that little is
  compiled twice.
  """
  busy = [worker.run.cell.group for worker in workers if worker.run]

  def rank(i):
    group = left[i].cell.group
    return last is None or group != last.cell.group, group in busy, i

  return left.pop(min(range(len(left)), key=rank))


def _starter(ray: Any, num_workers: int, context: str) -> Callable[[], Any]:
  """A function that starts an actor on its share of the cores and GPUs."""
  nodes = [node['Resources'] for node in ray.nodes() if node['Alive']]
  rooms, num_gpus = [num_workers] * len(nodes), 0.0
  of_gpus = [node.get('GPU', 0.0) for node in nodes]
  if context == 'in_process' and any(of_gpus):
    num_gpus, rooms = _divide(of_gpus, rooms, num_workers, whole=True)
  of_cores = [node.get('CPU', 0.0) for node in nodes]
  num_cores, _ = _divide(of_cores, rooms, num_workers)
  options = {'num_cpus': num_cores, 'num_gpus': num_gpus}
  actor = ray.remote(_Actor).options(**options)
  spec = sys.modules['__main__'].__spec__
  # TensorFlow splits an operation into as many parts as it has threads. As many
  # as with one worker give the same sums to the last bit.
  num_threads = os.environ.get(
      'TF_NUM_INTRAOP_THREADS', str(len(os.sched_getaffinity(0)))
  )
  return lambda: actor.remote(
      spec and spec.name,
      # The flags of a program that has some.
      sys.argv if flags.FLAGS.is_parsed() else sys.argv[:1],
      # Where relative paths begin.
      os.getcwd(),
      num_threads,
      num_cores,
  )


def _divide(
    amounts: Sequence[float],
    rooms: Sequence[int],
    num_workers: int,
    *,
    whole: bool = False,
) -> Tuple[float, List[int]]:
  """The largest equal share of what nodes have with which all workers fit.

  If whole, it is a number of pieces, or an n-th of one. Also how many workers
  fit on each node, which is not more than its `rooms`.
  """
  shares = {a / n for a in amounts if a for n in range(1, num_workers + 1)}
  if whole:
    shares = {
        math.floor(s) if s >= 1 else 1 / math.ceil(1 / s - 1e-9) for s in shares
    }
  for share in sorted(shares, reverse=True):
    fitting = [min(r, int(a / share + 1e-9)) for a, r in zip(amounts, rooms)]
    if sum(fitting) >= num_workers:
      # Ray counts in steps of 1e-4.
      return math.floor(share * 1e4) / 1e4, fitting
  raise application.UserError(
      'the Ray cluster has no cores; `ray start` more machines.'
  )


def _describe_death(cell: cells_lib.Cell, error: BaseException) -> str:
  """Writes the error of the run; returns it in one line."""
  how = (
      f'its worker died {_MAX_TRIES} times, often a sign that memory ran short'
  )
  log = cell.folder / _LOG_FILE
  if log.exists() and log.stat().st_size:
    how += f'; its output is in {log}'
  death = ChildProcessError(how)
  death.__cause__ = error
  return application.write_error(cell.folder, death)


class _Actor:
  """A worker's process."""

  def __init__(
      self,
      main: Optional[str],
      argv: Sequence[str],
      folder: str,
      num_threads: str,
      num_cores: float,
  ):
    if main:
      # For `run.json`: the command and its flags.
      sys.modules['__main__'] = importlib.import_module(main)
    sys.argv = list(argv)
    flags.FLAGS(sys.argv, known_only=True)
    os.chdir(folder)
    os.environ['TF_NUM_INTRAOP_THREADS'] = num_threads
    self._num_cores = num_cores
    self._thread: Optional[futures.Executor] = None

  def describe(self) -> Iterator[Tuple[str, Any]]:
    import ray  # pylint: disable=g-import-not-at-top

    node = ray.get_runtime_context().get_node_id()
    yield _STARTED, (node, socket.gethostname(), run_record.versions())

  def run(
      self, slot: int, experiment: Any, folder: pathlib.Path
  ) -> Iterator[Tuple[str, Any]]:
    if self._thread is None:
      # TFF's context belongs to a thread, as do the cores.
      self._thread = futures.ThreadPoolExecutor(
          1, initializer=_keep_to_cores, initargs=(slot, self._num_cores)
      )
    messages = queue.SimpleQueue()
    done = self._thread.submit(_run, experiment, folder, _Reporter(messages))
    done.add_done_callback(messages.put)
    yield from iter(messages.get, done)
    yield _ENDED, done.result()


def _keep_to_cores(slot: int, num_cores: float) -> None:
  cores = sorted(os.sched_getaffinity(0))
  mine = cores[slot :: max(1, int(len(cores) / num_cores + 1e-3))]
  os.sched_setaffinity(0, mine or {cores[slot % len(cores)]})


class _Reporter:
  """Passes what a worker tells its `RunProgress` on to the driver."""

  def __init__(self, messages: queue.SimpleQueue):
    self._messages = messages

  def __getattr__(self, name: str):
    return lambda value: self._messages.put((name, value))


def _run(
    experiment: Any, folder: pathlib.Path, reporter: _Reporter
) -> Tuple[Any, Optional[str]]:
  """Rows and error of a run."""
  log = folder / _LOG_FILE
  try:
    output_folder.make_folder(folder)
    _redirect_output(log)
    return (
        single_run.run(
            experiment, folder, reporter, patience=_PATIENCE_SECONDS
        ),
        None,
    )
  except application.UserError as error:
    return None, str(error)
  finally:
    if log.is_file():
      log.unlink()


def _redirect_output(path: pathlib.Path) -> None:
  with output_folder.told(f'write {path}'):
    file = open(path, 'wb')
  with file:
    for stream in (sys.stdout, sys.stderr):
      stream.flush()
    for descriptor in (1, 2):
      os.dup2(file.fileno(), descriptor)
  faulthandler.enable(file=2)
