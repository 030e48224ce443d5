"""Rounds whose clients run in Ray actors."""

import collections
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from fedaot_tff.aggregators import fedaot
from fedaot_tff.aggregators import row_gather
from fedaot_tff.aggregators import rule_factory
from fedaot_tff.attacks import registry
from fedaot_tff.learning import fed_avg
from fedaot_tff.runtime import blocks
from fedaot_tff.runtime import ray_cluster
from fedaot_tff.runtime import ray_context
from tests import small_problem
from tests.runtime import both_contexts
from tests.runtime import processes

# More than two units of two blocks each for one actor, and no power of two.
_NUM_CLIENTS = 38
_NUM_ATTACKERS = 10
_AT_CLIENTS = tff.FederatedType(np.float32, tff.CLIENTS)

# There is none for Python 3.9.
ray = pytest.importorskip('ray')


@pytest.fixture(name='cluster', scope='module')
def _cluster():
  """A cluster on this machine: a node of three cores, and others may come."""
  ray_cluster.import_ray()
  # pylint: disable-next=g-import-not-at-top
  from ray import cluster_utils

  folder = tempfile.mkdtemp(prefix='ray_')
  cluster = cluster_utils.Cluster(
      initialize_head=True,
      head_node_args=dict(
          num_cpus=3,
          include_dashboard=False,
          temp_dir=folder,
          object_store_memory=200 << 20,
      ),
  )
  ray_cluster.connect(cluster.address)
  yield cluster
  ray.shutdown()
  cluster.shutdown()
  shutil.rmtree(folder)


def _client_data(round_num=0):
  result = []
  for client in range(_NUM_CLIENTS):
    examples = small_problem.examples(
        8 + 3 * (client % 5), seed=100 * round_num + client
    )
    order = np.arange(len(examples['y']), dtype=np.int32)
    attacker = client - _NUM_CLIENTS + _NUM_ATTACKERS
    result.append(
        collections.OrderedDict(
            attacker_index=np.int32(attacker if attacker >= 0 else -1),
            dataset=collections.OrderedDict(examples, order=order),
        )
    )
  return result


def _build(aggregator, attack='sign_flip'):
  return fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=aggregator,
      update_poisoning=registry.get_attack(attack).update_poisoning,
      seed=5,
      array_batch_size=small_problem.BATCH_SIZE,
  )


def _run(context, process, client_data=_client_data):
  """The weights after each of two rounds, and the metrics."""
  outputs = both_contexts.run_in(
      context,
      functools.partial(
          small_problem.run, process, 2, client_data_fn=client_data
      ),
  )
  return [
      (output.state.global_model_weights.trainable, output.metrics)
      for output in outputs
  ]


def _run_on_actors(number, process, client_data=_client_data):
  context = ray_context.RayExecutionContext(num_actors=number)
  try:
    return _run(context, process, client_data)
  finally:
    context.close()


def _assert_close_updates(found, expected):
  before = small_problem.model().initial_weights[0]
  for (a, _), (b, _) in zip(found, expected):
    for x, y, start in zip(a, b, before):
      assert np.linalg.norm(x - y) <= 1e-6 * np.linalg.norm(y - start)
    before = b


_RULES = {
    'mean': tff.aggregators.MeanFactory,
    'krum': lambda: rule_factory.krum_factory(_NUM_ATTACKERS),
    'fedaot': lambda: fedaot.fedaot_factory(small_problem.holdout(), seed=3),
    'fedaot_no_holdout': lambda: fedaot.fedaot_factory(seed=3),
}


@pytest.mark.parametrize(
    'rule, attack',
    [
        pytest.param(
            rule,
            attack,
            marks=()
            if (rule, attack) == ('fedaot', 'alie')
            else pytest.mark.slow,
        )
        for rule in _RULES
        for attack in ('sign_flip', 'alie')
    ],
)
def test_bits_do_not_depend_on_the_number_of_actors(rule, attack, cluster):
  process = _build(_RULES[rule](), attack)
  one, two, three = (_run_on_actors(n, process) for n in (1, 2, 3))
  small_problem.assert_bit_identical(two, one)
  small_problem.assert_bit_identical(three, one)
  _assert_close_updates(one, _run(both_contexts.in_process(), process))


