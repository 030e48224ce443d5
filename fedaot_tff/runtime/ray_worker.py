"""What a Ray actor does for the clients of its units.

A result is a function of what it is asked for, so another actor gets the same.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import functools
import itertools
from typing import Any, NamedTuple, Optional, Union

import cachetools
import numpy as np
import ray
import tensorflow as tf
from tensorflow.python.ops import list_ops

from fedaot_tff.runtime import blocks
from fedaot_tff.runtime import graph_function

_MAX_PROGRAMS = 8

Arrays = tuple[np.ndarray, ...]
# A client's values; each is its flat arrays, or a function that reads it.
Client = tuple[Union[Arrays, functools.partial], ...]


class Task(NamedTuple):
  """What an actor is asked for; references are fetched once.

  Attributes:
    round_id: Unlike that of any earlier round.
    program: Of a `blocks.BlockProgram`.
    shared: Of the numbers and arrays of the server, one a stage until now.
    unit: The index of the unit.
  """

  round_id: int
  program: ray.ObjectRef
  shared: Sequence[ray.ObjectRef]
  unit: int

  @property
  def stage(self) -> int:
    return len(self.shared) - 1


class _Loaded(NamedTuple):
  """A stage with its functions."""

  stage: blocks.BlockStage
  run: Callable[..., list[tf.Tensor]]
  merge: Optional[Callable[..., list[tf.Tensor]]]

  def merge_pair(self, first, second):
    if self.merge is None:
      return ()
    both = [*first, *second]
    return self.merge(*(both[i] for i in self.stage.merge_inputs))


@dataclasses.dataclass
class _Unit:
  """The blocks of a unit with what they have, after the last stage."""

  clients: list[Optional[Sequence[Client]]]
  rows: list[dict[int, tf.Tensor]]
  num_stages: int = 0
  result: tuple[Arrays, Arrays] = ((), ())


class Worker:
  """Does the work of clients and keeps what they have during a round."""

  def __init__(self):
    # The same kernels with the same splits on each machine.
    tf.config.set_visible_devices([], 'GPU')
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    self._programs = cachetools.LRUCache(_MAX_PROGRAMS)
    self.forget()

  def forget(self) -> None:
    """Frees what there is of a round."""
    self._round_id: Optional[int] = None
    self._shared: dict[int, tf.Tensor] = {}
    self._num_shared = 0
    self._units: dict[int, _Unit] = {}

  def is_ready(self) -> bool:
    """Returns when the actor has started."""
    return True

  def run(
      self, task: Task, clients: Optional[list[Sequence[Client]]]
  ) -> tuple[Arrays, Arrays]:
    """Brings a unit to a stage; returns its tables and its merged sums.

    Its clients, by block, are given if it is new here.
    """
    if task.round_id != self._round_id:
      self.forget()
      self._round_id = task.round_id
    for reference in task.shared[self._num_shared :]:
      for number, array in ray.get(reference):
        self._shared[number] = tf.constant(array)
      self._num_shared += 1
    program, loaded = self._load(task.program)
    if clients is not None:
      self._units[task.unit] = _Unit(clients, [{} for _ in clients])
    unit = self._units[task.unit]
    while unit.num_stages <= task.stage:
      unit.result = self._run_stage(program, loaded[unit.num_stages], unit)
      unit.num_stages += 1
    return unit.result

  def merge(
      self, task: Task, first: Arrays, second: Arrays
  ) -> tuple[np.ndarray, ...]:
    """Merges the sums of neighbours in the stage."""
    _, loaded = self._load(task.program)
    merged = loaded[task.stage].merge_pair(first, second)
    return tuple(tensor.numpy() for tensor in merged)

  def _load(self, reference: ray.ObjectRef):
    if reference not in self._programs:
      program = ray.get(reference)
      self._programs[reference] = program, [
          _Loaded(
              stage,
              graph_function.load(stage.run),
              stage.merge and graph_function.load(stage.merge),
          )
          for stage in program.stages
      ]
    return self._programs[reference]

  def _run_stage(self, program, loaded, unit):
    tables = []

    def sums():
      for block in range(len(unit.rows)):
        made, of_block = self._run_block(program, loaded, unit, block)
        tables.append(made)
        yield of_block

    merged = blocks.merge_tree(sums(), loaded.merge_pair)
    return (
        tuple(np.concatenate(column) for column in zip(*tables)),
        tuple(tensor.numpy() for tensor in merged),
    )

  def _run_block(self, program, loaded, unit, block):
    """Returns the tables and sums of a block."""
    rows, stage = unit.rows[block], loaded.stage
    if unit.clients[block] is not None:
      rows.update(_read(program, unit.clients[block]))
      rows[blocks.NUM_CLIENTS] = tf.constant(len(unit.clients[block]))
      # What they read is needed no more, or is among the rows.
      unit.clients[block] = None
    made = loaded.run(
        *(
            rows[number] if number in rows else self._shared[number]
            for number in stage.inputs
        )
    )
    num_kept = len(stage.kept)
    num_before_sums = num_kept + stage.num_tables
    rows.update(zip(stage.kept, made[:num_kept]))
    for number in set(rows) - stage.needed_later - {blocks.NUM_CLIENTS}:
      del rows[number]
    tables = [table.numpy() for table in made[num_kept:num_before_sums]]
    return tables, made[num_before_sums:]


def _read(
    program: blocks.BlockProgram, clients: Sequence[Client]
) -> Iterator[tuple[int, tf.Tensor]]:
  """The clients' values as lists of TensorFlow, by number."""
  flat = [
      [
          array
          for value, serialized in zip(client, program.client_types)
          for array in _flat_arrays(value, serialized)
      ]
      for client in clients
  ]
  columns = zip(*flat) if clients else itertools.repeat(())
  for (number, spec), column in zip(program.specs, columns):
    rows = list_ops.tensor_list_reserve(spec.shape, len(column), spec.dtype)
    for index, array in enumerate(column):
      rows = list_ops.tensor_list_set_item(
          rows, index, tf.constant(array, spec.dtype)
      )
    yield number, rows


def _flat_arrays(value: Any, serialized: bytes) -> Sequence[Any]:
  if not isinstance(value, functools.partial):
    return value
  # What reads data by itself needs TFF, most likely.
  # pylint: disable=g-import-not-at-top
  from tensorflow_federated.proto.v0 import computation_pb2
  from tensorflow_federated.python.core.impl.types import type_serialization

  from fedaot_tff.runtime import devices
  from fedaot_tff.runtime import invocation
  from fedaot_tff.runtime import values

  value_type = type_serialization.deserialize_type(
      computation_pb2.Type.FromString(serialized)
  )
  place = invocation.Place(devices.CPU, None)
  return tf.nest.flatten(values.ingest(value(), value_type, place))
