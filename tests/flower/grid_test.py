"""Strategies on Flower's in-memory grid: its own state, messages and clocks."""

import secrets
import threading
import time
import uuid

from flwr.app import Array
from flwr.app import ArrayRecord
from flwr.app import Context
from flwr.app import Message
from flwr.app import MetricRecord
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower
import numpy as np
import pytest

from fedaot import rules
from fedaot.flower import FedAOT
from fedaot.flower import Robust
from tests.flower import messages  # pylint: disable=unused-import

# The grid's surroundings are not public; these are their places in 1.42.
linkstate = pytest.importorskip('flwr.server.superlink.linkstate')
inmemory_grid = pytest.importorskip('flwr.superlink.grid.inmemory_grid')
# ruff: noqa: E402
from flwr.proto.task_pb2 import Task
from flwr.server.superlink.linkstate import in_memory_linkstate
from flwr.supercore import constant
from flwr.supercore import run as run_lib
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

_TARGET = np.linspace(-1, 1, 40).astype(np.float32)

app = ClientApp()


@app.train()
def _train(message: Message, context: Context) -> Message:
  """Moves half of the way to the target, with noise; or does what it says."""
  does, node_id = context.node_config['does'], context.node_id
  before = message.content['arrays']['w'].numpy()
  noise = np.random.default_rng(node_id % 2**32).standard_normal(40)
  update = 0.5 * (_TARGET - before) + 0.05 * noise
  array = Array((before + (-3 if does == 'flip' else 1) * update).astype('f4'))
  if does == 'garbage':
    array.data = array.data[:99]
  if does == 'crash':
    raise RuntimeError('out of memory')
  if does == 'late':
    time.sleep(4)
  content = RecordDict(
      {
          'arrays': ArrayRecord({'w' if does != 'rename' else 'v': array}),
          'metrics': MetricRecord({'num-examples': 10, 'loss': 1.0}),
      }
  )
  return Message(content, reply_to=message)


@app.evaluate()
def _evaluate(message: Message, context: Context) -> Message:
  metrics = {'num-examples': 5, 'distance': 1.0}
  if context.node_config['does'] != 'honest':
    metrics = {'distance': float('nan')}
  content = RecordDict({'metrics': MetricRecord(metrics)})
  return Message(content, reply_to=message)


class _Federation:
  """An in-memory grid with a thread for every node, until it dies."""

  def __init__(self, does):
    factory = linkstate.LinkStateFactory(
        constant.FLWR_IN_MEMORY_DB_NAME,
        NoOpFederationManager(),
        ObjectStoreFactory(),
    )
    self._state, self._stop = factory.state(), threading.Event()
    run = run_lib.Run.create_empty(run_id=1)
    run.primary_task_id = 1
    run.federation_id = constant.NOOP_FEDERATION_ID
    self._state.run_ids[1] = in_memory_linkstate.RunRecord(run=run)
    self._state.task_store[1] = Task(task_id=1, run_id=1)
    self.grid = inmemory_grid.InMemoryGrid(factory)
    self.grid.set_run(run)
    self._threads = []
    for what in does:
      node_id = self._state.create_node('', '', secrets.token_bytes(32), 1e9)
      self._state.acknowledge_node_heartbeat(node_id, 1e9)
      thread = threading.Thread(target=self._serve, args=(node_id, what))
      self._threads.append(thread)
      thread.start()

  def _serve(self, node_id, what):
    context = Context(1, node_id, {'does': what}, RecordDict(), {})
    while not self._stop.wait(0.01):
      for message in self._state.get_message_ins(node_id, limit=1):
        round_num = message.content['config']['server-round']
        if what == 'dies' and round_num == 2:
          return
        try:
          reply = app(message, context)
        except Exception as error:  # pylint: disable=broad-except
          reply = Message(messages.Error(0, repr(error)), reply_to=message)
        reply.metadata.__dict__['_message_id'] = str(uuid.uuid4())
        self._state.store_message_res(reply)

  def __enter__(self):
    return self.grid

  def __exit__(self, *unused):
    self._stop.set()
    for thread in self._threads:
      thread.join()


def _distance(arrays):
  return np.abs(arrays['w'].numpy() - _TARGET).max()


def _start(strategy, grid, **options):
  start = ArrayRecord({'w': Array(np.zeros(40, np.float32))})
  return strategy.start(grid, start, **options)


def _options(num_nodes):
  # Nodes that no longer answer are still counted.
  return dict(min_train_nodes=num_nodes, min_available_nodes=num_nodes)


@pytest.mark.parametrize(
    'make', [FedAOT, lambda **o: Robust(rules.nnm(rules.krum(4)), **o)]
)
def test_flipping_nodes_have_no_say(make):
  does = ['flip'] * 4 + ['honest'] * 6
  with _Federation(does) as grid:
    result = _start(make(**_options(10)), grid, num_rounds=6)
    fed_avg = _start(
        flower.FedAvg(fraction_evaluate=0.0, **_options(10)), grid, num_rounds=6
    )
  assert _distance(result.arrays) < 0.3
  assert _distance(fed_avg.arrays) > 1
  for metrics in result.train_metrics_clientapp.values():
    assert metrics['loss'] == pytest.approx(1.0)
    assert metrics['fedaot-num-dropped'] == 0
  # Only the honest ones evaluate as they should.
  assert result.evaluate_metrics_clientapp[6]['distance'] == pytest.approx(1)


def test_nodes_that_die_send_garbage_or_answer_late_are_left_out():
  does = ['garbage', 'crash', 'late', 'dies', 'rename'] + ['honest'] * 4
  strategy = FedAOT(seed=1, fraction_evaluate=0.0, **_options(9))
  with _Federation(does) as grid:
    result = _start(strategy, grid, num_rounds=2, timeout=3)
  assert _distance(result.arrays) < 0.5
  metrics = result.train_metrics_clientapp
  assert [metrics[i]['fedaot-num-dropped'] for i in (1, 2)] == [3, 3]
  # The one that dies answers the first round; the late one none in time.
  assert [len(metrics[i]['fedaot-weights']) for i in (1, 2)] == [5, 4]


def test_one_bad_node_stops_flowers_own_strategies():
  """Why the care is needed; a test of what the documentation says."""
  with _Federation(['rename', 'honest', 'honest']) as grid:
    with pytest.raises(Exception, match='same keys'):
      _start(flower.FedAvg(**_options(3)), grid, num_rounds=1)


def test_a_run_of_bad_nodes_alone_keeps_the_model():
  with _Federation(['garbage'] * 2) as grid:
    result = _start(
        FedAOT(fraction_evaluate=0.0, **_options(2)), grid, num_rounds=2
    )
  assert result.train_metrics_clientapp[2]['fedaot-num-dropped'] == 2
  assert not result.arrays
