"""The example over SyftBox: five datasites, two of which flip their updates."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def _accuracies(folder, strategy):
  result = subprocess.run(
      [
          sys.executable,
          _ROOT / 'examples' / 'syft' / 'run_local.py',
          folder / 'run',
          strategy,
      ],
      env={
          **os.environ,
          'FLWR_TELEMETRY_ENABLED': '0',
          'OMP_NUM_THREADS': '1',
          'OPENBLAS_NUM_THREADS': '1',
      },
      capture_output=True,
      text=True,
      timeout=900,
  )
  assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
  found = re.findall(r'round \d: accuracy ([\d.]+) %', result.stdout)
  return [float(accuracy) for accuracy in found]


def test_fedaot_withstands_two_of_five_datasites(tmp_path):
  accuracies = _accuracies(tmp_path, 'fedaot')
  assert len(accuracies) == 4
  assert accuracies[-1] > 80


@pytest.mark.slow
def test_fed_avg_does_not(tmp_path):
  assert _accuracies(tmp_path, 'fedavg')[-1] < 78


@pytest.mark.slow
def test_a_holdout_works_there_too(tmp_path):
  assert _accuracies(tmp_path, 'fedaot_holdout')[-1] > 80
