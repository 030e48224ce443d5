"""The Ray actors that work on the blocks of a round's clients."""

from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any, Optional

import numpy as np
import ray

from fedaot_tff.runtime import blocks
from fedaot_tff.runtime import ray_worker

# An actor that was shut out from its node, or from the network, or killed.
_LOST = (
    ray.exceptions.RayActorError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
)
_MAX_LOSSES = 3
_START_TIMEOUT_SECONDS = 300.0
_ANSWER_TIMEOUT_SECONDS = 120.0

_Actor = Any


def _get(reference: ray.ObjectRef) -> Any:
  """What an actor returns or raises."""
  try:
    return ray.get(reference)
  except ray.exceptions.RayTaskError as error:
    if isinstance(error, _LOST) or error.cause is None:
      raise
    raise error.cause from error


class Actors:
  """Actors, one a core, of which others take the place when they die."""

  def __init__(self, number: Optional[int]):
    """As many as the cluster has cores, now and later, unless told."""
    self._number = number
    self._make = ray.remote(ray_worker.Worker).options(
        num_cpus=1, scheduling_strategy='SPREAD'
    )
    self.starting: dict[ray.ObjectRef, _Actor] = {}
    self.ready: list[_Actor] = []
    self._failures = 0

  @property
  def number(self) -> int:
    """How many there shall be."""
    return self._number or max(int(ray.cluster_resources().get('CPU', 0)), 1)

  def start(self) -> None:
    """Starts those that are missing and waits until there is one.

    RuntimeError if there is none after a while, or several fail to start.
    """
    while len(self.starting) + len(self.ready) < self.number:
      actor = self._make.remote()
      self.starting[actor.is_ready.remote()] = actor
    self.find_ready(0 if self.ready else _START_TIMEOUT_SECONDS)
    if not self.ready:
      raise RuntimeError(
          f'No actor started within {_START_TIMEOUT_SECONDS:.0f} s; the Ray'
          f' cluster has {ray.available_resources().get("CPU", 0):g} free CPUs'
          ' and needs one for each.'
      )

  def find_ready(self, timeout: float = 0) -> None:
    """Notices those that have started."""
    if not self.starting:
      return
    started, _ = ray.wait(list(self.starting), timeout=timeout)
    for reference in started:
      actor = self.starting.pop(reference)
      try:
        ray.get(reference)
        self.ready.append(actor)
        self._failures = 0
      except _LOST as error:
        self._failures += 1
        if self._failures == _MAX_LOSSES:
          raise RuntimeError(
              f'{_MAX_LOSSES} actors could not start. The last one: {error}'
          ) from error

  def lose(self, actor: _Actor) -> None:
    """Does without an actor that may be dead."""
    with contextlib.suppress(ValueError):
      self.ready.remove(actor)
      ray.kill(actor)

  def lose_dead(self) -> list[_Actor]:
    """Does without those that do not answer; returns them."""
    answers = {actor.is_ready.remote(): actor for actor in self.ready}
    dead = []
    for reference, actor in answers.items():
      try:
        ray.get(reference, timeout=_ANSWER_TIMEOUT_SECONDS)
      except (*_LOST, ray.exceptions.GetTimeoutError):
        self.lose(actor)
        dead.append(actor)
    return dead

  def forget_round(self) -> None:
    """Frees what actors have of the round that is over."""
    for actor in self.ready:
      actor.forget.remote()

  def kill(self) -> None:
    """Ends all of them."""
    for actor in [*self.ready, *self.starting.values()]:
      ray.kill(actor)
    self.ready, self.starting = [], {}


@dataclasses.dataclass(eq=False)
class _Unit:
  """A unit of clients and the actor that it is with."""

  index: int
  clients: list[Sequence[ray_worker.Client]]
  actor: Optional[_Actor] = None
  losses: int = 0
  tables: ray_worker.Arrays = ()
  sums: Optional[ray.ObjectRef] = None


class RoundOnActors:
  """A round's clients, whose work actors do stage by stage.

  Units go to the first actors that are free, and stay there, but for those of
  an actor that dies: others do anew all that it has done for them.
  """

  def __init__(
      self,
      actors: Actors,
      round_id: int,
      program: ray.ObjectRef,
      clients: Sequence[ray_worker.Client],
  ):
    self._actors = actors
    self._round_id = round_id
    self._program = program
    self._shared = []
    self._units = [
        _Unit(index, unit)
        for index, unit in enumerate(blocks.cut(clients, actors.number))
    ]

  def run_stage(
      self, shared: Sequence[tuple[int, np.ndarray]], has_sums: bool
  ) -> ray_worker.Arrays:
    """Returns the tables and then the sums, if there are any, of a stage.

    `shared` is numbers and arrays of the server that are new to the clients.
    """
    self._shared.append(ray.put(tuple(shared)))
    while True:
      self._run_units()
      try:
        sums = _get(self._merge()) if has_sums else ()
        break
      except _LOST as error:
        dead = self._actors.lose_dead()
        if not dead:
          raise
        self._lose(dead, error)
    columns = zip(*(unit.tables for unit in self._units))
    return *map(np.concatenate, columns), *sums

  def _task(self, unit: int) -> ray_worker.Task:
    return ray_worker.Task(
        self._round_id, self._program, tuple(self._shared), unit
    )

  def _submit(self, unit: _Unit, is_new: bool) -> ray.ObjectRef:
    tables, unit.sums = unit.actor.run.options(num_returns=2).remote(
        self._task(unit.index), unit.clients if is_new else None
    )
    return tables

  def _run_units(self) -> None:
    """Brings all units to the stage."""
    self._actors.start()
    pending = {
        self._submit(unit, is_new=False): unit
        for unit in self._units
        if unit.actor is not None
    }
    while True:
      self._actors.find_ready()
      busy = {unit.actor for unit in pending.values()}
      free = [actor for actor in self._actors.ready if actor not in busy]
      waiting = [unit for unit in self._units if unit.actor is None]
      for unit, unit.actor in zip(waiting, free):
        pending[self._submit(unit, is_new=True)] = unit
      if not pending:
        return
      done, _ = ray.wait([*pending, *self._actors.starting])
      for reference in done:
        if reference not in pending:
          continue
        unit = pending.pop(reference)
        try:
          unit.tables = _get(reference)
        except _LOST as error:
          lost = unit.actor
          self._actors.lose(lost)
          pending = {r: u for r, u in pending.items() if u.actor is not lost}
          self._lose([lost], error)
          self._actors.start()
          break

  def _lose(self, actors: Sequence[_Actor], error: Exception) -> None:
    for unit in self._units:
      if unit.actor in actors:
        unit.actor = None
        unit.losses += 1
        if unit.losses == _MAX_LOSSES:
          raise RuntimeError(
              f'Clients were lost {_MAX_LOSSES} times with the actor that'
              ' worked on them; is there enough memory? The last time:'
              f' {error}'
          ) from error

  def _merge(self) -> ray.ObjectRef:
    """The sums of all units, merged along the tree by the actors."""

    def merge(first, second):
      (_, a), (actor, b) = first, second
      return actor, actor.merge.remote(self._task(0), a, b)

    parts = [(unit.actor, unit.sums) for unit in self._units]
    return blocks.merge_tree(parts, merge)[1]
