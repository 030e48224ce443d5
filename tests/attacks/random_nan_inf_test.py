"""Values that break arithmetic."""

import numpy as np
import pytest

from fedaot_tff.attacks import random_nan_inf
from tests.attacks import hand_made

_UPDATE = np.arange(1, 41, dtype=np.float32)


def _poison(*, seed=1, **options):
  return hand_made.poison(
      random_nan_inf.RandomNanInf(**options), _UPDATE, seed=seed
  )


@pytest.mark.parametrize(
    'options, count',
    [
        ({}, 4),
        ({'fraction': 0.3}, 12),
        ({'fraction': 1.0}, 40),
        ({'fraction': 1e-6}, 1),
    ],
)
def test_overwrites_the_given_fraction_and_leaves_the_rest(options, count):
  sent = _poison(**options)
  changed = ~(sent == _UPDATE)
  assert np.sum(changed) == count
  bad = sent[changed]
  kinds = [
      np.sum(np.isnan(bad)),
      np.sum(bad == np.inf),
      np.sum(bad == -np.inf),
      np.sum(bad == np.float32(1e30)),
  ]
  assert sum(kinds) == count
  assert max(kinds) - min(kinds) <= 1


def test_draws_coordinates_and_kinds_from_the_seed():
  sent = [_poison(seed=seed, fraction=1e-6) for seed in range(20)]
  changed = [int(np.flatnonzero(~(s == _UPDATE))[0]) for s in sent]
  assert len(set(changed)) > 5
  kinds = {str(s[c]) for s, c in zip(sent, changed)}
  assert kinds == {'nan', 'inf', '-inf', '1e+30'}