def _read_client(folder, client, round_num):
  """Reads a client's data, as an actor does, and tells that it did."""
  path = pathlib.Path(folder) / f'{client}_{round_num}'
  path.write_text(str(os.getpid()))
  return _client_data(round_num)[client]


def test_actors_read_what_their_clients_need(cluster, tmp_path):
  process = _build(tff.aggregators.MeanFactory())

  def readers(round_num):
    return [
        functools.partial(_read_client, str(tmp_path), client, round_num)
        for client in range(_NUM_CLIENTS)
    ]

  found = _run_on_actors(2, process, readers)
  small_problem.assert_bit_identical(found, _run_on_actors(1, process))
  read_by = {int(path.read_text()) for path in tmp_path.iterdir()}
  assert len(list(tmp_path.iterdir())) == 2 * _NUM_CLIENTS
  assert len(read_by) == 2 and os.getpid() not in read_by


def _read_or_die(folder, client, round_num):
  """Ends the actor that reads this client's data for the first time."""
  path = pathlib.Path(folder) / 'died'
  if client == 30 and not path.exists():
    path.touch()
    os.kill(os.getpid(), signal.SIGKILL)
  return _client_data(round_num)[client]


def test_an_actor_dies_at_its_work(cluster, tmp_path):
  process = _build(tff.aggregators.MeanFactory(), 'alie')

  def readers(round_num):
    return [
        functools.partial(_read_or_die, str(tmp_path), client, round_num)
        for client in range(_NUM_CLIENTS)
    ]

  found = _run_on_actors(2, process, readers)
  assert (tmp_path / 'died').exists()
  small_problem.assert_bit_identical(found, _run_on_actors(1, process))


def test_a_node_dies_between_the_stages_of_a_round(cluster, monkeypatch):
  process = _build(fedaot.fedaot_factory(seed=3))
  expected = _run_on_actors(1, process)
  # pylint: disable-next=g-import-not-at-top
  from fedaot_tff.runtime import ray_actors

  node = cluster.add_node(num_cpus=1)
  context = ray_context.RayExecutionContext(num_actors=4)
  run_stage = ray_actors.RoundOnActors.run_stage
  lost = []

  def run_and_kill(self, *args, **options):
    result = run_stage(self, *args, **options)
    if len(self._shared) == 2 and not lost:
      # Whatever the node's actor has of the round.
      on_node = [
          actor
          for actor in self._actors.ready
          if _node_of(actor) == node.node_id
      ]
      lost.extend(unit for unit in self._units if unit.actor in on_node)
      cluster.remove_node(node, allow_graceful=False)
    return result

  monkeypatch.setattr(ray_actors.RoundOnActors, 'run_stage', run_and_kill)
  both_contexts.run_in(context, process.initialize)
  while len(context._actors.ready) < 4:
    context._actors.start()
  found = _run(context, process)
  context.close()
  assert lost
  small_problem.assert_bit_identical(found, expected)


def _node_of(actor):
  return ray._private.state.actors(actor._actor_id.hex())['Address']['NodeID']


def test_sums_are_merged_along_the_same_tree_whoever_does_it():
  clients = list(range(1000))

  def add(first, second):
    return f'({first} {second})'

  def total(num_workers):
    units = blocks.cut(clients, num_workers)
    assert [c for unit in units for block in unit for c in block] == clients
    return blocks.merge_tree(
        (blocks.merge_tree(map(str, unit), add) for unit in units), add
    )

  expected = total(1)
  assert expected.count('(') == len(clients) // 4 - 1
  for number in (2, 3, 7, 100):
    assert total(number) == expected


def test_few_blocks_are_merged_by_hand():
  assert blocks.cut('abcdefghi', 1) == [['abcd'], ['efgh'], ['i']]
  assert blocks.merge_tree('abcde', '({}{})'.format) == '(((ab)(cd))e)'
  assert blocks.merge_tree('abcdefg', '({}{})'.format) == '(((ab)(cd))((ef)g))'
  assert blocks.cut([], 2) == [[[]]]


