"""An execution context whose clients run in the actors of a Ray cluster."""

from collections.abc import Iterator
import functools
import itertools
import threading
from typing import Any, Optional

import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_federated.python.core.impl.types import type_serialization

from fedaot import checks
from fedaot_tff.runtime import blocks
from fedaot_tff.runtime import devices
from fedaot_tff.runtime import in_process
from fedaot_tff.runtime import invocation
from fedaot_tff.runtime import ray_cluster
from fedaot_tff.runtime import staged
from fedaot_tff.runtime import traced


class RayExecutionContext(in_process.InProcessExecutionContext):
  """Runs clients in Ray actors, and everything else in this process.

  The clients' work must be without datasets and variables, as that of
  `build_attacked_fed_avg(array_batch_size=...)` is. What clients make stays in
  the actors; this process gets the rows that rules gather, and sums. Results
  depend, to the last bit, neither on the number of actors nor on their deaths.

  A client's value may be a `functools.partial` of a function of a module that
  actors can import. An actor calls it for the value, which then is not sent.
  """

  def __init__(
      self,
      *,
      address: Optional[str] = None,
      num_actors: Optional[int] = None,
      default_num_clients: int = 0,
  ):
    """Connects to Ray.

    Args:
      address: `host:port` of the cluster. Default: what the environment
        variable RAY_ADDRESS says, or else a Ray of this machine's cores that
        ends with this process.
      num_actors: How many actors there are, each on one core of the cluster.
        Default: one for each core.
      default_num_clients: See `InProcessExecutionContext`.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If an address or a number is wrong.
      ImportError: If Ray is not installed.
      ConnectionError: If there is no cluster at the address.
    """
    checks.check_kind('address', address, str, type(None))
    if num_actors is not None:
      checks.check_int('num_actors', num_actors, minimum=1)
    super().__init__(
        client_devices=[devices.CPU], default_num_clients=default_num_clients
    )
    self._ray = ray_cluster.connect(address)
    num_cpus = self._ray.cluster_resources().get('CPU', 0)
    if num_actors is not None and num_actors > num_cpus:
      raise ValueError(
          f'`num_actors` is {num_actors}, and the Ray cluster has only'
          f' {num_cpus:g} cores.'
      )
    # It imports Ray.
    # pylint: disable-next=g-import-not-at-top
    from fedaot_tff.runtime import ray_actors

    self._actors = ray_actors.Actors(num_actors)
    self._make_round = ray_actors.RoundOnActors
    self._round_numbers = itertools.count()
    self._lock = threading.Lock()

  def _invocation(self, num_clients):
    return _Invocation(self._devices, num_clients, None)

  def _trace(self, function, signature):
    try:
      round_ = staged.trace(function, signature, self._devices)
    except traced.NotTraceable as error:
      raise NotImplementedError(
          f'What has {error} cannot run on Ray: give clients arrays'
          ' (build_attacked_fed_avg with array_batch_size), or run it in'
          ' process (set_in_process_execution_context).'
      ) from error
    reference = self._ray.put(_block_program(round_, signature))

    def run(argument, server):
      num_clients = server.invocation.num_clients
      columns = []
      known = dict(enumerate(_split(argument, signature.parameter, columns)))
      clients = list(zip(*columns)) if columns else [()] * num_clients
      with self._lock:
        result = self._run_round(round_, reference, known, clients)
      return traced.outside(signature.result, iter(result), num_clients)

    # The graphs call functions that are removed with it.
    run.untraced = function
    return run

  def _run_round(self, round_, program, known, clients):
    """The flat result, given the server's part of the argument by number."""
    on_actors = self._make_round(
        self._actors, next(self._round_numbers), program, clients
    )
    sent = set()

    def run_at_server(function, inputs):
      with traced.optimized_once():
        return function(*(known[number] for number in inputs))

    try:
      for stage in round_.stages:
        made = run_at_server(stage.run, stage.inputs)
        known.update(zip(stage.outputs, made))
        if stage.block is None:
          continue
        new = [n for n in stage.block.shared if n not in sent]
        sent.update(new)
        received = on_actors.run_stage(
            [(number, known[number].numpy()) for number in new],
            has_sums=stage.block.merge is not None,
        )
        known.update(zip(stage.received, map(tf.constant, received)))
    finally:
      self._actors.forget_round()
    return run_at_server(round_.result, round_.inputs)

  def close(self):
    """Ends the actors; later use starts others."""
    super().close()
    self._actors.kill()

  @property
  def placement(self) -> str:
    """Where work is done, as in 'clients on 2 Ray actors, server on CPU:0'."""
    server = super().placement.rpartition(' on ')[2]
    return f'clients on {self._actors.number} Ray actors, server on {server}'


class _Invocation(invocation.Invocation):
  """An invocation before which nothing is read that actors can read."""

  def map_clients(self, function, values, result_type=None):
    return [
        v if isinstance(v, functools.partial) else function(v, self.client(i))
        for i, v in enumerate(values)
    ]


def _block_program(
    round_: staged.Round, signature: tff.FunctionType
) -> blocks.BlockProgram:
  slots = enumerate(traced.slots(signature.parameter))
  return blocks.BlockProgram(
      tuple(stage.block for stage in round_.stages if stage.block is not None),
      tuple(
          type_serialization.serialize_type(t).SerializeToString()
          for t in _client_types(signature.parameter)
      ),
      tuple((number, slot.spec) for number, slot in slots if slot.is_rows),
  )


def _client_types(type_spec: tff.Type) -> Iterator[tff.Type]:
  """The types of what each client has a value of."""
  if isinstance(type_spec, tff.FederatedType):
    if traced.differs_by_client(type_spec):
      yield type_spec.member
  elif isinstance(type_spec, tff.StructType):
    for part in type_spec:
      yield from _client_types(part)


def _split(
    value: Any, type_spec: tff.Type, columns: list[list[Any]]
) -> Iterator[Optional[tf.Tensor]]:
  """Yields the server's tensors, and None for what each client has.

  Of that, a list of the clients' values goes into `columns`.
  """
  if isinstance(type_spec, tff.FederatedType) and traced.differs_by_client(
      type_spec
  ):
    columns.append(
        [
            v
            if isinstance(v, functools.partial)
            else tuple(tensor.numpy() for tensor in traced.flatten(v))
            for v in value
        ]
    )
    yield from (None for _ in traced.specs_of(type_spec.member))
  elif isinstance(type_spec, tff.StructType):
    for element, part in zip(value, type_spec):
      yield from _split(element, part, columns)
  else:
    yield from traced.flatten(value)
