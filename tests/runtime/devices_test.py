"""Several CPU devices stand for several accelerators."""

import subprocess
import sys

import pytest
import tensorflow as tf

from fedaot_tff.runtime import devices
from fedaot_tff.runtime import graph_surgery
from tests.runtime import processes

_FOUR_DEVICES = """
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices('CPU')[0],
    [tf.config.LogicalDeviceConfiguration()] * 4,
)

import numpy as np
import tensorflow_federated as tff

from fedaot_tff.runtime import execution_context
from fedaot_tff.runtime import leaf
from tests import small_problem


def name(index):
  return f'/job:localhost/replica:0/task:0/device:CPU:{index}'


context = execution_context.set_in_process_execution_context(
    client_devices=['CPU:1', 'CPU:2'],
    server_device='cpu:3',
    max_concurrent_clients=1,
)
assert context.client_devices == (name(1), name(2))
assert context.server_device == name(3)

ran_on = []
fetch = leaf.Leaf._fetch


def recorded(self, values, device):
  outputs = list(fetch(self, values, device))
  for _, output in outputs:
    assert output.dtype == tf.string or output.device == device
  ran_on.append(device)
  return outputs


leaf.Leaf._fetch = recorded
"""

_PLACES = """
@tff.tensorflow.computation(np.float32)
def train(x):
  variable = tf.Variable(2.0)
  return variable.assign_add(x) * 1.5


@tff.federated_computation(tff.FederatedType(np.float32, tff.CLIENTS))
def map_and_sum(x):
  updates = tff.federated_map(train, x)
  return updates, tff.federated_sum(updates), tff.federated_zip((x, updates))


updates, total, _ = map_and_sum([np.float32(i) for i in range(5)])
assert updates == [3, 4.5, 6, 7.5, 9]
assert total == 30
clients = [name(i) for i in (1, 2, 1, 2, 1)]
assert [device for device in ran_on if device != name(3)] == clients
assert ran_on.count(name(3)) >= 5
"""

_TRAINING = """
process = tff.learning.algorithms.build_weighted_fed_avg(
    small_problem.model(),
    small_problem.client_optimizer(),
    loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR,
)
several = small_problem.run(process, 2)[-1].state
assert set(ran_on) == {name(1), name(2), name(3)}
execution_context.set_in_process_execution_context()
one = small_problem.run(process, 2)[-1].state
small_problem.assert_bit_identical(
    several.global_model_weights.trainable, one.global_model_weights.trainable
)
"""


@pytest.mark.parametrize(
    'program',
    [
        pytest.param(_PLACES, id='places'),
        pytest.param(_TRAINING, id='training', marks=pytest.mark.slow),
    ],
)
def test_clients_take_turns_on_their_devices(program):
  result = subprocess.run(
      [sys.executable, '-c', f"{_FOUR_DEVICES}{program}\nprint('done')"],
      env=processes.environment(),
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
  )
  assert result.stdout.endswith('done\n'), result.stderr[-3000:]


def test_without_an_accelerator_everything_runs_on_the_cpu():
  chosen = devices.choose_devices(None, None)
  cpu = '/job:localhost/replica:0/task:0/device:CPU:0'
  if not tf.config.list_logical_devices('GPU'):
    assert chosen == devices.Devices((cpu,), cpu)
    assert not chosen.has_accelerator


def test_devices_are_described_in_short(monkeypatch):
  prefix = '/job:localhost/replica:0/task:0/device:'
  cpus = devices.Devices(
      tuple(f'{prefix}CPU:{index}' for index in (1, 2, 1)), f'{prefix}CPU:0'
  )
  assert cpus.describe() == 'clients on CPU:1 and CPU:2, server on CPU:0'
  gpu = tf.config.PhysicalDevice('/physical_device:GPU:0', 'GPU')
  monkeypatch.setattr(tf.config, 'list_physical_devices', lambda kind: [gpu])
  monkeypatch.setattr(
      tf.config.experimental,
      'get_device_details',
      lambda device: {'device_name': 'NVIDIA T4'} if device is gpu else {},
  )
  mixed = devices.Devices((f'{prefix}GPU:0',), cpus.server)
  monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
  expected = 'clients on GPU:0 (NVIDIA T4), server on CPU:0'
  assert mixed.describe() == expected
  monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '3')
  assert mixed.describe() == f'{expected} (CUDA_VISIBLE_DEVICES=3)'


@pytest.mark.parametrize('name', ['CPU:0', '/device:CPU:0', 'cpu:0'])
def test_names_of_devices(name):
  chosen = devices.choose_devices([name, name], name)
  assert set(chosen.clients) == {chosen.server}


@pytest.mark.parametrize(
    'client_devices, server_device, error, message',
    [
        ('CPU:0', None, TypeError, "list of names of devices, found 'CPU:0'"),
        ([0], None, TypeError, 'found 0 of type int'),
        ([], None, ValueError, '`client_devices` is empty'),
        (['CPU:9'], None, ValueError, "'CPU:9', which is none of the devices"),
        (['CPU'], None, ValueError, "'CPU', which is none"),
        (None, 'x', ValueError, "`server_device` names 'x'"),
        (None, 7, TypeError, '`server_device` must name devices'),
    ],
)
def test_wrong_devices_are_refused(
    client_devices, server_device, error, message
):
  with pytest.raises(error, match=message):
    devices.choose_devices(client_devices, server_device)


def test_a_value_is_copied_to_a_device_once():
  value = (tf.constant(1.0), (tf.constant(2), tf.constant('a')))
  chosen = devices.choose_devices(None, None).server
  copy = devices.to_device(value, chosen)
  assert copy[0] is value[0] and copy[1][0] is value[1][0]


def test_input_pipelines_are_placed_on_the_cpu_inside_functions_too():
  with tf.Graph().as_default() as graph:
    dataset = tf.data.Dataset.range(3)

    @tf.function
    def first():
      return next(iter(dataset)) + 1

    first()
  graph_def = graph.as_graph_def()
  graph_surgery.place_input_pipelines_on_cpu(graph_def)
  placed = {node.op: node.device for node in graph_def.node}
  for function in graph_def.library.function:
    placed.update((node.op, node.device) for node in function.node_def)
  assert placed['RangeDataset'] == '/device:CPU:0'
  assert placed['IteratorGetNext'] == '/device:CPU:0'
  assert placed['AddV2'] == ''
