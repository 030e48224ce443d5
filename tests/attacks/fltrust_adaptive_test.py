"""The adaptive attack on FLTrust."""

import numpy as np
import pytest
import tensorflow as tf

from fedaot import rules
from fedaot_tff import fltrust_factory
from fedaot_tff.attacks import fltrust_adaptive
from fedaot_tff.learning import fed_avg
from tests import small_problem
from tests.attacks import hand_made

_ATTACK = fltrust_adaptive.FLTrustAdaptive()


def _agree(honest, root, **known):
  vector, _ = hand_made.agree(
      _ATTACK, honest, root=tf.constant(root, tf.float32), **known
  )
  return vector


def _progress(honest, root, attackers):
  """How far FLTrust goes along the signs of where it went without attackers."""
  rule = rules.fltrust()
  signs = np.sign(rule(honest, reference=root))
  aggregate = rule(np.concatenate([honest, attackers]), reference=root)
  return signs @ aggregate / np.linalg.norm(root)


def test_by_hand():
  # Signs (1, 1): across the root is the second axis. Of one honest update of
  # trust 1 / sqrt(2) along the signs and one attacker at the angle a, FLTrust
  # goes (1 + cos a (cos a - sin a)) / (1 / sqrt(2) + cos a) along the signs.
  vector = _agree([[1, 1, 0]], [2, 0, 0], num_attackers=1)
  angles = np.linspace(0, np.pi / 2, 100_000)
  along = np.cos(angles) - np.sin(angles)
  best = angles[
      np.argmin((1 + np.cos(angles) * along) / (0.5**0.5 + np.cos(angles)))
  ]
  np.testing.assert_allclose(
      vector, 2 * np.array([np.cos(best), -np.sin(best), 0]), atol=0.02
  )


@pytest.mark.parametrize('seed, num_attackers', [(0, 1), (1, 2), (2, 5)])
def test_no_other_attackers_do_more_harm(seed, num_attackers):
  honest = hand_made.updates(6, 8, seed=seed)
  root = hand_made.updates(7, 8, seed=seed)[-1]
  vector = _agree(honest, root, num_attackers=num_attackers)
  found = _progress(honest, root, np.tile(vector, [num_attackers, 1]))
  assert found < _progress(honest, root, honest[:0])
  rng = np.random.default_rng(seed)
  for spread in (0.01, 0.1, 1.0, 10.0):
    for _ in range(200):
      others = vector + spread * rng.normal(size=[num_attackers, 8])
      assert found <= _progress(honest, root, np.float32(others)) + 1e-3


def test_takes_the_honest_mean_where_there_is_no_holdout():
  honest = hand_made.updates(4, 6)
  found, _ = hand_made.agree(_ATTACK, honest)
  np.testing.assert_allclose(
      found, _agree(honest, honest.mean(axis=0)), rtol=1e-4
  )


@pytest.mark.parametrize('rows', [np.zeros([0, 3]), np.zeros([2, 3])])
@pytest.mark.parametrize('root', [[1, 0, 0], [0, 0, 0]])
def test_survives_what_has_no_direction(rows, root):
  assert np.all(np.isfinite(_agree(rows, root)))


def test_knows_the_update_of_the_holdout(monkeypatch):
  """What the attackers are told is what FLTrust makes of the hold-out."""
  seen = []

  def agree(knowledge, state):
    seen.append(knowledge.root)
    return knowledge.root, state

  monkeypatch.setattr(_ATTACK, 'agree', agree)
  process = fed_avg.build_attacked_fed_avg(
      small_problem.model(),
      small_problem.client_optimizer(),
      model_aggregator=fltrust_factory(small_problem.holdout()),
      update_poisoning=_ATTACK,
  )
  data = [
      dict(attacker_index=np.int32(i), dataset=dataset)
      for i, dataset in enumerate(small_problem.client_datasets())
  ]
  output = process.next(process.initialize(), data)
  # All send it, so that it is what the trusted ones add up to.
  scores = output.metrics['aggregator']['trust_scores']
  np.testing.assert_allclose(scores, np.ones(len(data)), rtol=1e-5)
  assert seen[0].shape == [15]
