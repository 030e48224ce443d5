"""Tests for the attack that knows FedAOT."""

import collections
import functools

import numpy as np
import pytest
import tensorflow as tf

import fedaot
from fedaot import equations
from fedaot.namespace import NUMPY
from fedaot_tff.attacks import adaptive_fedaot
from tests.attacks import hand_made

_D = 300


def _honest(num_clients=12, spread=1.0):
  rng = np.random.default_rng(0)
  common = rng.normal(size=_D)
  rows = common + spread * rng.normal(size=[num_clients, _D])
  return np.float32(0.05 * rows)


def _knowledge(honest, **known):
  seed = tf.constant([7, 11])
  return hand_made.knowledge(honest, **known)._replace(seed=seed)


@functools.lru_cache(maxsize=None)
def _graph(mode):
  """`agree` of the attack on a defence in a mode, with its initial state.

  The graph is made once for all cohorts, as in a process: making it takes far
  longer than running it.
  """
  poisoning = adaptive_fedaot.AdaptiveFedAOT(mode=mode)
  state = poisoning.initial_state(_D)
  specs = tf.nest.map_structure(
      tf.TensorSpec.from_tensor, (_knowledge(_honest()), state)
  )
  table = specs[0]._replace(honest=tf.TensorSpec([None, _D]))
  agree = tf.function(
      poisoning.agree, input_signature=(table, specs[1]), autograph=False
  )
  return agree, state


class _KnownRoot:
  """A hold-out whose root update is given."""

  num_examples = 1

  def __init__(self, root):
    self._root = root

  def train(self, model, positions):
    return [model[0] - self._root]

  def loss_and_gradient(self, model, positions):
    return 0.0, [np.zeros_like(model[0])]


def _harm(honest, sent, mode):
  """|aggregate - mean|^2 / |mean|^2 of FedAOT in its first round."""
  mean = honest.mean(axis=0)
  typical = np.median(np.linalg.norm(honest, axis=1))
  holdout = _KnownRoot(typical * mean / np.linalg.norm(mean))
  aggregator = fedaot.FedAOTAggregator(
      holdout if mode == 'holdout' else None, seed=1
  )
  (negative,) = aggregator.aggregate(
      [np.zeros_like(mean)], [[-u] for u in np.concatenate([honest, sent])]
  )
  return np.sum((negative + mean) ** 2) / np.sum(mean**2)


@pytest.mark.parametrize('mode', ['holdout', 'agreement'])
@pytest.mark.parametrize('spread', [0.5, 3.0])
def test_does_more_harm_than_it_starts_with(mode, spread):
  honest = _honest(spread=spread)
  agree, state = _graph(mode)
  known = _knowledge(honest, num_attackers=8)
  vector, _ = agree(known, state)
  mean = honest.mean(axis=0)
  typical = np.median(np.linalg.norm(honest, axis=1))

  def harm(sent):
    return _harm(honest, np.tile(np.float32(sent), [8, 1]), mode)

  found = harm(vector)
  for start in (-mean, mean):
    start = typical * start / np.linalg.norm(mean)
    assert found > 1.05 * harm(start)
  assert found >= harm(0 * mean) * (1 - 1e-3)
  assert np.linalg.norm(vector) <= 2 * typical * (1 + 1e-5)


def test_rebuilds_the_reference_from_the_models():
  honest = _honest()
  agree, state = _graph('holdout')
  models = [np.full([_D], v, np.float32) for v in (5.0, 6.0, 8.0)]
  for round_num, model in enumerate(models, start=1):
    known = _knowledge(honest, round_num=round_num, model=model)
    _, state = agree(known, state)
  # Aggregates 1 and 2, weighted .9 * .1 and .1; the first model is no move.
  np.testing.assert_allclose(state['reference'], 0.29, rtol=1e-5)
  np.testing.assert_array_equal(state['model'], models[-1])


def test_takes_mode_and_variables_from_the_defence(monkeypatch):
  class Seen(Exception):
    """Ends the attack where it scores the cohort for the first time."""

  def see(xp, theta, z):
    del xp, z
    raise Seen(theta)

  monkeypatch.setattr(equations, 'scores', see)
  names = []
  for mode in ('holdout', 'agreement'):
    statistics = getattr(equations, f'{mode}_statistics')
    monkeypatch.setattr(
        equations,
        f'{mode}_statistics',
        lambda *args, mode=mode, statistics=statistics: (
            names.append(mode) or statistics(*args)
        ),
    )

  def weighting(has_holdout):
    theta = equations.initial_weighting(
        NUMPY, fedaot.FedAOTConfig(), has_holdout=has_holdout
    )
    theta['margin'] = 3.0 + np.arange(len(theta['margin']))
    return collections.OrderedDict(theta)

  poisoning = adaptive_fedaot.AdaptiveFedAOT()
  for state, mode, margins in (
      ((), 'holdout', 5 * [1.5]),
      ({'value_sum_process': ()}, 'holdout', 5 * [1.5]),
      ({'weighting': weighting(True)}, 'holdout', [3, 4, 5, 6, 7]),
      ({'weighting': weighting(False), 'previous': ()}, 'agreement', [3, 4, 5]),
  ):
    names.clear()
    with pytest.raises(Seen) as seen:
      hand_made.agree(poisoning, _honest(), defence_state=state)
    assert names == [mode]
    assert list(seen.value.args[0]['margin'].numpy()) == margins


def test_jitter_is_each_attackers_own():
  vector = _honest()[0]

  def send(jitter, index):
    poisoning = adaptive_fedaot.AdaptiveFedAOT(jitter=jitter)
    who = hand_made.attacker(index=index, seed=index)
    return poisoning.send(None, tf.constant(vector), who).numpy()

  np.testing.assert_array_equal(send(0.0, 0), vector)
  first, second = send(0.5, 0) - vector, send(0.5, 1) - vector
  for noise in (first, second):
    np.testing.assert_allclose(
        np.linalg.norm(noise), 0.5 * np.linalg.norm(vector), rtol=1e-5
    )
  assert abs(np.dot(first, second)) < 0.3 * np.linalg.norm(first) ** 2
  np.testing.assert_array_equal(send(0.5, 0), send(0.5, 0))


@pytest.mark.parametrize('mode', ['holdout', 'agreement'])
@pytest.mark.parametrize('num_honest, num_attackers', [(0, 3), (1, 2), (3, 0)])
def test_survives_small_cohorts(mode, num_honest, num_attackers):
  agree, state = _graph(mode)
  known = _knowledge(_honest()[:num_honest], num_attackers=num_attackers)
  vector, _ = agree(known, state)
  assert np.all(np.isfinite(vector))


@pytest.mark.slow
def test_survives_a_cohort_without_honest_clients_with_jitter():
  poisoning = adaptive_fedaot.AdaptiveFedAOT(mode='agreement', jitter=0.2)
  vector, _ = hand_made.agree(poisoning, _honest()[:0], num_attackers=3)
  assert np.all(np.isfinite(vector))