@tff.tensorflow.computation(np.float32)
def _double(x):
  return 2 * x


@tff.federated_computation(_AT_CLIENTS)
def _sum_of_doubles(x):
  return tff.federated_sum(tff.federated_map(_double, x))


@tff.federated_computation(_AT_CLIENTS)
def _table_of_doubles(x):
  return row_gather.federated_gather(tff.federated_map(_double, x))


@tff.federated_computation(_AT_CLIENTS)
def _doubles(x):
  return tff.federated_map(_double, x)


@tff.tensorflow.computation(tff.SequenceType(np.float32))
def _count(dataset):
  return dataset.reduce(np.float32(0), lambda n, _: n + 1)


@tff.federated_computation(
    tff.FederatedType(tff.SequenceType(np.float32), tff.CLIENTS)
)
def _counts(datasets):
  return tff.federated_sum(tff.federated_map(_count, datasets))


@tff.tensorflow.computation(tff.TensorType(np.float32, [None]))
def _check(x):
  with tf.control_dependencies([tf.debugging.assert_positive(x)]):
    return tf.reduce_sum(x)


@tff.federated_computation(
    tff.FederatedType(tff.TensorType(np.float32, [None]), tff.CLIENTS)
)
def _checked(x):
  return tff.federated_sum(tff.federated_map(_check, x))


def test_small_computations(cluster):
  context = ray_context.RayExecutionContext(num_actors=1)

  def run(computation, argument):
    return both_contexts.run_in(context, computation, argument)

  assert run(_sum_of_doubles, list(map(np.float32, range(10)))) == 90
  assert run(_sum_of_doubles, []) == 0
  numbers = np.arange(10, dtype=np.float32)
  table = run(_table_of_doubles, list(numbers))
  np.testing.assert_array_equal(table, 2 * numbers)
  assert run(_double, np.float32(3)) == 6  # Without clients.
  with pytest.raises(tf.errors.InvalidArgumentError, match='did not hold'):
    run(_checked, [np.float32([1]), np.float32([-1])])
  assert run(_checked, [np.float32([1]), np.float32([1, 3])]) == 5
  with pytest.raises(NotImplementedError, match='stays at the clients'):
    run(_doubles, [np.float32(1)])
  with pytest.raises(NotImplementedError, match='structure of tensors'):
    run(_counts, [tf.data.Dataset.range(3)])
  context.close()


@pytest.mark.parametrize(
    'options, error, message',
    [
        ({'num_actors': 0}, ValueError, 'found 0'),
        ({'num_actors': 1.0}, TypeError, 'found 1.0'),
        ({'num_actors': 1000}, ValueError, 'only .* cores'),
        ({'address': 7}, TypeError, 'found int'),
    ],
)
def test_wrong_options_are_refused(options, error, message, cluster):
  with pytest.raises(error, match=message):
    ray_context.RayExecutionContext(**options)


@pytest.mark.slow
@pytest.mark.parametrize('is_killed', [False, True])
def test_nothing_is_left_of_a_ray_of_ones_own(is_killed):
  source = """
import os, sys
import numpy as np
import fedaot_tff
from tests.runtime import ray_context_test
from fedaot_tff.runtime import ray_cluster
context = fedaot_tff.set_ray_execution_context(num_actors=1)
assert ray_context_test._sum_of_doubles([np.float32(1)] * 9) == 18
print(ray_cluster.import_ray()._private.worker._global_node.address_info[
    'session_dir'], flush=True)
if sys.argv[1] == 'True':
  os.kill(os.getpid(), 9)
"""
  program = subprocess.run(
      [sys.executable, '-c', source, str(is_killed)],
      env=processes.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
  )
  assert program.returncode == (-signal.SIGKILL if is_killed else 0)
  (folder,) = program.stdout.split()

  def is_gone():
    commands = subprocess.run(
        ['ps', '-eo', 'args'], stdout=subprocess.PIPE, text=True
    )
    return not pathlib.Path(folder).parent.exists() and (
        folder not in commands.stdout
    )

  assert processes.becomes_true(is_gone, 30)
