"""Programs with --context=ray."""

import numpy as np
import pytest

from binaries import csv_log
from tests.binaries import programs

_ARGUMENTS = (
    '--task=breast_cancer',
    '--rounds=2',
    '--aggregator=fedaot',
    '--attack=label_flip',
    '--quiet',
)


def _train(folder, *arguments):
  return programs.run(
      'binaries.train', f'--output_dir={folder}', *_ARGUMENTS, *arguments
  )


@pytest.mark.slow
def test_rounds_are_those_in_process(tmp_path):
  pytest.importorskip('ray')
  # Poisoned in the actors, from the data that they read.
  losses = []
  for context in ('ray', 'in_process'):
    folder = tmp_path / context
    result = _train(folder, f'--context={context}')
    assert (result.returncode, result.stderr) == (0, '')
    rows = csv_log.read_rows(folder / 'metrics.csv')
    losses.append([float(row['test_loss']) for row in rows])
  np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_told_in_a_line(tmp_path):
  pytest.importorskip('ray')
  result = _train(tmp_path, '--context=ray', '--ray_address=127.0.0.1:1')
  assert (result.returncode, result.stdout) == (1, '')
  (line,) = result.stderr.splitlines()
  assert line.startswith('train: No Ray cluster answers at 127.0.0.1:1 (')


def test_an_address_is_for_rounds_on_ray(tmp_path):
  result = _train(tmp_path, '--ray_address=127.0.0.1:1')
  assert result.returncode == 1
  assert result.stderr == 'train: --ray_address needs --context=ray.\n'
