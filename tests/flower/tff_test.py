"""The numbers of a run are those of `fedaot_tff`, in its own environment."""

import json
import subprocess

import numpy as np
import pytest

from fedaot.flower import FedAOT
from tests.flower import messages
from tests.flower import processes

_TFF_PYTHON = processes.ROOT / '.venv' / 'bin' / 'python'
_TFF_ROUNDS = """
import json, sys
import numpy as np, tensorflow_federated as tff, fedaot_tff
fedaot_tff.set_in_process_execution_context()
rounds = np.load(sys.argv[1])
process = fedaot_tff.fedaot_factory(seed=3).create(
    tff.TensorType(np.float32, [rounds.shape[2]]), tff.TensorType(np.float32))
state, found = process.initialize(), []
for updates in rounds:
  out = process.next(state, list(updates), [1.0] * len(updates))
  state = out.state
  found.append([out.result.tolist(), out.measurements['weights'].tolist()])
print(json.dumps(found))
"""


@pytest.mark.skipif(
    not _TFF_PYTHON.exists(), reason='needs the environment of fedaot_tff'
)
def test_rounds_are_those_of_fedaot_tff(tmp_path):
  rng = np.random.default_rng(0)
  # Few enough floats that the sketch, whose signs are secret, is exact.
  rounds = rng.standard_normal((6, 12, 200)).astype(np.float32)
  drift = rng.standard_normal((6, 1, 200))
  rounds *= rng.uniform(0.5, 1.5, (6, 12, 1))
  rounds += drift * np.where(np.arange(12) < 5, -1, 1)[:, None]
  rounds[2, 7, 5] = np.nan
  rounds[3, 2] = rounds[3, 1]
  np.save(tmp_path / 'rounds.npy', rounds)
  result = subprocess.run(
      [_TFF_PYTHON, '-c', _TFF_ROUNDS, tmp_path / 'rounds.npy'],
      cwd=processes.ROOT,
      capture_output=True,
      text=True,
      timeout=300,
  )
  assert result.returncode == 0, result.stderr
  strategy, arrays = FedAOT(seed=9), {'w': np.zeros(200, np.float32)}
  for updates, (expected, weights) in zip(
      rounds, json.loads(result.stdout.splitlines()[-1])
  ):
    # TFF's update is what the client moved by, Flower's reply where it is.
    replies = [
        messages.reply(i + 1, {'w': arrays['w'].astype(float) + update})
        for i, update in enumerate(updates)
    ]
    before = arrays['w'].astype(float)
    arrays, metrics = messages.train(strategy, arrays, replies)
    np.testing.assert_allclose(metrics['fedaot-weights'], weights, atol=1e-5)
    np.testing.assert_allclose(arrays['w'] - before, expected, atol=1e-5)
