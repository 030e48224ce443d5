"""Apps that Flower's programs run: a simulation, a deployment with TLS."""

import subprocess

from flwr.app import ConfigRecord
from flwr.app import Context
from flwr.app import Message
from flwr.app import RecordDict
import numpy as np
import pytest
import tomllib

from tests.flower import messages
from tests.flower import processes


def _context(name, value, **node_config):
  """Of the example, with one of its settings changed."""
  project = tomllib.loads((processes.EXAMPLE / 'pyproject.toml').read_text())
  return Context(
      run_id=1,
      node_id=0,
      node_config=node_config,
      state=RecordDict(),
      run_config={**project['tool']['flwr']['app']['config'], name: value},
  )


@pytest.mark.parametrize(
    'name, value', [('attack', 'sing_flip'), ('strategy', 'krumm')]
)
def test_the_example_refuses_what_it_does_not_know(name, value, monkeypatch):
  monkeypatch.syspath_prepend(processes.EXAMPLE)
  from fedaotapp import server_app  # pylint: disable=g-import-not-at-top

  message = f'{name} must be one of .*; found {value!r}'
  with pytest.raises(ValueError, match=message):
    server_app.app(None, _context(name, value))


def test_what_attackers_of_the_example_do(monkeypatch):
  monkeypatch.syspath_prepend(processes.EXAMPLE)
  # pylint: disable=g-import-not-at-top
  from fedaotapp import client_app
  from fedaotapp import task

  start = {n: v.numpy() for n, v in task.Net().state_dict().items()}
  content = RecordDict(
      {
          'arrays': messages.record(start),
          'config': ConfigRecord({'server-round': 1}),
      }
  )

  def train(attack, partition):
    context = _context(
        'attack', attack, **{'partition-id': partition, 'num-partitions': 5}
    )
    message = Message(content, dst_node_id=1, message_type='train')
    reply = client_app.app(message, context).content
    updates = [a.numpy() - start[n] for n, a in reply['arrays'].items()]
    return updates, reply['metrics']['num-examples']

  honest, num_examples = train('none', partition=1)
  assert num_examples > 0
  for attack in task.ATTACKS:  # Two of five attack.
    for update, other in zip(
        train(attack, partition=2)[0], train('none', 2)[0]
    ):
      np.testing.assert_array_equal(update, other)
  for update, other in zip(train('sign_flip', 1)[0], honest):
    np.testing.assert_allclose(update, -other, atol=1e-6)
  assert any(
      np.abs(update - other).max() > 1e-3
      for update, other in zip(train('label_flip', 1)[0], honest)
  )
  assert train('absent', 1)[1] == 0


@pytest.mark.slow  # Ray and its workers take half a minute to a minute.
def test_the_example_runs_in_a_simulation(tmp_path):
  with processes.Federation(tmp_path, simulation=True) as federation:
    federation.run(
        processes.EXAMPLE,
        num_supernodes=10,
        num_clients=10,
        num_server_rounds=4,
        attack='sign_flip',
        strategy='fedaot_holdout',
    )
    accuracy = federation.result(300)
    assert list(accuracy) == [0, 1, 2, 3, 4]
    assert accuracy[4] > 0.5


@pytest.mark.slow  # Every message starts a process.
def test_a_deployment_withstands_garbage_late_replies_and_a_killed_node(
    tmp_path,
):
  subprocess.run(
      ['sh', processes.EXAMPLE / 'certificates.sh', tmp_path / 'certificates'],
      check=True,
      capture_output=True,
  )
  with processes.Federation(
      tmp_path, simulation=False, certificates=tmp_path / 'certificates'
  ) as federation:
    nodes = [federation.supernode(i, 4) for i in range(4)]
    federation.run(processes.ROOT / 'tests' / 'flower' / 'app')
    federation.wait_for('result.json.rounds', 300, end='1')
    federation.kill(nodes[3])
    found = federation.result(300)
    # Distance to the target, which honest clients halve, and usable replies.
    (distance, _), *rounds = found.values()
    for after, num_usable in rounds:
      distance = distance / 2 if num_usable else distance
      assert after == distance
    assert all(n <= most for (_, n), most in zip(rounds, [2, 2, 1]))
    assert any(n for _, n in rounds[1:])
