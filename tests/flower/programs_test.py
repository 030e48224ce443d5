"""Apps that Flower's programs run: a simulation, a deployment with TLS."""

import subprocess

import pytest

from benchmarks import flower_accuracy
from tests.flower import processes


@pytest.mark.parametrize(
    'name, value', [('attack', 'sing_flip'), ('strategy', 'krumm')]
)
def test_the_example_refuses_what_it_does_not_know(name, value):
  message = f'{name} must be one of .*; found {value!r}'
  with pytest.raises(ValueError, match=message):
    flower_accuracy.run(**{name: value})


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
