"""The examples on plain arrays run as they are written."""

import numpy as np
import pytest

from tests.documents import pages


class _Client:
  """Moves half of the way towards a target."""

  def __init__(self, target):
    self._target = target

  def train(self, model):
    return [m + 0.5 * (self._target - m) for m in model]


@pytest.mark.parametrize(
    'name, place', [('README.md', 1), ('docs/getting_started.md', 0)]
)
def test_a_round_as_in(name, place):
  targets = [*np.linspace(0.9, 1.1, 8), -50.0, -50.0]
  names = {
      'num_rounds': 10,
      'clients': [_Client(target) for target in targets],
      'model': [np.zeros((3, 2)), np.zeros(2)],
      'updates': np.float64(targets)[:, None],
  }
  exec('import fedaot\n' + pages.blocks(name, 'python')[place], names)
  for array in names['model']:
    np.testing.assert_allclose(array, 1, atol=0.1)
  if 'aggregate' in names:
    np.testing.assert_allclose(names['aggregate'], 1, atol=0.1)
